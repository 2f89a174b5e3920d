"""A measured number never goes without its standard error, its sample size and its unit."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

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


def finite(content: Any) -> Any:
    """The same, lists and dicts within too, with None for numbers that JSON has not: infinities and NaN."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def mean_estimate(values: Tensor) -> Estimate:
    """Mean of independent `values` `(n,)` and its standard error."""
    se = values.std().item() / len(values) ** 0.5 if len(values) > 1 else None
    return Estimate(values.mean().item(), se)
