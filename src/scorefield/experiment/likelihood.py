"""Log-densities of many rows with error bars, in the units of the data; chunk by chunk, so that an interrupted run goes on.

Every row of integer data gets uniform noise of its own, every row probes of its own, all functions of (seed, chunk).
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield.errors import RunError
from scorefield.jacobian_trace import Hutchinson
from scorefield.likelihood import ELBO, Bound, FlowLikelihood, dequantise, raw_log_density
from scorefield.metrics.record import Record, mean_estimate
from scorefield.models import ModelSpec
from scorefield.persistence import Model
from scorefield.randomness import keyed_generator
from scorefield.samplers import RungeKutta4
from scorefield.samplers.generate import chunks
from scorefield.system import write_durably

CHUNK = 16
"""rows computed, and kept, together"""


@dataclass(frozen=True)
class Effort:
    """How much is spent on each row.

    Raises:
        ValueError: fewer than 2 steps or draws, no probes, or more of them than anybody means.
    """

    steps: int = 25
    """noise levels of the ODE's solver, RK4"""
    probes: int = 4
    """orthogonal probes of the trace"""
    draws: int = 16
    """noise levels drawn for the evidence lower bound; 0 leaves it out"""
    refine: bool = False
    """solve every row again with half the steps, which tells the solver's error; else only the first 16 rows"""

    def __post_init__(self) -> None:
        for name, least, most in (("steps", 2, 10_000), ("probes", 1, 1000), ("draws", 0, 10_000)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"--{name} must be from {least} to {most}, got {getattr(self, name)}")
        if self.draws == 1:
            raise ValueError("--draws must be 0 or at least 2, got 1: a single one knows no standard error")


@dataclass(frozen=True)
class LogDensities:
    """Nats in the units of the raw data for each of n rows; `(n,)` each, but `terms`."""

    log_density: np.ndarray
    """by the probability flow"""
    se: np.ndarray
    """its standard error from the probes"""
    refinement: np.ndarray
    """`log_density` less its value with half the steps, which exceeds the solver's error; NaN where it was not asked for"""
    bound: np.ndarray
    """evidence lower bound of the diffusion's chain; empty if it was left out"""
    bound_se: np.ndarray
    terms: np.ndarray
    """what minus the bound is the sum of `(n, draws + 2)`: L_0, equal strata of log σ from small to large, L_T"""


def log_densities(
    model: Model,
    raw: np.ndarray,
    effort: Effort,
    *,
    seed: int = 0,
    purpose: str = "rows",
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    watch: Callable[[int], None] = lambda rows: None,
) -> LogDensities:
    """Log-densities of raw rows `(n, *event)`, integers or floats; rows too far out for the arithmetic have none, NaN or ∞.

    Args:
        purpose: different ones draw different noise and probes.
        cache: a file that holds what is computed already, by chunks; chunks of another model, other rows or other settings
            are computed anew.
        watch: called with the number of rows of each chunk that is done, those from the cache too.

    """
    key = "" if cache is None else fingerprint(model, effort, seed, purpose)
    found = {} if cache is None else read_chunks(cache, key)
    parts = []
    for chunk in range(chunks(len(raw), CHUNK)):
        rows = np.array(raw[chunk * CHUNK : (chunk + 1) * CHUNK])
        digest = blake2b(rows.tobytes(), digest_size=16).hexdigest()
        if chunk not in found or found[chunk]["rows"] != digest:
            found[chunk] = {"rows": digest, **compute(model, torch.from_numpy(rows), effort, seed, purpose, chunk, device)}
            if cache is not None:
                write_chunks(cache, key, found)
        parts.append(found[chunk])
        watch(len(rows))
    names = LogDensities.__dataclass_fields__
    return LogDensities(*(np.concatenate([np.array(part[name]) for part in parts]) for name in names))


def check_finite(found: LogDensities) -> LogDensities:
    """The same; raises `RunError` naming the first row whose log-density or bound is not finite."""
    for values in (found.log_density, found.bound):
        if len(bad := np.flatnonzero(~np.isfinite(values))):
            raise RunError(f"the log-density of held-out row {bad[0]} (counted from 0) is not finite: the model is at fault")
    return found


def compute(
    model: Model, raw: Tensor, effort: Effort, seed: int, purpose: str, chunk: int, device: torch.device | str
) -> dict[str, Any]:
    """One chunk."""
    spec, shape = model.spec, tuple(model.spec.event_shape)

    def stream(name: str, device: torch.device | str = "cpu") -> torch.Generator:
        return keyed_generator(seed, f"{purpose}, {name}", chunk, device=device)

    x = encoded(spec, raw, seed, purpose, chunk).to(device)
    refine = effort.refine or chunk == 0
    flow = FlowLikelihood(RungeKutta4(effort.steps), Hutchinson(effort.probes, "orthogonal"), refine)
    likelihood = flow(model, x, generator=stream("probes", device))
    columns = [raw_log_density(likelihood.log_density.double(), spec.scaling, shape)]
    unknown = torch.full_like(columns[0], torch.nan)
    columns += [unknown if values is None else values for values in (likelihood.se, likelihood.refinement)]
    if effort.draws:
        bound = ELBO(draws=effort.draws)(model, x, generator=stream("bound", device))
        assert bound.se is not None  # of two draws or more, which Effort sees to
        shares = stratum_shares(bound, spec.sigma_range)
        last = -raw_log_density(-bound.reconstruction.double(), spec.scaling, shape)
        terms = torch.stack([last, *shares.double(), bound.prior.double()], 1)
        columns += [-terms.sum(1), bound.se, terms]
    else:
        columns += [columns[0][:0]] * 3
    return dict(zip(LogDensities.__dataclass_fields__, (c.double().cpu().tolist() for c in columns), strict=True))


def encoded(spec: ModelSpec, raw: Tensor, seed: int, purpose: str, chunk: int) -> Tensor:
    """A chunk of raw rows in scaled units, float32; integers with the uniform noise of that chunk."""
    noise = keyed_generator(seed, f"{purpose}, dequantise", chunk)
    return spec.scaling.encode(raw if spec.scaling.levels is None else dequantise(raw, noise)).float()


def stratum_shares(bound: Bound, sigma_range: tuple[float, float]) -> Tensor:
    """What each stratum of log σ adds to the diffusion part `(draws, b)`."""
    low, high = sigma_range
    return math.log(high / low) / len(bound.density) * bound.density


def fingerprint(model: Model, effort: Effort, seed: int, purpose: str) -> str:
    """A hash of all that the numbers depend on but the rows."""
    state = blake2b(digest_size=16)
    for name, weight in model.state_dict().items():
        state.update(name.encode())
        state.update(weight.detach().cpu().numpy().tobytes())
    settings = [list(LogDensities.__dataclass_fields__), asdict(effort), seed, purpose, asdict(model.spec)]
    state.update(json.dumps(settings, default=str).encode())
    return state.hexdigest()


def write_chunks(cache: Path, key: str, found: dict[int, dict[str, Any]]) -> None:
    """A file of these chunks, whole or not at all."""
    lines = [{"key": key}, *({"chunk": chunk, **part} for chunk, part in found.items())]
    write_durably(cache, "".join(json.dumps(line) + "\n" for line in lines))


def read_chunks(cache: Path, key: str) -> dict[int, dict[str, Any]]:
    """The chunks in a file with this key; none if the file is damaged."""
    try:
        head, *parts = (json.loads(line) for line in cache.read_text().splitlines())
        return {part.pop("chunk"): part for part in parts} if head["key"] == key else {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}


class Unit(NamedTuple):
    """What densities of some data are quoted in: `factor` times nats is `name`, in `short` units."""

    name: str
    short: str
    factor: float


def unit_of(spec: ModelSpec) -> Unit:
    """Bits per dimension of integer data, nats of other."""
    if spec.scaling.levels is None:
        return Unit("log-density", "nats", 1.0)
    return Unit("bits per dimension", "bits/dim", -1 / (math.prod(spec.event_shape) * math.log(2)))


def summary(found: LogDensities, spec: ModelSpec, train: np.ndarray, rows: np.ndarray, seed: int) -> list[Record]:
    """Means over rows, whose standard errors hold rows, dequantisation noise and probes together, and what they must beat."""
    n, levels, (name, short, factor) = len(rows), spec.scaling.levels, unit_of(spec)
    unit = f"{short}{'' if levels is None else f' of {levels} levels'}, at sigma {spec.sigma_range[0]:g}"
    estimates = [("probability flow", found.log_density), ("evidence bound", found.bound)]
    records = [
        Record(f"{name}, {which}", *mean_estimate(torch.from_numpy(factor * values)), n, unit, seed)
        for which, values in estimates
        if len(values)
    ]
    refined = torch.from_numpy(factor * found.refinement[~np.isnan(found.refinement)])
    records.append(Record(f"{name}, change by half the steps", *mean_estimate(refined), len(refined), unit, seed))
    return records + references(spec, train, rows)


def references(spec: ModelSpec, train: np.ndarray, rows: np.ndarray) -> list[Record]:
    """What a model of integer rows must beat."""
    name, short, _ = unit_of(spec)
    levels = spec.scaling.levels
    if levels is None:
        return []
    unit = f"{short} of {levels} levels"
    bits = torch.from_numpy(independent_pixels(train, rows, levels))
    return [
        Record(f"{name}, independent pixels", *mean_estimate(bits), len(rows), unit, None),
        Record(f"{name}, uniform", math.log2(levels), None, len(rows), unit, None),
    ]


def independent_pixels(train: np.ndarray, rows: np.ndarray, levels: int) -> np.ndarray:
    """Bits per dimension of each row under the training rows' histogram of each pixel, one added to every count."""
    x, y = train.reshape(len(train), -1), rows.reshape(len(rows), -1)
    counts = np.stack([np.bincount(column, minlength=levels) for column in x.T]) + 1
    bits = -np.log2(counts / (len(train) + levels))
    return np.take_along_axis(bits, y.T.astype(np.int64), 1).mean(0)
