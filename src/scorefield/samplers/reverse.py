"""The probability-flow ODE from noise to data: dx/dσ = −σ ∇log p_σ(x).

Its solutions have the marginals p_σ at every level (Song et al. 2021, eq. 13, in the coordinates of the data). The last
step, from σ_min to 0, is Euler's, which is Tweedie's denoiser.

Reference: Karras et al. 2022, arXiv:2206.00364 (algorithm 1).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.interfaces import Score, State
from scorefield.samplers.levels import karras, levels_of, standard_normal


@dataclass(frozen=True)
class Euler:
    """Euler's method, one score evaluation a step."""

    order: ClassVar[int] = 1
    steps: int = 35
    """noise levels from σ_max to σ_min"""
    rho: float = 7.0
    """spacing of the levels: equal in σ^(1/ρ)"""
    sigma_range: tuple[float, float] | None = None
    """levels to walk between; the model's by default"""
    to_zero: bool = True
    """denoise at the end (a step from σ_min to 0)"""

    def __post_init__(self) -> None:
        check_steps(self.steps, at_least=2)
        check_positive(rho=self.rho)

    @property
    def states(self) -> int:
        """How many states it yields."""
        return self.steps + self.to_zero

    def start(self, model: Score, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Pure noise at the largest level, σ_max z."""
        return levels_of(self, model)[1] * standard_normal(shape, generator)

    @torch.no_grad()
    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Iterator[State]:
        levels = karras(self.steps, levels_of(self, model), self.rho)
        yield State(x, x.new_tensor(levels[0]), {})
        for sigma, following in zip(levels, [*levels[1:], *([0.0] if self.to_zero else [])], strict=False):
            x = self.step(model, x, sigma, following, cond)
            yield State(x, x.new_tensor(following), {})

    def step(self, model: Score, x: Tensor, sigma: float, following: float, cond: Tensor | None) -> Tensor:
        return x + (following - sigma) * slope(model, x, sigma, cond)


@dataclass(frozen=True)
class Heun(Euler):
    """Heun's method (EDM's deterministic sampler): 2·steps − 1 score evaluations, the last step Euler's."""

    order: ClassVar[int] = 2
    steps: int = 18

    def step(self, model: Score, x: Tensor, sigma: float, following: float, cond: Tensor | None) -> Tensor:
        first = slope(model, x, sigma, cond)
        euler = x + (following - sigma) * first
        if following == 0:
            return euler
        return x + (following - sigma) * (first + slope(model, euler, following, cond)) / 2


def slope(model: Score, x: Tensor, sigma: float, cond: Tensor | None) -> Tensor:
    """dx/dσ of the probability-flow ODE."""
    return -sigma * model.score(x, sigma, cond)


def check_steps(steps: int, at_least: int = 1) -> None:
    """Raises `ValueError` when a sampler is asked for fewer steps than it can take."""
    if steps < at_least:
        raise ValueError(f"steps must be at least {at_least}, got {steps}")


def check_positive(**values: float | None) -> None:
    """Raises `ValueError` naming the first value that is given and not positive and finite."""
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, got {value}")
