"""Rows 11, 12 and 16: processes, and the samplers that follow them from noise to data.

11  f = α′/α and g² = 2 std² d log σ/dt, σ = std/α, are those of the papers, of one diffusion in different coordinates:
    the score of α x₀ + std z at x is ∇log p_σ(x/α)/α
12  from σ = 2 to 0.05 on N(m, v I), where x(σ) = m + (x(2) − m) √((v + σ²)/(v + 4)), errors fall as steps^−order. Weak orders
    are those of mean and variance from a point at σ = 2: the reverse SDE shrinks the distance to m by r = (v + σ²)/(v + 4)
    and has the variance v + σ² − r² (v + 4) = r (4 − σ²)
16  p = 1/5 N((−5, −5), I) + 4/5 N((5, 5), I), chains started uniform on [−8, 8]²: Langevin dynamics at one level keeps the
    weights of the start, those of p's basins; annealed, it finds 1/5 and 4/5
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from scorefield.densities import GaussianMixture, gaussian
from scorefield.interfaces import State
from scorefield.processes import PROCESSES, Process, drift_diffusion, marginal_score, noise_level, time_at
from scorefield.samplers import (
    DDIM,
    Ancestral,
    AnnealedLangevin,
    Descent,
    DormandPrince,
    DPMSolver,
    Euler,
    EulerMaruyama,
    Geometric,
    Heun,
    Langevin,
    ProbabilityFlow,
    RungeKutta4,
)
from scorefield.verify.families import Shape, name, random_mean, shapes, stream
from scorefield.verify.record import Record, exact, ordered, sampled, worst

Rates = Callable[[Tensor], tuple[Tensor, Tensor]]
VARIANCE, HIGH, LOW = 0.64, 2.0, 0.05


def variance_preserving(beta: Callable[[Tensor], Tensor]) -> Rates:
    """dx = −½ β x dt + √β dW."""
    return lambda t: (-beta(t) / 2, beta(t))


def sub_vp(t: Tensor) -> tuple[Tensor, Tensor]:
    """Song et al. 2021, eq. 12, B = ∫β."""
    beta = 0.1 + 19.9 * t
    return -beta / 2, beta * (1 - (-2 * (0.1 * t + 19.9 / 2 * t**2)).exp())


RATES: dict[str, Rates] = {
    "edm": lambda t: (0 * t, 2 * t),
    "ve": lambda t: (0 * t, 2 * math.log(40_000) * 0.002**2 * 40_000 ** (2 * t)),
    "vp": variance_preserving(lambda t: 0.1 + 19.9 * t),
    "cosine": variance_preserving(lambda t: math.pi / 1.008 * (math.pi / 2 * (t + 0.008) / 1.008).tan()),
    "sub-vp": sub_vp,
    "flow": lambda t: (-1 / (1 - t), 2 * t / (1 - t)),
}
"""f and g² as the papers have them"""


def row_11(full: bool) -> Iterator[Record]:
    t = torch.linspace(0.02, 0.98, 97 if full else 25, dtype=torch.float64)
    levels = torch.logspace(-2, 1.9, 100, dtype=torch.float64)
    for which, process in PROCESSES.items():
        drift, diffusion = drift_diffusion(process, t)
        f, g2 = RATES[which](t)
        yield exact(11, f"f = α′/α: {which}", drift, f, 1e-6)
        yield exact(11, f"log g² = log(2 std² d log σ/dt): {which}", diffusion.log(), g2.log(), 1e-6)
        back = noise_level(process, time_at(process, levels))
        yield exact(11, f"log σ(t(σ)) = log σ: {which}", back.log(), levels.log(), 1e-12)
        for shape in shapes(full):
            yield marginal_scores(which, process, shape, t[:: len(t) // 5])


def marginal_scores(which: str, process: Process, shape: Shape, times: Tensor) -> Record:
    """Against the law of α x₀ + std z itself, a mixture like that of x₀."""
    weights, variances = torch.tensor([[1.0, 2.0, 3.0], [0.1, 0.5, 0.9]], dtype=torch.float64)
    means = torch.stack([random_mean(shape, stream(11, k)) for k in range(3)])
    p, x = GaussianMixture(weights, means, variances), 2 * torch.randn(20, *shape, generator=stream(11), dtype=torch.float64)
    scores, of_the_law = [], []
    for t in times:
        alpha, std = process.alpha(t), process.std(t)
        scores.append(marginal_score(p, process, x, t))
        of_the_law.append(GaussianMixture(weights, alpha * means, alpha**2 * variances + std**2).score(x))
    statement = f"∇log p_t(x) = ∇log p_σ(x/α)/α: {which}, {name(shape)}, mixture"
    return exact(11, statement, torch.stack(scores), torch.stack(of_the_law), 1e-6)


def row_12(full: bool) -> Iterator[Record]:
    intervals = [32, 64, 128, 256, 512] if full else [32, 64, 128]
    for shape in shapes(full):
        problem = Relaxation(shape)
        for label, (order, makes) in SOLVERS.items():
            errors = [[problem.error(make(steps=n + 1, **problem.ends)) for n in intervals] for make in makes]
            yield converging(f"order of {label}: {name(shape)}", order, intervals, errors)
        for tolerance in (1e-4, 1e-8):
            adaptive = partial(DormandPrince, 2, rtol=tolerance, atol=tolerance)
            error = max(problem.error(adaptive(process=process, **problem.ends)) for process in PROCESSES.values())
            statement = (
                f"40 tol ≥ error of Dormand–Prince in every process: {name(shape)}, tol {tolerance:g} [21 tol were seen]"
            )
            yield ordered(12, statement, 40 * tolerance, error)
        yield problem.round_trip(RungeKutta4(100, **problem.ends))
    euler = np.array(
        [[weak_errors(EulerMaruyama(n + 1, Geometric(), process=p)) for n in intervals] for p in PROCESSES.values()]
    )
    for what, found in zip(("mean", "variance"), np.moveaxis(euler, 2, 0), strict=True):
        yield converging(f"weak order of Euler–Maruyama in every process, {what}", EulerMaruyama.order, intervals, found)
    means, variances = np.transpose([weak_errors(Ancestral(n + 1, Geometric())) for n in intervals])
    yield exact(12, "ancestral sampling keeps the mean exactly: Gaussian", torch.tensor(means), 0.0)
    yield converging("weak order of ancestral sampling, variance", Ancestral().order, intervals, [variances])


def in_every_process(kind: type[ProbabilityFlow]) -> list[Callable[..., Descent]]:
    return [partial(kind, process=process) for process in PROCESSES.values()]


SOLVERS: dict[str, tuple[int, list[Callable[..., Descent]]]] = {
    "Euler's method in every process": (Euler.order, in_every_process(Euler)),
    "Heun's method in every process": (Heun.order, in_every_process(Heun)),
    "Runge–Kutta 4 in every process": (RungeKutta4.order, in_every_process(RungeKutta4)),
    "DDIM": (DDIM().order, [DDIM]),
    **{f"DPM-Solver++ {order}M": (order, [partial(DPMSolver, order=order)]) for order in (2, 3)},
}


def converging(statement: str, order: int, intervals: Sequence[int], errors: ArrayLike) -> Record:
    """Errors, a row of them for each process, ∝ intervals^−order; the order is the slope of a line through the logarithms."""
    slopes = np.polyfit(np.log(intervals), np.log(errors).T, 1)[0]
    found = torch.tensor(-slopes)
    return worst(12, f"{statement}, Gaussian [±0.15]", found, torch.full_like(found, order), torch.full_like(found, 0.15))


class Relaxation:
    """The probability flow of N(m, v I), with its solution."""

    def __init__(self, shape: Shape) -> None:
        self.mean = random_mean(shape, stream(12))
        self.density = gaussian(self.mean, VARIANCE)
        self.start = 2 * torch.randn(3, *shape, generator=stream(12, 1), dtype=torch.float64)
        self.ends: dict[str, Any] = {"grid": Geometric(), "sigma_range": (LOW, HIGH), "to_zero": False}
        self.end = self.mean + (self.start - self.mean) * math.sqrt((VARIANCE + LOW**2) / (VARIANCE + HIGH**2))

    def error(self, solver: Descent) -> float:
        """Of the worst coordinate."""
        return float((last(solver(self.density, self.start)) - self.end).abs().max())

    def round_trip(self, solver: ProbabilityFlow) -> Record:
        up = last(solver.encode(self.density, self.end))
        there_and_back = torch.stack([up, last(solver(self.density, up))])
        statement = f"encoded, and decoded again: {name(self.mean.shape)}, Gaussian"
        return exact(12, statement, there_and_back, torch.stack([self.start, self.end]), 1e-6)


def last(states: Iterator[State]) -> Tensor:
    *_, state = states
    return state.x


def weak_errors(sampler: Descent, start: float = 3.0) -> tuple[float, float]:
    """|mean − exact| and |variance − exact| at σ = 0.05 from the point `start` at σ = 2, without chance.

    On a Gaussian each step is x ↦ a x + b + c z. Two steps from 0 and one from 1 with known z give a, b and c, and with
    them what the step does to mean and variance.
    """
    levels, m, v = sampler.grid(sampler.steps, (LOW, HIGH)), 0.5, VARIANCE
    g, same = stream(12, 2), stream(12, 2)
    step = sampler.stepper(gaussian(torch.tensor([m]), v), levels, None, g)
    mean, variance = start, 0.0
    for i in range(sampler.steps - 1):
        x = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
        z = torch.randn(x.shape, generator=same, dtype=torch.float64)
        y = step(i, x)
        c = float((y[0] - y[1]) / (z[0] - z[1]))
        b = float(y[0] - c * z[0])
        a = float(y[2] - c * z[2]) - b
        mean, variance = a * mean + b, a**2 * variance + c**2
    r = (v + LOW**2) / (v + HIGH**2)
    return abs(mean - m - r * (start - m)), abs(variance - r * (HIGH**2 - LOW**2))


def row_16(full: bool) -> Iterator[Record]:
    n = 20_000 if full else 2_000
    weights, means = torch.tensor([0.2, 0.8]), torch.tensor([[-5.0, -5.0], [5.0, 5.0]])
    p = GaussianMixture(weights, means, torch.ones(2))
    start = 16 * torch.rand(n, 2, generator=stream(16), dtype=torch.float64) - 8
    heavier = {}
    for sampler in (Langevin(300, 0.1, 0.1), AnnealedLangevin(100, 40, step_ratio=0.3, sigma_range=(1.0, 20.0))):
        heavier[type(sampler)] = (last(sampler(p, start, generator=stream(16, 1))).sum(1) > 0).double()
    # uniform mass above p's ridge x + y = −log 4/10: half, and a strip in which the sum of coordinates has the density 1/16
    basin = 0.5 + math.log(4) / 10 / 16
    plain = heavier[Langevin]
    yield sampled(16, "weight 4/5 by annealed Langevin dynamics", heavier[AnnealedLangevin], 0.8)
    yield sampled(16, "weight by plain Langevin dynamics: the start's in the mode's basin", plain, basin)
    yield ordered(16, "… which is wrong by more than 1/5", abs(float(plain.mean()) - 0.8), 0.2)
