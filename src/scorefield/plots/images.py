"""Grids of images and films of grids, drawn pixel by pixel: every cell is an integer enlargement of its image."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

CELL = 48
"""cells are enlarged to at least so many pixels, where the whole stays within `WHOLE`"""
WHOLE = 2048
GAP = 2
WIDE_GAP = 16
WHITE = 255
FRAME_MS, LAST_FRAME_MS = 80, 2000
"""GIF time is counted in hundredths of a second: 80 ms are 12.5 frames a second"""


def to_pixels(raw: Tensor, levels: int) -> np.ndarray:
    """Levels 0 … `levels` − 1 `(k, c, h, w)` as uint8 0 … 255: `(k, h, w)` for one channel, `(k, h, w, 3)` for three.

    Raises:
        ValueError: neither one channel nor three.
    """
    if raw.shape[1] not in (1, 3):
        raise ValueError(f"pictures have 1 or 3 channels, got {raw.shape[1]}")
    scaled = (raw.double() * (255 / (levels - 1))).round().clamp(0, 255)
    pixels = scaled.byte().cpu().permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(pixels[..., 0] if raw.shape[1] == 1 else pixels)


def sample_grid(pixels: np.ndarray, columns: int | None = None) -> Image.Image:
    """Images `(k, h, w)` or `(k, h, w, 3)`, uint8, row by row on white; `columns` is ⌈√k⌉ unless given."""
    columns = columns or math.ceil(math.sqrt(len(pixels)))
    rows = -(-len(pixels) // columns)
    height, width = pixels.shape[1:3]
    factor = enlargement(height, width, rows, columns)
    y = np.arange(rows) * (height * factor + GAP)
    x = np.arange(columns) * (width * factor + GAP)
    corners = [(y[i // columns], x[i % columns]) for i in range(len(pixels))]
    return paste(pixels, corners, factor)


def neighbour_rows(samples: np.ndarray, neighbours: np.ndarray) -> Image.Image:
    """In each row a sample `(r, h, w[, 3])`, a wider gap, and its neighbours `(r, k, h, w[, 3])`."""
    rows, k, height, width = neighbours.shape[:4]
    factor = enlargement(height, width, rows, k + 1)
    y = np.arange(rows) * (height * factor + GAP)
    x = np.arange(k + 1) * (width * factor + GAP) + np.where(np.arange(k + 1) > 0, WIDE_GAP - GAP, 0)
    images = np.concatenate([samples[:, None], neighbours], 1)
    return paste(images.reshape(-1, *samples.shape[1:]), [(b, a) for b in y for a in x], factor)


def enlargement(height: int, width: int, rows: int, columns: int) -> int:
    """The factor that makes cells at least `CELL` wide, or what `WHOLE` allows, or 1."""
    fits = min(WHOLE // (rows * height), WHOLE // (columns * width))
    return max(1, min(math.ceil(CELL / min(height, width)), fits))


def paste(images: np.ndarray, corners: Sequence[tuple[int, int]], factor: int) -> Image.Image:
    """Images `(k, h, w[, 3])`, each enlarged, on a white canvas just large enough; corners are (top, left)."""
    big = images.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = big.shape[1:3]
    top, left = np.max(corners, axis=0)
    canvas = np.full((top + height, left + width, *images.shape[3:]), WHITE, np.uint8)
    for image, (top, left) in zip(big, corners, strict=True):
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas)


def save_film(frames: list[Image.Image], path: Path) -> None:
    """A GIF that repeats for ever, about 12 frames a second, the last held for two seconds; whatever the suffix of `path`."""
    plain = [frame if frame.mode in ("L", "RGB") else frame.convert("RGB") for frame in frames]
    durations = [FRAME_MS] * (len(plain) - 1) + [LAST_FRAME_MS]
    plain[0].save(path, format="GIF", save_all=True, append_images=plain[1:], duration=durations, loop=0)
