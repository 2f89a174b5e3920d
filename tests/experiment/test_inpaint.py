"""Completions of images through files: what is known stays, chunks do not matter, and what does not fit is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from scorefield import Run, Training, UNetConfig, UserError, load, open_data, train
from scorefield.cli import main
from scorefield.data.scaling import Scaling
from scorefield.experiment.inpaint import CHUNK, read_incomplete, read_mask
from scorefield.models import ModelSpec
from scorefield.plots import to_pixels

DIGITS = ModelSpec((1, 8, 8), scaling=Scaling((5.0,), (6.0,), 17))
COLOUR = ModelSpec((3, 4, 6), scaling=Scaling((100.0,), (50.0,), 256))
SMALL = UNetConfig(channels=16, multipliers=(1,), blocks=1)
UPPER = np.repeat([True, False], 4)[:, None].repeat(8, 1)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mask of the upper half, in three formats, and three digits as `scorefield sample` writes them."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(UPPER).save("mask.png")
    np.save("mask.npy", UPPER.astype(np.float32))
    np.savez("mask.npz", UPPER)
    x = open_data("digits").splits["test"].x[:3]
    np.savez("digits.npz", samples=to_pixels(torch.from_numpy(x.astype(int)), 17))
    return tmp_path


def test_masks_in_every_format() -> None:
    for name in ("mask.png", "mask.npy", "mask.npz"):
        assert torch.equal(read_mask(Path(name), (8, 8)), torch.from_numpy(UPPER)), name
    Image.fromarray(UPPER.astype(np.uint8) * 200).convert("RGBA").save("colour.png")
    assert torch.equal(read_mask(Path("colour.png"), (8, 8)), torch.from_numpy(UPPER))


def test_images_in_the_levels_of_the_model() -> None:
    """0 … 255 becomes 0 … 16 and back without loss; what was given is kept as it was."""
    test = open_data("digits").splits["test"].x[:3]
    incomplete = read_incomplete("digits.npz", Path("mask.png"), DIGITS)
    np.testing.assert_array_equal(incomplete.raw, test)
    np.testing.assert_array_equal(incomplete.pixels, np.load("digits.npz")["samples"])
    np.testing.assert_array_equal(read_incomplete("digits", Path("mask.png"), DIGITS).raw[:, 0], load_digits().images)
    Image.fromarray(np.full((8, 8), 129, np.uint8)).save("between.png")  # between levels 8 and 9
    incomplete = read_incomplete("between.png", Path("mask.png"), DIGITS)
    assert incomplete.raw.unique().tolist() == [8]
    assert np.unique(incomplete.pixels).tolist() == [129]
    deep = ModelSpec((1, 8, 8), scaling=Scaling((3e4,), (1e4,), 65536))
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save("deep.png")
    incomplete = read_incomplete("deep.png", Path("mask.png"), deep)
    assert incomplete.raw.unique().tolist() == [40_000]
    assert np.unique(incomplete.pixels).tolist() == [round(40_000 / 257)]


def test_grey_images_have_a_place_in_colour_models() -> None:
    mask = np.eye(4, 6)
    np.save("small.npy", mask)
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    Image.fromarray(grey).save("grey.png")
    np.save("greys.npy", grey[None])
    for name in ("grey.png", "greys.npy"):
        incomplete = read_incomplete(name, Path("small.npy"), COLOUR)
        np.testing.assert_array_equal(incomplete.raw, np.broadcast_to(grey, (1, 3, 4, 6)))
        assert incomplete.pixels.shape == (1, 4, 6, 3)


@pytest.mark.parametrize("method", ["dps", "repaint"])
def test_known_pixels_stay_and_the_rest_varies(method: str, tiny_run: Path) -> None:
    flags = ["inpaint", str(tiny_run), "digits.npz", "--mask", "mask.png", "--method", method, "--steps", "4"]
    assert main([*flags, "-n", "7", "--out", "x.npz"]) == 0  # 21 completions: a full chunk and a part of one
    given, x = np.load("digits.npz")["samples"], np.load("x.npz")["samples"]
    assert x.shape == (21, 8, 8)
    assert x.dtype == np.uint8
    assert len(x) > CHUNK
    x = x.reshape(3, 7, 8, 8)
    np.testing.assert_array_equal(x[:, :, :4], np.broadcast_to(given[:, None, :4], (3, 7, 4, 8)))
    assert len(np.unique(x[0, :, 4:], axis=0)) == 7
    levels = np.round(np.arange(17) * 255 / 16).astype(np.uint8)
    assert set(np.unique(x)) <= set(levels)

    assert main([*flags, "-n", "7", "--out", "x.png"]) == 0
    picture = np.asarray(Image.open("x.png"))
    assert picture.shape == (3 * 50 - 2, 9 * 50 - 2)  # 8×8 pixels sixfold, and gaps of 2
    cells = np.stack([picture[r : r + 48 : 6, c : c + 48 : 6] for r in range(0, 150, 50) for c in range(0, 450, 50)])
    cells = cells.reshape(3, 9, 8, 8)
    np.testing.assert_array_equal(cells[:, 0], given)
    np.testing.assert_array_equal(cells[:, 1], np.where(UPPER, given, 128))
    np.testing.assert_array_equal(cells[:, 2:], x)


def test_completions_are_functions_of_the_seed(tiny_run: Path) -> None:
    Image.fromarray(np.load("digits.npz")["samples"][0]).save("one.png")
    flags = ["inpaint", str(tiny_run), "one.png", "--mask", "mask.npy", "--steps", "4"]
    for n, seed, name in ((3, 0, "a"), (20, 0, "b"), (3, 1, "c")):
        assert main([*flags, "-n", str(n), "--seed", str(seed), "--out", f"{name}.npz"]) == 0
    a, b, c = (np.load(f"{name}.npz")["samples"] for name in "abc")
    np.testing.assert_array_equal(a, b[:3])
    assert (a != c).any()


def test_colour_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 4, 6, 3), dtype=np.uint8)
    np.save("colour.npy", images)
    training = Training(steps=2, batch_size=8, threads=1, precision="float32")
    train(Run(str(tmp_path / "colour.npy"), network=SMALL, training=training), "run")
    Image.fromarray(images[0]).save("one.png")
    mask = np.eye(4, 6, dtype=bool)
    np.save("small.npy", mask)
    for name in ("x.npz", "x.png"):
        assert main(["inpaint", "run", "one.png", "--mask", "small.npy", "-n", "2", "--steps", "3", "--out", name]) == 0
    x = np.load("x.npz")["samples"]
    assert x.shape == (2, 4, 6, 3)
    np.testing.assert_array_equal(x[:, mask], np.broadcast_to(images[0][mask], (2, 4, 3)))


def test_what_is_learnt_is_filled_in(tmp_path: Path) -> None:
    """Images whose halves are equal: the known half tells the other, within what 300 steps of training give."""
    rng = np.random.default_rng(0)
    shades = rng.choice([60, 200], 400)
    images = np.repeat(shades, 16).reshape(-1, 4, 4) + rng.normal(0, 8, (400, 4, 4))
    np.save("shades.npy", images.clip(0, 255).astype(np.uint8))
    training = Training(steps=300, batch_size=32, learning_rate=3e-3, threads=1, precision="float32")
    train(Run(str(tmp_path / "shades.npy"), network=SMALL, training=training), "run")
    np.save("two.npy", np.stack([np.full((4, 4), 60), np.full((4, 4), 200)]).astype(np.uint8))
    np.save("half.npy", np.repeat([1, 0], 2)[:, None].repeat(4, 1))
    for method in ("dps", "repaint"):
        flags = ["--method", method, "--steps", "30", "-n", "8", "--out", f"{method}.npz"]
        assert main(["inpaint", "run", "two.npy", "--mask", "half.npy", *flags]) == 0
        filled = np.load(f"{method}.npz")["samples"].reshape(2, 8, 4, 4)[:, :, 2:].mean((2, 3))
        assert ((filled < 130) == [[True], [False]]).mean() > 0.85, method
    assert load("run").spec.event_shape == (1, 4, 4)


def test_grey_levels_are_not_taken_for_pixels() -> None:
    """Digits of 17 levels in an array of bytes would be nearly black."""
    np.savez("levels.npz", load_digits().images[:2].astype(np.uint8))
    with pytest.raises(UserError, match=r"levels\.npz holds no value above 16 of 255: multiply grey levels 0 … 16 by 255/16"):
        read_incomplete("levels.npz", Path("mask.png"), DIGITS)


def test_masks_that_leave_something_open() -> None:
    np.save("nan.npy", np.where(UPPER, 1.0, np.nan))
    with pytest.raises(UserError, match=r"the mask nan\.npy holds NaN"):
        read_mask(Path("nan.npy"), (8, 8))
    hole = np.stack([255 * np.ones((8, 8), np.uint8)] * 3 + [np.where(UPPER, 255, 0).astype(np.uint8)], -1)
    Image.fromarray(hole).save("hole.png")
    with pytest.raises(UserError, match=r"the mask hole\.png is transparent in parts"):
        read_mask(Path("hole.png"), (8, 8))
    hole[..., :3], hole[..., 3] = 255 * UPPER[..., None], 255
    Image.fromarray(hole).save("opaque.png")
    assert torch.equal(read_mask(Path("opaque.png"), (8, 8)), torch.from_numpy(UPPER))


def test_vectors_are_refused() -> None:
    with pytest.raises(UserError, match="inpaint completes images, and this model makes vectors of 3 numbers"):
        read_incomplete("digits.npz", Path("mask.png"), ModelSpec((3,)))
