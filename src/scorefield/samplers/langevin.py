"""Langevin dynamics: x ← x + h ∇log p_σ(x) + √(2h τ) z.

At one level σ it is the unadjusted Langevin algorithm, whose law tends to p_σ^{1/τ} as h → 0; annealed from large σ to small it
visits all modes with their weights, which the single level cannot. h is given as a multiple of σ², the scale of p_σ's
finest detail (NCSN's α is 2h, its ε/σ_L² is 2·step_ratio). A temperature τ multiplies the noise variance only.

Reference: Song & Ermon 2019, arXiv:1907.05600 (algorithm 1); Song & Ermon 2020, arXiv:2006.09011 (final denoising).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.interfaces import Score, State
from scorefield.models import denoise
from scorefield.samplers.descent import noise_like
from scorefield.samplers.levels import Geometric, check_positive, check_steps, levels_of, standard_normal


@dataclass(frozen=True)
class Langevin:
    """Plain Langevin dynamics at one noise level; samples p_σ up to a bias of order h, and mixes badly between modes.

    Raises:
        ValueError: a setting out of range; when called, a default step at the level 0, which would not move.
    """

    steps: int = 1000
    """Langevin steps"""
    sigma: float | None = None
    """the noise level it stays at; the model's smallest by default"""
    step_size: float | None = None
    """h; 0.1 σ² by default"""
    temperature: float = 1.0
    """multiplies the noise variance"""
    to_zero: bool = False
    """denoise at the end"""

    def __post_init__(self) -> None:
        check_steps(self.steps)
        check_positive(step_size=self.step_size, sigma=self.sigma)
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")

    @property
    def states(self) -> int:
        """How many states it yields."""
        return self.steps + 1 + self.to_zero

    @property
    def nfe(self) -> int:
        """Evaluations of the score for each sample."""
        return self.steps + self.to_zero

    def start(self, model: Score, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise, the scale of the data itself."""
        return standard_normal(shape, generator)

    @torch.no_grad()
    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Iterator[State]:
        sigma = model.sigma_range[0] if self.sigma is None else self.sigma
        h = 0.1 * sigma**2 if self.step_size is None else self.step_size
        if h == 0:
            raise ValueError("the model's smallest level is 0, where the default step 0.1 σ² is 0: give sigma or step_size")
        level = x.new_tensor(sigma)
        yield State(x, level, {})
        for _ in range(self.steps):
            x = langevin_step(model, x, sigma, h, cond, self.temperature, generator)
            yield State(x, level, {})
        if self.to_zero:
            yield State(denoise(model, x, sigma, cond), x.new_tensor(0.0), {})


class Ladder:
    """What samplers that stay at each level of a geometric ladder have in common: how many states, and where they start."""

    steps: int
    sigma_range: tuple[float, float] | None
    to_zero: bool

    @property
    def states(self) -> int:
        """How many states it yields."""
        return 1 + self.steps + self.to_zero

    def start(self, model: Score, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Pure noise at the largest level, σ_max z."""
        return levels_of(self, model)[1] * standard_normal(shape, generator)


@dataclass(frozen=True)
class AnnealedLangevin(Ladder):
    """Langevin dynamics at a geometric ladder of levels, each started where the last one ended."""

    steps: int = 100
    """noise levels from σ_max to σ_min"""
    steps_per_level: int = 5
    """Langevin steps at each level"""
    step_ratio: float = 0.1
    """h/σ²: NCSN's ε/(2 σ_L²)"""
    sigma_range: tuple[float, float] | None = None
    """levels to walk between; the model's by default"""
    to_zero: bool = True
    """denoise at the end"""

    def __post_init__(self) -> None:
        check_steps(self.steps, at_least=2)
        check_steps(self.steps_per_level)
        check_positive(step_ratio=self.step_ratio)

    @property
    def nfe(self) -> int:
        """Evaluations of the score for each sample."""
        return self.steps * self.steps_per_level + self.to_zero

    @torch.no_grad()
    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Iterator[State]:
        levels = Geometric()(self.steps, levels_of(self, model))
        yield State(x, x.new_tensor(levels[0]), {})
        for sigma in levels:
            for _ in range(self.steps_per_level):
                x = langevin_step(model, x, sigma, self.step_ratio * sigma**2, cond, 1.0, generator)
            yield State(x, x.new_tensor(sigma), {})
        if self.to_zero:
            yield State(denoise(model, x, levels[-1], cond), x.new_tensor(0.0), {})


def langevin_step(
    model: Score,
    x: Tensor,
    sigma: float,
    h: float,
    cond: Tensor | None,
    temperature: float,
    generator: torch.Generator | None,
) -> Tensor:
    """x + h ∇log p_σ(x) + √(2hτ) z."""
    return x + h * model.score(x, sigma, cond) + math.sqrt(2 * h * temperature) * noise_like(x, generator)
