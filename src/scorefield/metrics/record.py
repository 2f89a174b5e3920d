"""One measured number with all that is needed to judge it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """A line of evaluation.json."""

    metric: str
    value: float
    se: float | None
    """standard error; None where there is no honest one"""
    n: int
    """examples it was computed from (of each of two sets)"""
    unit: str
    seed: int | None
