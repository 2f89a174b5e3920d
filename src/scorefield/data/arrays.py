"""Arrays in files: `.npy`, `.npz` and MNIST's idx format."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from scorefield.data.examples import Example, Examples
from scorefield.data.images import Reading, pixels
from scorefield.errors import UserError

NAMES = ("samples", "x", "X", "images")
IDX_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def array_file(path: Path, reading: Reading) -> Examples:
    """A `.npy` or `.npz` file; errors as in `open_data`."""
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        array = only_array(path, loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except (ValueError, OSError, EOFError, BadZipFile, zlib.error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not a whole numpy array of plain numbers ({' '.join(str(error).split())})") from error
    return examples_of(array, str(path), reading)


def only_array(path: Path, archive: "np.lib.npyio.NpzFile") -> np.ndarray:
    """The array a `.npz` is about: the only one, or the one with a usual name."""
    names = archive.files
    chosen = names[0] if len(names) == 1 else next((n for n in NAMES if n in names), None)
    if chosen is None:
        raise UserError(f"{path} holds the arrays {', '.join(names) or '(none)'}: keep one, or name it {' or '.join(NAMES)}")
    return archive[chosen]


def examples_of(array: np.ndarray, name: str, reading: Reading) -> Examples:
    """uint8 `(n, h, w[, c])` as images, floats `(n, d)` as vectors in their own dtype."""
    if array.dtype == np.uint8 and (array.ndim == 3 or (array.ndim == 4 and array.shape[-1] in (1, 3, 4))):
        return image_array(array, reading)
    if array.dtype in (np.float32, np.float64) and array.ndim == 2:
        return vector_array(array, name)
    raise UserError(
        f"{name} holds {array.dtype} of shape {array.shape}: images are uint8 (n, h, w) or (n, h, w, c), "
        "vectors float32 or float64 (n, d)"
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


def read_idx(path: Path) -> np.ndarray:
    """An idx file, plain or gzipped; `UserError` if it is none or cut short."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file ({error})") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in IDX_DTYPES:
        raise UserError(f"{path} is not an idx file: it does not begin as one")
    dtype, ndim = np.dtype(IDX_DTYPES[raw[2]]), raw[3]
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim))
    wanted = 4 + 4 * ndim + dtype.itemsize * int(np.prod(shape))
    if len(raw) != wanted:
        raise UserError(f"{path} is {len(raw)} bytes long and should be {wanted} for shape {shape}: it is cut short or damaged")
    return np.frombuffer(raw, dtype, offset=4 + 4 * ndim).reshape(shape)


def idx_images(path: Path, reading: Reading, official_test: bool = False, classes: tuple[str, ...] = ()) -> Examples:
    """One idx file of images, with the labels file beside it if it has the usual name."""
    inner = examples_of(read_idx(path), str(path), reading)
    labels = labels_beside(path, inner.total)
    named = classes or (tuple(str(k) for k in range(int(labels.max()) + 1)) if labels is not None else ())

    def read() -> Iterator[Example]:
        for i, example in enumerate(inner.read()):
            yield Example(example.x, -1 if labels is None else int(labels[i]), official_test)

    return Examples(inner.kind, inner.total, inner.levels, read, named)


def labels_beside(path: Path, n: int) -> np.ndarray | None:
    """Labels of `…-images-idx3-ubyte`, in `…-labels-idx1-ubyte` of the same folder."""
    if "-images-idx3" not in path.name:
        return None
    stem = path.name.removesuffix(".gz").replace("-images-idx3", "-labels-idx1")
    found = next((p for p in (path.with_name(stem), path.with_name(stem + ".gz")) if p.exists()), None)
    labels = None if found is None else read_idx(found)
    if labels is not None and labels.shape != (n,):
        raise UserError(f"{found} has labels of shape {labels.shape} for {n} images")
    return labels


def idx_folder(folder: Path, reading: Reading, classes: tuple[str, ...] = ()) -> Examples | None:
    """A folder with MNIST's file names (train and, as the official test set, t10k); None if it is no such folder."""
    files = {stem: next(iter(sorted(folder.glob(f"{stem}-images-idx3-ubyte*"))), None) for stem in ("train", "t10k")}
    parts = [idx_images(p, reading, stem == "t10k", classes) for stem, p in files.items() if p is not None]
    if files["train"] is None:
        return None

    def read() -> Iterator[Example]:
        for part in parts:
            yield from part.read()

    return Examples("images", sum(p.total for p in parts), 256, read, parts[0].classes)
