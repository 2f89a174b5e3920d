"""Whether rows drawn from a model are like the rows of a table: told apart, copied, correlated alike; and why a row is odd.

Rows are arrays `(n, d)` of numbers, a column each, float64.

Reference: Lopez-Paz & Oquab 2017, arXiv:1610.06545 (classifier two-sample tests); Wilson 1927 (the interval).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from scorefield.data import random_rows
from scorefield.metrics.copies import nearest
from scorefield.randomness import derive_seed

FOLDS = 5
NEAR = 0.05
"""share of real rows that are nearest to others, by whose distance it is judged what is near"""


class TwoSampleTest(NamedTuple):
    """How often a classifier is right about rows it has not seen; half of the time if it cannot tell two samples apart."""

    accuracy: float
    low: float
    high: float
    """ends of the 95 % interval"""
    n: int
    """rows of each sample"""


def classifier_two_sample_test(
    real: np.ndarray, fake: np.ndarray, *, seed: int = 0, watch: Callable[[int], None] = lambda folds: None
) -> TwoSampleTest:
    """Accuracy of gradient-boosted trees on held-out rows of `real` `(n, d)` and `fake` `(m, d)`, by cross-validation.

    As many of each are taken, at random; NaN is a value like others. The interval is Wilson's of half as many guesses as were
    made: folds share rows to learn from, and accuracies of samples of one law were seen to vary 1.3 times as much as those of
    independent guesses, at 30 to 1,000 rows each. `watch` is called with 1 after each of the `FOLDS`.

    Raises:
        ValueError: fewer than `FOLDS` rows of one of them.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import, and not every command needs it
    from sklearn.model_selection import StratifiedKFold

    n = min(len(real), len(fake))
    if n < FOLDS:
        raise ValueError(f"{FOLDS} folds need as many rows of each sample, got {len(real)} and {len(fake)}")
    some = [x[random_rows(len(x), n, seed, f"two samples, {side}")] for x, side in ((real, "real"), (fake, "fake"))]
    x, is_fake = np.concatenate(some), np.repeat([0, 1], n)
    state = derive_seed(seed, "two samples") % 2**32
    right = 0
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=state).split(x, is_fake):
        guess = HistGradientBoostingClassifier(random_state=state).fit(x[train], is_fake[train]).predict(x[test])
        right += int((guess == is_fake[test]).sum())
        watch(1)
    accuracy = right / (2 * n)
    return TwoSampleTest(accuracy, *wilson_interval(accuracy, n), n)


def wilson_interval(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Where the probability of what happened in a `share` of `n` independent trials is, with the confidence of ±z."""
    centre, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)


class Closeness(NamedTuple):
    """Distances to the nearest row of a table."""

    of_samples: np.ndarray
    of_real: np.ndarray

    @property
    def near(self) -> float:
        """The distance that a share of `NEAR` of the real rows has at most."""
        return float(np.quantile(self.of_real, NEAR, method="inverted_cdf"))

    @property
    def shares(self) -> tuple[float, float]:
        """Of samples and of real rows that are so near: alike, unless samples are copies; ties make both larger than `NEAR`."""
        return float((self.of_samples <= self.near).mean()), float((self.of_real <= self.near).mean())


def closeness(samples: np.ndarray, real: np.ndarray, table: np.ndarray, *, within: bool) -> Closeness:
    """Euclidean distances from `samples` `(m, d)` and from `real` `(n, d)` to the nearest of the rows of `table` `(t, d)`.

    `within` says that the real rows are among the table's; then each is compared with the others.
    """
    base = torch.from_numpy(table)
    of_samples = nearest(torch.from_numpy(samples), base)[0]
    of_real = nearest(torch.from_numpy(real), base, 2 if within else 1)[0]  # the nearest of all is the row itself
    return Closeness(of_samples[:, -1].numpy(), of_real[:, -1].numpy())


def exact_copies(samples: np.ndarray, table: np.ndarray) -> int:
    """How many of `samples` `(m, d)` equal a row of `table` `(t, d)` in every column; rows with NaN equal none."""
    known = {row.tobytes() for row in table + 0.0 if not np.isnan(row).any()}  # −0 is 0
    return sum(row.tobytes() in known for row in samples + 0.0)


def copies_within(table: np.ndarray) -> int:
    """How many rows of `table` `(t, d)` equal another of its rows in every column; rows with NaN equal none."""
    return int(pd.DataFrame(table).dropna().duplicated(keep=False).sum())


def rank_correlations(rows: np.ndarray) -> np.ndarray:
    """Spearman's rank correlations `(d, d)` of rows `(n, d)`, by the rows that have both columns; NaN for constant columns."""
    return pd.DataFrame(rows).corr("spearman").to_numpy()


def most_correlated(correlations: np.ndarray, most: int) -> np.ndarray:
    """Numbers of the at most `most` columns with the largest |correlation| `(d, d)` with any other, in their order."""
    size = np.abs(np.nan_to_num(correlations))
    np.fill_diagonal(size, 0.0)
    return np.sort(np.argsort(-size.max(1), kind="stable")[:most])
