"""Batches of constant size as a function of (seed, step, rank): nothing to remember, nothing to restore."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from scorefield.data.cache import Split
from scorefield.errors import UserError
from scorefield.randomness import keyed_generator


class Batches:
    """Each epoch is a fresh permutation of the rows, epochs follow each other without a gap, and step k takes the k-th piece.

    Args:
        batch_size: rows a step, of all processes together; may exceed the number of rows.
        rank, world: this process takes the rank-th of `world` equal parts of each piece.

    Raises:
        UserError: `batch_size` is below 1 or cannot be divided by `world`.
    """

    def __init__(self, split: Split, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        if batch_size < 1:
            raise UserError(f"--batch-size must be at least 1, got {batch_size}")
        if batch_size % world:
            raise UserError(f"--batch-size {batch_size} cannot be divided among {world} processes: choose a multiple")
        self.split, self.batch_size = split, batch_size
        self.part = batch_size // world
        self.offset = rank * self.part
        rows = len(split.x)

        @lru_cache(maxsize=2)
        def permutation(epoch: int) -> np.ndarray:
            return torch.randperm(rows, generator=keyed_generator(seed, "batches", epoch)).numpy()

        self._permutation = permutation

    def at(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Raw rows `(batch_size/world, *event)` of step 0, 1, … and their classes."""
        position = step * self.batch_size + self.offset + np.arange(self.part)
        epochs, places = np.divmod(position, len(self.split.x))
        rows = np.concatenate([self._permutation(e)[places[epochs == e]] for e in np.unique(epochs).tolist()])
        labels = self.split.labels
        return torch.from_numpy(self.split.x[rows]), None if labels is None else torch.from_numpy(labels[rows])
