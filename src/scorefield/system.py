"""What depends on the operating system: durable, atomic files and signals. Everything else in scorefield is portable."""

import errno
import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from scorefield.errors import RunError, UserError


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed over it once the block ends well, removed if it does not.

    The file (or folder) is on disk before it is renamed, so a reader sees the old version or the new one, never a part.

    Raises:
        UserError: the folder does not exist or cannot be written.
        RunError: the disk is full, or another input/output error; what was at `path` is untouched.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield aside
        sync(aside)
        replaced = aside.with_suffix(".old")
        if path.is_dir():  # a folder cannot be renamed over another
            os.replace(path, replaced)
        os.replace(aside, path)
        sync(path.parent)
        if replaced.is_dir():
            shutil.rmtree(replaced)
    except (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise RunError(f"cannot write {path}: {'the disk is full' if full else error}; what was there is unchanged") from error
    finally:
        with suppress(OSError):
            shutil.rmtree(aside) if aside.is_dir() else aside.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed left aside in a folder."""
    for aside in folder.glob(".*.part"):
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink()


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

    Outside the main thread signals cannot be caught, and the block runs as if this were not there.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, signal.Handlers | int | Callable[[int, FrameType | None], object] | None] = {}

    def __enter__(self) -> "Interruption":
        with suppress(ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            raise KeyboardInterrupt
        self.signal_number = number
