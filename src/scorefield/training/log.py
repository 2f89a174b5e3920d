"""log.jsonl: one JSON object a line, `kind` train or validation; the loss is per dimension and also given per noise level."""

import json
import math
import os
from pathlib import Path
from typing import Any

import torch

from scorefield.interfaces import Loss

BINS = 12


class LossByLevel:
    """Sums of losses per dimension in `BINS` bins equal in log σ, and one for losses without a σ; on the device until asked."""

    def __init__(self, sigma_range: tuple[float, float], device: torch.device) -> None:
        low, high = (math.log(s) for s in sigma_range)
        width = (high - low) / BINS
        self.centres = [math.exp(low + (i + 0.5) * width) for i in range(BINS)]
        self.low, self.width = low, width
        self.sums = torch.zeros(2, BINS + 1, dtype=torch.float64, device=device)

    def add(self, loss: Loss, dimensions: int) -> None:
        """Count a batch of losses."""
        value = loss.value.detach().double() / dimensions
        if loss.sigma is None:
            index = torch.full(value.shape, BINS, device=value.device)
        else:
            index = ((loss.sigma.detach().log() - self.low) / self.width).long().clamp(0, BINS - 1)
        self.sums.index_add_(1, index, torch.stack([value, torch.ones_like(value)]))

    def take(self) -> tuple[float, list[float | None]]:
        """The mean loss and the mean in each bin (None: no example fell there) since the last time."""
        total, count = self.sums.tolist()
        self.sums.zero_()
        return sum(total) / sum(count), [t / c if c else None for t, c in zip(total[:BINS], count[:BINS], strict=True)]


class Log:
    """Appends to log.jsonl, and to TensorBoard's event files if TensorBoard is installed.

    On resume the file is cut back to the length it had at the checkpoint, so that no step appears twice.
    """

    def __init__(self, folder: Path, keep_bytes: int, keep_steps: int) -> None:
        self._file = open(folder / "log.jsonl", "ab")  # noqa: SIM115
        self._file.truncate(keep_bytes)
        self._file.seek(0, os.SEEK_END)
        self._board = tensorboard_writer(folder / "tensorboard", keep_steps)

    def write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        if self._board is not None:
            for name in ("loss", "images_per_s", "learning_rate"):
                if name in record:
                    self._board.add_scalar(f"{name}/{record['kind']}", record[name], record["step"])

    def bytes_on_disk(self) -> int:
        """Length of the file, after making sure that much of it is on disk."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log.jsonl; a last line cut short by a kill is left out."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


def tensorboard_writer(folder: Path, keep_steps: int) -> Any:
    """A TensorBoard writer that forgets steps after `keep_steps`, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=keep_steps + 1)
