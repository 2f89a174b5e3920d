"""Every bad source: one line that names the file, row or column, and the remedy; nothing is left in the cache."""

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scorefield import UserError
from scorefield.data import Reading, open_data


def noise(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def no_array() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("notes.txt", "hello")
    return file.getvalue()


def refusal(source: object, cache: Path, **reading: object) -> str:
    """The one line with which a source is refused."""
    with pytest.raises(UserError) as caught:
        open_data(str(source), Reading(**reading), cache=cache)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not [*cache.glob("*"), *cache.glob(".*")]
    return str(caught.value)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve grey 4×4 images, 000.png to 011.png."""
    path = tmp_path / "set"
    path.mkdir()
    for i, image in enumerate(noise(12, 4, 4)):
        Image.fromarray(image).save(path / f"{i:03}.png")
    return path


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cut.npy", npy(np.ones((300, 2)))[:900], "cut.npy not a whole numpy array numpy.save"),
        ("cut.npz", npz(x=np.ones((300, 2)))[:900], "cut.npz not a whole numpy array numpy.save"),
        ("empty.npy", b"", "empty.npy not a whole numpy array"),
        ("text.npy", b"1 2 3\n4 5 6\n", "text.npy not a whole numpy array"),
        ("notes.npz", no_array(), "notes.npz notes.txt not an array"),
        ("none.npz", npz(), "none.npz (none) keep one samples"),
        ("flat.npy", npy(np.zeros((30, 0))), "flat.npy float64 (30, 0)"),
        ("thin.npy", npy(noise(30, 0, 4)), "thin.npy uint8 (30, 0, 4)"),
        ("swapped.npy", npy(np.ones((30, 2), ">f8")), "swapped.npy >f8 float32 or float64"),
        ("two.npy", npy(np.repeat([[1.0, 2.0], [3.0, 4.0]], 20, 0)), "two.npy only 2 of the 40 examples are different"),
        ("huge.npy", npy(np.random.default_rng(0).normal(size=(30, 2)) * 1e200), "huge.npy column 0 too large divide"),
        ("cut-idx3-ubyte", idx(noise(30, 4, 4))[:100], "cut-idx3-ubyte 100 bytes 496 cut short"),
        ("cut-idx3-ubyte.gz", gzip.compress(idx(noise(30, 4, 4)))[:100], "cut-idx3-ubyte.gz not a whole gzip file"),
        ("forged-idx3-ubyte", bytes([0, 0, 8, 200]) + b"\xff" * 20, "forged-idx3-ubyte 24 bytes cut short"),
        ("int-idx2", bytes([0, 0, 12, 2]) + struct.pack(">2I", 1, 1) + bytes(4), "int-idx2 >i4 (1, 1)"),
        ("gzip.gz", gzip.compress(b"no array"), "gzip.gz not an idx file"),
        ("table.csv", b"a,b\n1,2\n", "table.csv tables come in a later version .npy"),
        ("table.TSV", b"a\tb\n", "table.TSV tables come in a later version .npy"),
        ("table.parquet", b"PAR1", "table.parquet tables come in a later version .npy"),
        ("notes.txt", b"hello", "notes.txt no data scorefield reads folder of images .npy"),
        ("empty", b"", "empty no data scorefield reads"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_files(tmp_path: Path, cache: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    line = refusal(tmp_path / name, cache)
    assert all(word in line for word in words.split()), line


def test_the_constant_column_is_named_beside_much_smaller_ones(tmp_path: Path, cache: Path) -> None:
    """The mean of a large constant is rounded, so that its deviation exceeds that of a small column."""
    columns = np.stack([np.random.default_rng(0).normal(size=50) * 1e-6, np.full(50, 1e12 / 3)], 1)
    np.save(tmp_path / "x.npy", columns)
    assert "column 1 (counted from 0) has the same value 3.33333e+11" in refusal(tmp_path / "x.npy", cache)


def test_nothing_there(tmp_path: Path, cache: Path) -> None:
    line = refusal(tmp_path / "nowhere", cache)
    assert "nowhere" in line
    assert "digits, fashion-mnist" in line
    assert "~nobody-of-that-name" in refusal("~nobody-of-that-name/x", cache)
    (tmp_path / "empty").mkdir()
    line = refusal(tmp_path / "empty", cache)
    assert "no images in" in line
    assert ".png" in line


def test_mixed_sizes(folder: Path, cache: Path) -> None:
    Image.fromarray(noise(1, 4, 7)[0]).save(folder / "wide.png")
    line = refusal(folder, cache)
    assert f"{folder}/000.png is 4×4, {folder}/wide.png is 7×4; give --reading.size" in line


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n"])
def test_unreadable_images(folder: Path, cache: Path, content: bytes) -> None:
    (folder / "bad.png").write_bytes(content)
    line = refusal(folder, cache)
    assert f"{folder}/bad.png cannot be read" in line
    assert "--reading.skip-bad" in line
    data = open_data(str(folder), Reading(skip_bad=True), cache=cache)
    assert data.skipped == ("bad.png",)
    assert sum(len(s.x) for s in data.splits.values()) == 12


@pytest.mark.parametrize(
    ("pixels", "words"),
    [(np.full((4, 4), 0.5, np.float32), "floats"), (np.full((4, 4), 70_000, np.int32), "outside the 16 bits")],
)
def test_images_that_would_have_to_be_clipped(folder: Path, cache: Path, pixels: np.ndarray, words: str) -> None:
    Image.fromarray(pixels).save(folder / "odd.tiff")
    line = refusal(folder, cache)
    assert "odd.tiff" in line
    assert words in line


@pytest.mark.parametrize(
    ("labels", "words"),
    [(np.zeros(7, np.uint8), "(7,) for 20 images"), (np.zeros((20, 1), np.uint8), "(20, 1) for 20 images")],
)
def test_labels_that_do_not_fit(tmp_path: Path, cache: Path, labels: np.ndarray, words: str) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(noise(20, 4, 4)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    line = refusal(tmp_path, cache)
    assert "train-labels-idx1-ubyte" in line
    assert words in line


def test_labels_beyond_the_known_classes(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(noise(20, 4, 4)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.full(20, 10, np.uint8)))
    monkeypatch.setattr("scorefield.data.sources.FASHION_MNIST", tmp_path)
    assert "label 10, and there are only 10 classes" in refusal("fashion-mnist", cache)


def test_readings_that_do_not_apply(tmp_path: Path, cache: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(30, 2)))
    assert "--reading.size" in refusal(tmp_path / "x.npy", cache, size=4)
    assert "--reading.channels" in refusal(tmp_path / "x.npy", cache, channels="grey")
    assert "digits are 8×8 and grey" in refusal("digits", cache, size=4)
    assert "digits are 8×8 and grey" in refusal("digits", cache, channels="rgb")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Reading(size=0), "--reading.size must be at least 1, got 0"),
        (lambda: Reading(fit="stretch"), "--reading.fit must be crop or squash, got 'stretch'"),  # type: ignore[arg-type]
        (lambda: Reading(channels="cmyk"), "--reading.channels must be auto, grey or rgb, got 'cmyk'"),  # type: ignore[arg-type]
    ],
)
def test_readings_that_are_none(make: Callable[[], Reading], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()
