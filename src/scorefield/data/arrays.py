"""Arrays in files: `.npy`, `.npz` and MNIST's idx format."""

import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from scorefield.data.examples import Example, Examples
from scorefield.data.images import Reading, pixels
from scorefield.errors import UserError

NAMES = ("samples", "x", "X", "images")
IDX_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
GZIP = b"\x1f\x8b"


def array_file(path: Path, reading: Reading) -> Examples:
    """A `.npy` or `.npz` file; errors as in `open_data`."""
    return examples_of(load_array(path), str(path), reading)


def load_array(path: Path) -> np.ndarray:
    """The array in a `.npy` or `.npz` file; `UserError` if there is none."""
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                return only_array(path, loaded)
        return loaded
    except UserError:
        raise
    except Exception as error:  # damaged files make numpy and zipfile raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} is not a whole numpy array of plain numbers ({reason}): write it again by numpy.save"
        ) from error


def only_array(path: Path, archive: "np.lib.npyio.NpzFile") -> np.ndarray:
    """The array a `.npz` is about: the only one, or the one with a usual name."""
    names = archive.files
    chosen = names[0] if len(names) == 1 else next((n for n in NAMES if n in names), None)
    if chosen is None:
        raise UserError(f"{path} holds the arrays {', '.join(names) or '(none)'}: keep one, or name it {' or '.join(NAMES)}")
    if not isinstance(array := archive[chosen], np.ndarray):
        raise UserError(f"{path} holds {chosen}, which is not an array: write it again by numpy.savez")
    return array


def examples_of(array: np.ndarray, name: str, reading: Reading) -> Examples:
    """uint8 `(n, h, w[, c])` as images, floats `(n, d)` as vectors in their own dtype."""
    filled = 0 not in array.shape[1:]
    if filled and array.dtype == np.uint8 and (array.ndim == 3 or (array.ndim == 4 and array.shape[-1] in (1, 3, 4))):
        return image_array(array, reading)
    if filled and array.dtype in (np.float32, np.float64) and array.ndim == 2:
        return vector_array(array, name)
    raise UserError(
        f"{name} holds {array.dtype} of shape {array.shape}: convert it to images, uint8 (n, h, w) or (n, h, w, c) with "
        "c = 1, 3 or 4, or to vectors, float32 or float64 (n, d)"
    )


def image_array(array: np.ndarray, reading: Reading) -> Examples:
    """Images, each through Pillow if it has to change."""
    grey = array.ndim == 3 or array.shape[-1] == 1
    wanted = grey if reading.channels == "auto" else reading.channels == "grey"
    plain = wanted == grey and reading.size is None and array.shape[3:] != (4,)

    def read() -> Iterator[Example]:
        for row in array:
            flat = row[..., 0] if row.ndim == 3 and grey else row
            if plain:
                yield Example(flat[None] if grey else flat.transpose(2, 0, 1))
            else:
                yield Example(pixels(Image.fromarray(flat), reading, wanted, deep=False))

    return Examples("images", len(array), 256, read)


def vector_array(array: np.ndarray, name: str) -> Examples:
    """Rows of floats; the first NaN or infinity is named while they are read."""

    def read() -> Iterator[Example]:
        for i, row in enumerate(array):
            if not np.isfinite(row).all():
                column = int(np.argmin(np.isfinite(row)))
                raise UserError(
                    f"{name}: {row[column]} in row {i}, column {column} (counted from 0): remove or impute it first"
                )
            yield Example(row)

    return Examples("vectors", len(array), None, read)


def looks_like_idx(path: Path) -> bool:
    """Whether a file begins as an idx file or, as those often come, as a gzip file."""
    with path.open("rb") as file:
        begin = file.read(3)
    return begin[:2] == GZIP or (len(begin) == 3 and begin[:2] == b"\0\0" and begin[2] in IDX_DTYPES)


def read_idx(path: Path) -> np.ndarray:
    """An idx file, plain or gzipped; `UserError` if it is none or cut short."""
    raw = path.read_bytes()
    try:
        raw = gzip.decompress(raw) if raw[:2] == GZIP else raw
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file ({error}): copy it again") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in IDX_DTYPES:
        raise UserError(f"{path} is not an idx file, it does not begin as one: copy it again")
    dtype, start = np.dtype(IDX_DTYPES[raw[2]]), 4 + 4 * raw[3]
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4)) if len(raw) >= start else (0,)
    wanted = start + dtype.itemsize * math.prod(shape)
    if len(raw) != wanted:
        raise UserError(f"{path} has {len(raw)} bytes and should have {wanted}, it is cut short or damaged: copy it again")
    return np.frombuffer(raw, dtype, offset=start).reshape(shape)


def idx_folder(folder: Path, reading: Reading, classes: tuple[str, ...] = ()) -> Examples | None:
    """A folder with MNIST's file names (train and, as the official test set, t10k); None if it is no such folder."""
    train, test = (first_of(folder / f"{stem}-images-idx3-ubyte") for stem in ("train", "t10k"))
    return None if train is None else idx_examples([train] if test is None else [train, test], reading, classes)


def first_of(path: Path) -> Path | None:
    """A file, or its gzipped version, or None."""
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def idx_examples(paths: list[Path], reading: Reading, classes: tuple[str, ...] = ()) -> Examples:
    """One idx file of images, or two of which the second is the official test set; labels from the files beside them.

    Raises:
        UserError: a file cut short, images of different sizes, or labels that do not fit.
    """
    arrays = [read_idx(path) for path in paths]
    if reading.size is None and arrays[0].shape[1:] != arrays[-1].shape[1:]:
        sizes = " and ".join(f"{path} {array.shape[1:]}" for path, array in zip(paths, arrays, strict=True))
        raise UserError(f"images of different sizes: {sizes}; give --reading.size N to make all of them N×N")
    parts = [examples_of(array, str(path), reading) for array, path in zip(arrays, paths, strict=True)]
    labels = [labels_beside(path, part.total, len(classes)) for path, part in zip(paths, parts, strict=True)]
    highest = max((int(k.max()) for k in labels if k is not None and len(k)), default=-1)

    def read() -> Iterator[Example]:
        for number, (part, known) in enumerate(zip(parts, labels, strict=True)):
            for i, example in enumerate(part.read()):
                yield Example(example.x, -1 if known is None else int(known[i]), "test" if number == 1 else "")

    named = classes or tuple(str(k) for k in range(highest + 1))
    return Examples(parts[0].kind, sum(part.total for part in parts), parts[0].levels, read, named)


def labels_beside(path: Path, n: int, classes: int) -> np.ndarray | None:
    """Labels `(n,)` of `…-images-idx3-ubyte`, in `…-labels-idx1-ubyte` of the same folder; `classes` of them, 0 if unknown."""
    if "-images-idx3" not in path.name:
        return None
    found = first_of(path.with_name(path.name.removesuffix(".gz").replace("-images-idx3", "-labels-idx1")))
    labels = None if found is None else read_idx(found)
    if labels is not None and (labels.shape != (n,) or labels.dtype != np.uint8):
        raise UserError(
            f"{found} holds {labels.dtype} of shape {labels.shape} for {n} images, not one uint8 each: correct or remove it"
        )
    if labels is not None and classes and labels.max(initial=0) >= classes:
        raise UserError(f"{found} has the label {labels.max()}, and there are only {classes} classes: correct or remove it")
    return labels
