"""Which examples train, validate and test: a function of the data alone."""

from hashlib import blake2b

import numpy as np

CAP = 5000
"""most examples held out for validation, and for testing unless there is an official test set"""


def digest(x: np.ndarray) -> int:
    """A 64-bit hash of an example's content."""
    return int.from_bytes(blake2b(np.ascontiguousarray(x).tobytes(), digest_size=8).digest())


def assign(digests: np.ndarray, official_test: np.ndarray) -> dict[str, np.ndarray]:
    """Row numbers of each split, in the order of the source.

    A tenth of the rows with the smallest hashes is held out for testing, unless `official_test` marks any; a tenth of the
    rest for validation. Equal examples have equal hashes and fall in the same split (an official test set stays as it is).
    """
    rest = ~official_test
    test = official_test if official_test.any() else held_out(digests, rest, leave=2)
    rest = rest & ~test
    validation = held_out(digests, rest, leave=1)
    return {"train": np.flatnonzero(rest & ~validation), "validation": np.flatnonzero(validation), "test": np.flatnonzero(test)}


def held_out(digests: np.ndarray, among: np.ndarray, leave: int) -> np.ndarray:
    """Marks the rows of `among` with the smallest hashes: at most a tenth and at most `CAP`, but at least one.

    Groups of equal rows larger than that are passed over; if all are, the least numerous group is taken. `leave` groups stay
    for the other splits; nothing is marked if there are not more.
    """
    values, counts = np.unique(digests[among], return_counts=True)  # in the order of the hashes
    if len(values) <= leave:
        return np.zeros_like(among)
    quota = min(CAP, max(1, round(int(counts.sum()) / 10)))
    fitting = counts <= quota
    taken = values[fitting][np.cumsum(counts[fitting]) <= quota] if fitting.any() else values[[counts.argmin()]]
    return among & np.isin(digests, taken[: len(values) - leave])
