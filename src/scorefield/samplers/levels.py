"""Grids of noise levels, from large to small, apart from the samplers that walk them."""

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
        ValueError: the sampler asks for levels the model was not trained on.
    """
    low, high = model.sigma_range
    if sampler.sigma_range is None:
        return low, high
    a, b = sampler.sigma_range
    if not low <= a < b <= high:
        raise ValueError(f"sampler levels ({a:g}, {b:g}) must lie in the model's sigma_range [{low:g}, {high:g}]")
    return a, b


def standard_normal(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """z ~ N(0, I) on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device if generator else "cpu")
