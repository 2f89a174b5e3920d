"""A kernel family beside energies by sliced and by denoising score matching: Song et al. 2019, arXiv:1905.07088, figure 1.

Run by `closed_forms.py ../shared/data/tables --parts song`. Tables as in `tables`: without duplicates, dequantised, 70, 10 and
20 % for training, validation and test. Columns whose correlation with an earlier one exceeds 0.98 are left out (Parkinsons has
one three times over, and the loss would be that of rounding), the others standardised by the training rows. Of each method
the score-matching loss of the test rows with the exact trace, and their log-likelihood in nats of the standardised table,
normalised by annealed importance sampling from the Gaussian with the training rows' moments.

The kernel family is Nyström's; settings are tuned on training and validation rows, within the bounds of `KernelScoreDensity`:
with narrower kernels or a wider base log Z often is not to be had. Coefficients are fitted to training rows. The energy is that
Gaussian's log-density plus an MLP, which is bounded, so that it has an integral; Adam for a minute of the processor, and the
weights of the best validation loss are kept. Denoising at σ = 0.1 estimates the density with that noise, not the density.
"""

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import table
from torch import Tensor

from scorefield.densities import gaussian
from scorefield.densities.kernel import KernelExponentialFamily
from scorefield.estimators.kernel import LEAST_BANDWIDTH, LEAST_RIDGE, MOST_INFLATION
from scorefield.interfaces import Energy, Objective
from scorefield.likelihood import Annealing, Partition, geometric_path
from scorefield.models import WithoutNoise
from scorefield.networks.mlp import MLP
from scorefield.objectives import DenoisingAt, ImplicitScoreMatching, SlicedScoreMatching
from scorefield.randomness import derive_seed, keyed_generator
from scorefield.samplers import HMC

Cell = dict[str, Any]
TABLES = ("wine_quality_red", "wine_quality_white", "parkinsons")
INDUCING = 500
SECONDS, BATCH, RATE, LOOK = 60.0, 256, 2e-3, 50
"""of training: its length, rows and rate of a step, and steps between two looks at the validation rows"""
LEVEL = 0.1
CORRELATED = 0.98
WALK, RUNGS = Annealing(512, HMC(5)), (100, 400, 1600)
"""as many rungs as it takes until nothing speaks against log Z, or the last of these"""


class BasedEnergy(Energy):
    """log N(mean, C) + φ(x) with a bounded network φ; it answers at every level as at 0, for denoising at one."""

    sigma_range = (0.0, 1.0)

    def __init__(self, rows: Tensor, seed: int) -> None:
        super().__init__()
        self.event_shape = tuple(rows.shape[1:])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "weights"))
            self.network = WithoutNoise(MLP(rows.shape[1], 0, width=64, blocks=2, frequencies=0))
        self.register_buffer("mean", rows.mean(0))
        self.register_buffer("precision", torch.linalg.inv(rows.T.cov()))

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        offset = x - self.mean
        return self.network(x) - (offset @ self.precision * offset).sum(1) / 2


def kernel_family(train: Tensor, validation: Tensor, seed: int) -> tuple[Energy, str]:
    both = torch.cat([train, validation])
    settings = KernelExponentialFamily(inducing=INDUCING, base=MOST_INFLATION, seed=seed).tuned(
        both,
        validation=len(validation) / len(both),
        splits=1,
        least_ridge=LEAST_RIDGE,
        most_inflation=MOST_INFLATION,
        least_bandwidth=LEAST_BANDWIDTH,
    )
    assert settings.kernel is not None
    words = f"ℓ {float(settings.kernel.bandwidth):.3g}, λ {settings.ridge:.1e}, base {settings.base:.3g}"
    return settings.fit(train), words


def trained(objective: Objective, train: Tensor, validation: Tensor, seed: int) -> tuple[Energy, str]:
    """The energy of the least validation loss within the time."""
    rows, held_out = train.float(), validation.float()
    model = BasedEnergy(train, seed).float()
    optimizer, generator = torch.optim.Adam(model.parameters(), RATE), keyed_generator(seed, "training")
    best, least, at, step, began = copy.deepcopy(model), math.inf, 0, 0, time.process_time()
    while time.process_time() - began < SECONDS:
        if step % LOOK == 0 and (reached := loss_of(model, held_out)[0]) < least:
            best, least, at = copy.deepcopy(model), reached, step
        x = rows[torch.randint(len(rows), (BATCH,), generator=generator)]
        loss = objective(model, x, generator=generator).value.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        step += 1
    return best.double().eval().requires_grad_(False), f"step {at} of {step}"


@torch.no_grad()
def loss_of(model: Energy, x: Tensor) -> tuple[float, float]:
    """½‖s‖² + tr ∇s, its mean over rows and the standard error of that."""
    value = ImplicitScoreMatching()(model, x).value.double()
    return float(value.mean()), float(value.std()) / len(x) ** 0.5


METHODS: dict[str, Callable[[Tensor, Tensor, int], tuple[Energy, str]]] = {
    "kernel family": kernel_family,
    "sliced": partial(trained, SlicedScoreMatching()),
    "denoising, σ = 0.1": partial(trained, DenoisingAt(LEVEL)),
}


def jobs(seeds: list[int], folder: Path) -> Iterator[tuple[Cell, Callable[[], Cell]]]:
    for seed, name, method in product(seeds, TABLES, METHODS):
        yield {"table": name, "seed": seed, "method": method}, partial(measured, folder, name, seed, method)


def measured(folder: Path, name: str, seed: int, method: str) -> Cell:
    split = table(folder, name, seed)
    kept, centre, scale = distinct(split.train), split.train.mean(0), split.train.std(0)
    train, validation, test = (torch.from_numpy(((x - centre) / scale)[:, kept]) for x in split)
    began = time.process_time()
    model, words = METHODS[method](train, validation, seed)
    seconds = time.process_time() - began
    partition, rungs = normalised(model, train, seed)
    rows = model.log_density(test).double() - partition.log_z
    loss, loss_se = loss_of(model, test)
    base = gaussian(train.mean(0), train.T.cov())
    return {
        "loss": loss, "loss se": loss_se, "nats": float(rows.mean()), "nats se": float(rows.std()) / len(test) ** 0.5,
        "gaussian nats": float(base.log_density(test).mean()), "log Z": partition.log_z, "log Z se": partition.se,
        "effective": partition.ess, "verdict": partition.verdict, "rungs": rungs, "rows": len(test), "columns": test.shape[1],
        "seconds": round(seconds, 1), "AIS seconds": round(time.process_time() - began - seconds, 1), "chosen": words,
    }  # fmt: skip


def distinct(x: np.ndarray) -> list[int]:
    """The columns of rows `(n, d)` without those that nearly repeat an earlier one."""
    correlation, kept = np.abs(np.corrcoef(x.T)), list[int]()
    for column in range(x.shape[1]):
        if not (correlation[column, kept] > CORRELATED).any():
            kept.append(column)
    return kept


def normalised(model: Energy, train: Tensor, seed: int) -> tuple[Partition, int]:
    """log Z, from the Gaussian of the training rows, and the rungs that it took."""
    base, generator = gaussian(train.mean(0), train.T.cov()), keyed_generator(seed, "log Z")
    for rungs in RUNGS:
        found = WALK.importance(geometric_path(base, model, steps=rungs), generator=generator)
        if found.trustworthy:
            break
    return found, rungs


def shown(cells: list[Cell]) -> str:
    """Means over seeds, with the standard error that differences between seeds make."""
    lines = ["| table | method | seeds | loss | nats | a Gaussian's | se of log Z | trustworthy | seconds |", "|---" * 9 + "|"]
    for name, method in product(TABLES, METHODS):
        own = [c for c in cells if (c["table"], c["method"]) == (name, method)]
        if own:
            sure = sum(c["verdict"] == "trustworthy" for c in own)
            lines.append(
                f"| {name} | {method} | {len(own)} | {over_seeds(own, 'loss')} | {over_seeds(own, 'nats')} "
                f"| {statistics.fmean(c['gaussian nats'] for c in own):.2f} | {max(c['log Z se'] for c in own):.3f} at most "
                f"| {sure} of {len(own)} | {statistics.fmean(c['seconds'] for c in own):.0f} |"
            )
    return "\n".join(lines)


def over_seeds(cells: list[Cell], what: str) -> str:
    values = [c[what] for c in cells]
    if len(values) == 1:
        return f"{values[0]:.2f} ± {cells[0][what + ' se']:.2f} (rows)"
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values) / len(values) ** 0.5:.2f}"
