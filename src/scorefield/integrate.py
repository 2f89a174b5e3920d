"""Solvers of ordinary differential equations dx/dt = f(x, t), for tensors of any shape.

Explicit Runge–Kutta methods of fixed steps are tableaus; the times at which they look are known beforehand (`stages`), so
what f needs there can be computed once for all. The adaptive method of Dormand and Prince is torchdiffeq's.

Reference: Hairer, Nørsett & Wanner 1993, Solving Ordinary Differential Equations I (sections II.1 and II.5).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

P = TypeVar("P")


@dataclass(frozen=True)
class Tableau:
    """x + h Σ bᵢ kᵢ with kᵢ = f(x + h Σ aᵢⱼ kⱼ, t + cᵢ h)."""

    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]


EULER = Tableau(1, a=((),), b=(1.0,), c=(0.0,))
HEUN = Tableau(2, a=((), (1.0,)), b=(0.5, 0.5), c=(0.0, 1.0))
RK4 = Tableau(4, a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6), c=(0.0, 0.5, 0.5, 1.0))


def stages(tableau: Tableau, times: Tensor) -> Tensor:
    """The times of all stages of all steps between `times` `(n,)`: `(n − 1, stages)`."""
    c = times.new_tensor(tableau.c)
    return times[:-1, None] + c * (times[1:] - times[:-1])[:, None]


def runge_kutta(f: Callable[[Tensor, P], Tensor], x: Tensor, points: Sequence[P], h: float, tableau: Tableau) -> Tensor:
    """One step of length h; `points` are whatever f takes for the time, one for each stage."""
    slopes: list[Tensor] = []
    for row, point in zip(tableau.a, points, strict=True):
        slopes.append(f(combined(x, h, row, slopes), point))
    return combined(x, h, tableau.b, slopes)


def combined(x: Tensor, h: float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """x + h Σ wᵢ kᵢ."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = torch.add(x, slope, alpha=h * weight)
    return x


def dormand_prince(
    f: Callable[[Tensor, float], Tensor], x: Tensor, start: float, end: float, *, rtol: float, atol: float
) -> Tensor:
    """The solution at `end` of the path through x `(b, …)` at `start`, steps chosen so that *every* row meets its tolerance.

    The error of a row is its root mean square in units of atol + rtol |x|.
    """
    from torchdiffeq import odeint  # imports scipy, which takes a while

    def worst_row(errors: Tensor) -> Tensor:
        return errors.flatten(1).square().mean(1).max().sqrt()

    times = torch.tensor([start, end], dtype=torch.float64, device=x.device)
    # neither a step nor the search for the first one may look beyond the end, where f may not be defined
    options = {"norm": worst_row, "step_t": times[1:], "first_step": abs(end - start) / 100}
    path = odeint(lambda t, y: f(y, float(t)), x, times, rtol=rtol, atol=atol, method="dopri5", options=options)
    return path[-1]
