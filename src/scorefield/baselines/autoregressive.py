"""An autoregressive model of integer images: p(x) = ∏ᵢ p(xᵢ | x₁ … xᵢ₋₁) in raster order, by a causal transformer.

The likelihood is exact and costs one forward pass; a sample costs one for each pixel, each of which sees only what came before
(keys and values of earlier pixels are kept).

Reference: van den Oord et al. 2016, arXiv:1601.06759 (images pixel by pixel); Chen et al. 2020, PMLR 119:1691 (transformers).
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.baselines.integers import IntegerModel, check_level_zero

Cache = tuple[Tensor, Tensor]
"""keys and values of earlier positions, `(b, heads, positions, width of a head)` each"""


@dataclass(frozen=True)
class AutoregressiveConfig:
    """A causal transformer; for integer events of up to a few thousand coordinates.

    Raises:
        ValueError: a number below 1, or a width that its heads do not divide.
    """

    kind: Literal["autoregressive"] = field(default="autoregressive", kw_only=True)
    width: int = 96
    """features of each position"""
    heads: int = 4
    """attention heads, which share the width"""
    blocks: int = 4
    """layers"""

    def __post_init__(self) -> None:
        for name in ("width", "heads", "blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} cannot be divided among {self.heads} heads")

    def build(self, event_shape: tuple[int, ...], levels: int) -> "Autoregressive":
        """The model with fresh weights; uniform at initialisation."""
        return Autoregressive(event_shape, levels, self.width, self.heads, self.blocks)


class Autoregressive(IntegerModel):
    """See the top of the file."""

    def __init__(self, event_shape: tuple[int, ...], levels: int, width: int = 96, heads: int = 4, blocks: int = 4) -> None:
        super().__init__(event_shape, levels)
        self.values = nn.Embedding(levels + 1, width)  # the last stands before the first pixel
        self.places = nn.Parameter(0.02 * torch.randn(self.d, width))
        self.blocks = nn.ModuleList(CausalBlock(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, levels)
        nn.init.normal_(self.values.weight, std=0.02)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def logits(self, rows: Tensor) -> Tensor:
        """Of every level of every pixel, `(b, d, levels)`, for rows `(b, d)`: those of pixel i follow from pixels before i."""
        before = F.pad(rows[:, :-1], (1, 0), value=self.levels)
        return self.steps(before, 0, [None] * len(self.blocks))[0]

    def steps(self, before: Tensor, first: int, caches: list[Cache | None]) -> tuple[Tensor, list[Cache | None]]:
        """Logits of pixels `first`, `first` + 1, …, given the value before each `(b, k)` and what earlier ones left behind."""
        h = self.values(before) + self.places[first : first + before.shape[1]]
        after: list[Cache | None] = []
        for block, cache in zip(self.blocks, caches, strict=True):
            h, kept = block(h, cache)
            after.append(kept)
        return self.leave(self.norm(h)), after

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p(x), nats, `(b,)`: exact.

        Raises:
            ValueError: σ ≠ 0, or what `flat` refuses.
        """
        check_level_zero(sigma)
        rows = self.flat(x)
        return self.logits(rows).log_softmax(2).gather(2, rows[:, :, None]).sum((1, 2))

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Events `(n, *event)`, int64, pixel after pixel."""
        device = self.places.device
        rows = torch.full((n, 1), self.levels, device=device)
        caches: list[Cache | None] = [None] * len(self.blocks)
        for i in range(self.d):
            logits, caches = self.steps(rows[:, -1:], i, caches)
            rows = torch.cat([rows, torch.multinomial(logits[:, 0].softmax(1), 1, generator=generator)], 1)
        return self.shaped(rows[:, 1:])


class CausalBlock(nn.Module):
    """Attention to what came before, then a two-layer network, both added to their input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in self.project(self.norm(h)).chunk(3, 2))
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)  # after a cache there is one query, the last
        h = h + self.merge(seen.transpose(1, 2).flatten(2))
        return h + self.layers(self.second_norm(h)), (k, v)
