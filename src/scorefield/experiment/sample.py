"""Samples of a model as pixels or vectors, written in the format the file's name asks for, in bounded memory."""

import io
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scorefield.errors import RunError, UserError
from scorefield.interfaces import Score, State
from scorefield.models import ModelSpec
from scorefield.plots import figure_png, sample_grid, save_film, scatter, to_pixels, window
from scorefield.samplers import CHUNK, StartingSampler, generate
from scorefield.system import written_aside

FORMATS = ".png (grid), .npz (array), .gif (film), or no suffix (a folder of PNGs)"
MOST = 10**8
"""samples: what a slip of the keyboard exceeds"""
LIMITS = {".png": 4096, ".gif": CHUNK}
"""most samples a picture shows"""
Watch = Callable[[int, State], None]


def check_output(path: Path, n: int, spec: ModelSpec, overwrite: bool = False) -> None:
    """Refuse what could not be written, before any work is done.

    Raises:
        UserError: an unknown suffix or nothing else, too many samples for a picture, a place that is used or does not exist.
    """
    suffix = path.suffix
    if path.name.startswith(".") and not suffix:
        raise UserError(f"cannot write {path}: a suffix needs a name before it, as in samples{path.name}; use {FORMATS}")
    if suffix not in (".png", ".npz", ".gif", ""):
        raise UserError(f"cannot write {path}: unknown format {suffix}; use {FORMATS}")
    if n < 1:
        raise UserError(f"-n must be at least 1, got {n}")
    if n > MOST:
        raise UserError(f"-n must be at most {MOST}, got {n}")
    if n > LIMITS.get(suffix, n):
        raise UserError(f"a {suffix} shows at most {LIMITS[suffix]} samples, got -n {n}: use .npz or a folder of PNGs")
    if suffix == "" and len(spec.event_shape) != 3:
        raise UserError(f"a folder of PNGs holds images, and this model makes vectors: use {path}.npz")
    check_place(path, overwrite)


def check_place(path: Path, overwrite: bool = False) -> None:
    """Refuses a file or folder whose place is used, does not exist or cannot be written; errors as in `check_output`."""
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir() or (path.exists() and not overwrite):
        hint = "" if path.is_dir() else ", or --overwrite"
        raise UserError(f"cannot write {path}: it exists already; give another --out{hint}")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: no permission to write in {path.parent}")


def write_samples(
    model: Score,
    spec: ModelSpec,
    sampler: StartingSampler,
    n: int,
    path: Path,
    *,
    seed: int = 0,
    cond: Tensor | None = None,
    columns: int | None = None,
    overwrite: bool = False,
    device: torch.device | str = "cpu",
    watch: Watch = lambda chunk, state: None,
) -> None:
    """Draw n samples and write them to `path` atomically; errors as in `check_output`.

    Args:
        cond: the class of each sample, `(n,)`.
        columns: how many samples stand beside each other in a picture or film.
    """
    check_output(path, n, spec, overwrite)
    film = Film()

    def observe(chunk: int, state: State) -> None:
        if path.suffix == ".gif":
            film.keep(state)
        watch(chunk, state)

    with written_aside(path) as aside:
        chunks = draw(model, spec, sampler, n, seed=seed, cond=cond, device=device, watch=observe)
        if path.suffix == ".npz":
            write_npz(aside, chunks, n)
        elif path.suffix == "":
            write_folder(aside, chunks, n)
        else:
            samples = np.concatenate(list(chunks))
            write_picture(aside, samples, columns) if path.suffix == ".png" else film.write(aside, spec, n, columns)


def draw(
    model: Score,
    spec: ModelSpec,
    sampler: StartingSampler,
    n: int,
    *,
    seed: int = 0,
    cond: Tensor | None = None,
    device: torch.device | str = "cpu",
    watch: Watch = lambda chunk, state: None,
) -> Iterator[np.ndarray]:
    """n samples in chunks: images uint8 0…255 `(k, h, w)` or `(k, h, w, c)`, vectors float `(k, d)` in the data's units."""
    for x in generate(model, sampler, n, spec.event_shape, seed=seed, cond=cond, device=device, watch=watch):
        yield arrays(x, spec)


def arrays(x: Tensor, spec: ModelSpec) -> np.ndarray:
    """Scaled data units `(k, *event)` as pixels or vectors; raises `RunError` for numbers that are not finite."""
    if not x.isfinite().all():
        raise RunError(
            "the sampler left the range of numbers: give it more steps, less guidance, or a model trained for longer"
        )
    return arrays_of(spec.scaling.decode(x.cpu()), spec.scaling.levels)


def arrays_of(raw: Tensor, levels: int | None) -> np.ndarray:
    """Raw data `(k, *event)` as pixels or vectors."""
    return to_pixels(raw, levels or 256) if raw.ndim == 4 else raw.numpy()


def write_npz(path: Path, chunks: Iterable[np.ndarray], n: int) -> None:
    """One array `samples`, streamed: the whole never lies in memory."""
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
    with archive, archive.open("samples.npy", "w", force_zip64=True) as file:
        for number, chunk in enumerate(chunks):
            if number == 0:
                descr, shape = np.lib.format.dtype_to_descr(chunk.dtype), (n, *chunk.shape[1:])
                header = {"descr": descr, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(chunk).tobytes())


def write_folder(path: Path, chunks: Iterable[np.ndarray], n: int) -> None:
    """A PNG for every image: 0000.png, 0001.png, …"""
    path.mkdir()
    digits = max(4, len(str(n - 1)))
    images = (image for chunk in chunks for image in chunk)
    for number, image in enumerate(images):
        Image.fromarray(image).save(path / f"{number:0{digits}d}.png")


def write_picture(path: Path, samples: np.ndarray, columns: int | None = None) -> None:
    """A grid of images, or a scatter plot of vectors."""
    if samples.ndim == 2:
        path.write_bytes(figure_png(scatter(samples)))
    else:
        sample_grid(samples, columns).save(path, "PNG")


class Film:
    """States of the first chunk, thinned as they come to at most `FRAMES`."""

    FRAMES = 96

    def __init__(self) -> None:
        self.states: list[State] = []
        self.stride, self.seen = 1, 0

    def keep(self, state: State) -> None:
        if self.seen % self.stride == 0:
            self.states.append(state)
        self.seen += 1
        self.last = state
        if len(self.states) > self.FRAMES:
            self.states, self.stride = self.states[::2], 2 * self.stride

    def write(self, path: Path, spec: ModelSpec, n: int, columns: int | None = None) -> None:
        """A GIF; noisy states are shrunk by √(1 + σ²) so that they fit the range of the data."""
        states = self.states if self.states[-1] is self.last else [*self.states, self.last]
        shown = [arrays(s.x[:n] / (1 + s.sigma**2).sqrt(), spec) for s in states]
        if shown[-1].ndim > 2:
            frames = [sample_grid(samples, columns) for samples in shown]
        else:
            limits = window(shown[-1])
            frames = [Image.open(io.BytesIO(figure_png(scatter(samples, limits=limits)))) for samples in shown]
        save_film(frames, path)
