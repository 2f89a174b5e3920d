"""Completions of images of which a part is known: the model fills in the rest."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scorefield.data import Reading, is_image_file, load_array, read_all, read_image
from scorefield.errors import UserError
from scorefield.experiment.sample import LIMITS, Watch, arrays, check_output, write_npz, write_picture
from scorefield.experiment.samplers import MOST
from scorefield.interfaces import Score
from scorefield.models import ModelSpec
from scorefield.plots import to_pixels
from scorefield.randomness import keyed_generator
from scorefield.samplers import DPS, InverseSampler, Mask, RePaint
from scorefield.samplers.generate import chunks, draw_chunk, full_rows
from scorefield.system import written_aside

Method = Literal["dps", "repaint"]
METHODS: dict[Method, type[InverseSampler]] = {"dps": DPS, "repaint": RePaint}
CHUNK = 16
"""completions that are drawn together, with a random stream of their own"""
UNKNOWN = 128
"""the grey of pixels to be filled in"""


class Incomplete(NamedTuple):
    """Images with a mask."""

    raw: Tensor
    """in the levels of the model, `(k, c, h, w)`"""
    pixels: np.ndarray
    """as they were given, 0 … 255, `(k, h, w)` or `(k, h, w, 3)`"""
    known: Tensor
    """`(h, w)`, true where the image is known"""


def read_incomplete(source: str, mask: Path, spec: ModelSpec) -> Incomplete:
    """One image, or all of a data source, and the mask of what is known.

    Raises:
        UserError: a model of vectors; images or a mask that cannot be read or are of another shape than the model's images; a
            mask that is not black and white.
    """
    if len(spec.event_shape) != 3:
        raise UserError(f"inpaint completes images, and this model makes vectors of {spec.event_shape[0]} numbers")
    channels, height, width = spec.event_shape
    if is_image_file(Path(source)):
        images = read_image(Path(source), grey=False if channels == 3 else None)[None]
        levels: int | None = np.iinfo(images.dtype).max + 1
    else:
        images, _, facts = read_all(source, Reading(channels="rgb") if channels == 3 else Reading())
        levels = facts.levels
    if levels is None or images.shape[1:] != spec.event_shape:
        raise UserError(f"the model makes events of shape {spec.event_shape}, {source} holds {images.shape[1:]}")
    if 0 < images.max() < (spec.scaling.levels or 0) < levels:
        most = (spec.scaling.levels or 0) - 1
        raise UserError(
            f"{source} holds no value above {images.max()} of {levels - 1}: multiply grey levels 0 … {most} by 255/{most}"
        )
    given = torch.from_numpy(images.astype(np.float64))
    raw = (given * ((spec.scaling.levels or 256) - 1) / (levels - 1)).round()
    return Incomplete(raw.float(), to_pixels(given, levels), read_mask(mask, (height, width)))


def read_mask(path: Path, shape: tuple[int, int]) -> Tensor:
    """A mask `(h, w)` from an image, or an array in a `.npy` or `.npz` file: true where it is not 0.

    Raises:
        UserError: unreadable, of another shape, of more than two values, or of one, NaN, or transparent in parts.
    """
    is_array = path.suffix in (".npy", ".npz")
    values = load_array(path) if is_array else read_image(path, grey=True)[0]
    if not is_array and is_transparent(path):
        raise UserError(
            f"the mask {path} is transparent in parts: make it black where the image is to be filled in, else white"
        )
    if values.shape != shape:
        raise UserError(f"the mask {path} is of shape {values.shape}, the images of {shape}: they must be alike")
    if len(different := np.unique(values)) > 2:
        raise UserError(f"the mask {path} has {len(different)} different values: make it black and white (a .png, not a .jpg)")
    if np.isnan(values).any():
        raise UserError(f"the mask {path} holds NaN: make it 0 where the image is to be filled in, and 1 where it is known")
    known = values != 0
    if known.all() or not known.any():
        colour = "white" if known.all() else "black"
        raise UserError(f"the mask {path} is {colour} all over: white is known, black is filled in")
    return torch.from_numpy(known)


def is_transparent(path: Path) -> bool:
    """Whether an image that can be read has a pixel that is not opaque."""
    with Image.open(path) as image:
        return image.has_transparency_data and bool(np.asarray(image.convert("RGBA"))[..., 3].min() < 255)


def check_completions(path: Path, images: int, n: int, spec: ModelSpec, overwrite: bool) -> None:
    """Refuses what could not be written, before any work is done; errors as in `check_output`."""
    if path.suffix not in (".png", ".npz"):
        raise UserError(f"cannot write {path}: completions go to a .png (picture) or .npz (array) file")
    check_output(path, n, spec, overwrite)
    cells = images * (n + 2)
    if path.suffix == ".png" and cells > LIMITS[".png"]:
        raise UserError(f"a .png shows at most {LIMITS['.png']} images, and {images} with -n {n} make {cells}: use .npz")


def completer(
    method: Method, steps: int | None, incomplete: Incomplete, spec: ModelSpec, device: torch.device | str = "cpu"
) -> InverseSampler:
    """The sampler that completes all of the images.

    Raises:
        UserError: an unknown method, fewer than 2 steps, or more than anybody means.
    """
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    measurement = spec.scaling.encode(incomplete.raw).to(device)
    if steps is not None and steps > MOST:
        raise UserError(f"--steps must be at most {MOST}, got {steps}")
    try:
        sampler = METHODS[method](operator=Mask(incomplete.known.to(device)), measurement=measurement)
        return sampler if steps is None else replace(sampler, steps=steps)
    except ValueError as error:
        raise UserError(f"--{error}") from error


def complete(
    model: Score,
    spec: ModelSpec,
    incomplete: Incomplete,
    sampler: InverseSampler,
    n: int,
    *,
    seed: int = 0,
    watch: Watch = lambda chunk, state: None,
) -> Iterator[np.ndarray]:
    """Chunks of n completions of each image in turn, uint8 `(k, h, w)` or `(k, h, w, 3)`; known pixels are those given."""
    total = n * len(sampler.measurement)
    known = known_pixels(incomplete)
    for number in range(chunks(total, CHUNK)):
        part = full_rows(number, total, CHUNK) // n
        generator = keyed_generator(seed, "completions", number, device=sampler.measurement.device)
        told = replace(sampler, measurement=sampler.measurement[part])
        x = draw_chunk(model, told, (CHUNK, *spec.event_shape), None, generator, partial(watch, number))
        drawn = np.where(known, incomplete.pixels[part], arrays(x, spec))
        yield drawn[: total - number * CHUNK]


def known_pixels(incomplete: Incomplete) -> np.ndarray:
    """The mask, so that it fits pixels that are grey or have colours."""
    known = incomplete.known.numpy()
    return known if incomplete.pixels.ndim == 3 else known[..., None]


def write_completions(path: Path, incomplete: Incomplete, chunks: Iterable[np.ndarray], n: int) -> None:
    """The array `samples` (.npz), or a picture (.png): in each row an image, what is known of it, and n completions."""
    pixels = incomplete.pixels
    with written_aside(path) as aside:
        if path.suffix == ".npz":
            return write_npz(aside, chunks, n * len(pixels))
        known = known_pixels(incomplete)
        masked = np.where(known, pixels, UNKNOWN).astype(np.uint8)
        completions = np.concatenate(list(chunks)).reshape(len(pixels), n, *pixels.shape[1:])
        cells = np.concatenate([pixels[:, None], masked[:, None], completions], 1)
        write_picture(aside, cells.reshape(-1, *pixels.shape[1:]), columns=n + 2)
