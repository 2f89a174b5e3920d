"""Many Markov chains side by side at one noise level: a warm-up that finds the step size, then draws.

The step size is one for all chains and is changed in the warm-up alone, by dual averaging of log h towards the acceptance at
which the kernel explores best; draws of the warm-up are marked and thrown away by `collect`. What came of it is judged by
`metrics.diagnose`.

Reference: Hoffman & Gelman 2014, JMLR 15, section 3.2 (dual averaging; the same constants).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.errors import RunError
from scorefield.interfaces import Score, State, check_level, check_tensor
from scorefield.samplers.kernels import HMC, Bound, Kernel, Target, check_continuous
from scorefield.samplers.levels import check_counts, check_positive, check_steps

LARGEST_LOG = 50.0
"""of a step size, where nothing holds it back"""
WARM, COLD = torch.tensor(True), torch.tensor(False)


@dataclass(frozen=True)
class MarkovChains:
    """Chains of p_σ^{1/τ}: a Sampler whose states say in `info` whether they belong to the `warmup`, the `acceptance` `(b,)`
    and the `step_size` h.

    Raises:
        ValueError: a setting out of range; when called, a model the kernel is not for, a start where the density is zero.
        RunError: chains without a Metropolis test that went out of the range of numbers.
    """

    kernel: Kernel = field(default_factory=HMC)
    """how a chain steps"""
    steps: int = 1000
    """draws after the warm-up"""
    warmup: int = 500
    """steps that adapt the step size, where the kernel has an acceptance; else they only lead the chains to their law"""
    step_size: float = 0.1
    """h of x + h s + √(2h) z; where the warm-up begins, if it adapts"""
    sigma: float | None = None
    """the noise level; the model's smallest by default"""
    temperature: float = 1.0
    """τ"""
    box: tuple[Bound, Bound] | None = None
    """lower and upper walls, ∓∞ where there is none; chains are reflected"""

    def __post_init__(self) -> None:
        check_steps(self.steps)
        if self.warmup < 0:
            raise ValueError(f"warmup must be at least 0, got {self.warmup}")
        check_positive(step_size=self.step_size, temperature=self.temperature)

    @property
    def states(self) -> int:
        """How many states it yields."""
        return 1 + self.warmup + self.steps

    @property
    def nfe(self) -> int:
        """Evaluations for each chain."""
        return 1 + (self.warmup + self.steps) * self.kernel.evaluations

    @torch.no_grad()
    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Iterator[State]:
        check_tensor(x)
        adaptive = self.kernel.aim is not None
        check_continuous(model, adaptive)
        sigma = model.sigma_range[0] if self.sigma is None else self.sigma
        target = Target(model, sigma, cond, self.temperature, self.box, tested=adaptive)
        check_level(sigma, model.sigma_range)
        point = target.start(x)
        level = x.new_tensor(sigma)
        tuning = DualAveraging(self.step_size, self.kernel.aim or 0.0)
        h, size = self.step_size, torch.tensor(self.step_size)
        yield State(point.x, level, {"warmup": WARM})
        for i in range(self.warmup + self.steps):
            warm = i < self.warmup
            point, probability = self.kernel(target, point, h, generator)
            if not adaptive and not point.x.isfinite().all():
                raise RunError(f"a chain left the range of numbers in step {i + 1} with step size {h:g}: take a smaller one")
            info = {"warmup": WARM if warm else COLD, "acceptance": probability, "step_size": size}
            if warm and adaptive:
                h = tuning.update(float(probability.mean()))
                if i + 1 == self.warmup:
                    h = tuning.result
                size = torch.tensor(h)
            yield State(point.x, level, info)


class DualAveraging:
    """log h moves against the excess of `aim` over the acceptance, ever less; `result` is the weighted mean of its path."""

    GAMMA, DELAY, POWER = 0.05, 10, 0.75

    def __init__(self, step_size: float, aim: float) -> None:
        self.aim, self.centre = aim, math.log(10 * step_size)
        self.steps, self.excess, self.mean = 0, 0.0, math.log(step_size)

    def update(self, acceptance: float) -> float:
        """The next h, given the mean acceptance with the last."""
        self.steps += 1
        weight = 1 / (self.steps + self.DELAY)
        self.excess += weight * (self.aim - acceptance - self.excess)
        log_h = self.centre - self.steps**0.5 / self.GAMMA * self.excess
        share = self.steps**-self.POWER
        self.mean = share * min(log_h, LARGEST_LOG) + (1 - share) * self.mean
        return math.exp(min(log_h, LARGEST_LOG))

    @property
    def result(self) -> float:
        """The step size to keep."""
        return math.exp(self.mean)


class Draws(NamedTuple):
    """What chains drew after their warm-up."""

    x: Tensor
    """`(draws, chains, *event)`"""
    acceptance: Tensor
    """probability of each move that led to a draw `(draws, chains)`; 1 for kernels that take every move"""
    step_size: float
    """h after the warm-up"""
    sigma: float
    """the noise level whose law it is"""


def collect(states: Iterable[State], thin: int = 1) -> Draws:
    """Every `thin`-th draw that is not of the warm-up.

    Raises:
        ValueError: `thin` < 1, or fewer draws than `thin`.
    """
    check_counts(thin=thin)
    kept, acceptances, seen = [], [], 0
    for state in states:
        if state.info["warmup"]:
            continue
        seen += 1
        if seen % thin == 0:
            kept.append(state.x)
            acceptances.append(state.info["acceptance"])
    if not kept:
        raise ValueError(f"the chains gave {seen} draws after their warm-up, too few for every {thin}th: take more steps")
    return Draws(torch.stack(kept), torch.stack(acceptances), float(state.info["step_size"]), float(state.sigma))
