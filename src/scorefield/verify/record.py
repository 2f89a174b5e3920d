"""What one check says: two numbers that theory makes equal, how far apart they came out, and how far they may.

    exact      both sides are sums without chance; what is left is rounding, a stated fraction of the larger side
    sampled    the same draws on both sides; 5 standard errors of the mean difference: one check in a million fails by chance
    ordered    an inequality; the error is the amount by which it is violated, the tolerance 0
    bounded    a figure that is only reported, beside a bound that it can never exceed: it fails if it could not be computed

Of tensors the worst entry is shown, the one whose error is the largest part of its tolerance. NaN and infinity never pass.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.metrics.record import finite

STANDARD_ERRORS = 5
ROUNDING = 1e-10


@dataclass(frozen=True)
class Record:
    """One line of the table."""

    row: int
    """number of the identity"""
    statement: str
    left: float
    right: float
    error: float
    """|left − right|, or the amount by which an inequality is violated"""
    tolerance: float
    passed: bool

    def as_json(self) -> dict[str, int | str | float | bool | None]:
        """The record in strict JSON's types: a number that is not finite becomes null."""
        numbers = {name: finite(getattr(self, name)) for name in ("left", "right", "error", "tolerance")}
        return {"row": self.row, "statement": self.statement, **numbers, "pass": self.passed}


def exact(row: int, statement: str, left: Tensor, right: Tensor | float, rounding: float = ROUNDING) -> Record:
    """Equality up to `rounding` times the largest entry of either side (but at least 1)."""
    left, right = together(left, right)
    scale = max(1.0, float(left.abs().max()), float(right.abs().max()))
    return worst(row, statement, left, right, torch.full_like(left, rounding * scale))


def sampled(row: int, statement: str, left: Tensor, right: Tensor | float) -> Record:
    """Equality of means of paired draws, `(n,)` or `(n, k)` for k quantities; `right` may be the known mean."""
    left, right = together(left, right)
    n = len(left)
    difference = left - right
    tolerance = STANDARD_ERRORS * difference.std(0) / math.sqrt(n) + ROUNDING * right.abs().mean(0)
    return worst(row, f"{statement} [n = {n}]", left.mean(0), right.mean(0), tolerance)


def close(row: int, statement: str, left: float, right: float, tolerance: float) -> Record:
    """Equality of two numbers up to a tolerance that `statement` explains."""
    error = abs(left - right)
    return Record(row, statement, left, right, error, tolerance, error <= tolerance)


def ordered(row: int, statement: str, larger: float, smaller: float) -> Record:
    """larger ≥ smaller."""
    error = math.nan if math.isnan(larger - smaller) else max(0.0, smaller - larger)
    return Record(row, f"{statement} [left ≥ right]", larger, smaller, error, 0.0, error <= 0)


def bounded(row: int, statement: str, figure: float, bound: float) -> Record:
    """|figure| ≤ bound, always true of a figure that could be computed."""
    return Record(row, f"{statement} [reported]", figure, 0.0, abs(figure), bound, abs(figure) <= bound)


def worst(row: int, statement: str, left: Tensor, right: Tensor, tolerance: Tensor) -> Record:
    """The entry whose error is the largest part of its tolerance; NaN is the worst of all."""
    error = (left - right).abs()
    at = int((error / tolerance.clamp(min=torch.finfo(torch.float64).tiny)).flatten().argmax())
    one, other, apart, allowed = (float(v.flatten()[at]) for v in (left, right, error, tolerance))
    return Record(row, statement, one, other, apart, allowed, apart <= allowed < math.inf)


def together(left: Tensor, right: Tensor | float) -> tuple[Tensor, Tensor]:
    """Both sides in float64, of one shape, out of any graph."""
    pair = torch.broadcast_tensors(left.detach().double(), torch.as_tensor(right, dtype=torch.float64).detach())
    return pair[0], pair[1]
