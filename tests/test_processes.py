"""(α, std) to (f, g²), to times and to marginal scores (identity 11), also for a process that is not built in."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from scorefield.densities import GaussianMixture, gaussian
from scorefield.processes import (
    EDM,
    PROCESSES,
    VE,
    VP,
    Cosine,
    Process,
    RectifiedFlow,
    SubVP,
    drift_diffusion,
    level_range,
    marginal_score,
    nodes,
    noise_level,
    snr,
    time_at,
    velocity,
)


@dataclass(frozen=True)
class Own:
    """A process as a user would write one: α = 1/(1 + t), std = t."""

    time_range: tuple[float, float] = (1e-3, 20.0)

    def alpha(self, t: Tensor) -> Tensor:
        return 1 / (1 + t)

    def std(self, t: Tensor) -> Tensor:
        return t


def beta(t: Tensor) -> Tensor:
    return 0.1 + 19.9 * t


def integral(t: Tensor) -> Tensor:
    return 0.1 * t + 19.9 * t**2 / 2


def cosine_beta(t: Tensor) -> Tensor:
    """−d log ᾱ/dt for ᾱ ∝ cos²((t + s)/(1 + s) · π/2)."""
    return math.pi / 1.008 * torch.tan((t + 0.008) / 1.008 * math.pi / 2)


@dataclass(frozen=True)
class Case:
    """A process with f, g² and σ in closed form."""

    process: Process
    f: Callable[[Tensor], Tensor]
    g2: Callable[[Tensor], Tensor]
    level: Callable[[Tensor], Tensor]


# Song et al. 2021, equations 9, 11, 12 and appendix C; the flow's and the own one's by hand from g² = d std²/dt − 2 f std²
CASES = {
    "edm": Case(EDM(), torch.zeros_like, lambda t: 2 * t, lambda t: t),
    "ve": Case(
        VE(0.01, 50.0),
        torch.zeros_like,
        lambda t: 0.01**2 * 5000 ** (2 * t) * 2 * math.log(5000),
        lambda t: 0.01 * 5000**t,
    ),
    "vp": Case(VP(), lambda t: -beta(t) / 2, beta, lambda t: (integral(t).exp() - 1).sqrt()),
    "cosine": Case(
        Cosine(),
        lambda t: -cosine_beta(t) / 2,
        cosine_beta,
        lambda t: ((math.cos(0.004 * math.pi / 1.008) / torch.cos((t + 0.008) / 1.008 * math.pi / 2)) ** 2 - 1).sqrt(),
    ),
    "sub-vp": Case(
        SubVP(),
        lambda t: -beta(t) / 2,
        lambda t: beta(t) * (1 - (-2 * integral(t)).exp()),
        lambda t: (integral(t) / 2).exp() - (-integral(t) / 2).exp(),
    ),
    "flow": Case(RectifiedFlow(), lambda t: -1 / (1 - t), lambda t: 2 * t / (1 - t), lambda t: t / (1 - t)),
    "own": Case(Own(), lambda t: -1 / (1 + t), lambda t: 2 * t * (1 + 2 * t) / (1 + t), lambda t: t * (1 + t)),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
TIMES = torch.tensor([0.02, 0.3, 0.5, 0.9], dtype=torch.float64)


def test_the_named_processes_are_these() -> None:
    assert {name: VE() if name == "ve" else CASES[name].process for name in PROCESSES} == PROCESSES
    assert len(PROCESSES) == len(CASES) - 1


@each_case
def test_drift_and_diffusion(case: Case) -> None:
    drift, diffusion = drift_diffusion(case.process, TIMES)
    torch.testing.assert_close(drift, case.f(TIMES), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(diffusion, case.g2(TIMES), rtol=1e-6, atol=0)
    for i, t in enumerate(TIMES):  # scalar times too
        torch.testing.assert_close(torch.stack(drift_diffusion(case.process, t)), torch.stack([drift[i], diffusion[i]]))


@each_case
def test_noise_levels(case: Case) -> None:
    torch.testing.assert_close(noise_level(case.process, TIMES), case.level(TIMES), rtol=1e-9, atol=0)
    torch.testing.assert_close(snr(case.process, TIMES), case.level(TIMES) ** -2, rtol=1e-9, atol=0)


@each_case
def test_nodes_are_the_process_at_each_time(case: Case) -> None:
    drift, diffusion = drift_diffusion(case.process, TIMES)
    columns = TIMES, noise_level(case.process, TIMES), case.process.alpha(TIMES), drift, diffusion
    assert nodes(case.process, TIMES) == [tuple(row) for row in torch.stack(columns, 1).tolist()]
    names = [(at.t, at.sigma, at.alpha, at.drift, at.diffusion) for at in nodes(case.process, TIMES)]
    assert names == [tuple(row) for row in torch.stack(columns, 1).tolist()]


@each_case
def test_times_are_the_inverse_of_noise_levels(case: Case) -> None:
    low, high = level_range(case.process)
    levels = torch.logspace(math.log10(max(low, 1e-4)), math.log10(min(high, 100.0)), 200, dtype=torch.float64)
    torch.testing.assert_close(noise_level(case.process, time_at(case.process, levels)), levels, rtol=1e-12, atol=0)
    torch.testing.assert_close(time_at(case.process, noise_level(case.process, TIMES)), TIMES, rtol=1e-12, atol=0)
    assert time_at(case.process, levels.tolist()).equal(time_at(case.process, levels))
    start, end = case.process.time_range
    assert time_at(case.process, [low, high]).tolist() == pytest.approx([start, end], rel=1e-12)


def test_levels_that_a_process_does_not_reach() -> None:
    for level in (0.001, 60.0, float("nan"), -1.0):
        with pytest.raises(ValueError, match=r"VE has noise levels from 0.01 to 50, not \["):
            time_at(VE(0.01, 50.0), [1.0, level])
    assert time_at(VE(0.01, 50.0), [0.01 * (1 - 1e-12), 50 * (1 + 1e-12)]).tolist() == [0.0, 1.0]  # rounding is forgiven


def test_ranges() -> None:
    assert EDM(0.01, 50.0).time_range == (0.01, 50.0)
    ranges = {name: level_range(process) for name, process in PROCESSES.items()}
    assert ranges["edm"] == ranges["flow"] == (0.0, math.inf)
    assert ranges["ve"] == pytest.approx((0.002, 80.0))
    assert ranges["vp"] == pytest.approx((1e-3, math.expm1(10.05) ** 0.5), rel=1e-3)
    assert ranges["sub-vp"] == pytest.approx((1e-6, 2 * math.sinh(10.05 / 2)), rel=1e-3)
    assert ranges["cosine"][0] == pytest.approx((1e-5 * math.pi / 1.008 * math.tan(0.004 * math.pi / 1.008)) ** 0.5, rel=1e-3)
    assert ranges["cosine"][1] > 1e6


@each_case
def test_marginal_scores_are_those_of_the_diffused_density(case: Case) -> None:
    weights, means = torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.5], [1.0, 2.0]], dtype=torch.float64)
    variances = torch.tensor([0.2, 0.6], dtype=torch.float64)
    p = GaussianMixture(weights, means, variances)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in TIMES:
        a, s = case.process.alpha(t), case.process.std(t)
        diffused = GaussianMixture(weights, a * means, a**2 * variances + s**2)  # the law of α x₀ + std z
        torch.testing.assert_close(marginal_score(p, case.process, x, t), diffused.score(x), rtol=1e-6, atol=1e-9)


@each_case
def test_marginal_scores_agree_across_processes(case: Case) -> None:
    """At times of equal σ, in each other's coordinates: α s_t(α y) is ∇ log p_σ(y), whatever the process."""
    p = GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.2, 0.6]))
    y = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    for sigma in (0.05, 0.7, 9.0):
        t = time_at(case.process, [sigma])[0]
        a = case.process.alpha(t)
        torch.testing.assert_close(a * marginal_score(p, case.process, a * y, t), p.score(y, sigma), rtol=1e-9, atol=1e-12)


@each_case
def test_the_marginals_solve_the_fokker_planck_equation(case: Case) -> None:
    """The variance of dx = f x dt + g dW obeys dv/dt = 2 f v + g², for v = α² τ² + std²."""
    variance = lambda t: case.process.alpha(t) ** 2 * 0.7 + case.process.std(t) ** 2  # noqa: E731
    rate = torch.func.jvp(variance, (TIMES,), (torch.ones_like(TIMES),))[1]
    drift, diffusion = drift_diffusion(case.process, TIMES)
    torch.testing.assert_close(2 * drift * variance(TIMES) + diffusion, rate, rtol=1e-6, atol=1e-9)


@each_case
@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)], ids=str)
def test_the_velocity_keeps_a_gaussians_quantiles(case: Case, shape: tuple[int, ...]) -> None:
    """The flow moves x_t = α m + √v y, v = α² τ² + std², with y at rest: dx/dt = α′ m + (√v)′ y."""
    mean = torch.linspace(-1, 2, math.prod(shape), dtype=torch.float64).reshape(shape)
    y = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def path(t: Tensor) -> Tensor:
        a, s = case.process.alpha(t), case.process.std(t)
        return a * mean + (a**2 * 0.7 + s**2).sqrt() * y

    for t, at in zip(TIMES, nodes(case.process, TIMES), strict=True):
        x, rate = torch.func.jvp(path, (t,), (torch.ones_like(t),))
        torch.testing.assert_close(velocity(gaussian(mean, 0.7), at, x), rate, rtol=1e-9, atol=1e-9)
