"""Judge a trained model on held-out data: loss by noise level, distances between samples and data, copies, pictures."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.baselines import Baseline
from scorefield.data import Data, ScaledRows, random_rows
from scorefield.errors import UserError
from scorefield.experiment.config import Run
from scorefield.experiment.likelihood import Effort, check_finite, log_densities, summary, unit_of
from scorefield.experiment.probability import energy_records, probability_records
from scorefield.experiment.sample import Film, Watch, arrays, write_picture
from scorefield.experiment.samplers import in_precision
from scorefield.interfaces import Score, State
from scorefield.likelihood import prior_mismatch
from scorefield.metrics import Features, PixelPCA, Record, evaluate_samples, nearest
from scorefield.metrics.record import finite
from scorefield.models import EnergyModel, ModelSpec
from scorefield.objectives import DenoisingScoreMatching
from scorefield.persistence import AnyModel
from scorefield.plots import bound_by_sigma, figure_png, learning_curve, loss_by_sigma, neighbour_rows, scatter
from scorefield.randomness import keyed_generator
from scorefield.samplers import CHUNK, StartingSampler, generate
from scorefield.system import write_durably, written_aside
from scorefield.tensors import event_size
from scorefield.training import read_log

PCA_ROWS, LOSS_ROWS = 10_000, 1000
"""random training rows that principal components are fitted to, and held-out rows that the loss is measured on"""
LIKELIHOOD_FILE = "likelihood.jsonl"
"""log-densities of single rows, so that an interrupted evaluation goes on"""
LIKELIHOOD_ROWS = 128
"""held-out rows whose log-densities are computed if no other number is given"""
LEVELS = 8
"""noise levels at which the held-out loss is measured"""
NEIGHBOUR_ROWS, NEIGHBOURS = 8, 7


def evaluate(
    run: Run,
    model: AnyModel,
    data: Data,
    folder: Path,
    sampler: StartingSampler,
    n: int,
    *,
    features: Features | None = None,
    likelihood_rows: int = LIKELIHOOD_ROWS,
    effort: Effort = Effort(),
    seed: int = 0,
    device: torch.device | str = "cpu",
    watch: Watch = lambda chunk, state: None,
    watch_rows: Callable[[int], None] = lambda rows: None,
) -> tuple[list[Record], list[Path]]:
    """The records, and the files written into `folder`: evaluation.json and pictures.

    On its own data a model with classes draws as many samples of each as some held-out examples have, and knows the classes
    of the examples on which its loss is measured; likelihoods are those of all classes together.

    Distances compare equally many examples, so no more samples are drawn than there are held-out examples. On other data
    than the model was trained on, their source stands in the records' units, and copies are not looked for.

    Args:
        features: the space in which distributions are compared, say `NetworkFeatures(my_classifier, "my classifier")`; by
            default the first 64 principal components of the data.
        likelihood_rows: how many held-out rows' log-densities are computed, with `effort`; they are kept in likelihood.jsonl.
        watch, watch_rows: called at every state of the sampler, and with the number of rows whose log-density is done.

    Raises:
        UserError: n < 2, likelihood_rows < 0, or data of another shape or other levels than the model's.
        RunError: a log-density that is not finite.
    """
    check_numbers(n, likelihood_rows)
    check_data(model.spec, data.event_shape, data.levels, data.source)
    spec, film = model.spec, Film()

    def observe(chunk: int, state: State) -> None:
        if chunk == 0:
            film.keep(state)
        watch(chunk, state)

    # what takes longest and is kept comes first, so that an interrupted evaluation repeats nothing
    densities, likelihood_files = likelihoods(model, data, folder, likelihood_rows, effort, seed, device, watch_rows)
    score = in_precision(model, "auto", torch.device(device), sampler)
    train, test = (ScaledRows(data.splits[name].x, spec.scaling) for name in ("train", "test"))
    own, n = trained_on(spec, data), min(n, len(test))
    labels = data.splits["test"].labels if own and spec.classes else None
    cond = rows_of(labels, random_rows(len(test), n, seed, "classes"))
    chunks = generate(score, sampler, n, spec.event_shape, seed=seed, cond=cond, device=device, watch=observe)
    drawn = torch.cat([x.cpu() for x in chunks])
    samples = spec.scaling.encode(spec.scaling.decode(drawn))  # what a user gets: clipped and rounded to the data's levels
    features = features or PixelPCA.fit(train[random_rows(len(train), PCA_ROWS, seed, "components")])
    records = []
    if not isinstance(model, Baseline) and isinstance(run.objective, DenoisingScoreMatching):
        rows = random_rows(len(test), LOSS_ROWS, seed, "loss")
        raw = torch.from_numpy(np.array(data.splits["test"].x[rows]))
        held_out = run.encode(raw, spec.scaling, keyed_generator(seed, "evaluation, dequantise"))
        records = losses(run.objective, model, held_out, rows_of(labels, rows), device, seed)
    records += evaluate_samples(samples, train, test, features, seed=seed, memorisation=own)
    records += densities
    if not own:
        records = [replace(r, unit=f"{r.unit}; on {data.source}") for r in records]

    written = [*likelihood_files, *sample_pictures(spec, film, samples, test, folder)]
    if own and len(spec.event_shape) == 3:
        written.append(neighbour_picture(spec, samples[:NEIGHBOUR_ROWS], train, folder / "neighbours.png"))
    written += [*curves(folder), folder / "evaluation.json"]
    content = json.dumps(finite([asdict(r) for r in records]), indent=2, allow_nan=False)
    write_durably(folder / "evaluation.json", content + "\n")
    return records, written


def check_numbers(n: int, likelihood_rows: int) -> None:
    """Refuse what cannot be compared."""
    if n < 2:
        raise UserError(f"-n must be at least 2 to compare distributions, got {n}")
    if likelihood_rows < 0:
        raise UserError(f"--likelihood-rows must be at least 0, got {likelihood_rows}")


def check_data(spec: ModelSpec, event_shape: tuple[int, ...], levels: int | None, source: str) -> None:
    """Refuse data the model was not made for."""
    if event_shape != spec.event_shape:
        raise UserError(f"the model makes events of shape {spec.event_shape}, {source} holds {event_shape}")
    if levels != spec.scaling.levels:
        raise UserError(f"the model was trained on {spec.scaling.levels} integer levels, {source} has {levels}")


def trained_on(spec: ModelSpec, data: Data) -> bool:
    """Whether the model was trained on this data: its scaling is the mean and deviation of the training rows."""
    mine, theirs = spec.scaling, data.scaling
    shifts = np.subtract(mine.shift, theirs.shift) / theirs.scale
    return np.allclose(shifts, 0, atol=1e-9) and np.allclose(mine.scale, theirs.scale, rtol=1e-9, atol=0)


def rows_of(labels: np.ndarray | None, rows: np.ndarray) -> Tensor | None:
    """The classes of some rows, where they are known."""
    return None if labels is None else torch.from_numpy(labels[rows])


@torch.no_grad()
def losses(
    objective: DenoisingScoreMatching,
    model: Score,
    test: Tensor,
    cond: Tensor | None,
    device: torch.device | str,
    seed: int,
) -> list[Record]:
    """The denoising objective on held-out data: at noise levels spread over its distribution, and their mean."""
    objective = replace(objective, across_levels=0.0)
    quantiles = (torch.arange(LEVELS) + 0.5) / LEVELS
    found: list[tuple[float, Tensor]] = []
    for index, sigma in enumerate(objective.noise.quantile(quantiles, model.sigma_range).tolist()):
        generator = keyed_generator(seed, "evaluation", index)
        z = torch.randn(test.shape, generator=generator)
        parts = []
        for start in range(0, len(test), 250):
            x, noise = (t[start : start + 250].to(device) for t in (test, z))
            labels = None if cond is None else cond[start : start + 250].to(device)
            parts.append(objective.at(model, x, torch.full((len(x),), sigma, device=device), noise, labels).value)
        found.append((sigma, torch.cat(parts).double().cpu() / event_size(test)))
    mean = torch.stack([value for _, value in found]).mean(0)
    unit = f"{objective.weighting.kind}-weighted squared error per dimension"
    named = [("denoising loss", mean), *((f"denoising loss at sigma {s:.3g}", v) for s, v in found)]
    return [Record(name, v.mean().item(), v.std().item() / len(v) ** 0.5, len(v), unit, seed) for name, v in named]


def likelihoods(
    model: AnyModel,
    data: Data,
    folder: Path,
    n: int,
    effort: Effort,
    seed: int,
    device: torch.device | str,
    watch: Callable[[int], None],
) -> tuple[list[Record], list[Path]]:
    """Log-densities, or bits per dimension, of random held-out rows; the cache, and a picture of the bound's terms."""
    spec, test = model.spec, data.splits["test"].x
    if n == 0:
        return [], []
    rows = np.array(test[random_rows(len(test), n, seed, "likelihood")])
    cache = folder / LIKELIHOOD_FILE
    train = data.splits["train"].x
    if isinstance(model, Baseline):
        return probability_records(model, train, rows, seed, watch), []
    if isinstance(model, EnergyModel) and spec.sigma_range[0] == spec.sigma_range[1]:
        return energy_records(model, train, rows, seed, watch), []
    found = check_finite(log_densities(model, rows, effort, seed=seed, device=device, cache=cache, watch=watch))
    written = [cache]
    if len(found.terms) > 1:
        unit = unit_of(spec)
        written.append(folder / "bound_by_sigma.png")
        figure = bound_by_sigma(abs(unit.factor) * found.terms, spec.sigma_range, unit.short)
        write_durably(written[-1], figure_png(figure))
    return [*summary(found, spec, train, rows, seed), lost_by_prior(spec, data)], written


def lost_by_prior(spec: ModelSpec, data: Data) -> Record:
    """KL(p_σmax ‖ prior) in expectation, from the mean and variance of each coordinate of the training rows."""
    train = data.splits["train"].x
    x = ScaledRows(train, spec.scaling)[random_rows(len(train), PCA_ROWS)]
    lost = prior_mismatch(x.mean(0), x.var(0), spec.sigma_range[1])
    return Record("log-density lost by the prior", lost, None, len(x), "nats", None)


def sample_pictures(spec: ModelSpec, film: Film, samples: Tensor, test: ScaledRows, folder: Path) -> list[Path]:
    """samples.png (images, or vectors over as many held-out ones) and film.gif."""
    paths = [folder / "samples.png", folder / "film.gif"]
    if len(film.states) > 1:  # exact draws come at once
        with written_aside(paths[1]) as aside:
            film.write(aside, spec, CHUNK)
    if len(spec.event_shape) == 3:
        with written_aside(paths[0]) as aside:
            write_picture(aside, arrays(samples[:CHUNK], spec))
    else:
        decode, some = spec.scaling.decode, test[random_rows(len(test), len(samples), purpose="scatter")]
        write_durably(paths[0], figure_png(scatter(decode(some).numpy(), decode(samples).numpy())))
    return [path for path in paths if path.exists()]


def neighbour_picture(spec: ModelSpec, samples: Tensor, train: ScaledRows, path: Path) -> Path:
    """Each sample beside the training images nearest to it, of all of them."""
    _, indices = nearest(samples, train, k=min(NEIGHBOURS, len(train)))
    near = np.stack([arrays(train[i.numpy()], spec) for i in indices])
    with written_aside(path) as aside:
        neighbour_rows(arrays(samples, spec), near).save(aside, "PNG")
    return path


def curves(folder: Path) -> list[Path]:
    """learning_curve.png and loss_by_sigma.png, where there is a log."""
    if not (folder / "log.jsonl").exists():
        return []
    log = read_log(folder / "log.jsonl")
    figures = {"learning_curve.png": learning_curve(log)}
    if any(loss is not None for record in log for loss in record.get("loss_by_sigma", ())):  # not every loss has a level
        figures["loss_by_sigma.png"] = loss_by_sigma(log)
    for name, figure in figures.items():
        write_durably(folder / name, figure_png(figure))
    return [folder / name for name in figures]
