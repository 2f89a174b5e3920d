"""Features of scalars: what a network sees of a noise level or of a low-dimensional coordinate."""

import math

import torch
from torch import Tensor, nn


class NoiseEmbedding(nn.Module):
    """c_noise `(b,)` to features `(b, width)`: sinusoids of geometrically spaced frequencies, then a two-layer MLP.

    The frequencies run from 1/8 to 8 periods over the range of ¼ log σ between σ = 0.002 and 80 (length 2.65).
    """

    frequencies: Tensor

    def __init__(self, width: int, frequencies: int = 16) -> None:
        super().__init__()
        periods = torch.logspace(-3, 3, frequencies, base=2.0)
        self.register_buffer("frequencies", 2 * math.pi / 2.65 * periods, persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None] * self.frequencies
        return self.layers(torch.cat([angles.sin(), angles.cos()], 1))


class ClassEmbedding(nn.Embedding):
    """A table of features: a row for each class, and a last one for "no class"."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__(classes + 1, width)


def with_class(level: Tensor, cond: Tensor | None, labels: ClassEmbedding | None) -> Tensor:
    """Features of the noise level `(b, width)`, and of the class in a network that knows classes; −1 or None is no class.

    Raises:
        ValueError: classes for a network that knows none.
    """
    if labels is None:
        if cond is not None:
            raise ValueError("this network knows no classes: leave cond out")
        return level
    none = level.new_full(level.shape[:1], labels.num_embeddings - 1, dtype=torch.long)
    return level + labels(none if cond is None else torch.where(cond < 0, none, cond))


class CoordinateEmbedding(nn.Module):
    """x `(b, d)` to `(b, d (1 + 2 frequencies))`: each coordinate beside sinusoids of it.

    An MLP on bare coordinates is too smooth for thin structures; sinusoids whose shortest wave is 2^(1 − frequencies)
    of the longest give it the resolution (Tancik et al. 2020, arXiv:2006.10739). `extent` is the half-length of the
    longest wave: data is expected in [−extent, extent].
    """

    frequencies: Tensor

    def __init__(self, frequencies: int = 6, extent: float = 4.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi / extent * 2.0 ** torch.arange(frequencies), persistent=False)

    def features(self, d: int) -> int:
        return d * (1 + 2 * len(self.frequencies))

    def forward(self, x: Tensor) -> Tensor:
        angles = x[..., None] * self.frequencies
        return torch.cat([x[..., None], angles.sin(), angles.cos()], -1).flatten(1)
