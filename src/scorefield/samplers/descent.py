"""What samplers that walk down a grid of noise levels have in common: start, states, the last step.

States live in the coordinates of the data, x₀ + σ z, whatever a sampler does inside.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.interfaces import Score, State
from scorefield.models import denoise
from scorefield.processes import Process
from scorefield.samplers.levels import Grid, Karras, check_steps, levels_of, standard_normal

Step = Callable[[int, Tensor], Tensor]
"""(i, x at levels[i]) -> x at levels[i + 1]"""


@dataclass(frozen=True)
class Descent(ABC):
    """Walks from σ_max to σ_min, and by Tweedie's formula to 0, the expectation of what is left.

    Raises:
        ValueError: fewer than 2 steps; when called, levels that the model does not answer for.
    """

    steps: int = 35
    """noise levels from σ_max to σ_min"""
    grid: Grid = Karras()
    """their spacing"""
    sigma_range: tuple[float, float] | None = None
    """levels to walk between; the model's by default"""
    to_zero: bool = True
    """denoise at the end (a step from σ_min to 0)"""

    def __post_init__(self) -> None:
        check_steps(self.steps, at_least=2)

    @property
    def states(self) -> int:
        """How many states it yields."""
        return self.steps + self.to_zero

    @property
    def nfe(self) -> int | None:
        """Evaluations of the score for each sample; None where they are not known beforehand."""
        return (self.steps - 1) * self.evaluations + self.to_zero

    @property
    def evaluations(self) -> int:
        """Evaluations of the score in each step."""
        return 1

    @property
    def coordinates(self) -> Process | None:
        """The process in whose time and coordinates it steps, if it does."""
        return None

    def start(self, model: Score, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Pure noise at the largest level, σ_max z."""
        return levels_of(self, model, self.coordinates)[1] * standard_normal(shape, generator)

    @torch.no_grad()
    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Iterator[State]:
        levels = self.grid(self.steps, levels_of(self, model, self.coordinates))
        for state in walk(self.stepper(model, levels, cond, generator), levels, x):
            yield state
        if self.to_zero:
            yield State(denoise(model, state.x, levels[-1], cond), x.new_tensor(0.0), {})

    @abstractmethod
    def stepper(self, model: Score, levels: list[float], cond: Tensor | None, generator: torch.Generator | None) -> Step:
        """What takes each step between `levels`; made anew for each call, so it may remember."""


def walk(step: Step, levels: list[float], x: Tensor) -> Iterator[State]:
    """The states at `levels`, x being at the first; run under the caller's own grad mode."""
    yield State(x, x.new_tensor(levels[0]), {})
    for i, following in enumerate(levels[1:]):
        x = step(i, x)
        yield State(x, x.new_tensor(following), {})


def noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """z ~ N(0, I)."""
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
