"""A measured number never goes without its standard error, its sample size and its unit."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Estimate(NamedTuple):
    """A value and its standard error; None where too few examples allow none."""

    value: float
    se: float | None


@dataclass(frozen=True)
class Record:
    """One line of evaluation.json."""

    metric: str
    value: float
    se: float | None
    """standard error; None where there is none"""
    n: int
    """examples on each side of the comparison"""
    unit: str
    seed: int | None


def mean_estimate(values: Tensor) -> Estimate:
    """Mean of independent `values` `(n,)` and its standard error."""
    se = values.std().item() / len(values) ** 0.5 if len(values) > 1 else None
    return Estimate(values.mean().item(), se)
