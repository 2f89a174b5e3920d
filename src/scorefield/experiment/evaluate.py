"""Judge a trained model on held-out data: loss by noise level, distances between samples and data, copies, pictures."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.data import Data
from scorefield.errors import UserError
from scorefield.experiment.config import Run
from scorefield.experiment.sample import Film, Watch, arrays, write_picture
from scorefield.experiment.samplers import in_precision
from scorefield.interfaces import State
from scorefield.metrics import PixelPCA, Record, evaluate_samples, nearest
from scorefield.models import ModelSpec
from scorefield.persistence import Model
from scorefield.plots import figure_png, learning_curve, loss_by_sigma, neighbour_rows, scatter
from scorefield.randomness import keyed_generator
from scorefield.samplers import CHUNK, StartingSampler, generate
from scorefield.system import write_durably, written_aside
from scorefield.tensors import event_size
from scorefield.training import read_log

ROWS = 10_000
"""rows of each split that are looked at"""
LEVELS = 8
"""noise levels at which the held-out loss is measured"""
NEIGHBOUR_ROWS, NEIGHBOURS = 8, 7


def evaluate(
    run: Run,
    model: Model,
    data: Data,
    folder: Path,
    sampler: StartingSampler,
    n: int,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    watch: Watch = lambda chunk, state: None,
) -> tuple[list[Record], list[Path]]:
    """The records, and the files written into `folder`: evaluation.json and pictures.

    Distances compare equally many examples, so no more samples are drawn than there are held-out examples.

    Raises:
        UserError: n < 2, or data of another shape or other levels than the model's.
    """
    check_data(model.spec, data)
    if n < 2:
        raise UserError(f"-n must be at least 2 to compare distributions, got {n}")
    spec, film = model.spec, Film()

    def observe(chunk: int, state: State) -> None:
        if chunk == 0:
            film.keep(state)
        watch(chunk, state)

    score = in_precision(model, "auto", torch.device(device))
    train, test = rows(data, "train", spec), rows(data, "test", spec)
    n = min(n, len(test))
    chunks = generate(score, sampler, n, spec.event_shape, seed=seed, device=device, watch=observe)
    drawn = torch.cat([x.cpu() for x in chunks])
    samples = spec.scaling.encode(spec.scaling.decode(drawn))  # what a user gets: clipped and rounded to the data's levels
    records = losses(run, model, test, device, seed) + evaluate_samples(samples, train, test, PixelPCA.fit(train), seed=seed)

    written = [*sample_pictures(spec, film, samples, train, test, folder), *curves(folder), folder / "evaluation.json"]
    write_durably(folder / "evaluation.json", json.dumps([asdict(r) for r in records], indent=2) + "\n")
    return records, written


def check_data(spec: ModelSpec, data: Data) -> None:
    """Refuse data the model was not made for."""
    if data.event_shape != spec.event_shape:
        raise UserError(f"the model makes events of shape {spec.event_shape}, {data.source} holds {data.event_shape}")
    if data.levels != spec.scaling.levels:
        raise UserError(f"the model was trained on {spec.scaling.levels} integer levels, {data.source} has {data.levels}")


def rows(data: Data, split: str, spec: ModelSpec) -> Tensor:
    """At most `ROWS` rows of a split in the model's scaled units."""
    return spec.scaling.encode(torch.from_numpy(np.array(data.splits[split].x[:ROWS]))).float()


@torch.no_grad()
def losses(run: Run, model: Model, test: Tensor, device: torch.device | str, seed: int) -> list[Record]:
    """The training objective on held-out data: at noise levels spread over its distribution, and their mean."""
    quantiles = (torch.arange(LEVELS) + 0.5) / LEVELS
    test = test[:1000]
    found: list[tuple[float, Tensor]] = []
    for index, sigma in enumerate(run.objective.noise.quantile(quantiles, model.sigma_range).tolist()):
        generator = keyed_generator(seed, "evaluation", index)
        z = torch.randn(test.shape, generator=generator)
        parts = [
            run.objective.at(model, x.to(device), torch.full((len(x),), sigma, device=device), noise.to(device)).value
            for x, noise in zip(test.split(250), z.split(250), strict=True)
        ]
        found.append((sigma, torch.cat(parts).double().cpu() / event_size(test)))
    mean = torch.stack([value for _, value in found]).mean(0)
    unit = f"{run.objective.weighting}-weighted squared error per dimension"
    named = [("denoising loss", mean), *((f"denoising loss at sigma {s:.3g}", v) for s, v in found)]
    return [Record(name, v.mean().item(), v.std().item() / len(v) ** 0.5, len(v), unit, seed) for name, v in named]


def sample_pictures(spec: ModelSpec, film: Film, samples: Tensor, train: Tensor, test: Tensor, folder: Path) -> list[Path]:
    """samples.png, film.gif and, for images, neighbours.png (each sample beside the training images nearest to it)."""
    paths = [folder / "samples.png", folder / "film.gif"]
    with written_aside(paths[1]) as aside:
        film.write(aside, spec, CHUNK)
    if len(spec.event_shape) == 3:
        with written_aside(paths[0]) as aside:
            write_picture(aside, arrays(samples[:CHUNK], spec))
        some = samples[:NEIGHBOUR_ROWS]
        _, indices = nearest(some, train, k=NEIGHBOURS)
        near = np.stack([arrays(train[i], spec) for i in indices])
        paths.append(folder / "neighbours.png")
        with written_aside(paths[2]) as aside:
            neighbour_rows(arrays(some, spec), near).save(aside, "PNG")
    else:
        decode = spec.scaling.decode
        write_durably(paths[0], figure_png(scatter(decode(test).numpy(), decode(samples).numpy())))
    return paths


def curves(folder: Path) -> list[Path]:
    """learning_curve.png and loss_by_sigma.png, where there is a log."""
    if not (folder / "log.jsonl").exists():
        return []
    log = read_log(folder / "log.jsonl")
    figures = {"learning_curve.png": learning_curve(log), "loss_by_sigma.png": loss_by_sigma(log)}
    for name, figure in figures.items():
        write_durably(folder / name, figure_png(figure))
    return [folder / name for name in figures]
