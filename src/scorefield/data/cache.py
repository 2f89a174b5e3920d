"""The cache: a folder a data set, with each split's rows and labels as .npy and the facts, written whole or not at all."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np

from scorefield.data.examples import Example, Examples, Progress
from scorefield.data.scaling import Scaling
from scorefield.data.splits import HeldOut, assign, digest
from scorefield.errors import RunError, UserError
from scorefield.system import remove, remove_leftovers, sync, written_aside

FEWEST = 10
CHUNK_BYTES = 2**24
ABANDONED = 24 * 3600.0
"""seconds after which a half-written cache in which nothing happened belongs to a reading that was killed"""


@dataclass(frozen=True)
class Split:
    """Raw examples, memory-mapped: images `(n, c, h, w)` uint8 or uint16, vectors `(n, d)` float; classes `(n,)` int64.

    `labels` is None if not all examples of the split have a class.
    """

    x: np.ndarray
    labels: np.ndarray | None


@dataclass(frozen=True)
class Data:
    """A data set in its cache."""

    source: str
    kind: Literal["images", "vectors"]
    event_shape: tuple[int, ...]
    """(c, h, w) or (d,)"""
    levels: int | None
    """integer levels of images; None for vectors"""
    splits: dict[str, Split]
    """train, validation and test"""
    classes: tuple[str, ...]
    skipped: tuple[str, ...]
    """unreadable examples that were left out"""
    scaling: Scaling
    """to standard deviation 1 on the training split"""
    folder: Path
    """the cache"""
    official: tuple[HeldOut, ...]
    """which of the splits validation and test are the source's own"""
    fingerprint: str
    """a hash of every example, its class and its place: equal fingerprints give equal splits and batches"""


def restricted(data: Data, only: tuple[str, ...]) -> Data:
    """The examples of some classes, with the classes and the scaling of all; `()` stands for all.

    Raises:
        UserError: no such class, or a split without classes or without one of these.
    """
    if not only:
        return data
    for name in only:
        if name not in data.classes:
            known = f"choose among {', '.join(data.classes)}" if data.classes else f"{data.source} has none"
            raise UserError(f"--reading.only: unknown class {name!r}: {known}")
    numbers = [data.classes.index(name) for name in only]
    splits = {}
    for name, split in data.splits.items():
        rows = np.flatnonzero(np.isin(split.labels, numbers)) if split.labels is not None else np.array([], dtype=int)
        if not len(rows):
            raise UserError(f"--reading.only {' '.join(only)}: the {name} split of {data.source} has no such examples")
        assert split.labels is not None
        splits[name] = Split(split.x[rows], split.labels[rows])
    mark = blake2b(repr((data.fingerprint, sorted(numbers))).encode(), digest_size=10).hexdigest()
    return replace(data, splits=splits, fingerprint=mark)


def build(folder: Path, source: str, examples: Examples, progress: Progress) -> None:
    """Read a source once and write its cache; errors as in `open_data`."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create the cache {folder.parent} ({error.strerror}): set SCOREFIELD_CACHE to another place"
        ) from error
    if not os.access(folder.parent, os.W_OK):
        raise UserError(f"cannot write the cache {folder.parent} (no permission): set SCOREFIELD_CACHE to another place")
    remove_leftovers(folder.parent, idle=ABANDONED)
    if folder.exists() and not (folder / "meta.json").exists():  # a cache appears whole, so somebody damaged this one
        remove(folder)
    try:
        with written_aside(folder) as aside:
            write(aside, source, examples, progress)
    except (UserError, RunError):
        if not (folder / "meta.json").exists():  # else somebody read the same source meanwhile, and was faster
            raise


def write(folder: Path, source: str, examples: Examples, progress: Progress) -> None:
    """The new folder of a cache, every file of it on disk."""
    folder.mkdir()
    rows, labels, digests, official = write_rows(folder / "rows", source, examples, progress)
    splits = assign(digests, official)
    if not all(len(indices) for indices in splits.values()):
        different, usable = len(np.unique(digests[official == ""])), int((official == "").sum())
        raise UserError(
            f"{source}: only {different} of the {usable} examples are different, too few to train and to hold some out: "
            "give more different ones"
        )
    for name, indices in splits.items():
        write_split(folder, name, rows, indices, labels if examples.classes else None)
    scaling = scaling_of(np.load(folder / "train.npy", mmap_mode="r", allow_pickle=False), examples, source)
    facts = {
        "source": source, "kind": examples.kind, "event_shape": rows.shape[1:], "levels": examples.levels,
        "classes": examples.classes, "skipped": examples.skipped,
        "official": [name for name in ("validation", "test") if (official == name).any()],
        "scaling": asdict(scaling), "fingerprint": fingerprint(digests, labels, official),
    }  # fmt: skip
    del rows
    (folder / "rows").unlink()
    (folder / "meta.json").write_text(json.dumps(facts, indent=2))
    for path in folder.iterdir():
        sync(path)


def fingerprint(digests: np.ndarray, labels: np.ndarray, official: np.ndarray) -> str:
    """A hash of all examples in their order."""
    return blake2b(b"".join(a.tobytes() for a in (digests, labels, official)), digest_size=10).hexdigest()


def write_rows(
    path: Path, source: str, examples: Examples, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All examples into one raw file: `(rows, labels, digests, official)`, the rows memory-mapped."""
    notes: list[tuple[int, int, HeldOut]] = []
    first: Example | None = None
    with open(path, "wb") as file:
        for example in progress(examples.read(), f"reading {source}", examples.total):
            first = first or example
            if example.x.shape != first.x.shape:
                raise UserError(
                    f"{source}: example {len(notes)} (counted from 0) has shape {example.x.shape} and the first "
                    f"{first.x.shape}: make all alike, images by --reading.size and --reading.channels"
                )
            file.write(example.x.tobytes())
            notes.append((example.label, digest(example.x), example.held_out))
    if first is None or len(notes) < FEWEST:
        raise UserError(f"{source}: {len(notes)} examples are too few, give at least {FEWEST} to train and to hold some out")
    rows = np.memmap(path, first.x.dtype, "r", shape=(len(notes), *first.x.shape))
    labels, digests, official = zip(*notes, strict=True)
    return rows, np.array(labels), np.array(digests, np.uint64), np.array(official)


def write_split(folder: Path, name: str, rows: np.ndarray, indices: np.ndarray, labels: np.ndarray | None) -> None:
    """`name`.npy and, if all its examples have classes, `name`-labels.npy."""
    header = {"descr": np.lib.format.dtype_to_descr(rows.dtype), "fortran_order": False}
    with open(folder / f"{name}.npy", "wb") as file:  # not through a memory map, which a full disk would kill
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (len(indices), *rows.shape[1:])})
        for start in range(0, len(indices), chunk := chunk_rows(rows)):
            file.write(rows[indices[start : start + chunk]].tobytes())
    if labels is not None and (labels[indices] >= 0).all():
        np.save(folder / f"{name}-labels.npy", labels[indices])


def scaling_of(train: np.ndarray, examples: Examples, source: str) -> Scaling:
    """Mean and standard deviation in float64: of all pixels together, or of each column."""
    axes = None if examples.kind == "images" else 0
    count = train.size if axes is None else len(train)
    with np.errstate(over="ignore", invalid="ignore"):  # reported below
        mean = sum(part.sum(axes) for part in in_chunks(train)) / count
        variance = sum(((part - mean) ** 2).sum(axes) for part in in_chunks(train)) / count
    shift, scale = np.atleast_1d(mean), np.atleast_1d(np.sqrt(variance))
    if len(bad := np.flatnonzero(~np.isfinite(scale))):
        raise UserError(f"{source}: column {bad[0]} (counted from 0) is too large to have a variance: divide it by a constant")
    if len(bad := np.flatnonzero(scale <= 1e-12 * np.abs(shift))):  # nothing but rounding errors
        where = "all pixels have" if axes is None else f"column {bad[0]} (counted from 0) has"
        raise UserError(f"{source}: {where} the same value {shift[bad[0]]:g}, so there is no density to learn: leave it out")
    return Scaling(tuple(shift.tolist()), tuple(scale.tolist()), examples.levels)


def in_chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Rows in float64, a part at a time."""
    for start in range(0, len(rows), chunk := chunk_rows(rows)):
        yield rows[start : start + chunk].astype(np.float64)


def chunk_rows(rows: np.ndarray) -> int:
    """How many rows may be in memory at once."""
    return max(1, CHUNK_BYTES // rows[:1].nbytes)


def read_cache(folder: Path, source: str) -> Data:
    """A cache that lies there whole; `UserError` if somebody damaged it."""
    try:
        return opened(folder, source)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the cache {folder} of {source} is damaged ({error}): remove that folder") from error


def opened(folder: Path, source: str) -> Data:
    """The data in a cache; raises nearly anything if it is damaged."""
    facts = json.loads((folder / "meta.json").read_text())

    def split(name: str) -> Split:
        labels = folder / f"{name}-labels.npy"
        x = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return Split(x, np.load(labels, allow_pickle=False) if labels.exists() else None)

    scaling = facts["scaling"]
    return Data(
        source, facts["kind"], tuple(facts["event_shape"]), facts["levels"],
        {name: split(name) for name in ("train", "validation", "test")}, tuple(facts["classes"]), tuple(facts["skipped"]),
        Scaling(tuple(scaling["shift"]), tuple(scaling["scale"]), scaling["levels"]), folder, tuple(facts["official"]),
        facts["fingerprint"],
    )  # fmt: skip
