"""Grids of noise levels, from large to small, apart from the samplers that walk them."""

import math
from typing import Protocol

import torch
from torch import Tensor

from scorefield.interfaces import Score


def karras(steps: int, sigma_range: tuple[float, float], rho: float = 7.0) -> list[float]:
    """`steps` levels from σ_max to σ_min, equally spaced in σ^(1/ρ) (Karras et al. 2022, eq. 5)."""
    low, high = (s ** (1 / rho) for s in sigma_range)
    return [(high + i / (steps - 1) * (low - high)) ** rho for i in range(steps)]


def geometric(steps: int, sigma_range: tuple[float, float]) -> list[float]:
    """`steps` levels from σ_max to σ_min in geometric progression (Song & Ermon 2019)."""
    low, high = sigma_range
    return [high * (low / high) ** (i / (steps - 1)) for i in range(steps)]


class HasLevels(Protocol):
    """The part of a sampler's configuration that says between which levels it walks."""

    @property
    def sigma_range(self) -> tuple[float, float] | None: ...


def levels_of(sampler: HasLevels, model: Score) -> tuple[float, float]:
    """The sampler's own range of levels, by default the model's.

    Raises:
        ValueError: levels the model does not answer for, or that reach to 0 or without end, as an analytic density's do.
    """
    low, high = model.sigma_range
    a, b = sampler.sigma_range or (low, high)
    if not low <= a < b <= high:
        raise ValueError(f"sampler levels ({a:g}, {b:g}) must lie in the model's sigma_range [{low:g}, {high:g}]")
    if a == 0 or math.isinf(b):
        raise ValueError(f"levels from {b:g} down to {a:g} cannot be walked: give the sampler a sigma_range like (0.002, 80)")
    return a, b


def standard_normal(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """z ~ N(0, I) on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device if generator else "cpu")
