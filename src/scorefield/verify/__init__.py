"""The identities of score matching, computed: `ROWS` has them by number, `verify` runs some or all.

Each row yields `Record`s: left side, right side, error, tolerance. Random numbers depend on the row alone, so a run can be
repeated. A figure that is not finite fails, and so does a row that stops with an exception.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from scorefield.verify.chains import row_15
from scorefield.verify.compose import row_20
from scorefield.verify.discrete import row_8, row_9, row_19
from scorefield.verify.energies import row_22, row_23
from scorefield.verify.exponential import row_10
from scorefield.verify.fisher import row_1, row_2, row_3, row_4
from scorefield.verify.learned import row_17, row_21
from scorefield.verify.likelihoods import row_13, row_14, row_24
from scorefield.verify.partition import row_18
from scorefield.verify.record import Record
from scorefield.verify.sampling import row_11, row_12, row_16
from scorefield.verify.smoothing import row_5, row_6, row_7


class Row(NamedTuple):
    """One identity: what it says, its checks (given whether to be thorough), and their share of the time."""

    title: str
    checks: Callable[[bool], Iterator[Record]]
    seconds: float


ROWS: dict[int, Row] = {
    1: Row("the Fisher divergence without the true score", row_1, 8),
    2: Row("traces from random probes, and their variances", row_2, 5),
    3: Row("slices agree with the trace in expectation", row_3, 6),
    4: Row("differences instead of derivatives: order 2", row_4, 1),
    5: Row("denoising is matching p_σ", row_5, 2),
    6: Row("mean and covariance of the clean given the noisy", row_6, 1),
    7: Row("KL is half the area under the Fisher divergence", row_7, 2),
    8: Row("linear operators other than the gradient", row_8, 1),
    9: Row("ratio matching finds the law of binary data", row_9, 1),
    10: Row("exponential families in closed form", row_10, 3),
    11: Row("diffusions in different coordinates", row_11, 1),
    12: Row("solvers converge at their order", row_12, 5),
    13: Row("log-densities by the probability flow", row_13, 10),
    14: Row("the evidence lower bound falls to the entropy", row_14, 3),
    15: Row("what Markov chains settle at", row_15, 8),
    16: Row("Langevin dynamics forgets mode weights, annealed it finds them", row_16, 3),
    17: Row("scores are learned where the data lies", row_17, 5),
    18: Row("the partition function, from below and from above", row_18, 8),
    19: Row("softmax over finitely many classes", row_19, 1),
    20: Row("products and mixtures", row_20, 1),
    21: Row("an energy's score is curl-free", row_21, 6),
    22: Row("maximum likelihood of an energy", row_22, 1),
    23: Row("data told from noise", row_23, 1),
    24: Row("the score's error bounds the samples' divergence", row_24, 2),
}


def verify(rows: Iterable[int] = tuple(ROWS), full: bool = False) -> Iterator[Record]:
    """The records of each row as they are found; `full` takes more draws, more shapes and longer training.

    Raises:
        KeyError: a row that is not in `ROWS`.
    """
    for row in rows:
        checks = ROWS[row].checks
        try:
            yield from checks(full)
        except Exception as error:  # whatever stops a row is a failure of that row, and the others still count
            reason = f"stopped by {type(error).__name__}: {' '.join(str(error).split())}"
            yield Record(row, reason, math.nan, math.nan, math.nan, 0.0, False)


__all__ = ["ROWS", "Record", "Row", "verify"]
