"""A residual multilayer perceptron for vectors."""

import math
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from scorefield.networks.embedding import ClassEmbedding, CoordinateEmbedding, NoiseEmbedding, with_class


@dataclass(frozen=True)
class MLPConfig:
    """A residual MLP; for vectors of any dimension, and for small images, which it takes as vectors.

    Raises:
        ValueError: a number below 1, or negative `frequencies`.
    """

    kind: Literal["mlp"] = field(default="mlp", kw_only=True)
    width: int = 256
    """features in every hidden layer"""
    blocks: int = 3
    """residual blocks"""
    frequencies: int = 6
    """sinusoids a coordinate, for thin structures in low dimension (0: none)"""

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("blocks", 1), ("frequencies", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def build(self, event_shape: tuple[int, ...], classes: int = 0) -> "MLP":
        """The network for events of any shape."""
        d = math.prod(event_shape)
        return MLP(d, d, self.width, self.blocks, self.frequencies, classes)


class MLP(nn.Module):
    """net(x, c_noise `(b,)`, cond `(b,)` or None) for x of d numbers, `(b, d)` or `(b, *event)`: `(b, out)`, like x if out = d.

    `out=0`: a scalar `(b,)` without bias.
    """

    def __init__(self, d: int, out: int, width: int = 256, blocks: int = 3, frequencies: int = 6, classes: int = 0) -> None:
        super().__init__()
        self.coordinates = CoordinateEmbedding(frequencies)
        self.noise = NoiseEmbedding(width)
        self.labels = ClassEmbedding(classes, width) if classes else None
        self.enter = nn.Linear(self.coordinates.features(d), width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, out or 1, bias=out > 0)
        self.scalar = out == 0
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        if c_noise.stride() == (0,):  # one level for all rows: its features are computed once
            c_noise = c_noise[:1]
        level = with_class(self.noise(c_noise), cond, self.labels)
        h = self.enter(self.coordinates(x.flatten(1) if x.ndim > 2 else x))
        for block in self.blocks:
            h = block(h, level)
        y = self.leave(nn.functional.silu(self.norm(h)))
        if self.scalar:
            return y[:, 0]
        return y.reshape(x.shape) if x.ndim > 2 else y


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.modulation = nn.Linear(width, 2 * width)
        self.second = nn.Linear(width, width)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.modulation(level).chunk(2, 1)
        inner = self.first(nn.functional.silu(self.norm(h)))
        return h + self.second(nn.functional.silu(inner * (1 + scale) + shift))
