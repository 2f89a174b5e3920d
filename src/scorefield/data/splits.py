"""Which examples train, validate and test: a function of the data alone."""

from hashlib import blake2b
from typing import Literal

import numpy as np
import torch

from scorefield.randomness import keyed_generator

HeldOut = Literal["", "validation", "test"]
"""a split of the source's own, or none"""
OFFICIAL: dict[str, HeldOut] = {
    "train": "", "val": "validation", "valid": "validation", "validation": "validation", "test": "test",
}  # fmt: skip
"""what parts of a data set are called, in lower case"""
CAP = 5000
"""most examples held out for validation, and for testing, where there is no official set"""


def digest(x: np.ndarray) -> int:
    """A 64-bit hash of an example's content."""
    return int.from_bytes(blake2b(np.ascontiguousarray(x).tobytes(), digest_size=8).digest())


def random_rows(total: int, n: int, seed: int = 0, purpose: str = "rows") -> np.ndarray:
    """At most `n` of the row numbers 0 … total − 1, each once, in random order: a part that no sorted source can bias."""
    return torch.randperm(total, generator=keyed_generator(seed, purpose))[:n].numpy()


def assign(digests: np.ndarray, official: np.ndarray) -> dict[str, np.ndarray]:
    """Row numbers of each split, in the order of the source; `official` `(n,)` has a `HeldOut` for each row.

    Official test and validation sets stay as they are. Where there is none, a tenth of the remaining rows with the smallest
    hashes is held out for testing, and a tenth of the rest for validation; equal examples have equal hashes and stay together.
    """
    test, validation = official == "test", official == "validation"
    rest = ~(test | validation)
    if not test.any():
        test = held_out(digests, rest, leave=1 if validation.any() else 2)
        rest = rest & ~test
    if not validation.any():
        validation = held_out(digests, rest, leave=1)
        rest = rest & ~validation
    return {"train": np.flatnonzero(rest), "validation": np.flatnonzero(validation), "test": np.flatnonzero(test)}


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
