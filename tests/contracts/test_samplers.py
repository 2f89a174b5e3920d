"""Every sampler on scores known exactly: distribution, order, and the caller's modes (identities 12, 15, 16).

Monte-Carlo tolerances are 4.5 standard errors of the statistic under the exact law. Each sampler's own bias was made several
times smaller than that by its settings (more steps than its defaults), so a mistake in a formula is what breaks a test.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scorefield.densities import GaussianMixture, gaussian
from scorefield.interfaces import Score, State
from scorefield.models import EnergyModel, InnerProduct, ModelSpec
from scorefield.networks import MLPConfig
from scorefield.processes import PROCESSES, VP, RectifiedFlow
from scorefield.samplers import (
    DDIM,
    Ancestral,
    AnnealedLangevin,
    Autocast,
    Churn,
    Descent,
    DormandPrince,
    DPMSolver,
    Euler,
    EulerMaruyama,
    Geometric,
    Heun,
    Karras,
    Langevin,
    PredictorCorrector,
    RungeKutta4,
    StartingSampler,
)

SIGMAS = 4.5
WIDE = (0.02, 80.0)
SAMPLERS: list[StartingSampler] = [
    Langevin(steps=500, sigma=0.1, step_size=0.02),
    AnnealedLangevin(steps=100, steps_per_level=8, step_ratio=0.5, sigma_range=(0.1, 20.0)),
    Euler(steps=400, sigma_range=WIDE),
    Heun(steps=60, sigma_range=WIDE),
    Heun(steps=40, sigma_range=WIDE, process=RectifiedFlow()),
    RungeKutta4(steps=20, sigma_range=WIDE),
    DormandPrince(steps=2, sigma_range=WIDE),
    DDIM(steps=400, sigma_range=WIDE),
    DDIM(steps=400, eta=0.5, sigma_range=WIDE),
    Ancestral(steps=800, sigma_range=WIDE),
    DPMSolver(steps=60, sigma_range=WIDE),
    DPMSolver(steps=40, order=3, sigma_range=WIDE),
    EulerMaruyama(steps=800, sigma_range=WIDE),
    EulerMaruyama(steps=800, sigma_range=WIDE, process=VP()),
    PredictorCorrector(steps=400, sigma_range=WIDE),
    Churn(steps=100, noise=1.0, sigma_range=WIDE),
]
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
DESCENTS: list[type[Descent]] = [
    Euler, Heun, RungeKutta4, DormandPrince, DDIM, Ancestral, DPMSolver, EulerMaruyama, PredictorCorrector, Churn,
]  # fmt: skip


def mixture(shape: tuple[int, ...]) -> GaussianMixture:
    """Two correlated components of unequal weight, apart but not cut off from each other."""
    d = math.prod(shape)
    g = torch.Generator().manual_seed(7)
    root = 0.35 * torch.randn(2, d, d, generator=g, dtype=torch.float64)
    centre = torch.linspace(1.0, 0.4, d, dtype=torch.float64).reshape(shape)
    centre = centre / centre.norm()
    covariances = root @ root.mT + 0.25 * torch.eye(d, dtype=torch.float64)
    return GaussianMixture(torch.tensor([0.3, 0.7]), torch.stack([-centre, centre]), covariances)


def last(states: Iterator[State]) -> State:
    *_, state = states
    return state


def run(sampler: StartingSampler, model: Score, shape: tuple[int, ...], n: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    start = sampler.start(model, (n, *shape), g).double()
    return last(sampler(model, start, generator=g)).x


@each_sampler
@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=str)
def test_mean_covariance_and_mode_weights(sampler: StartingSampler, shape: tuple[int, ...]) -> None:
    n, p = 3000, mixture(shape)
    x = run(sampler, p, shape, n).flatten(1)
    sigma = 0.1 if isinstance(sampler, Langevin) else 0.0  # plain Langevin's law is p_σ's
    exact = p.sample(200_000, sigma, generator=torch.Generator().manual_seed(1)).flatten(1)
    covariance = p.covariance() + sigma**2 * torch.eye(x.shape[1], dtype=torch.float64)

    def check(values: Tensor, expected: Tensor | float, law: Tensor) -> None:
        error = (values.mean(0) - expected) / (law.std(0) / n**0.5)
        assert error.abs().max() < SIGMAS, f"{error.abs().max():.1f} standard errors"

    def products(y: Tensor) -> Tensor:
        centred = y - p.mean().flatten()
        return (centred[:, :, None] * centred[:, None, :]).flatten(1)

    check(x, p.mean().flatten(), exact)
    check(products(x), covariance.flatten(), products(exact))
    first = lambda y: (y @ p.mean().flatten() < 0).double()  # noqa: E731  # the side of the lighter mode
    check(first(x), first(exact).mean(), first(exact))


@pytest.mark.parametrize("shape", [(4,), (1, 2, 2)], ids=str)
@pytest.mark.parametrize(("h", "temperature"), [(0.1, 1.0), (0.5, 1.0), (1.0, 1.0), (0.5, 0.25)])
def test_langevins_stationary_variance(h: float, temperature: float, shape: tuple[int, ...]) -> None:
    """On N(0, 1): v = (1 − h)² v + 2hτ, so v = τ/(1 − h/2); started at 0, after k steps less (1 − h)^2k of it."""
    n, steps = 10_000, 60
    normal = gaussian(torch.zeros(shape), 0.75)  # smoothed by σ = 0.5 it is N(0, 1)
    sampler = Langevin(steps, 0.5, h, temperature)
    g = torch.Generator().manual_seed(0)
    x = last(sampler(normal, torch.zeros(n, *shape, dtype=torch.float64), generator=g)).x
    expected = temperature / (1 - h / 2)
    assert (x.square().mean() / expected - 1).abs() < SIGMAS * (2 / (4 * n)) ** 0.5
    assert x.mean().abs() < SIGMAS * (expected / (4 * n)) ** 0.5


@pytest.mark.parametrize("shape", [(4,), (1, 2, 2)], ids=str)
def test_annealed_langevins_variance_by_its_recursion(shape: tuple[int, ...]) -> None:
    """On N(0, v): var ← (1 − h/(v + σ²))² var + 2h with h = ratio σ², five times a level."""
    n, v, ratio = 10_000, 0.5, 0.3
    sampler = AnnealedLangevin(4, 5, ratio, sigma_range=(0.2, 3.0), to_zero=False)
    g = torch.Generator().manual_seed(0)
    x = last(sampler(gaussian(torch.zeros(shape), v), torch.zeros(n, *shape).double(), generator=g)).x
    variance = 0.0
    for sigma in Geometric()(4, (0.2, 3.0)):
        h = ratio * sigma**2
        for _ in range(5):
            variance = (1 - h / (v + sigma**2)) ** 2 * variance + 2 * h
    assert (x.square().mean() / variance - 1).abs() < SIGMAS * (2 / (4 * n)) ** 0.5


def test_plain_langevin_forgets_mode_weights_and_annealed_langevin_recovers_them() -> None:
    """Song & Ermon 2019, section 3.2.2."""
    n = 2000
    p = GaussianMixture(torch.tensor([0.2, 0.8]), torch.tensor([[-5.0, -5.0], [5.0, 5.0]]), torch.ones(2))
    start = 16 * torch.rand(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 8
    weight = {}
    for sampler in (Langevin(300, 0.1, 0.1), AnnealedLangevin(100, 40, step_ratio=0.3, sigma_range=(1.0, 20.0))):
        x = last(sampler(p, start, generator=torch.Generator().manual_seed(1))).x
        weight[type(sampler)] = float((x.sum(1) > 0).double().mean())
    basin = 0.5 + math.log(4) / 10 * 16 / 256  # uniform mass on the heavier side of p's ridge, x + y = −log 4/10
    assert weight[Langevin] == pytest.approx(basin, abs=SIGMAS * 0.5 / n**0.5)
    assert weight[AnnealedLangevin] == pytest.approx(0.8, abs=SIGMAS * 0.4 / n**0.5)


SOLVERS: dict[str, Callable[[int], Descent]] = {
    f"{kind.__name__} in {name}": partial(kind, process=process, grid=Geometric())
    for kind in (Euler, Heun, RungeKutta4)
    for name, process in PROCESSES.items()
} | {
    f"{make.func.__name__} {make.keywords} on {grid}": partial(make, grid=grid)
    for make in (partial(DDIM), partial(DPMSolver), partial(DPMSolver, order=3))
    for grid in (Geometric(), Karras())
}


@pytest.mark.parametrize("make", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=str)
def test_ode_solvers_converge_at_their_order(make: Callable[..., Descent], shape: tuple[int, ...]) -> None:
    """dx/dσ = σ (x − m)/(s² + σ²) has x(σ) − m = (x(2) − m) √((s² + σ²)/(s² + 4))."""
    variance, mean = 0.64, torch.linspace(-1, 0.5, math.prod(shape), dtype=torch.float64).reshape(shape)
    p = gaussian(mean, variance)
    x = torch.linspace(-2, 3, 3 * math.prod(shape), dtype=torch.float64).reshape(3, *shape)
    exact = mean + (x - mean) * math.sqrt((variance + 0.05**2) / (variance + 4))
    intervals = [32, 64, 128, 256]
    solvers = [make(steps=n + 1, sigma_range=(0.05, 2.0), to_zero=False) for n in intervals]
    errors = [(last(solver(p, x)).x - exact).norm() for solver in solvers]
    assert -np.polyfit(np.log(intervals), np.log(errors), 1)[0] == pytest.approx(solvers[0].order, abs=0.15)  # type: ignore[attr-defined]


class Counted:
    """A score that counts its calls."""

    def __init__(self, base: Score) -> None:
        self.base, self.calls, self.levels = base, 0, list[float]()

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.base.sigma_range

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        self.calls += 1
        self.levels.append(float(sigma))
        return self.base.score(x, sigma, cond)


@each_sampler
@pytest.mark.parametrize("to_zero", [False, True])
@pytest.mark.parametrize("steps", [2, 3, 6])
def test_nfe_is_the_number_of_evaluations(sampler: StartingSampler, to_zero: bool, steps: int) -> None:
    sampler, model = replace(sampler, steps=steps, to_zero=to_zero), Counted(mixture((2,)))  # type: ignore[type-var]
    run(sampler, model, (2,), 5)
    if isinstance(sampler, DormandPrince):
        assert sampler.nfe is None
        assert model.calls > 6 * (steps - 1)
    else:
        assert model.calls == sampler.nfe


@pytest.mark.parametrize("kind", DESCENTS)
def test_no_level_lies_outside_the_range(kind: type[Descent]) -> None:
    """Also where a process, a churning step or an adaptive one might go further."""
    for name, process in PROCESSES.items():
        sampler = kind(steps=4, sigma_range=(0.05, 20.0))
        if sampler.coordinates is not None:
            sampler = replace(sampler, process=process)  # type: ignore[call-arg]
        model = Counted(mixture((2,)))
        run(sampler, model, (2,), 5)
        assert min(model.levels) >= 0.05 * (1 - 1e-12), name
        assert max(model.levels) <= 20.0 * (1 + 1e-12), name


@pytest.mark.parametrize("kind", [*DESCENTS, AnnealedLangevin])
def test_states_carry_their_levels(kind: type) -> None:
    p = mixture((2,))
    x = torch.zeros(3, 2, dtype=torch.float64)
    for to_zero in (True, False):
        sampler = kind(steps=5, sigma_range=(0.1, 10.0), to_zero=to_zero)
        states = list(sampler(p, x))
        levels = [float(s.sigma) for s in states]
        assert len(states) == sampler.states
        assert torch.equal(states[0].x, x)
        assert levels[0] == pytest.approx(10.0)
        assert levels[-1 - to_zero] == pytest.approx(0.1)
        assert not to_zero or levels[-1] == 0
        assert levels == sorted(levels, reverse=True)
        if to_zero:  # the last step is Tweedie's denoiser
            torch.testing.assert_close(states[-1].x, p.posterior_mean(states[-2].x, 0.1))


@pytest.mark.parametrize("to_zero", [False, True])
def test_plain_langevin_stays_at_its_level(to_zero: bool) -> None:
    p = mixture((2,))
    sampler = Langevin(7, 0.1, to_zero=to_zero)
    states = list(sampler(p, torch.zeros(3, 2, dtype=torch.float64)))
    assert len(states) == sampler.states
    assert [float(s.sigma) for s in states] == pytest.approx([0.1] * 8 + [0.0] * to_zero)
    if to_zero:
        torch.testing.assert_close(states[-1].x, p.posterior_mean(states[-2].x, 0.1))


@each_sampler
def test_samples_are_functions_of_the_generator(sampler: StartingSampler) -> None:
    p = mixture((2,))
    assert torch.equal(run(sampler, p, (2,), 3, seed=1), run(sampler, p, (2,), 3, seed=1))
    assert not torch.equal(run(sampler, p, (2,), 3, seed=1), run(sampler, p, (2,), 3, seed=2))


SHORT: list[StartingSampler] = [
    Langevin(3, 0.1),
    AnnealedLangevin(3, 2, sigma_range=(0.1, 10.0)),
    *[kind(3, sigma_range=(0.1, 10.0)) for kind in DESCENTS if kind is not DormandPrince],
    DPMSolver(3, order=3, sigma_range=(0.1, 10.0)),
    DormandPrince(3, sigma_range=(0.1, 10.0), rtol=0.1, atol=0.1),  # bf16 could not meet more
]


def energy_model() -> EnergyModel:
    """A learned energy needs gradients inside, so it is the hardest case."""
    torch.manual_seed(0)
    model = EnergyModel(InnerProduct(MLPConfig(width=16, blocks=1).build((2,))), ModelSpec((2,)))
    nn.init.normal_(model.network.network.leave.weight)  # type: ignore[union-attr, arg-type]
    return model


@pytest.mark.parametrize("sampler", SHORT, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("enabled", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "plain"])
def test_the_callers_modes_are_left_alone(sampler: StartingSampler, enabled: bool, autocast: bool) -> None:
    def modes() -> tuple[bool, bool, bool]:
        return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()

    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    model = energy_model()
    score = Autocast(model, torch.device("cpu"))
    with torch.set_grad_enabled(enabled), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        before = modes()
        for state in sampler(score, x):
            assert modes() == before
            assert not state.x.requires_grad
        assert modes() == before
        for _ in sampler(score, x):  # left early
            break
        assert modes() == before
        for _ in zip(sampler(score, x), sampler(model, x), strict=True):  # interleaved
            assert modes() == before
        abandoned = sampler(score, x)
        next(abandoned)
        del abandoned
        assert modes() == before


@pytest.mark.parametrize("sampler", SHORT, ids=lambda s: type(s).__name__)
def test_modes_may_change_between_states(sampler: StartingSampler) -> None:
    states = sampler(energy_model(), torch.zeros(3, 2))
    with torch.no_grad():
        next(states)
        assert not torch.is_grad_enabled()
    with torch.enable_grad():
        next(states)
        assert torch.is_grad_enabled()


def test_autocast_is_entered_inside_the_call_only() -> None:
    class Spy:
        sigma_range = (0.1, 10.0)
        seen: list[bool]

        def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
            self.seen.append(torch.is_autocast_enabled("cpu"))
            return -x

    spy = Spy()
    spy.seen = []
    wrapped = Autocast(spy, torch.device("cpu"))
    assert wrapped.sigma_range == spy.sigma_range
    for _ in Euler(3)(wrapped, torch.zeros(2, 2)):
        assert not torch.is_autocast_enabled("cpu")
    assert spy.seen == [True] * 3
