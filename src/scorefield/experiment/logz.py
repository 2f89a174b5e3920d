"""log Z of a trained energy by several methods side by side, and what it makes of held-out rows."""

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.densities import gaussian
from scorefield.densities.confinement import check_confined
from scorefield.errors import RunError, UserError
from scorefield.experiment.likelihood import CHUNK, Effort, check_finite, encoded, log_densities
from scorefield.interfaces import check_level
from scorefield.jacobian_trace import Exact
from scorefield.likelihood import (
    Annealing,
    FlowLikelihood,
    Partition,
    flow_importance,
    geometric_path,
    noise_path,
    quadrature,
    raw_log_density,
)
from scorefield.metrics.record import Estimate, finite
from scorefield.models import EnergyModel
from scorefield.persistence import FORMAT_VERSION, Model
from scorefield.randomness import keyed_generator
from scorefield.samplers import HMC, RungeKutta4
from scorefield.system import write_durably

POINTS = 2**22
"""of the finest grid of quadrature: about a minute of a small network"""
Watch = Callable[[str, int, int], None]
"""(method, done, of how many)"""


@dataclass(frozen=True)
class LogZOptions:
    """How much is spent on log Z.

    Raises:
        ValueError: a number out of its range.
    """

    particles: int = 256
    """walkers of annealed importance sampling and of sequential Monte Carlo, a multiple of 8 and at least 16 (128 or more to be
    trusted)"""
    rungs: int = 400
    """noise levels from the largest to the one asked for, from each to the next by a step of the reverse diffusion"""
    leapfrog: int = 0
    """leapfrog steps of an HMC move at each level besides (0: no move)"""
    flow_draws: int = 128
    """draws of the probability flow, each with the exact trace; 0 leaves the method out"""
    flow_steps: int = 25
    """noise levels of its solver, RK4"""
    sigma: float | None = None
    """the noise level whose density is normalised (the model's smallest)"""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("particles", 16, 10**6), ("rungs", 2, 10**5), ("leapfrog", 0, 1000), ("flow_draws", 0, 10**6),
            ("flow_steps", 2, 10_000),
        ):  # fmt: skip
            value = getattr(self, name)
            if not least <= value <= most:
                few = f": a budget of {value} is too small for one step" if value < 2 <= least else ""
                raise ValueError(f"--{name.replace('_', '-')} must be from {least} to {most}, got {value}{few}")
        if self.flow_draws == 1:
            raise ValueError("--flow-draws must be 0 or at least 2, got 1: a budget of 1 is too small for one step")
        if self.particles % 8:
            raise ValueError(f"--particles must be a multiple of 8, got {self.particles}")


def energy_of(model: Model, source: object) -> EnergyModel:
    """The model, if it is an energy; raises `UserError`."""
    if not isinstance(model, EnergyModel):
        raise UserError(f"{source} holds a direct score, which has no log-density to normalise: train with --energy")
    return model


def log_partition(
    model: EnergyModel, options: LogZOptions, *, seed: int = 0, watch: Watch = lambda method, done, total: None
) -> list[Partition]:
    """log Z in scaled units at one level: quadrature where dimensions allow it, AIS, SMC, importance sampling by the flow.

    Raises:
        UserError: a level outside the model's, or a density that need not have a Z.
    """
    shape = model.event_shape
    sigma = model.sigma_range[0] if options.sigma is None else options.sigma

    def stream(purpose: str) -> torch.Generator:
        return keyed_generator(seed, f"log Z, {purpose}", device=next(model.parameters()).device)

    def counted(method: str, total: int) -> Callable[[int], None]:
        done = 0

        def tick(n: int) -> None:
            nonlocal done
            done += n
            watch(method, done, total)

        return tick

    found: list[Partition] = []
    try:
        check_level(sigma, model.sigma_range)
        if model.sigma_range[0] == model.sigma_range[1]:
            return by_tempering(model, options, stream, counted)
        if not sigma < model.sigma_range[1]:
            raise ValueError(f"--sigma must be below the model's largest level {model.sigma_range[1]:g}, got {sigma:g}")
        check_confined(model, shape, sigma)
        if math.prod(shape) <= 3:
            found.append(by_quadrature(model, shape, sigma, counted("quadrature", POINTS * 4 // 3)))
        pilot, moves = options.particles, int(options.leapfrog > 0)
        tick, first = counted("pilot", (1 + moves) * options.rungs - 1), stream("pilot")
        path = noise_path(model, shape, sigma, options.rungs, denoising=True, pilot=pilot, generator=first, watch=tick)
        walk = Annealing(options.particles, HMC(max(options.leapfrog, 1)), moves, pilot=min(32, pilot))
        sizes = walk.step_sizes(path, generator=first, watch=tick)
        found.append(walk.importance(path, sizes, generator=stream("AIS"), watch=counted("AIS", options.rungs)))
        found.append(walk.sequential(path, sizes, generator=stream("SMC"), watch=counted("SMC", options.rungs)))
        if options.flow_draws:
            flow = FlowLikelihood(RungeKutta4(options.flow_steps, sigma_range=(sigma, model.sigma_range[1])), Exact())
            tick = counted("flow", options.flow_draws)
            found.append(flow_importance(model, shape, options.flow_draws, flow, generator=stream("flow"), watch=tick))
    except ValueError as error:
        raise UserError(str(error)) from error
    return found


def by_tempering(
    model: EnergyModel,
    options: LogZOptions,
    stream: Callable[[str], torch.Generator],
    counted: Callable[[str, int], Callable[[int], None]],
) -> list[Partition]:
    """AIS and SMC of an energy of one noise level: from a Gaussian of the data's variance, by its powers and HMC."""
    sigma, shape = model.sigma_range[0], model.event_shape
    check_confined(model, shape, sigma)
    base = gaussian(torch.zeros(shape, device=next(model.parameters()).device), 1 + sigma**2)
    path = geometric_path(base, model, sigma, options.rungs)
    walk = Annealing(options.particles, HMC(max(options.leapfrog, 3)), pilot=min(32, options.particles))
    sizes = walk.step_sizes(path, generator=stream("pilot"), watch=counted("pilot", options.rungs))
    return [
        walk.importance(path, sizes, generator=stream("AIS"), watch=counted("AIS", options.rungs)),
        walk.sequential(path, sizes, generator=stream("SMC"), watch=counted("SMC", options.rungs)),
    ]


def by_quadrature(model: EnergyModel, shape: tuple[int, ...], sigma: float, watch: Callable[[int], None]) -> Partition:
    """Quadrature, or a record of why it cannot be had."""
    try:
        return quadrature(model, shape, sigma, most=POINTS, watch=watch)
    except ValueError as error:
        return Partition("quadrature", 0.0, math.inf, problems=(str(error),), sigma=sigma)


def disagreements(found: list[Partition]) -> list[str]:
    """A line for each two trustworthy estimates more than 3 combined standard errors apart."""
    trusted = [p for p in found if p.trustworthy]
    lines = []
    for one, other in itertools.combinations(trusted, 2):
        apart, combined = abs(one.log_z - other.log_z), math.hypot(one.se, other.se)
        if apart > 3 * combined:
            lines.append(
                f"{one.method} and {other.method} disagree: {apart:.2g} nats, {apart / combined:.1f} combined standard errors"
            )
    return lines


def best(found: list[Partition]) -> Partition | None:
    """The trustworthy estimate with the smallest standard error; None if there is none."""
    return min((p for p in found if p.trustworthy), key=lambda p: p.se, default=None)


@dataclass(frozen=True)
class HeldOut:
    """Mean log-density of held-out rows, nats in the units of the data."""

    energy: Estimate
    """by the energy, less log Z; its standard error has that of log Z in it"""
    flow: Estimate | None
    """by the probability flow of the energy's scores; an energy of one noise level has none"""
    gap: Estimate | None
    """energy less flow, row by row: 0 for an energy that solves the Fokker–Planck equation"""
    rows: int


def held_out(model: EnergyModel, raw: np.ndarray, z: Partition, *, seed: int = 0, watch: Callable[[int], None]) -> HeldOut:
    """What both make of raw rows `(n, *event)`, at the level of log Z, which is the model's smallest."""
    device = next(model.parameters()).device
    low, high = model.sigma_range
    values = []
    with torch.no_grad():
        for chunk, part in enumerate(torch.from_numpy(np.array(raw)).split(CHUNK)):
            x = encoded(model.spec, part, seed, "rows", chunk).to(device)  # with the noise that the flow's rows have
            values.append(model.log_density(x, z.sigma).double().cpu() - z.log_z)
    energy = raw_log_density(torch.cat(values), model.spec.scaling, model.event_shape)
    if not energy.isfinite().all():
        raise RunError("the log-density of some held-out row is not finite: the energy or its log Z is at fault")
    if low == high:
        watch(len(raw))
        return HeldOut(with_shared_error(energy, z.se), None, None, len(raw))
    flow = check_finite(log_densities(model, raw, Effort(draws=0), seed=seed, device=device, watch=watch))
    by_flow = torch.from_numpy(flow.log_density)
    return HeldOut(
        with_shared_error(energy, z.se), with_shared_error(by_flow, 0.0), with_shared_error(energy - by_flow, z.se), len(raw)
    )


def with_shared_error(values: Tensor, shared: float) -> Estimate:
    """The mean of rows `(n,)`; its standard error and one that all rows share, together."""
    return Estimate(float(values.mean()), math.hypot(float(values.std()) / len(values) ** 0.5, shared))


def write_log_z(found: list[Partition], rows: HeldOut | None, path: Path) -> None:
    """All of it as JSON, written atomically."""
    chosen = best(found)
    content = {
        "format_version": FORMAT_VERSION,
        "log_z": None if chosen is None else {"value": chosen.log_z, "se": chosen.se, "method": chosen.method},
        "estimates": [{**asdict(p), "verdict": p.verdict, "bounds": p.bounds} for p in found],
        "disagreements": disagreements(found),
        "held_out": None if rows is None else asdict(rows),
    }
    write_durably(path, json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
