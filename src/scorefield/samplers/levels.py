"""Grids of noise levels, from large to small, apart from the samplers that walk them.

    Karras      equal steps in σ^(1/ρ)                Uniform(process)    equal steps in the time of a process:
    Geometric   equal steps in log σ                  Cosine's cosine grid, DDPM's linear β with VP, σ itself with EDM

Reference: Karras et al. 2022, arXiv:2206.00364 (eq. 5); Song & Ermon 2019, arXiv:1907.05600 (geometric).
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from scorefield.interfaces import Score
from scorefield.processes import EDM, VP, Cosine, Process, level_range, noise_level, time_at


class Grid(Protocol):
    """`steps` levels from σ_max to σ_min, both ends exactly."""

    def __call__(self, steps: int, sigma_range: tuple[float, float]) -> list[float]: ...


@dataclass(frozen=True)
class Karras:
    """Equally spaced in σ^(1/ρ): ρ = 1 is linear, ρ → ∞ geometric."""

    rho: float = 7.0

    def __post_init__(self) -> None:
        check_positive(rho=self.rho)

    def __call__(self, steps: int, sigma_range: tuple[float, float]) -> list[float]:
        low, high = (s ** (1 / self.rho) for s in sigma_range)
        return between([(high + i / (steps - 1) * (low - high)) ** self.rho for i in range(steps)], sigma_range)


@dataclass(frozen=True)
class Geometric:
    """In geometric progression."""

    def __call__(self, steps: int, sigma_range: tuple[float, float]) -> list[float]:
        low, high = sigma_range
        return between([high * (low / high) ** (i / (steps - 1)) for i in range(steps)], sigma_range)


@dataclass(frozen=True)
class Uniform:
    """Equally spaced in the time of a process."""

    process: Process

    def __call__(self, steps: int, sigma_range: tuple[float, float]) -> list[float]:
        first, last = time_at(self.process, sigma_range[::-1]).tolist()
        times = torch.linspace(first, last, steps, dtype=torch.float64)
        return between(noise_level(self.process, times).tolist(), sigma_range)


def between(levels: list[float], sigma_range: tuple[float, float]) -> list[float]:
    """`levels` with their ends put right to the last digit."""
    return [sigma_range[1], *levels[1:-1], sigma_range[0]]


class HasLevels(Protocol):
    """The part of a sampler's configuration that says between which levels it walks."""

    @property
    def sigma_range(self) -> tuple[float, float] | None: ...


def levels_of(sampler: HasLevels, model: Score, process: Process | None = None) -> tuple[float, float]:
    """The sampler's own range of levels, by default the model's as far as the process reaches.

    Raises:
        ValueError: levels the model does not answer for, or the process does not reach, or that go to 0 or without end, as an
            analytic density's do.
    """
    low, high = model.sigma_range
    a, b = sampler.sigma_range or (low, high)
    if not low <= a < b <= high:
        raise ValueError(f"sampler levels ({a:g}, {b:g}) must lie in the model's sigma_range [{low:g}, {high:g}]")
    if process is not None:
        least, most = level_range(process)
        if sampler.sigma_range is None:
            a, b = max(a, least), min(b, most)
        if not least <= a < b <= most:
            name = type(process).__name__
            raise ValueError(f"{name} has noise levels from {least:g} to {most:g}: it cannot walk from {b:g} to {a:g}")
    if a == 0 or math.isinf(b):
        raise ValueError(f"levels from {b:g} down to {a:g} cannot be walked: give the sampler a sigma_range like (0.002, 80)")
    return a, b


def standard_normal(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """z ~ N(0, I) on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device if generator else "cpu")


def check_steps(steps: int, at_least: int = 1) -> None:
    """Raises `ValueError` when a sampler is asked for fewer steps than it can take."""
    if steps < at_least:
        raise ValueError(f"steps must be at least {at_least}, got {steps}")


def check_counts(**values: int) -> None:
    """Raises `ValueError` naming the first value below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def check_positive(**values: float | None) -> None:
    """Raises `ValueError` naming the first value that is given and not positive and finite."""
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, got {value}")


def check_share(**values: float) -> None:
    """Raises `ValueError` naming the first value that does not lie in [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")


GridName = Literal["karras", "log", "linear", "cosine", "vp"]
GRIDS: dict[str, Grid] = {
    "karras": Karras(), "log": Geometric(), "linear": Uniform(EDM()), "cosine": Uniform(Cosine()), "vp": Uniform(VP()),
}  # fmt: skip
