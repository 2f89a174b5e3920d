"""The likelihood of models that have no probability flow: exact, a bound, or by an estimate of Z; one number a held-out row."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from scorefield.baselines import Baseline
from scorefield.experiment.likelihood import references, unit_of
from scorefield.experiment.logz import LogZOptions, best, disagreements, held_out, log_partition
from scorefield.metrics import Record
from scorefield.metrics.record import mean_estimate
from scorefield.models import EnergyModel
from scorefield.randomness import keyed_generator

DRAWS = 64
"""importance samples of a bound"""
CHUNK = 64
PARTICLES, RUNGS = 128, 1000
"""of the walks that estimate Z of an energy of one noise level"""


@torch.no_grad()
def log_probabilities(
    model: Baseline, raw: np.ndarray, *, draws: int = DRAWS, seed: int = 0, watch: Callable[[int], None] = lambda rows: None
) -> Tensor:
    """log-probability of integer rows `(n, *event)`, nats, `(n,)`, float64, or its importance-weighted bound of `draws`."""
    device = next(iter(model.state_dict().values())).device
    parts = []
    for chunk, rows in enumerate(torch.from_numpy(np.array(raw)).split(CHUNK)):
        generator = keyed_generator(seed, "bound", chunk, device=device)
        parts.append(model.log_density_bound(rows.to(device), draws, generator=generator).double().cpu())
        watch(len(rows))
    return torch.cat(parts)


def probability_records(
    model: Baseline, train: np.ndarray, raw: np.ndarray, seed: int, watch: Callable[[int], None]
) -> list[Record]:
    """Their mean, and what it must beat."""
    spec = model.spec
    name, short, factor = unit_of(spec)
    found = log_probabilities(model, raw, seed=seed, watch=watch)
    which = "exact" if model.exact else f"bound of {DRAWS} importance samples"
    unit = f"{short} of {spec.scaling.levels} levels"
    own = Record(f"{name}, {which}", *mean_estimate(factor * found), len(raw), unit, seed)
    if own.value == math.inf:
        own = replace(own, se=None, unit=f"{unit}; infinite: to some held-out rows it gives probability 0")
    return [own, *references(spec, train, raw)]


def energy_records(
    model: EnergyModel, train: np.ndarray, raw: np.ndarray, seed: int, watch: Callable[[int], None]
) -> list[Record]:
    """The mean of log f − log Z of an energy of one noise level, log Z by annealed importance sampling.

    Integers get uniform noise, and the density is that of data with the level's noise, as for probability flows.
    """
    spec = model.spec
    name, short, factor = unit_of(spec)
    options = LogZOptions(particles=PARTICLES, rungs=RUNGS)
    found = log_partition(model, options, seed=seed)
    z = best(found) or min(found, key=lambda p: p.se)
    verdict = z.verdict if not disagreements(found) else f"not trustworthy: {disagreements(found)[0]}"
    energy = held_out(model, raw, z, seed=seed, watch=watch).energy
    levels = "" if spec.scaling.levels is None else f" of {spec.scaling.levels} levels"
    unit = f"{short}{levels}, at sigma {spec.sigma_range[0]:g}; {z.method}, {verdict}"
    se = None if energy.se is None else abs(factor) * energy.se
    own = Record(f"{name}, energy less log Z", factor * energy.value, se, len(raw), unit, seed)
    return [own, *references(spec, train, raw)]
