"""Images: how files of every mode become `(c, h, w)` arrays of integer levels, and folders of them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from scorefield.data.examples import Example, Examples
from scorefield.errors import UserError

DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
AHEAD = 64


@dataclass(frozen=True)
class Reading:
    """How images are read."""

    size: int | None = None
    """side in pixels: images are made square of this size (needed if their sizes differ)"""
    fit: Literal["crop", "squash"] = "crop"
    """crop: the shorter side becomes SIZE and the centre is cut out; squash: both sides become SIZE"""
    channels: Literal["auto", "grey", "rgb"] = "auto"
    """auto: grey if all images are, else rgb"""
    skip_bad: bool = False
    """leave unreadable images out, and count them"""

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise UserError(f"--reading.size must be at least 1, got {self.size}")


def is_deep(image: Image.Image) -> bool:
    """Whether it has 16 bits a pixel (grey only)."""
    return image.mode in DEEP_MODES


def is_grey(image: Image.Image) -> bool:
    """Whether the mode has no colour (a palette counts as colour)."""
    return is_deep(image) or image.mode in ("1", "L", "LA")


def pixels(image: Image.Image, reading: Reading, grey: bool, deep: bool) -> np.ndarray:
    """`(c, h, w)` uint8, or uint16 if `deep`: turned upright by EXIF, transparency on white, palettes expanded."""
    image = ImageOps.exif_transpose(image)
    if deep:
        image = resized(Image.fromarray(np.asarray(image).astype(np.int32)), reading)
        return np.asarray(image).clip(0, 65535).astype(np.uint16)[None]
    if is_deep(image):
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    array = np.asarray(resized(image.convert("L" if grey else "RGB"), reading))
    return array[None] if grey else array.transpose(2, 0, 1)


def resized(image: Image.Image, reading: Reading) -> Image.Image:
    """The image as `reading` wants it, by Pillow's Lanczos filter; unchanged if it has the size already."""
    if reading.size is None or image.size == (reading.size, reading.size):
        return image
    square = (reading.size, reading.size)
    if reading.fit == "squash":
        return image.resize(square, Image.Resampling.LANCZOS)
    return ImageOps.fit(image, square, Image.Resampling.LANCZOS)


def image_folder(folder: Path, reading: Reading) -> Examples:
    """All images below a folder, hidden files and other suffixes left out; errors as in `open_data`."""
    paths = image_paths(folder)
    if not paths:
        raise UserError(
            f"no images in {folder}: scorefield looks for {', '.join(sorted(common_suffixes()))}, in sub-folders too"
        )
    classes = class_names(folder, paths)
    skipped: list[str] = []
    grey, deep = common_mode(folder, paths, reading, skipped)

    def decode(path: Path) -> np.ndarray | UserError:
        try:
            with Image.open(path) as image:
                return pixels(image, reading, grey, deep)
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return UserError(
                f"{path} cannot be read ({error}): mend or remove it, or leave such files out with --reading.skip-bad"
            )

    def read() -> Iterator[Example]:
        first: tuple[Path, tuple[int, ...]] | None = None
        skipped.clear()
        for path, array in decoded(paths, decode):
            if isinstance(array, UserError):
                if not reading.skip_bad:
                    raise array
                skipped.append(str(path.relative_to(folder)))
                continue
            first = first or (path, array.shape)
            if array.shape != first[1]:
                raise UserError(
                    f"images of different sizes: {first[0]} is {size_of(first[1])}, {path} is {size_of(array.shape)}; "
                    "give --reading.size N to make all of them N×N"
                )
            yield Example(array, classes.index(path.relative_to(folder).parts[0]) if classes else -1)

    return Examples("images", len(paths), 65536 if deep else 256, read, classes, skipped)


def decoded(paths: list[Path], decode: object) -> Iterator[tuple[Path, np.ndarray | UserError]]:
    """Paths and their arrays in order, decoded a little ahead by threads (Pillow releases the interpreter's lock)."""
    todo = iter(paths)
    with ThreadPoolExecutor() as pool:
        pending = [(p, pool.submit(decode, p)) for p in islice(todo, AHEAD)]  # type: ignore[arg-type, var-annotated]
        while pending:
            path, future = pending.pop(0)
            for following in islice(todo, 1):
                pending.append((following, pool.submit(decode, following)))  # type: ignore[arg-type]
            yield path, future.result()


def image_paths(folder: Path) -> list[Path]:
    """Image files below a folder in a fixed order."""
    suffixes = set(Image.registered_extensions())
    found = (p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def common_suffixes() -> set[str]:
    return {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"} & set(Image.registered_extensions())


def class_names(folder: Path, paths: list[Path]) -> tuple[str, ...]:
    """Names of the sub-folders if every image lies in one, else nothing."""
    parts = [p.relative_to(folder).parts for p in paths]
    return tuple(sorted({p[0] for p in parts})) if all(len(p) > 1 for p in parts) else ()


def common_mode(folder: Path, paths: list[Path], reading: Reading, skipped: list[str]) -> tuple[bool, bool]:
    """(grey, deep) for the whole folder, from the files' headers."""
    modes = set()
    for path in paths:
        try:
            with Image.open(path) as image:
                modes.add((is_grey(image), is_deep(image)))
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # named when it is read
    grey = reading.channels == "grey" or (reading.channels == "auto" and all(g for g, _ in modes))
    return grey, grey and bool(modes) and all(d for _, d in modes)


def size_of(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}×{shape[1]}"
