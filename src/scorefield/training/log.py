"""log.jsonl: one JSON object a line, `kind` train or validation; the loss is per dimension and also given per noise level."""

import errno
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from scorefield.errors import RunError, UserError
from scorefield.interfaces import Loss

BINS = 12
FIELDS = {"kind", "step", "images", "loss"}
"""what every record has"""


class LossByLevel:
    """Sums of losses per dimension in `BINS` bins equal in log σ, and one for losses without a σ; on the device until asked.

    Of a model without a range of levels the bins mean nothing.
    """

    def __init__(self, sigma_range: tuple[float, float], device: torch.device) -> None:
        low, high = (math.log(s) for s in sigma_range) if 0 < sigma_range[0] < sigma_range[1] < math.inf else (-1.0, 1.0)
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

    On resume the file is cut back to the length it had at the checkpoint, so that no step appears twice. If somebody removed
    it, a new one is begun.

    Raises:
        UserError: the file is shorter than it was at the checkpoint.
        RunError: a full disk, from every method; the checkpoints stay valid.
    """

    def __init__(self, folder: Path, keep_bytes: int, keep_steps: int) -> None:
        self._path = folder / "log.jsonl"
        if self._path.exists():
            if (size := self._path.stat().st_size) < keep_bytes:
                raise UserError(
                    f"{self._path} has {size} bytes and had {keep_bytes} at the last checkpoint: put the whole file back, or "
                    "remove it to begin a new one"
                )
        else:
            keep_bytes = 0
        with disk_errors(self._path):
            self._file = open(self._path, "ab")  # noqa: SIM115
            self._file.truncate(keep_bytes)
            self._file.seek(0, os.SEEK_END)
        self._board_at = folder / "tensorboard", keep_steps

    @cached_property
    def _board(self) -> Any:
        """Opened at the first record: a finished run that is looked at again gets no empty file."""
        return tensorboard_writer(*self._board_at)

    def write(self, record: dict[str, Any]) -> None:
        with disk_errors(self._path):
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
            if self._board is not None:
                for name in ("loss", "images_per_s", "learning_rate"):
                    if name in record:
                        self._board.add_scalar(f"{name}/{record['kind']}", record[name], record["step"])

    def bytes_on_disk(self) -> int:
        """Length of the file, after making sure that much of it is on disk."""
        with disk_errors(self._path):
            os.fsync(self._file.fileno())
            return self._file.tell()

    def close(self) -> None:
        with disk_errors(self._path):
            if self.__dict__.get("_board") is not None:
                self._board.close()
            self._file.close()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the system refuses to write becomes a `RunError` that says how to go on."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else str(error)
        raise RunError(f"cannot write {path}: {reason}; checkpoints stay valid, go on with --resume once it can") from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log.jsonl; a last line cut short by a kill is left out.

    Raises:
        UserError: another line is no record.
    """
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not record.keys() >= FIELDS:
            raise UserError(f"{path} is damaged in line {number}: put the whole file back, or remove it")
        records.append(record)
    return records


def tensorboard_writer(folder: Path, keep_steps: int) -> Any:
    """A TensorBoard writer that forgets steps after `keep_steps`, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=keep_steps + 1)
