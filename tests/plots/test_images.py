"""Grids and films, pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from scorefield.plots import neighbour_rows, sample_grid, save_film, to_pixels


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_fill_the_range_of_a_byte(levels: int) -> None:
    raw = torch.arange(levels).float().reshape(1, 1, 1, levels)
    pixels = to_pixels(raw, levels)
    assert pixels.dtype == np.uint8
    assert pixels[0, 0].tolist() == [int(i * 255 / (levels - 1) + 0.5) for i in range(levels)]


def test_colours_come_last() -> None:
    raw = torch.arange(12).float().reshape(1, 3, 2, 2)
    pixels = to_pixels(raw, 256)
    assert pixels.shape == (1, 2, 2, 3)
    assert pixels[0, 0, 1].tolist() == [1, 5, 9]


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        to_pixels(torch.zeros(1, 2, 4, 4), 256)


def test_small_images_are_enlarged_side_by_side() -> None:
    """Three 8 × 8 images in two columns: cells of 48, gaps of 2, an empty white cell at the end."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (3, 8, 8), dtype=np.uint8)
    grid = np.array(sample_grid(images))
    expected = np.full((98, 98), 255, np.uint8)
    big = np.kron(images, np.ones((1, 6, 6), np.uint8))
    expected[:48, :48], expected[:48, 50:], expected[50:, :48] = big
    np.testing.assert_array_equal(grid, expected)


def test_large_colour_images_keep_their_size() -> None:
    images = np.random.default_rng(1).integers(0, 255, (2, 50, 60, 3), dtype=np.uint8)
    grid = np.array(sample_grid(images, columns=1))
    assert grid.shape == (102, 60, 3)
    np.testing.assert_array_equal(grid[:50], images[0])
    np.testing.assert_array_equal(grid[52:], images[1])
    assert (grid[50:52] == 255).all()


@pytest.mark.parametrize(("n", "size"), [(1, (48, 48)), (7, (148, 148)), (10, (198, 148)), (4096, (2174, 2174))])
def test_grids_are_near_square_and_bounded(n: int, size: tuple[int, int]) -> None:
    assert sample_grid(np.zeros((n, 8, 8), np.uint8)).size == size


def test_a_row_is_a_sample_a_wide_gap_and_its_neighbours() -> None:
    samples = np.array([10, 20], np.uint8)[:, None, None] + np.zeros((2, 48, 48), np.uint8)
    neighbours = np.array([[1, 2], [3, 4]], np.uint8)[:, :, None, None] + np.zeros((2, 2, 48, 48), np.uint8)
    picture = np.array(neighbour_rows(samples, neighbours))
    runs = [48, 16, 48, 2, 48]
    first, second = (np.repeat(np.array(row, np.uint8), runs) for row in ([10, 255, 1, 255, 2], [20, 255, 3, 255, 4]))
    expected = np.concatenate([np.tile(first, (48, 1)), np.full((2, 162), 255), np.tile(second, (48, 1))])
    np.testing.assert_array_equal(picture, expected)


def test_colour_neighbours() -> None:
    samples = np.random.default_rng(2).integers(0, 255, (1, 48, 48, 3), dtype=np.uint8)
    picture = np.array(neighbour_rows(samples, np.stack([samples, samples], 1)))
    assert picture.shape == (48, 48 + 16 + 48 + 2 + 48, 3)
    np.testing.assert_array_equal(picture[:, 64:112], samples[0])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_film_loops_and_rests_on_its_last_frame(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ".film.gif.part"
    frames = [Image.new("L", (30, 20), value).convert(mode) for value in (0, 100, 250)]
    save_film(frames, path)
    with Image.open(path) as film:
        assert (film.format, film.info["loop"]) == ("GIF", 0)
        found = [(frame.info["duration"], frame.convert("L").getpixel((5, 5))) for frame in ImageSequence.Iterator(film)]
    assert found == [(80, 0), (80, 100), (2000, 250)]


def test_a_film_of_one_frame(tmp_path: Path) -> None:
    save_film([Image.new("L", (4, 4), 7)], tmp_path / "one")
    with Image.open(tmp_path / "one") as film:
        assert film.convert("L").getpixel((0, 0)) == 7
