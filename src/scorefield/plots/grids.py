"""Images of images."""

import math
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

CELL = 56
"""least pixels a small image is enlarged to"""
GAP, WIDE_GAP = 2, 14
BACKGROUND = 255


def to_pixels(raw: Tensor, levels: int) -> np.ndarray:
    """Integer levels 0 … levels − 1 `(k, c, h, w)` as uint8 0 … 255 `(k, h, w)`, or `(k, h, w, c)` for colour."""
    pixels = (raw.double() * (255 / (levels - 1))).round().clamp(0, 255).numpy().astype(np.uint8)
    return pixels[:, 0] if pixels.shape[1] == 1 else np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def sample_grid(pixels: np.ndarray, columns: int | None = None) -> Image.Image:
    """uint8 images `(k, h, w[, c])` in a nearly square grid, small ones enlarged by a whole factor."""
    columns = columns or math.ceil(math.sqrt(len(pixels)))
    rows = [pixels[i : i + columns] for i in range(0, len(pixels), columns)]
    return Image.fromarray(stacked([side_by_side(enlarged(row), GAP) for row in rows]))


def neighbour_rows(samples: np.ndarray, neighbours: np.ndarray) -> Image.Image:
    """Each sample `(r, h, w[, c])` at the left of a row of its nearest training images `(r, k, h, w[, c])`."""
    rows = []
    for sample, near in zip(samples, neighbours, strict=True):
        left, right = enlarged(sample[None])[0], side_by_side(enlarged(near), GAP)
        rows.append(np.concatenate([left, blank(left, WIDE_GAP), right], 1))
    return Image.fromarray(stacked(rows))


def save_film(frames: list[Image.Image], path: Path) -> None:
    """A GIF that repeats, twelve frames a second; the last frame stays two seconds."""
    durations = [80] * (len(frames) - 1) + [2000]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, disposal=1)


def enlarged(images: np.ndarray) -> np.ndarray:
    """Each pixel as a square, so that the shorter side reaches `CELL`."""
    factor = max(1, math.ceil(CELL / min(images.shape[1:3])))
    return images.repeat(factor, 1).repeat(factor, 2)


def side_by_side(images: np.ndarray, gap: int) -> np.ndarray:
    """`(k, h, w[, c])` in one row."""
    parts = [part for image in images for part in (blank(image, gap), image)][1:]
    return np.concatenate(parts, 1)


def blank(image: np.ndarray, width: int) -> np.ndarray:
    """A white strip as high as `image`."""
    return np.full((image.shape[0], width, *image.shape[2:]), BACKGROUND, np.uint8)


def stacked(rows: list[np.ndarray]) -> np.ndarray:
    """Rows under each other, the last one filled up with white."""
    width = rows[0].shape[1]
    filled = [np.concatenate([row, blank(row, width - row.shape[1])], 1) for row in rows]
    strip = np.full((GAP, *filled[0].shape[1:]), BACKGROUND, np.uint8)
    return np.concatenate([part for row in filled for part in (strip, row)][1:])
