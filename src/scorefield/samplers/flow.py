"""The probability-flow ODE from noise to data, by Runge–Kutta methods, in the time of any process.

    dx/dt = f x − ½ g² ∇log p_t(x)          with EDM, whose time is the noise level: dx/dσ = −σ ∇log p_σ(x)

Its solutions have the marginals p_t at every time (Song et al. 2021, eq. 13). Run backwards, from data to noise, it is an
encoder. Which process is solved makes no difference to the solution, only to how far a solver is from it.

Reference: Song et al. 2021, arXiv:2011.13456; Karras et al. 2022, arXiv:2206.00364 (algorithm 1 is Heun's method with EDM).
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.integrate import EULER, HEUN, RK4, Tableau, dormand_prince, runge_kutta, stages
from scorefield.interfaces import Score, State
from scorefield.processes import EDM, Node, Process, nodes, time_at, velocity
from scorefield.samplers.descent import Descent, Step, walk
from scorefield.samplers.levels import check_positive, levels_of

Slope = Callable[[Tensor, Node], Tensor]
Advance = Callable[[Slope, int, Tensor], Tensor]
"""(dx/dt, i, x at times[i]) -> x at times[i + 1]"""


@dataclass(frozen=True)
class ProbabilityFlow(Descent):
    """A solver of the probability-flow ODE."""

    process: Process = EDM()
    """in whose time and coordinates it is solved"""

    @property
    def coordinates(self) -> Process:
        return self.process

    @abstractmethod
    def integrator(self, times: Tensor) -> Advance:
        """What solves any differential equation in the process's time from each of `times` `(n,)` to the next."""

    def stepper(self, model: Score, levels: list[float], cond: Tensor | None, generator: torch.Generator | None) -> Step:
        times = time_at(self.process, levels)
        advance, alphas = self.integrator(times), self.process.alpha(times).tolist()

        def slope(y: Tensor, at: Node) -> Tensor:
            return velocity(model, at, y, cond)

        return lambda i, x: advance(slope, i, alphas[i] * x) / alphas[i + 1]

    @torch.no_grad()
    def encode(self, model: Score, x: Tensor, cond: Tensor | None = None) -> Iterator[State]:
        """The same path upwards: x at σ_min to x at σ_max, which decodes to x again."""
        levels = self.grid(self.steps, levels_of(self, model, self.process))[::-1]
        yield from walk(self.stepper(model, levels, cond, None), levels, x)


@dataclass(frozen=True)
class RungeKutta(ProbabilityFlow):
    """Fixed steps."""

    tableau: ClassVar[Tableau]
    order: ClassVar[int]

    @property
    def evaluations(self) -> int:
        return len(self.tableau.b)

    def integrator(self, times: Tensor) -> Advance:
        looks, lengths = stages(self.tableau, times), times.diff().tolist()
        points = nodes(self.process, looks.flatten())
        per_step = [points[i : i + self.evaluations] for i in range(0, len(points), self.evaluations)]
        return lambda slope, i, x: runge_kutta(slope, x, per_step[i], lengths[i], self.tableau)


@dataclass(frozen=True)
class Euler(RungeKutta):
    """Euler's method, one score evaluation a step."""

    tableau: ClassVar[Tableau] = EULER
    order: ClassVar[int] = 1


@dataclass(frozen=True)
class Heun(RungeKutta):
    """Heun's method (EDM's deterministic sampler): 2·steps − 1 score evaluations, the last step Tweedie's."""

    tableau: ClassVar[Tableau] = HEUN
    order: ClassVar[int] = 2
    steps: int = 18


@dataclass(frozen=True)
class RungeKutta4(RungeKutta):
    """The classical Runge–Kutta method: 4·steps − 3 score evaluations."""

    tableau: ClassVar[Tableau] = RK4
    order: ClassVar[int] = 4
    steps: int = 9


@dataclass(frozen=True)
class DormandPrince(ProbabilityFlow):
    """Dormand and Prince's method of order 5, steps chosen to meet tolerances; `steps` counts the states it shows.

    Every example of a batch meets the tolerances; how many evaluations that takes is not known beforehand.
    """

    steps: int = 9
    rtol: float = 1e-4
    """tolerated error of a step, relative"""
    atol: float = 1e-4
    """and absolute"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(rtol=self.rtol, atol=self.atol)

    @property
    def nfe(self) -> None:
        """Not known beforehand."""

    def integrator(self, times: Tensor) -> Advance:
        ends = times.tolist()

        def advance(slope: Slope, i: int, x: Tensor) -> Tensor:
            def at(y: Tensor, t: float) -> Tensor:
                return slope(y, nodes(self.process, torch.tensor([t], dtype=torch.float64))[0])

            return dormand_prince(at, x, ends[i], ends[i + 1], rtol=self.rtol, atol=self.atol)

        return advance
