"""Markov chains at one noise level after another: how densities that are no diffusion's are sampled.

Products, powers and quotients of noise-conditional densities are p_σ of nothing: their reverse SDE or ODE leads elsewhere. But
each level is a law of its own, and a chain that is at home in one is a good start for the next; with a Metropolis test every
level is sampled exactly if the chain has time enough.

Reference: Du et al. 2023, arXiv:2302.11552 (Reduce, Reuse, Recycle).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scorefield.errors import RunError
from scorefield.interfaces import Score, State
from scorefield.samplers.kernels import HMC, Kernel, Target
from scorefield.samplers.langevin import Ladder
from scorefield.samplers.levels import Geometric, check_counts, check_positive, check_steps, levels_of


@dataclass(frozen=True)
class AnnealedChains(Ladder):
    """Chains along a geometric ladder of levels; states say the `acceptance` `(b,)` of the level's last move.

    The step size is h = ratio σ², the same for all chains and all moves of a level; between levels kernels with a Metropolis
    test move the ratio towards the acceptance they aim at. What is denoised at the end is a product's own noise, of variance
    σ²/Σcᵢ.

    Raises:
        ValueError: a setting out of range; when called, levels the model does not answer for, a model without log-density, or a
            start where that is not finite.
        RunError: chains without a Metropolis test that went out of the range of numbers.
    """

    kernel: Kernel = field(default_factory=lambda: HMC(3))
    """how chains step"""
    steps: int = 60
    """noise levels from σ_max to σ_min"""
    steps_per_level: int = 4
    """moves at each level"""
    step_ratio: float = 0.2
    """h/σ², to begin with"""
    sigma_range: tuple[float, float] | None = None
    """levels to walk between; the model's by default"""
    to_zero: bool = True
    """denoise at the end"""

    def __post_init__(self) -> None:
        check_steps(self.steps, at_least=2)
        check_counts(steps_per_level=self.steps_per_level)
        check_positive(step_ratio=self.step_ratio)

    @property
    def nfe(self) -> int:
        """Evaluations of the score, or of log-density and score, for each sample."""
        return self.steps * (1 + self.steps_per_level * self.kernel.evaluations) + self.to_zero

    @torch.no_grad()
    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Iterator[State]:
        levels, log_ratio = Geometric()(self.steps, levels_of(self, model)), math.log(self.step_ratio)
        yield State(x, x.new_tensor(levels[0]), {})
        for level, sigma in enumerate(levels):
            target = Target(model, sigma, cond, tested=self.kernel.aim is not None)
            point, mean = target.at(x) if level else target.start(x), 0.0
            for _ in range(self.steps_per_level):
                point, probability = self.kernel(target, point, math.exp(log_ratio) * sigma**2, generator)
                mean += float(probability.mean()) / self.steps_per_level
            x = point.x
            if self.kernel.aim is not None:
                log_ratio += 4.0 * (mean - self.kernel.aim)
            elif not x.isfinite().all():
                raise RunError(f"a chain left the range of numbers at level {sigma:.3g}: take a smaller step_ratio")
            yield State(x, x.new_tensor(sigma), {"acceptance": probability, "step_ratio": torch.tensor(math.exp(log_ratio))})
        if self.to_zero:
            power = getattr(model, "power", 1.0)
            yield State(x + levels[-1] ** 2 / power * model.score(x, levels[-1], cond), x.new_tensor(0.0), {})
