"""Images: how files of every mode become `(c, h, w)` arrays of integer levels, and folders of them."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from scorefield.data.examples import Example, Examples, Progress
from scorefield.data.splits import OFFICIAL, HeldOut
from scorefield.errors import UserError

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""what those suffixes may hold; Pillow would also try documents (PDF, EPS by Ghostscript)"""
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
AHEAD = 64


@dataclass(frozen=True)
class Reading:
    """How data is read."""

    size: int | None = None
    """side in pixels: images are made square of this size (needed if their sizes differ)"""
    fit: Literal["crop", "squash"] = "crop"
    """crop: the shorter side becomes SIZE and the centre is cut out; squash: both sides become SIZE"""
    channels: Literal["auto", "grey", "rgb"] = "auto"
    """auto: grey if all images are, else rgb"""
    skip_bad: bool = False
    """leave unreadable images out, and count them"""
    only: tuple[str, ...] = ()
    """only examples of these classes, if the data has classes; scaled as all of it, so that such models can be composed"""

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise UserError(f"--reading.size must be at least 1, got {self.size}")
        if self.fit not in ("crop", "squash"):
            raise UserError(f"--reading.fit must be crop or squash, got {self.fit!r}")
        if self.channels not in ("auto", "grey", "rgb"):
            raise UserError(f"--reading.channels must be auto, grey or rgb, got {self.channels!r}")


class Picture(NamedTuple):
    """One image of a collection: its name, how to open it (nothing is decoded yet), its class or −1."""

    name: str
    open: Callable[[], Image.Image]
    label: int = -1
    held_out: HeldOut = ""


def is_deep(image: Image.Image) -> bool:
    """Whether it has more than 8 bits a pixel (grey only)."""
    return image.mode in DEEP_MODES


def is_grey(image: Image.Image) -> bool:
    """Whether the mode has no colour (a palette counts as colour)."""
    return is_deep(image) or image.mode in ("1", "L", "LA", "F")


def pixels(image: Image.Image, reading: Reading, grey: bool, deep: bool) -> np.ndarray:
    """`(c, h, w)` uint8, or uint16 if `deep`: turned upright by EXIF, transparency on white, palettes expanded.

    Raises:
        ValueError: pixels that are neither 8-bit nor 16-bit integers; Pillow raises more for damaged files.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are floats, not 8-bit or 16-bit integers")
    if is_deep(image):
        levels = sixteen_bits(image)
        if deep:
            wide = resized(Image.fromarray(levels.astype(np.int32)), reading)
            return np.asarray(wide).clip(0, 65535).astype(np.uint16)[None]
        image = Image.fromarray((levels // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    array = np.asarray(resized(image.convert("L" if grey else "RGB"), reading))
    return array[None] if grey else array.transpose(2, 0, 1)


def sixteen_bits(image: Image.Image) -> np.ndarray:
    """Levels `(h, w)` of an image with more than 8 bits; `ValueError` if 16 do not hold them."""
    levels = np.asarray(image)
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError(f"its pixels reach from {levels.min()} to {levels.max()}, outside the 16 bits 0 … 65535")
    return levels.astype(np.uint16)


def resized(image: Image.Image, reading: Reading) -> Image.Image:
    """The image as `reading` wants it, by Pillow's Lanczos filter; unchanged if it has the size already."""
    if reading.size is None or image.size == (reading.size, reading.size):
        return image
    square = (reading.size, reading.size)
    if reading.fit == "squash":
        return image.resize(square, Image.Resampling.LANCZOS)
    return ImageOps.fit(image, square, Image.Resampling.LANCZOS)


def read_image(path: Path, grey: bool | None = None) -> np.ndarray:
    """One image `(c, h, w)`, uint8 or, with more than 8 bits, uint16; grey or RGB as it is, or as `grey` says.

    Raises:
        UserError: nothing there, or no whole image.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return pixels(image, Reading(), is_grey(image) if grey is None else grey, is_deep(image))
    except Exception as error:  # damaged files make Pillow raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as an image ({reason}): give another file") from error


def image_folder(folder: Path, reading: Reading, progress: Progress) -> Examples:
    """All images below a folder, hidden files and other suffixes left out; errors as in `open_data`.

    Sub-folders named train, test and val (valid, validation) are the splits of those names, and other sub-folders classes.
    """
    paths = image_paths(folder)
    if not paths:
        raise UserError(f"no images in {folder}: scorefield looks for {', '.join(SUFFIXES)}, in sub-folders too")
    names = [path.relative_to(folder).parts for path in paths]
    split = are_splits(names)
    inner = [parts[1:] if split else parts for parts in names]
    classes = class_names(inner)
    number = {name: k for k, name in enumerate(classes)}
    pictures = [
        Picture(
            str(path.relative_to(folder)),
            partial(Image.open, path, formats=FORMATS),
            number.get(parts[0], -1),
            OFFICIAL[whole[0].lower()] if split else "",
        )
        for path, whole, parts in zip(paths, names, inner, strict=True)
    ]
    return image_examples(pictures, f"{folder}/", reading, progress, classes)


def image_examples(
    pictures: Sequence[Picture], where: str, reading: Reading, progress: Progress, classes: tuple[str, ...]
) -> Examples:
    """Pictures read in order, of one shape; `where` stands before their names in messages. Films give their first frame.

    The examples raise:
        UserError: an unreadable image (unless `reading.skip_bad`), or one whose size differs from the first's.
    """
    grey, deep = common_mode(pictures, where, reading, progress)
    skipped: list[str] = []

    def decode(picture: Picture) -> np.ndarray | UserError:
        try:
            with picture.open() as image:
                return pixels(image, reading, grey, deep)
        except Exception as error:  # damaged files make Pillow raise almost anything
            reason = " ".join(str(error).split()) or type(error).__name__
            return UserError(
                f"{where}{picture.name} cannot be read ({reason}): mend or remove it, "
                "or leave such images out with --reading.skip-bad"
            )

    def read() -> Iterator[Example]:
        first: tuple[str, tuple[int, ...]] | None = None
        skipped.clear()
        for picture, array in decoded(pictures, decode):
            if isinstance(array, UserError):
                if not reading.skip_bad:
                    raise array
                skipped.append(picture.name)
                continue
            first = first or (picture.name, array.shape)
            if array.shape != first[1]:
                raise UserError(
                    f"images of different sizes: {where}{first[0]} is {size_of(first[1])}, {where}{picture.name} is "
                    f"{size_of(array.shape)}; give --reading.size N to make all of them N×N"
                )
            yield Example(array, picture.label, picture.held_out, picture.name)

    return Examples("images", len(pictures), 65536 if deep else 256, read, classes, skipped)


def decoded(
    pictures: Sequence[Picture], decode: Callable[[Picture], np.ndarray | UserError]
) -> Iterator[tuple[Picture, np.ndarray | UserError]]:
    """Pictures and their arrays in order, decoded a little ahead by threads (Pillow releases the interpreter's lock)."""
    todo = iter(pictures)
    with ThreadPoolExecutor() as pool:
        pending: deque[tuple[Picture, Future[np.ndarray | UserError]]] = deque()
        pending.extend((p, pool.submit(decode, p)) for p in islice(todo, AHEAD))
        while pending:
            picture, future = pending.popleft()
            pending.extend((p, pool.submit(decode, p)) for p in islice(todo, 1))
            yield picture, future.result()


def is_image_file(path: Path) -> bool:
    """Whether a file's name is that of an image."""
    return path.suffix.lower() in SUFFIXES


def image_paths(folder: Path) -> list[Path]:
    """Image files below a folder in a fixed order."""
    found = (p for p in folder.rglob("*") if is_image_file(p) and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def are_splits(names: Sequence[tuple[str, ...]]) -> bool:
    """Whether every image lies in a sub-folder named like a split, and some in `train`."""
    tops = {parts[0].lower() for parts in names}
    return "train" in tops and tops <= OFFICIAL.keys() and all(len(parts) > 1 for parts in names)


def class_names(names: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Names of the sub-folders if every image lies in one, else nothing."""
    return tuple(sorted({parts[0] for parts in names})) if all(len(parts) > 1 for parts in names) else ()


def common_mode(pictures: Sequence[Picture], where: str, reading: Reading, progress: Progress) -> tuple[bool, bool]:
    """(grey, deep) for all pictures together, from the files' headers: what the first one is read as depends on the last."""
    if reading.channels == "rgb":
        return False, False
    modes = set()
    for picture in progress(pictures, f"looking at {where.rstrip('/, ')}", len(pictures)):
        try:
            with picture.open() as image:
                modes.add((is_grey(image), is_deep(image)))
        except Exception:  # it is named when it is decoded
            continue
    grey = reading.channels == "grey" or all(g for g, _ in modes)
    return grey, bool(modes) and all(d for _, d in modes)


def size_of(shape: tuple[int, ...]) -> str:
    """Width × height of `(c, h, w)`."""
    return f"{shape[2]}×{shape[1]}"
