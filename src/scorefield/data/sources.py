"""From what a user types as DATA to a source of examples."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scorefield.data.arrays import array_file, idx_examples, idx_folder, looks_like_idx
from scorefield.data.cache import Data, build, read_cache, restricted
from scorefield.data.examples import Example, Examples, Progress, silent
from scorefield.data.hub import hub_dataset
from scorefield.data.images import Reading, image_folder
from scorefield.errors import UserError

CACHE_VERSION = 3
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""where Debian's package dataset-fashion-mnist puts it"""
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
ARRAYS = (".npy", ".npz")
TABLES = (".csv", ".tsv", ".parquet")


class Source(NamedTuple):
    """Where data comes from: facts that change whenever it does, and how to open it."""

    facts: list[object]
    open: Callable[[Reading, Progress], Examples]


def open_data(
    source: str,
    reading: Reading = Reading(),
    *,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Data:
    """The data of a source, memory-mapped; read and cached on first use.

    Args:
        source: `digits`, `fashion-mnist`, `hf:owner/name`, or the path of a folder of images, of a folder or file in MNIST's
            idx format, or of a `.npy` or `.npz` file. Files that changed are read again; hub data sets are not looked at again.
        reading: how images are read; for other data only the default will do.
        cache: folder for caches; by default `$SCOREFIELD_CACHE`, `$XDG_CACHE_HOME/scorefield` or `~/.cache/scorefield`.

    Raises:
        UserError: nothing there, nothing usable in it, fewer than 10 examples, an unreadable file, NaN, mixed sizes; classes
            that it has not.
    """
    found, only = find(source), reading.only
    reading = replace(reading, only=())
    key = blake2b(repr((CACHE_VERSION, found.facts, reading)).encode(), digest_size=10).hexdigest()
    folder = (cache or cache_root()) / key
    if not (folder / "meta.json").exists():
        examples = found.open(reading, progress)
        if examples.kind == "vectors" and (reading.size is not None or reading.channels != "auto"):
            raise UserError(f"--reading.size and --reading.channels are for images, and {source} holds vectors: leave them out")
        build(folder, source, examples, progress)
    return restricted(read_cache(folder, source), only)


def read_all(
    source: str, reading: Reading = Reading(), *, progress: Progress = silent
) -> tuple[np.ndarray, list[str], Examples]:
    """All examples of a source in its own order `(n, *event)`, in memory, any number of them; their names; facts about it.

    Raises:
        UserError: as `open_data`, and if they are not of one shape.
    """
    examples = find(source).open(reading, progress)
    found = [*progress(examples.read(), f"reading {source}", examples.total)]
    rows = [example.x for example in found]
    if not rows or any(x.shape != rows[0].shape for x in rows):
        what = "there is nothing to read" if not rows else "the examples are not all of one shape"
        raise UserError(f"{source}: {what}; give images of one size (--reading.size), or vectors of one length")
    return np.stack(rows), [example.name for example in found], examples


def cache_root() -> Path:
    """Where caches lie if nothing else is said."""
    if own := os.environ.get("SCOREFIELD_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scorefield"


def find(source: str) -> Source:
    """The source a name or path stands for; `UserError` if it stands for none."""
    if source == "digits":
        return Source(["digits"], digits)
    if source == "fashion-mnist":
        return fashion_mnist()
    if source.startswith("hf:"):
        name = source.removeprefix("hf:")
        return Source(["hf", name], partial(hub_dataset, name))
    try:
        return path_source(Path(source).expanduser())
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: no such user in ~user
        raise UserError(f"cannot read {source!r}: {error}; choose another place") from error


def holds_vectors(source: str) -> bool:
    """Whether a source is an array file of vectors; whatever may be wrong with it is said when it is read."""
    try:
        path = Path(source).expanduser()
        return path.suffix.lower() in ARRAYS and array_file(path, Reading()).kind == "vectors"
    except (UserError, RuntimeError):
        return False


def path_source(path: Path) -> Source:
    if path.is_dir():
        return Source(stats(path), partial(folder_examples, path))
    if not path.exists():
        raise UserError(f"no data at {path}: give a file, a folder, hf:owner/name, or one of digits, fashion-mnist")
    if path.suffix.lower() in ARRAYS:
        return Source(stats(path), lambda reading, progress: array_file(path, reading))
    if path.suffix.lower() in TABLES:
        raise UserError(
            f"{path} is a table, and tables come in a later version: save its numbers as a .npy file of floats (n, d)"
        )
    if looks_like_idx(path):
        return Source(stats(path), lambda reading, progress: idx_examples([path], reading))
    raise UserError(f"{path} is no data scorefield reads: give a folder of images, a .npy, .npz or …-idx3-ubyte[.gz] file")


def folder_examples(path: Path, reading: Reading, progress: Progress) -> Examples:
    """A folder in MNIST's idx format, or else of images."""
    return idx_folder(path, reading) or image_folder(path, reading, progress)


def stats(path: Path) -> list[object]:
    """Absolute path, and name, size and time of every file that is not hidden: what a cache is valid for."""
    root = path.resolve()
    files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
    beside = sorted(root.parent.glob("*-labels-idx1-ubyte*")) if "-images-idx3" in root.name else []
    names = [(p.relative_to(root).parts if root.is_dir() else (p.name,), p.stat()) for p in [*files, *beside]]
    shown = [(parts, s) for parts, s in names if root.is_file() or not any(part.startswith(".") for part in parts)]
    return [str(root), *(("/".join(parts), s.st_size, s.st_mtime_ns) for parts, s in shown)]


def digits(reading: Reading, progress: Progress) -> Examples:
    """scikit-learn's 8×8 handwritten digits, grey levels 0 … 16; other sizes or colours would not keep these levels."""
    from sklearn.datasets import load_digits

    if reading.size not in (None, 8) or reading.channels == "rgb":
        raise UserError("digits are 8×8 and grey: leave out --reading.size and --reading.channels")
    bunch = load_digits()
    rows = bunch.images.astype(np.uint8)[:, None]

    def read() -> Iterator[Example]:
        yield from (Example(x, int(k)) for x, k in zip(rows, bunch.target, strict=True))

    return Examples("images", len(rows), 17, read, tuple(str(k) for k in range(10)))


def fashion_mnist() -> Source:
    """Debian's files if they are installed, else the Hugging Face hub."""
    if FASHION_MNIST.is_dir():
        return Source(stats(FASHION_MNIST), fashion_files)
    name = "zalando-datasets/fashion_mnist"
    return Source(["hf", name], partial(hub_dataset, name))


def fashion_files(reading: Reading, progress: Progress) -> Examples:
    examples = idx_folder(FASHION_MNIST, reading, FASHION_CLASSES)
    if examples is None:
        raise UserError(f"{FASHION_MNIST} lacks train-images-idx3-ubyte.gz: reinstall the package dataset-fashion-mnist")
    return examples
