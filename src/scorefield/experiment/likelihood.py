"""Log-densities of many rows with error bars, in the units of the data; chunk by chunk, so that an interrupted run goes on.

Every row of integer data gets uniform noise of its own, every row probes of its own, all functions of (seed, chunk).
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield.errors import RunError, UserError
from scorefield.jacobian_trace import Hutchinson
from scorefield.likelihood import ELBO, Bound, FlowLikelihood, dequantise, raw_log_density
from scorefield.metrics.record import Record, mean_estimate
from scorefield.models import ModelSpec
from scorefield.persistence import Model
from scorefield.randomness import keyed_generator
from scorefield.samplers import Geometric, RungeKutta4
from scorefield.samplers.generate import chunks
from scorefield.system import write_durably

CHUNK = 64
"""rows computed together"""


@dataclass(frozen=True)
class Effort:
    """How much is spent on each row.

    Raises:
        UserError: fewer than 2 steps or draws, or no probes.
    """

    steps: int = 25
    """noise levels of the ODE's solver, RK4"""
    probes: int = 4
    """orthogonal probes of the trace"""
    draws: int = 16
    """noise levels drawn for the evidence lower bound; 0 leaves it out"""

    def __post_init__(self) -> None:
        for name, least in (("steps", 2), ("probes", 1), ("draws", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} must be at least {least}, got {getattr(self, name)}")
        if self.draws == 1:
            raise UserError("--draws must be 0 or at least 2, got 1: a single one knows no standard error")


@dataclass(frozen=True)
class LogDensities:
    """Nats in the units of the raw data for each of n rows; `(n,)` each, but `terms`."""

    log_density: np.ndarray
    """by the probability flow"""
    se: np.ndarray
    """its standard error from the probes"""
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
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    watch: Callable[[int], None] = lambda rows: None,
) -> LogDensities:
    """Log-densities of raw rows `(n, *event)`, integers or floats.

    Args:
        cache: a file that holds what is computed already, by chunks; a file of another model, other rows or other settings
            is begun anew.
        watch: called with the number of rows of each chunk that is done, those from the cache too.

    Raises:
        RunError: a log-density that is not finite, with its row.
    """
    key = "" if cache is None else fingerprint(model, raw, effort, seed)
    found = {} if cache is None else read_chunks(cache, key)
    parts = []
    for chunk in range(chunks(len(raw), CHUNK)):
        rows = raw[chunk * CHUNK : (chunk + 1) * CHUNK]
        if chunk not in found:
            found[chunk] = compute(model, torch.from_numpy(np.array(rows)), effort, seed, chunk, device)
            if cache is not None:
                write_chunks(cache, key, found)
        parts.append(found[chunk])
        watch(len(rows))
    names = LogDensities.__dataclass_fields__
    whole = LogDensities(*(np.concatenate([np.array(part[name]) for part in parts]) for name in names))
    if len(bad := np.flatnonzero(~np.isfinite(whole.log_density))):
        raise RunError(f"the log-density of row {bad[0]} (counted from 0) is not finite: try more --steps")
    return whole


def compute(
    model: Model, raw: Tensor, effort: Effort, seed: int, chunk: int, device: torch.device | str
) -> dict[str, list[float]]:
    """One chunk."""
    spec, shape = model.spec, tuple(model.spec.event_shape)
    noise = keyed_generator(seed, "dequantise", chunk)
    x = spec.scaling.encode(raw if spec.scaling.levels is None else dequantise(raw, noise)).float().to(device)
    flow = FlowLikelihood(RungeKutta4(effort.steps, Geometric()), Hutchinson(effort.probes, "orthogonal"))
    likelihood = flow(model, x, generator=keyed_generator(seed, "probes", chunk, device=device))
    columns = [raw_log_density(likelihood.log_density.double(), spec.scaling, shape)]
    columns.append(torch.full_like(columns[0], torch.nan) if likelihood.se is None else likelihood.se)
    if effort.draws:
        bound = ELBO(draws=effort.draws)(model, x, generator=keyed_generator(seed, "bound", chunk, device=device))
        assert bound.se is not None  # of two draws or more, which Effort sees to
        shares = stratum_shares(bound, spec.sigma_range)
        last = -raw_log_density(-bound.reconstruction.double(), spec.scaling, shape)
        terms = torch.stack([last, *shares.double(), bound.prior.double()], 1)
        columns += [-terms.sum(1), bound.se, terms]
    else:
        columns += [columns[0][:0]] * 3
    return dict(zip(LogDensities.__dataclass_fields__, (c.double().cpu().tolist() for c in columns), strict=True))


def stratum_shares(bound: Bound, sigma_range: tuple[float, float]) -> Tensor:
    """What each stratum of log σ adds to the diffusion part `(draws, b)`."""
    low, high = sigma_range
    return math.log(high / low) / len(bound.density) * bound.density


def fingerprint(model: Model, raw: np.ndarray, effort: Effort, seed: int) -> str:
    """A hash of all that the numbers depend on."""
    state = blake2b(digest_size=16)
    for name, weight in model.state_dict().items():
        state.update(name.encode())
        state.update(weight.detach().cpu().numpy().tobytes())
    for start in range(0, len(raw), 4096):
        state.update(np.ascontiguousarray(raw[start : start + 4096]).tobytes())
    state.update(
        json.dumps([list(LogDensities.__dataclass_fields__), asdict(effort), seed, asdict(model.spec)], default=str).encode()
    )
    return state.hexdigest()


def write_chunks(cache: Path, key: str, found: dict[int, dict[str, list[float]]]) -> None:
    """A file of these chunks, whole or not at all."""
    lines = [{"key": key}, *({"chunk": chunk, **part} for chunk, part in found.items())]
    write_durably(cache, "".join(json.dumps(line) + "\n" for line in lines))


def read_chunks(cache: Path, key: str) -> dict[int, dict[str, list[float]]]:
    """The chunks in a file with this key, as far as it is whole."""
    found: dict[int, dict[str, list[float]]] = {}
    try:
        lines: Iterator[str] = iter(cache.read_text().splitlines(keepends=True))
        if json.loads(next(lines, "{}")).get("key") != key:
            return {}
        for line in lines:
            if line.endswith("\n"):
                part = json.loads(line)
                found[part.pop("chunk")] = part
    except (OSError, ValueError, AttributeError, KeyError):
        return {}
    return found


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
    if levels is not None:
        bits = torch.from_numpy(independent_pixels(train, rows, levels))
        records.append(Record(f"{name}, independent pixels", *mean_estimate(bits), n, unit, None))
        records.append(Record(f"{name}, uniform", math.log2(levels), None, n, unit, None))
    return records


def independent_pixels(train: np.ndarray, rows: np.ndarray, levels: int) -> np.ndarray:
    """Bits per dimension of each row under the training rows' histogram of each pixel, one added to every count."""
    x, y = train.reshape(len(train), -1), rows.reshape(len(rows), -1)
    counts = np.stack([np.bincount(column, minlength=levels) for column in x.T]) + 1
    bits = -np.log2(counts / (len(train) + levels))
    return np.take_along_axis(bits, y.T.astype(np.int64), 1).mean(0)
