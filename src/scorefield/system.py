"""What depends on the machine: durable, atomic files, signals and the device. Everything else in scorefield is portable."""

import errno
import os
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import torch

from scorefield.errors import RunError, UserError


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to it once the block ends well, removed however else it ends.

    A file replaces the one that was there. It is on disk before it is renamed, so a reader sees the old version or the new
    one, never a part. A folder (whose files the block syncs) replaces nothing: of several writers the first one wins.

    Raises:
        UserError: the folder around it does not exist or cannot be written.
        RunError: the disk is full, a folder with something in it is there, or another input/output error; what was at `path`
            is untouched.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield aside
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    except (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise RunError(f"cannot write {path}: {'the disk is full' if full else error}; what was there is unchanged") from error
    finally:
        remove(aside)


def remove(path: Path) -> None:
    """Remove a file or a folder as far as the system allows."""
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, idle: float = 0.0) -> None:
    """Remove what killed writers left aside in a folder; where others may be at work, only what was idle for `idle` seconds."""
    for aside in folder.glob(".*.part"):
        with suppress(OSError):  # gone meanwhile
            if not idle or time.time() - max(p.stat().st_mtime for p in (aside, *aside.glob("*"))) >= idle:
                remove(aside)


def write_durably(path: Path, content: bytes | str) -> None:
    """Write a whole file atomically; errors as in `written_aside`."""
    with written_aside(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def sync(path: Path) -> None:
    """Ask the system to put a file, or a folder's directory entry, on disk (folders cannot be synced on Windows)."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Interruption:
    """Ctrl-C or SIGTERM while the block runs sets `signal_number` instead of stopping; a second Ctrl-C stops at once.

    Signals that are ignored, as Ctrl-C is in a shell's background jobs, stay ignored. Outside the main thread signals cannot be
    caught, and the block runs as if this were not there.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, signal.Handlers | int | Callable[[int, FrameType | None], object] | None] = {}

    def __enter__(self) -> "Interruption":
        with suppress(ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            raise KeyboardInterrupt
        self.signal_number = number


def default_device() -> torch.device:
    """The GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
