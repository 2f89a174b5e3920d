"""What can be seen of T, and of log q₀, before a fit: that score matching may be used with it at all.

PyTorch's forward mode over forward mode gives wrong second derivatives of a few functions without a word (layer_norm, det,
logdet, solve), so derivatives at a few rows are compared with differences.

Integration by parts needs ∇T without jumps. Where a component has a kink, as |x| or relu(x) has, second derivatives do not
know of it, and estimates are confidently wrong. So for pairs of rows the slope of T along the segment between them is compared
with the integral of its second derivative, by the trapezoidal rule, and the half with more of the difference is halved again:
of a smooth T the difference dies out, of a kink it stays.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Statistic = Callable[[Tensor], Tensor]
"""T, rows `(b, d)` to `(b, p)`, each row by itself"""
FEW = 16
"""rows that are looked at together and alone"""
STEP, AMISS = 1e-5, 1e-2
"""of differences, in each coordinate's size, and the relative difference from which a derivative is wrong"""
SEGMENTS, HALVINGS = 64, 40
JUMP = 1e-3
"""of the largest slope: how much of a difference is left where there is a kink"""
POLE = 1e3
"""times the largest slope at a segment's ends: what slopes by a pole exceed, which is no kink"""


def derivatives(statistic: Statistic, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivatives of T at rows `(b, d)` along k directions `(k, b, d)`: both `(b, k, p)`."""
    k, b = directions.shape[:2]
    v = directions.flatten(0, 1)

    def slope(y: Tensor) -> Tensor:
        return torch.func.jvp(statistic, (y,), (v,))[1]

    first, second = torch.func.jvp(slope, (x.repeat(k, 1),), (v,))  # type: ignore[misc]  # its type allows for has_aux
    return first.unflatten(0, (k, b)).transpose(0, 1), second.unflatten(0, (k, b)).transpose(0, 1)


def components(statistic: Statistic, x: Tensor) -> int:
    """p, after a look at a few rows.

    Raises:
        ValueError: T that fails, or that is not float64 `(b, p)`.
    """
    few = x[:FEW]
    b, d = few.shape
    try:
        found = statistic(few)
    except Exception as error:
        raise ValueError(f"T fails at rows ({b}, {d}) of float64: {_first_line(error)}") from error
    if not isinstance(found, Tensor):
        raise ValueError(f"T must give a tensor (b, p), got {type(found).__name__}: it is to be made of PyTorch functions")
    if found.ndim != 2 or len(found) != b or not found.shape[1]:
        raise ValueError(f"T of rows ({b}, {d}) must be ({b}, p), got {tuple(found.shape)}")
    if found.dtype != torch.float64:
        raise ValueError(f"T must give float64, as its rows are, got {str(found.dtype).removeprefix('torch.')}")
    return found.shape[1]


def check_base(base: Statistic, x: Tensor) -> None:
    """Raises `ValueError` unless log q₀ gives a number for each row, float64."""
    few = x[:FEW]
    try:
        found = base(few)
    except Exception as error:
        raise ValueError(f"the base fails at rows {tuple(few.shape)} of float64: {_first_line(error)}") from error
    if not isinstance(found, Tensor) or found.shape != (len(few),) or found.dtype != torch.float64:
        got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"the base must give log q₀ of each row, a float64 tensor ({len(few)},), got {got}")


def check_statistic(statistic: Statistic, x: Tensor, names: Sequence[str]) -> None:
    """Raises `ValueError` for T with which score matching cannot be used, as far as the rows show it."""
    few = x[:FEW]
    alone = torch.cat([statistic(row) for row in few.split(1)])
    if not torch.allclose(
        alone, statistic(few), rtol=1e-9, atol=1e-12 * float(alone.abs().nan_to_num().amax()), equal_nan=True
    ):
        raise ValueError("T of a row depends on the other rows: it must be a function of each row by itself")
    try:
        derivatives(statistic, few, torch.ones_like(few)[None])
    except Exception as error:
        raise ValueError(f"PyTorch cannot differentiate T twice in forward mode: {_first_line(error)}") from error
    check_smooth(statistic, x, names)
    check_derivatives(statistic, x, names)


def check_derivatives(statistic: Statistic, x: Tensor, names: Sequence[str]) -> None:
    """Raises `ValueError` that names a component of T whose derivatives are not those that differences show at most rows."""
    few = x[:FEW]
    v = torch.where(few == 0, few.abs().amax(0), few.abs())
    first, second = (part[:, 0] for part in derivatives(statistic, few, v[None]))
    value = statistic(few)
    ahead, behind = few + STEP * v, few - STEP * v
    for below, exact, high, low in (
        (value, first, statistic(ahead), statistic(behind)),
        (first, second, *(derivatives(statistic, y, v[None])[0][:, 0] for y in (ahead, behind))),
    ):
        seen = (high - low) / (2 * STEP)
        amiss = (seen - exact).abs() / (seen.abs() + exact.abs() + 1e-6 * below.abs() + 1e-8 * value.abs() + 1e-300)
        wrong = amiss.nanmedian(0).values > AMISS
        if wrong.any():
            raise ValueError(
                f"PyTorch's forward mode gives T's component {names[int(wrong.nonzero()[0])]} wrong derivatives, as it does of "
                "layer_norm, det, logdet and solve: write it by other functions"
            )


class At(NamedTuple):
    """T along m segments, each at one place t `(m, 1)`: its slope and its second derivative `(m, p)`."""

    t: Tensor
    slope: Tensor
    bend: Tensor


def check_smooth(statistic: Statistic, x: Tensor, names: Sequence[str]) -> None:
    """Raises `ValueError` that names a component of T with a kink between two of the rows, and the place."""
    chosen = torch.linspace(0, len(x) - 1, min(SEGMENTS, len(x))).long()
    start, v = x[chosen], x[(chosen + len(x) // 2) % len(x)] - x[chosen]

    def at(t: Tensor) -> At:
        slope, bend = derivatives(statistic, start + t * v, v[None])
        return At(t, slope[:, 0], bend[:, 0])

    low, high = at(x.new_zeros(len(start), 1)), at(x.new_ones(len(start), 1))
    rounding = 1e-12 * statistic(start).abs().amax(0).clamp(min=1e-280)
    scale = torch.cat([low.slope, high.slope]).abs().amax(0).maximum(rounding)
    for _ in range(HALVINGS):
        left = unexplained(low, high) / scale
        doubtful = left.amax(1) > JUMP
        if not doubtful.any():
            return
        start, v, component = start[doubtful], v[doubtful], left[doubtful].argmax(1, keepdim=True)
        low, high = (At(*(part[doubtful] for part in end)) for end in (low, high))
        middle = at((low.t + high.t) / 2)
        first, last = (unexplained(*half).gather(1, component) for half in ((low, middle), (middle, high)))
        low, high = either(last > first, middle, low), either(last > first, high, middle)
    steep = torch.maximum(low.slope.abs(), high.slope.abs()) > POLE * scale
    jumps = (unexplained(low, high) / scale > JUMP) & ~steep
    if jumps.any():
        row, k = jumps.nonzero()[0].tolist()
        place = ", ".join(f"{value:.4g}" for value in (start + low.t * v)[row].tolist())
        raise ValueError(
            f"T's component {names[k]} has a kink near ({place}): its derivative jumps there, which score matching cannot see; "
            "make it smooth, as √(x² + ε²) is for |x|"
        )


def unexplained(low: At, high: At) -> Tensor:
    """|change of the slope − integral of the second derivative| between two places, `(m, p)`."""
    return (high.slope - low.slope - (high.t - low.t) * (low.bend + high.bend) / 2).abs()


def either(choice: Tensor, one: At, other: At) -> At:
    """The one where `choice` `(m, 1)`, else the other."""
    return At(*(torch.where(choice, a, b) for a, b in zip(one, other, strict=True)))


def _first_line(error: Exception) -> str:
    """With its type."""
    return f"{type(error).__name__}: {error}".split("\n", 1)[0]
