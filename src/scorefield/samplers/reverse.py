"""Stochastic samplers of the reverse SDE: noise is added as it is taken away, which corrects earlier errors.

    dx = [f x − g² ∇log p_t(x)] dt + g dW̄             backwards in time (Anderson 1982; Song et al. 2021, eq. 6)

Reference: Song et al. 2021, arXiv:2011.13456 (algorithms 2 and 3); Karras et al. 2022, arXiv:2206.00364 (algorithm 2).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.integrate import HEUN, runge_kutta
from scorefield.interfaces import Score
from scorefield.processes import EDM, Process, nodes, time_at
from scorefield.samplers.descent import Descent, Step, noise_like
from scorefield.samplers.exponential import ddim_step
from scorefield.samplers.langevin import langevin_step
from scorefield.samplers.levels import check_positive


@dataclass(frozen=True)
class EulerMaruyama(Descent):
    """The reverse SDE of a process by the Euler–Maruyama method; ancestral sampling needs fewer steps."""

    order: ClassVar[int] = 1  # weak
    steps: int = 200
    process: Process = EDM()
    """in whose time and coordinates it is solved"""

    @property
    def coordinates(self) -> Process:
        return self.process

    def stepper(self, model: Score, levels: list[float], cond: Tensor | None, generator: torch.Generator | None) -> Step:
        points = nodes(self.process, time_at(self.process, levels))

        def step(i: int, x: Tensor) -> Tensor:
            at, then = points[i], points[i + 1]
            h = then.t - at.t
            score = model.score(x, at.sigma, cond)
            moved = (1 + h * at.drift) * at.alpha * x - h * at.diffusion / at.alpha * score
            return (moved + math.sqrt(-h * at.diffusion) * noise_like(x, generator)) / then.alpha

        return step


@dataclass(frozen=True)
class PredictorCorrector(Descent):
    """An ancestral step to the next level, then Langevin steps there.

    Song et al.'s signal-to-noise ratio r gives h = 2 r² ‖z‖²/‖s‖², about 2 r² σ²; r = 0.16 is the default.

    Raises:
        ValueError: corrections < 0, or step_ratio ≤ 0.
    """

    steps: int = 100
    corrections: int = 1
    """Langevin steps at each level"""
    step_ratio: float = 0.0512
    """h/σ² of the Langevin steps"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.corrections < 0:
            raise ValueError(f"corrections must be at least 0, got {self.corrections}")
        check_positive(step_ratio=self.step_ratio)

    @property
    def evaluations(self) -> int:
        return 1 + self.corrections

    def stepper(self, model: Score, levels: list[float], cond: Tensor | None, generator: torch.Generator | None) -> Step:
        def step(i: int, x: Tensor) -> Tensor:
            sigma = levels[i + 1]
            x = ddim_step(model, x, levels[i], sigma, 1.0, cond, generator)
            for _ in range(self.corrections):
                x = langevin_step(model, x, sigma, self.step_ratio * sigma**2, cond, 1.0, generator)
            return x

        return step


@dataclass(frozen=True)
class Churn(Descent):
    """EDM's stochastic sampler: before each of Heun's steps the noise is raised to σ (1 + γ), γ = min(churn/steps, √2 − 1).

    Raises:
        ValueError: churn < 0, noise ≤ 0, or a churn_range whose ends are not in order.
    """

    steps: int = 35
    churn: float = 40.0
    """S_churn; 0 is Heun's method"""
    churn_range: tuple[float, float] = (0.05, 50.0)
    """levels at which noise is added: S_tmin and S_tmax"""
    noise: float = 1.003
    """S_noise, standard deviation of the added noise"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.churn < math.inf:
            raise ValueError(f"churn must be at least 0, got {self.churn}")
        if not 0 <= self.churn_range[0] <= self.churn_range[1]:
            raise ValueError(f"churn_range must be 0 ≤ low ≤ high, got {self.churn_range}")
        check_positive(noise=self.noise)

    @property
    def evaluations(self) -> int:
        return 2

    def stepper(self, model: Score, levels: list[float], cond: Tensor | None, generator: torch.Generator | None) -> Step:
        low, high = self.churn_range
        gamma = min(self.churn / self.steps, math.sqrt(2) - 1)

        def slope(x: Tensor, sigma: float) -> Tensor:
            return -sigma * model.score(x, sigma, cond)

        def step(i: int, x: Tensor) -> Tensor:
            sigma, following = levels[i], levels[i + 1]
            if low <= sigma <= high and gamma > 0:
                raised = min(sigma * (1 + gamma), levels[0])  # the model knows no more than its largest level
                x = x + self.noise * math.sqrt(raised**2 - sigma**2) * noise_like(x, generator)
                sigma = raised
            return runge_kutta(slope, x, (sigma, following), following - sigma, HEUN)

        return step
