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
    rest for validation. Equal examples have equal hashes and fall in the same split.
    """
    rest = ~official_test
    test = official_test if official_test.any() else smallest(digests, rest)
    rest = rest & ~test
    validation = smallest(digests, rest)
    return {"train": np.flatnonzero(rest & ~validation), "validation": np.flatnonzero(validation), "test": np.flatnonzero(test)}


def smallest(digests: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Marks the tenth of `among` with the smallest hashes, at least one and at most `CAP`, ties included."""
    candidates = np.sort(digests[among])
    count = min(CAP, max(1, round(len(candidates) / 10)))
    return among & (digests <= candidates[count - 1]) if len(candidates) else among
