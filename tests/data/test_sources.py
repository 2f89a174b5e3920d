"""Every source, from files with known content to the arrays in the cache."""

import gzip
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield import UserError
from scorefield.data import Data, Reading, holds_vectors, open_data
from scorefield.data.sources import FASHION_MNIST
from scorefield.recipes import recipe_for


def rows(data: Data) -> np.ndarray:
    """All examples, sorted, so that sets can be compared."""
    x = np.concatenate([np.array(split.x) for split in data.splits.values()])
    return x[np.lexsort(x.reshape(len(x), -1).T)]


def expected(x: np.ndarray) -> np.ndarray:
    return x[np.lexsort(x.reshape(len(x), -1).T)]


def noise(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def save_all(folder: Path, images: np.ndarray, suffix: str = ".png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:03}{suffix}")
    return folder


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def opened(path: object, cache: Path, **reading: object) -> Data:
    return open_data(str(path), Reading(**reading), cache=cache)  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_digits_keep_their_levels(cache: Path) -> None:
    from sklearn.datasets import load_digits

    data = opened("digits", cache)
    bunch = load_digits()
    np.testing.assert_array_equal(rows(data), expected(bunch.images.astype(np.uint8)[:, None]))
    assert (data.levels, data.event_shape, data.kind, data.official) == (17, (1, 8, 8), "images", ())
    train = data.splits["train"]
    known = {x.astype(np.uint8).tobytes(): k for x, k in zip(bunch.images, bunch.target, strict=True)}
    assert train.labels is not None
    assert [known[x.tobytes()] for x in train.x[:200]] == train.labels[:200].tolist()
    x = train.x.astype(np.float64)
    np.testing.assert_allclose(data.scaling.shift, [x.mean()])
    np.testing.assert_allclose(data.scaling.scale, [x.std()])


def test_grey_folder_with_classes(tmp_path: Path, cache: Path) -> None:
    a, b = noise(12, 6, 5), noise(9, 6, 5, seed=1)
    save_all(tmp_path / "set" / "cats" / "deep", a)
    save_all(tmp_path / "set" / "dogs", b, ".bmp")
    (tmp_path / "set" / "dogs" / ".hidden.png").write_bytes(b"no image")
    (tmp_path / "set" / "notes.txt").write_text("no image")
    data = opened(tmp_path / "set", cache)
    np.testing.assert_array_equal(rows(data), expected(np.concatenate([a, b])[:, None]))
    assert data.classes == ("cats", "dogs")
    assert data.levels == 256
    train = data.splits["train"]
    assert train.labels is not None
    known = {x.tobytes() for x in a}
    assert all((x.tobytes() in known) == (label == 0) for x, label in zip(train.x, train.labels, strict=True))


def test_colour_transparency_and_palette(tmp_path: Path, cache: Path) -> None:
    folder = save_all(tmp_path / "set", noise(10, 4, 4, 3))
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[..., 3] = np.arange(16).reshape(4, 4) * 17  # black, from invisible to opaque
    Image.fromarray(clear, "RGBA").save(folder / "alpha.png")
    palette = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) % 3, "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(folder / "palette.png")
    data = opened(folder, cache)
    assert data.event_shape == (3, 4, 4)
    found = {x.tobytes() for split in data.splits.values() for x in split.x}
    on_white = np.broadcast_to(255 - clear[..., 3], (3, 4, 4)).astype(np.uint8)
    assert on_white.tobytes() in found
    red_green_blue = np.eye(3, dtype=np.uint8)[np.arange(16).reshape(4, 4) % 3].transpose(2, 0, 1) * 255
    assert np.ascontiguousarray(red_green_blue).tobytes() in found


def test_one_colour_image_makes_all_rgb_unless_told(tmp_path: Path, cache: Path) -> None:
    folder = save_all(tmp_path / "set", noise(10, 4, 4))
    Image.fromarray(np.full((4, 4, 3), (10, 200, 30), np.uint8)).save(folder / "colour.png")
    assert opened(folder, cache).event_shape == (3, 4, 4)
    grey = opened(folder, cache, channels="grey")
    assert grey.event_shape == (1, 4, 4)
    luma = round(0.299 * 10 + 0.587 * 200 + 0.114 * 30)
    assert np.full((1, 4, 4), luma, np.uint8).tobytes() in {x.tobytes() for s in grey.splits.values() for x in s.x}


def test_sixteen_bits_stay(tmp_path: Path, cache: Path) -> None:
    images = np.random.default_rng(0).integers(0, 65536, (12, 4, 4), dtype=np.uint16)
    folder = save_all(tmp_path / "deep", images)
    data = opened(folder, cache)
    assert data.levels == 65536
    np.testing.assert_array_equal(rows(data), expected(images[:, None]))
    save_all(folder / "more", noise(3, 4, 4))  # one 8-bit file, and all become 8 bits
    mixed = opened(folder, cache)
    assert mixed.levels == 256
    assert (images[0] // 257).astype(np.uint8).tobytes() in {x.tobytes() for s in mixed.splits.values() for x in s.x}


def test_exif_orientation_is_applied(tmp_path: Path, cache: Path) -> None:
    folder = save_all(tmp_path / "set", noise(10, 6, 4))
    image = Image.fromarray(noise(1, 4, 6, seed=3)[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    image.save(folder / "turned.png", exif=exif)
    upright = np.rot90(np.asarray(image), -1)
    found = {x.tobytes() for s in opened(folder, cache).splits.values() for x in s.x}
    assert np.ascontiguousarray(upright).tobytes() in found


def test_sizes_by_crop_and_squash(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(10):
        Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(folder / f"{i}.png")
    wide = np.zeros((8, 16), np.uint8)
    wide[:, 4:12] = 200  # the middle half is bright, and is what a crop keeps
    Image.fromarray(wide).save(folder / "wide.png")
    cropped = opened(folder, cache, size=4)
    assert max(x.min() for s in cropped.splits.values() for x in s.x) > 180 >= 20 * 9  # but for the filter's edges
    squashed = opened(folder, cache, size=4, fit="squash")
    found = [x for s in squashed.splits.values() for x in s.x if x.std() > 20]
    assert len(found) == 1
    assert found[0][0, :, 0].max() < 60 < 150 < found[0][0, :, 1:3].min()


def test_npy_images_and_vectors(tmp_path: Path, cache: Path) -> None:
    for shape in ((6, 5), (6, 5, 1), (6, 5, 3)):
        images = noise(20, *shape)
        np.save(tmp_path / "x.npy", images)
        channels = images[..., None] if images.ndim == 3 else images
        np.testing.assert_array_equal(rows(opened(tmp_path / "x.npy", cache)), expected(channels.transpose(0, 3, 1, 2)))
    for dtype in (np.float32, np.float64):
        vectors = np.random.default_rng(0).normal([1e3, -3], [0.1, 50], (40, 2)).astype(dtype)
        np.savez(tmp_path / "v.npz", vectors)
        data = opened(tmp_path / "v.npz", cache)
        assert data.splits["train"].x.dtype == dtype
        np.testing.assert_array_equal(rows(data), expected(vectors))
        x = np.array(data.splits["train"].x, np.float64)
        np.testing.assert_allclose(data.scaling.shift, x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(data.scaling.scale, x.std(0), rtol=1e-9)


def test_npy_alpha_goes_on_white(tmp_path: Path, cache: Path) -> None:
    images = noise(20, 4, 4, 4)
    images[..., :3] = 0
    np.save(tmp_path / "x.npy", images)
    on_white = np.broadcast_to((255 - images[..., 3])[:, None], (20, 3, 4, 4))
    np.testing.assert_array_equal(rows(opened(tmp_path / "x.npy", cache)), expected(np.ascontiguousarray(on_white)))


def test_npz_names(tmp_path: Path, cache: Path) -> None:
    x = noise(20, 4, 4)
    np.savez(tmp_path / "two.npz", labels=np.arange(20), samples=x)
    np.testing.assert_array_equal(rows(opened(tmp_path / "two.npz", cache)), expected(x[:, None]))
    np.savez(tmp_path / "odd.npz", a=x, b=x)
    with pytest.raises(UserError, match=r"odd\.npz holds the arrays a, b"):
        opened(tmp_path / "odd.npz", cache)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folder_with_official_test(tmp_path: Path, cache: Path, suffix: str) -> None:
    train, test = noise(40, 5, 6), noise(8, 5, 6, seed=1)
    for stem, x in (("train", train), ("t10k", test)):
        labels = np.arange(len(x), dtype=np.uint8) % 3
        for kind, content in (("images-idx3", idx_bytes(x)), ("labels-idx1", idx_bytes(labels))):
            path = tmp_path / f"{stem}-{kind}-ubyte{suffix}"
            path.write_bytes(gzip.compress(content) if suffix else content)
    data = opened(tmp_path, cache)
    assert data.official == ("test",)
    np.testing.assert_array_equal(data.splits["test"].x, test[:, None])
    assert data.splits["test"].labels is not None
    assert data.splits["test"].labels.tolist() == [k % 3 for k in range(8)]
    both = np.concatenate([data.splits["train"].x, data.splits["validation"].x])
    np.testing.assert_array_equal(expected(both), expected(train[:, None]))
    assert len(data.splits["validation"].x) == 4
    alone = opened(tmp_path / f"train-images-idx3-ubyte{suffix}", tmp_path / "other")
    assert alone.official == ()
    assert alone.classes == ("0", "1", "2")


def test_hub_against_a_local_stub(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network here: `datasets.load_dataset` is replaced by one that returns a data set made on the spot."""
    import datasets

    def part(images: np.ndarray) -> datasets.Dataset:
        features = datasets.Features(
            {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"]), "id": datasets.Value("int64")}
        )
        columns = {"picture": [Image.fromarray(x) for x in images], "kind": [i % 2 for i in range(len(images))]}
        return datasets.Dataset.from_dict({**columns, "id": list(range(len(images)))}, features=features)

    train, test = noise(30, 4, 4), noise(6, 4, 4, seed=1)
    validation = noise(7, 4, 4, seed=2)
    whole = datasets.DatasetDict(
        {"train": part(train), "validation": part(validation), "test": part(test), "extra": part(test)}
    )
    asked: list[str] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name: (asked.append(name), whole)[1])
    data = opened("hf:owner/name", cache)
    assert asked == ["owner/name"]
    assert data.classes == ("a", "b")
    for name, images in (("train", train), ("validation", validation), ("test", test)):
        np.testing.assert_array_equal(data.splits[name].x, images[:, None])
    assert data.splits["test"].labels is not None
    assert data.splits["test"].labels.tolist() == [0, 1] * 3

    def fails(name: str) -> None:
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "load_dataset", fails)
    with pytest.raises(UserError, match="hf:owner/other cannot be loaded from the Hugging Face hub: no network"):
        opened("hf:owner/other", cache)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((30, 2), np.int64), "int64"),
        (np.zeros((30, 2), np.complex128), "complex128"),
        (np.zeros((30, 2, 2)), r"shape \(30, 2, 2\)"),
        (noise(30, 4, 4, 5), r"shape \(30, 4, 4, 5\)"),
        (np.zeros(30), r"shape \(30,\)"),
        (np.random.default_rng(0).normal(size=(9, 2)), "9 examples are too few"),
        (np.zeros((0, 2)), "0 examples are too few"),
        (np.ones((30, 2)), "only 1 of the 30 examples"),
        (np.stack([np.arange(30.0), np.full(30, 7)], 1), "column 1 .* same value 7"),
        (np.where(np.arange(60).reshape(30, 2) == 21, np.inf, 1.0), "inf in row 10, column 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_arrays_that_are_refused(tmp_path: Path, cache: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(UserError, match=words):
        opened(tmp_path / "x.npy", cache)
    assert not list(cache.glob("*"))


def test_idx_test_images_may_lack_labels_and_show_more_classes(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(noise(40, 5, 6)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(40, dtype=np.uint8) % 3))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(noise(8, 5, 6, seed=1)))
    data = opened(tmp_path, cache)
    assert data.splits["test"].labels is None
    assert data.splits["train"].labels is not None
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(8, dtype=np.uint8)))
    data = opened(tmp_path, cache)
    assert data.classes == tuple("01234567")
    assert data.splits["test"].labels is not None
    assert data.splits["test"].labels.tolist() == list(range(8))


def test_idx_files_of_any_name_and_of_two_sizes(tmp_path: Path, cache: Path) -> None:
    x = noise(20, 4, 4)
    (tmp_path / "mine.idx").write_bytes(idx_bytes(x))
    np.testing.assert_array_equal(rows(opened(tmp_path / "mine.idx", cache)), expected(x[:, None]))
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(x))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(noise(20, 5, 4)))
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte .*t10k-images-idx3-ubyte .*--reading\.size"):
        opened(folder, cache)
    assert opened(folder, cache, size=4).splits["test"].x.shape == (20, 1, 4, 4)


@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_from_debian() -> None:
    data = open_data("fashion-mnist")  # in the cache of the test session, for others to use
    assert (data.event_shape, data.levels, data.official) == ((1, 28, 28), 256, ("test",))
    assert {k: len(v.x) for k, v in data.splits.items()} == {"train": 55_000, "validation": 5000, "test": 10_000}
    train, validation, test = (data.splits[name].labels for name in ("train", "validation", "test"))
    assert train is not None
    assert validation is not None
    assert test is not None
    assert np.bincount(test).tolist() == [1000] * 10
    assert (np.bincount(train) + np.bincount(validation)).tolist() == [6000] * 10
    assert [data.classes[k] for k in test[:4]] == ["Ankle boot", "Pullover", "Trouser", "Trouser"]
    assert data.scaling.shift[0] == pytest.approx(0.2860 * 255, rel=0.005)  # the known mean and deviation of all 60,000
    assert data.scaling.scale[0] == pytest.approx(0.3530 * 255, rel=0.005)


def hub_part(images: list[np.ndarray | None], labels: list[int | None]) -> Any:
    """A data set with columns picture, other, label and id."""
    import datasets

    kinds = datasets.ClassLabel(names=["a", "b"])
    features = datasets.Features({"picture": datasets.Image(), "other": kinds, "label": kinds, "id": datasets.Value("int64")})
    columns = {"picture": [None if x is None else Image.fromarray(x) for x in images], "other": [0] * len(images)}
    return datasets.Dataset.from_dict({**columns, "label": labels, "id": [*range(len(images))]}, features=features)


def test_fashion_mnist_from_the_hub_where_debian_has_none(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network here: `datasets.load_dataset` is replaced by one that returns a data set made on the spot."""
    import datasets

    asked: list[str] = []
    part = hub_part([*noise(20, 4, 4)], [0, 1] * 10)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: (asked.append(name), datasets.DatasetDict(train=part))[1])
    monkeypatch.setattr("scorefield.data.sources.FASHION_MNIST", tmp_path / "nowhere")
    assert opened("fashion-mnist", cache).event_shape == (1, 4, 4)
    assert asked == ["zalando-datasets/fashion_mnist"]


def test_hub_colours_labels_and_gaps(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network here: `datasets.load_dataset` is replaced by one that returns a data set made on the spot."""
    import datasets

    colour = noise(1, 4, 4, 3)[0]
    pictures = [*noise(20, 4, 4), colour]
    held = {"test": hub_part(pictures, [1] * 20 + [None])}  # no train: an ordinary split
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(held))
    data = opened("hf:owner/mixed", cache)
    assert data.event_shape == (3, 4, 4)  # one image has colours, and it is not the first
    assert np.ascontiguousarray(colour.transpose(2, 0, 1)).tobytes() in {x.tobytes() for s in data.splits.values() for x in s.x}
    assert data.official == ()
    assert sorted(s.labels is None for s in data.splits.values()) == [False, False, True]  # one split has the unknown class
    assert all(s.labels is None or set(s.labels.tolist()) == {1} for s in data.splits.values())

    held["test"] = hub_part([*noise(20, 4, 4), None], [0] * 21)
    with pytest.raises(UserError, match=r"hf:owner/gap, test row 20 cannot be read .*--reading\.skip-bad"):
        opened("hf:owner/gap", cache)
    assert opened("hf:owner/gap", cache, skip_bad=True).skipped == ("test row 20",)

    held["test"] = hub_part([*noise(20, 4, 4), noise(1, 5, 4)[0]], [0] * 21)
    with pytest.raises(UserError, match=r"test row 0 is 4×4, .*test row 20 is 4×5; give --reading\.size"):
        opened("hf:owner/sizes", cache)

    held["test"] = held["test"].remove_columns("picture")
    with pytest.raises(UserError, match="hf:owner/none has no column of images, only other, label, id"):
        opened("hf:owner/none", cache)


def test_other_suffixes_are_ignored(tmp_path: Path, cache: Path) -> None:
    folder = save_all(tmp_path / "set", noise(10, 4, 4))
    for name in ("paper.pdf", "figure.eps", "film.mpg", "data.h5"):
        (folder / name).write_bytes(b"no image")
    assert sum(len(s.x) for s in opened(folder, cache).splits.values()) == 10


def test_columns_of_very_different_scales(tmp_path: Path, cache: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 2)) * [1e-14, 1e8] + [3e-14, 1e12]
    np.save(tmp_path / "x.npy", x)
    data = opened(tmp_path / "x.npy", cache)
    train = np.array(data.splits["train"].x)
    np.testing.assert_allclose(data.scaling.scale, train.std(0), rtol=1e-6)
    encoded = data.scaling.encode(torch.from_numpy(train))
    np.testing.assert_allclose(encoded.std(0, correction=0).numpy(), 1, rtol=1e-6)


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
@pytest.mark.parametrize("classes", [True, False], ids=["classes", "flat"])
def test_folders_named_like_splits_are_the_splits(tmp_path: Path, cache: Path, name: str, classes: bool) -> None:
    parts = {"train": noise(20, 4, 4), name: noise(4, 4, 4, seed=1), "test": noise(6, 4, 4, seed=2)}
    for part, images in parts.items():
        for kind in range(2):
            save_all(
                tmp_path / "set" / part / ("cats", "dogs")[kind] if classes else tmp_path / "set" / part / f"{kind}",
                images[kind::2],
            )
    if not classes:  # one image beside the sub-folders, and there are no classes
        Image.fromarray(noise(1, 4, 4, seed=3)[0]).save(tmp_path / "set" / "test" / "one.png")
    data = opened(tmp_path / "set", cache)
    assert data.official == ("validation", "test")
    assert data.classes == (("cats", "dogs") if classes else ())
    for part, split in (("train", "train"), (name, "validation"), ("test", "test")):
        found = {x.tobytes() for x in data.splits[split].x}
        assert {x.tobytes() for x in parts[part]} <= found
        assert len(found) == len(parts[part]) + (split == "test" and not classes)
    labels = data.splits["test"].labels
    assert (None if labels is None else labels.tolist()) == ([0, 0, 0, 1, 1, 1] if classes else None)


def test_a_split_that_is_missing_is_chosen_by_hash(tmp_path: Path, cache: Path) -> None:
    save_all(tmp_path / "set" / "train", noise(20, 4, 4))
    save_all(tmp_path / "set" / "test", noise(6, 4, 4, seed=2))
    data = opened(tmp_path / "set", cache)
    assert data.official == ("test",)
    assert {k: len(v.x) for k, v in data.splits.items()} == {"train": 18, "validation": 2, "test": 6}


def test_folders_named_otherwise_are_classes(tmp_path: Path, cache: Path) -> None:
    for name in ("train", "test", "car"):  # not all are splits
        save_all(tmp_path / "toys" / name, noise(10, 4, 4, seed=len(name)))
    assert opened(tmp_path / "toys", cache).classes == ("car", "test", "train")
    for name in ("test", "val"):  # nothing to train on
        save_all(tmp_path / "held" / name, noise(10, 4, 4, seed=len(name)))
    assert opened(tmp_path / "held", cache).classes == ("test", "val")


def test_which_array_files_hold_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they would be read: by the array that a .npz is about, suffixes of any case, and ~."""
    vectors, images = np.random.default_rng(0).normal(size=(30, 2)), noise(30, 4, 4)
    np.savez(tmp_path / "two.npz", labels=np.arange(30), samples=vectors)
    np.savez(tmp_path / "images.npz", first=vectors, images=images)
    np.save(tmp_path / "upper.npy", vectors)
    (tmp_path / "upper.npy").rename(tmp_path / "upper.NPY")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("notes.txt", "hello")
        archive.writestr("x.npy", (tmp_path / "upper.NPY").read_bytes())
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ("two.npz", "upper.NPY", "text.npz", "images.npz", "damaged.npz", "nowhere.npy", "")
    assert [holds_vectors(str(tmp_path / name)) for name in names] == [True] * 3 + [False] * 4
    assert holds_vectors("~/two.npz")
    assert recipe_for("~/two.npz").recipe == "vectors"
    assert recipe_for(str(tmp_path / "images.npz")).recipe == "images"
    assert not holds_vectors("~nobody-of-that-name/x.npy")
    assert not holds_vectors("hf:owner/name")
