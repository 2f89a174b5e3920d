"""Estimates of log Z against densities whose Z is known: identity 18. Tolerances are 3.5 of their own standard errors."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from scorefield.densities import AtLevel, Banana, GaussianMixture, eight_gaussians, gaussian
from scorefield.densities.confinement import check_confined, slowest_fall
from scorefield.interfaces import Energy, ScoredDensity
from scorefield.jacobian_trace import Exact
from scorefield.likelihood import (
    Annealing,
    FlowLikelihood,
    Normalised,
    Partition,
    Path,
    flow_importance,
    geometric_path,
    importance,
    noise_constant,
    noise_path,
    quadrature,
)
from scorefield.likelihood.annealing import Denoising, best_variance
from scorefield.likelihood.partition import log_mean, tail_shape
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, Parameterisation, PlainEnergy
from scorefield.networks import MLPConfig
from scorefield.objectives import DenoisingScoreMatching
from scorefield.processes import VP
from scorefield.samplers import HMC, MALA, ULA, Heun, ProbabilityFlow, RungeKutta4, Target

SIGMAS = 3.5
LOG_Z = 3.0


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Shifted:
    """Z p of a normalised p, log Z = 3."""

    def __init__(self, p: GaussianMixture) -> None:
        self.p, self.event_shape, self.sigma_range = p, p.event_shape, p.sigma_range

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return self.p.log_density(x, sigma) + LOG_Z

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return self.p.score(x, sigma)


def mixture(shape: tuple[int, ...]) -> GaussianMixture:
    """Two correlated components at ±1.5 from the origin."""
    d = math.prod(shape)
    g = stream(7)
    root = 0.35 * torch.randn(2, d, d, generator=g, dtype=torch.float64)
    centre = torch.linspace(1.0, 0.4, d, dtype=torch.float64)
    centre = (1.5 * centre / centre.norm()).reshape(shape)
    covariances = root @ root.mT + 0.25 * torch.eye(d, dtype=torch.float64)
    return GaussianMixture(torch.tensor([0.3, 0.7]), torch.stack([-centre, centre]), covariances)


def contains(found: Partition, truth: float, width: float) -> None:
    """The estimate is right, and its bracket contains the truth and is not wider than `width` nats."""
    assert found.lower is not None
    assert found.trustworthy, found.verdict
    assert abs(found.log_z - truth) < SIGMAS * found.se
    assert found.lower.value - SIGMAS * found.lower.se < truth
    if found.upper is not None:
        assert truth < found.upper.value + SIGMAS * found.upper.se
        assert found.upper.value - found.lower.value < width


@pytest.mark.parametrize("shape", [(2,), (1, 4, 4)], ids=str)
@pytest.mark.parametrize("along", ["temperatures", "noise levels", "noise levels, denoising", "denoising alone"])
def test_annealing_along_each_path_brackets_the_truth(shape: tuple[int, ...], along: str) -> None:
    p = Shifted(mixture(shape))
    if along == "temperatures":
        path = geometric_path(gaussian(torch.zeros(shape), 3.0), p, 0.0, 120)
    else:
        path = noise_path(p, shape, 0.05, 100, 20.0, denoising="denoising" in along, generator=stream(4))
    walk = Annealing(512, HMC(3), moves=0 if along == "denoising alone" else 1)
    sizes = walk.step_sizes(path, generator=stream(0))
    exact = p.p.sample(512, path.sigma, generator=stream(1))
    ais = walk.importance(path, sizes, exact=exact, generator=stream(2))
    smc = walk.sequential(path, sizes, generator=stream(3))
    contains(ais, LOG_Z, width=1.2)
    contains(smc, LOG_Z, width=0.0)
    assert abs(ais.log_z - smc.log_z) < 3 * math.hypot(ais.se, smc.se)
    assert max(ais.se, smc.se) < 0.15
    assert smc.bounds.endswith("no upper bound")
    assert "no upper" not in ais.bounds
    assert walk.importance(path, sizes, generator=stream(2)).bounds.endswith("no upper bound")


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)], ids=str)
def test_a_denoising_step_weighs_what_it_says(shape: tuple[int, ...]) -> None:
    """The ratio of the two normal laws, in coordinates x/√(1 + σ²): from their textbook densities."""
    d, variance = math.prod(shape), torch.linspace(0.4, 1.2, math.prod(shape), dtype=torch.float64)
    step, p = Denoising(1.5, 0.7, variance.reshape(shape)), Shifted(mixture(shape))
    point = Target(AtLevel(p, 1.5, math.sqrt(1 + 1.5**2))).at(torch.randn(50, *shape, generator=stream(1), dtype=torch.float64))
    x, ratio = step.down(point, stream(2))
    above, below = math.sqrt(1 + 1.5**2) * point.x, math.sqrt(1 + 0.7**2) * x
    mean = above + (1.5**2 - 0.7**2) * p.score(above, 1.5)
    there = gaussian(torch.zeros(shape), variance.diag()).log_density(below - mean)
    back = gaussian(torch.zeros(shape), 1.5**2 - 0.7**2).log_density(above - below)
    units = d / 2 * (math.log(1 + 1.5**2) - math.log(1 + 0.7**2))
    torch.testing.assert_close(ratio, back - there + units)
    x = torch.randn(20_000, *shape, generator=stream(5), dtype=torch.float64)
    added = math.sqrt(1 + 1.5**2) * step.back(x, stream(3)) - math.sqrt(1 + 0.7**2) * x
    assert abs(float((added**2).mean()) / (1.5**2 - 0.7**2) - 1) < 4.5 * math.sqrt(2 / added.numel())


@pytest.mark.parametrize("tau", [0.1, 1.0, 30.0])
def test_the_variance_of_a_step_is_that_of_the_true_one(tau: float) -> None:
    """For data N(0, τ²) the reverse step from a to b has variance (a² − b²)(τ² + b²)/(τ² + a²)."""
    a, b = 1.5, 0.7
    p = gaussian(torch.zeros(2), tau**2)
    x = math.sqrt(tau**2 + a**2) * torch.randn(100_000, 2, generator=stream(1), dtype=torch.float64)
    exact = (a**2 - b**2) * (tau**2 + b**2) / (tau**2 + a**2)
    se = (a**2 - b**2) ** 2 / (tau**2 + a**2) * math.sqrt(2 / len(x))
    assert (best_variance(a, b, p.score(x, a)) - exact).abs().max() < 4.5 * se


def test_the_pilot_run_finds_the_variances_of_all_steps() -> None:
    """For N(0, I) particles are N(0, (1 + a²)I) at level a, whose steps' variance is known."""
    path = noise_path(Shifted(gaussian(torch.zeros(400), 1.0)), (400,), 0.1, 30, 20.0, denoising=True, generator=stream(3))
    assert path.steps is not None
    for step in path.steps:
        exact = step.added * (1 + step.b**2) / (1 + step.a**2)
        one = step.added**2 / (1 + step.a**2) * math.sqrt(2 / 256)  # standard error of a coordinate
        assert abs(float(step.variance.mean()) - exact) < 0.5 * one + 1e-3 * exact


def test_denoising_leaves_less_to_chance_than_standing_still() -> None:
    """One normal law in 64 dimensions: as many gradients, a far narrower bracket."""
    p = Shifted(gaussian(torch.zeros(64), 0.01))
    exact = p.p.sample(64, 0.05, generator=stream(1))
    widths = []
    for denoising in (False, True):
        path = noise_path(p, (64,), 0.05, 240 if denoising else 60, 20.0, denoising=denoising, generator=stream(3))
        walk = Annealing(64, HMC(3), moves=0 if denoising else 1)
        found = walk.importance(path, exact=exact, generator=stream(2))
        assert found.lower is not None
        assert found.upper is not None
        assert found.lower.value - SIGMAS * found.lower.se < LOG_Z < found.upper.value + SIGMAS * found.upper.se
        widths.append(found.upper.value - found.lower.value)
    assert widths[1] < widths[0] / 3


def test_the_bracket_is_as_narrow_at_a_large_level() -> None:
    """At σ = 2 coordinates are not those of the data: exact draws are brought there."""
    p = Shifted(mixture((2,)))
    path, walk = noise_path(p, (2,), 2.0, 60, 20.0, denoising=True, generator=stream(3)), Annealing(512, moves=0)
    ais = walk.importance(path, exact=p.p.sample(512, 2.0, generator=stream(1)), generator=stream(2))
    contains(ais, LOG_Z, width=0.1)


def test_resampling_copies_particles_by_their_shares() -> None:
    """Systematic resampling: a particle of share s among m gets ⌊ms⌋ or ⌈ms⌉ copies; islands that are well are left alone."""
    walk = Annealing(32, islands=2)
    shares = torch.rand(2, 16, generator=stream(0), dtype=torch.float64)
    shares /= shares.sum(1, keepdim=True)
    chosen = walk.resampled(shares, torch.tensor([True, False]), stream(1))
    copies = torch.bincount(chosen, minlength=32)
    assert ((copies[:16] - 16 * shares[0]).abs() < 1).all()
    assert chosen[16:].tolist() == list(range(16, 32))


def test_weights_of_a_walk_in_one_step_are_those_of_importance_sampling() -> None:
    """With a single rung AIS is importance sampling from the base; SMC the same in islands."""
    p, base = Shifted(mixture((2,))), gaussian(torch.zeros(2), 3.0)
    path, walk = Path(base, (AtLevel(p, 0.0),)), Annealing(4096)
    x = base.sample(4096, generator=stream(4))
    weights = p.log_density(x) - base.log_density(x)
    for found in (walk.importance(path, [0.1], generator=stream(4)), walk.sequential(path, [0.1], generator=stream(4))):
        assert found.log_z == pytest.approx(float(weights.logsumexp(0)) - math.log(4096), abs=1e-3)


def train_energy(steps: int = 600) -> EnergyModel:
    """A noise-conditional energy of eight Gaussians, by denoising score matching."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = InnerProduct(MLPConfig(width=64, blocks=2, frequencies=2).build((2,)))
    model = EnergyModel(network, ModelSpec((2,), sigma_range=(0.1, 10.0)))
    objective, p = DenoisingScoreMatching(), eight_gaussians(std=0.2)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(steps):
        x = p.sample(256, generator=stream(100 + step)).float()
        optimizer.zero_grad()
        objective(model, x, generator=stream(10_000 + step)).value.mean().backward()
        optimizer.step()
    return model.requires_grad_(False)


def by_rejection(model: ScoredDensity, sigma: float, n: int, truth: float) -> Tensor:
    """Exact draws, from N(0, 2I) under an envelope seen on a fine grid."""
    base = gaussian(torch.zeros(2), 2.0)
    axis = torch.linspace(-6, 6, 601)
    grid = torch.cartesian_prod(axis, axis)
    ratio = lambda x: model.log_density(x, sigma).double() - base.log_density(x).double()  # noqa: E731
    ceiling = float(ratio(grid).max()) + 0.05
    x = base.sample(200 * n, generator=stream(5)).float()
    log_u = torch.rand(len(x), generator=stream(6), dtype=torch.float64).log()
    assert float(ratio(x).max()) < ceiling
    kept = x[log_u < ratio(x) - ceiling]
    # the share kept is Z/e^ceiling
    share = len(kept) / len(x)
    assert abs(math.log(share) - (truth - ceiling)) < SIGMAS / math.sqrt(len(kept))
    assert len(kept) >= n
    return kept[:n]


def test_a_trained_energy_is_bracketed() -> None:
    model = train_energy()
    truth = quadrature(model, (2,), 0.1)
    assert truth.se < 1e-4
    exact = by_rejection(model, 0.1, 512, truth.log_z)
    walk = Annealing(512, HMC(2))
    for path in (noise_path(model, (2,), 0.1, 60), geometric_path(gaussian(torch.zeros(2), 2.0), model, 0.1, 60)):
        contains(walk.importance(path, exact=exact, generator=stream(7)), truth.log_z, width=2.0)
        contains(walk.sequential(path, generator=stream(8)), truth.log_z, width=0.0)
    by_noise = noise_constant(model, exact, gaussian(torch.zeros(2), 2.0), 2000, 0.1, generator=stream(9))
    assert abs(by_noise.log_z - truth.log_z) < SIGMAS * by_noise.se < 0.5
    known = Normalised(model, truth)
    grid = torch.cartesian_prod(*[torch.linspace(-5, 5, 401)] * 2)
    assert float(known.log_density(grid).double().exp().sum()) * (10 / 400) ** 2 == pytest.approx(1, abs=3e-3)
    assert known.se == truth.se
    with pytest.raises(ValueError, match=r"known at level 0\.1 alone"):
        known.log_density(grid, 0.2)
    with pytest.raises(ValueError, match="all classes together"):
        known.log_density(grid, cond=torch.zeros(len(grid), dtype=torch.int64))


@pytest.mark.parametrize("shape", [(1,), (2,), (1, 1, 3)], ids=str)
def test_quadrature(shape: tuple[int, ...]) -> None:
    p = Shifted(
        GaussianMixture(torch.tensor([0.2, 0.8]), torch.stack([torch.full(shape, -7.0), torch.ones(shape)]), torch.ones(2))
    )
    found = quadrature(p, shape)
    assert found.trustworthy
    assert abs(found.log_z - LOG_Z) < 1e-4
    assert abs(quadrature(p, shape, 0.5).log_z - LOG_Z) < 1e-4
    if shape == (2,):
        assert abs(quadrature(Banana(), (2,)).log_z) < 1e-4


@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=str)
@pytest.mark.parametrize(
    "solver", [RungeKutta4(40, sigma_range=(0.05, 40.0)), Heun(60, sigma_range=(0.05, 40.0), process=VP())]
)
def test_the_flow_is_a_proposal_of_known_density(shape: tuple[int, ...], solver: ProbabilityFlow) -> None:
    """On exact scores the flow's law is p_σ: its draws have p_σ's log-densities, and all weights are Z."""
    p, flow = Shifted(mixture(shape)), FlowLikelihood(solver, Exact())
    x, log_q = flow.sample(p, 200, shape, generator=stream(0))
    exact = p.p.log_density(x, 0.05)
    assert (log_q - exact).abs().max() < 0.01 + prior_error(p.p)
    found = flow_importance(p, shape, 100, flow, generator=stream(1), chunk=64)
    assert found.trustworthy
    assert found.log_z == pytest.approx(LOG_Z, abs=0.01 + prior_error(p.p))
    assert found.sigma == 0.05
    coarse = flow_importance(p, shape, 100, FlowLikelihood(replace(solver, steps=8), Exact()), generator=stream(1))
    assert abs(coarse.log_z - LOG_Z) < 3 * coarse.se + prior_error(p.p)  # the solver's error is in it
    assert coarse.se > 3 * found.se
    with pytest.raises(ValueError, match="need exact log-densities"):
        flow_importance(p, shape, 10, FlowLikelihood(solver))


def prior_error(p: GaussianMixture) -> float:
    """What N(0, (1 + σ²)I) is off by at σ = 40: the mean by m·z/σ, z up to 4.5, second moments by their difference over σ²."""
    excess = (p.covariance() - torch.eye(len(p.covariance()))).norm() + p.mean().norm() ** 2
    return float(4.5 * p.mean().norm() / 40 + 4 * excess / 40**2)


def test_importance_sampling_is_right_and_knows_its_error() -> None:
    """Two hundred estimates from 400 draws: their spread is the standard error they state."""
    p, proposal = Shifted(mixture((2,))), gaussian(torch.zeros(2), 3.0)
    found = [importance(p, proposal, 400, generator=stream(i), check_support=False) for i in range(200)]
    errors = torch.tensor([f.log_z - LOG_Z for f in found])
    stated = torch.tensor([f.se for f in found])
    assert abs(float(errors.mean())) < SIGMAS * float(errors.std()) / 200**0.5 + 0.005  # the bias of a log, half a variance
    assert float(errors.std() / stated.mean()) == pytest.approx(1, abs=0.2)
    assert all(f.lower.value < LOG_Z for f in found)  # type: ignore[union-attr]


def test_the_noise_constant_is_right_and_knows_its_error() -> None:
    p, proposal = Shifted(mixture((2,))), gaussian(torch.zeros(2), 3.0)
    found = [
        noise_constant(p, p.p.sample(300, generator=stream(i)), proposal, 600, generator=stream(1000 + i)) for i in range(200)
    ]
    errors, stated = torch.tensor([f.log_z - LOG_Z for f in found]), torch.tensor([f.se for f in found])
    assert abs(float(errors.mean())) < SIGMAS * float(errors.std()) / 200**0.5
    assert float(errors.std() / stated.mean()) == pytest.approx(1, abs=0.2)


def test_what_is_not_trustworthy_says_so() -> None:
    narrow = importance(Shifted(gaussian(torch.zeros(16), 1.0)), gaussian(torch.zeros(16), 0.3), 2000, generator=stream(0))
    assert not narrow.trustworthy
    assert "tail is too heavy" in narrow.verdict
    # a walk that begins in one of two far modes never sees the other: only exact samples tell
    p = Shifted(GaussianMixture(torch.tensor([0.1, 0.9]), torch.tensor([[-8.0, 0.0], [8.0, 0.0]]), torch.full((2,), 0.25)))
    path, walk = geometric_path(gaussian(torch.tensor([-8.0, 0.0]), 1.0), p, 0.0, 60), Annealing(256)
    blind = walk.importance(path, generator=stream(1))
    assert blind.log_z == pytest.approx(LOG_Z + math.log(0.1), abs=0.2)
    assert blind.bounds.endswith("no upper bound")
    seen = walk.importance(path, exact=p.p.sample(256, generator=stream(2)), generator=stream(1))
    assert "exact samples put the upper bound" in seen.verdict
    hurried = Annealing(256).sequential(geometric_path(gaussian(torch.zeros(16), 400.0), Shifted(mixture((16,))), 0.0, 4))
    assert not hurried.trustworthy


def test_the_mean_of_weights_and_the_shape_of_their_tail() -> None:
    equal = log_mean(torch.full((10,), 2.0))
    assert equal == pytest.approx((2.0, 0.0, 10.0))
    assert log_mean(torch.tensor([0.0, -math.inf]))[2] == pytest.approx(1)
    assert tail_shape(torch.zeros(100)) == -math.inf
    assert math.isnan(tail_shape(torch.arange(24.0)))
    for k in (0.3, 0.9):  # e^{kE} for exponential E has a Pareto tail of shape k
        exponential = -torch.rand(4000, generator=stream(0), dtype=torch.float64).log()
        assert tail_shape(k * exponential) == pytest.approx(k, abs=0.15)


class Linear(Energy):
    sigma_range = (0.0, 0.0)

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return x.flatten(1).sum(1)


class Power(Linear):
    """r^−a far out."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = a

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return -self.a * (1 + (x.double() ** 2).flatten(1).sum(1)).log() / 2


class Box:
    """Uniform on [−1, 1]ᵈ."""

    def sample(self, n: int, sigma: float = 0.0, *, generator: torch.Generator | None = None) -> Tensor:
        return 2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return torch.where((x.abs() <= 1).all(1), -math.log(4), -math.inf)


def test_confinement() -> None:
    """The power law r^−a has an integral over ℝᵈ if a > d."""
    for shape in ((3,), (1, 2, 2)):
        d = math.prod(shape)
        assert slowest_fall(Power(1.5 * d), shape) == pytest.approx(1.5, abs=1e-3)
        check_confined(Power(1.1 * d), shape)
        for open_ended in (Power(0.9 * d), Linear()):
            with pytest.raises(ValueError, match="Z may be infinite"):
                check_confined(open_ended, shape)
        check_confined(gaussian(torch.zeros(shape), 1.0), shape, 3.0)


def test_what_partition_estimates_refuse() -> None:
    normal = gaussian(torch.zeros(2), 1.0)
    column = PlainEnergy(nn.Identity())
    column.log_density = lambda x, sigma=0.0, cond=None: -(x**2).sum(1, keepdim=True)  # type: ignore[method-assign]
    noise = EnergyModel(InnerProduct(MLPConfig(width=8).build((2,))), ModelSpec((2,), Parameterisation("noise")))
    flat: ScoredDensity = PlainEnergy(nn.Linear(2, 1))
    calls: list[tuple[str, Callable[[], object]]] = [
        ("at most 3 dimensions", lambda: quadrature(gaussian(torch.zeros(4), 1.0), (4,))),
        ("one number per example", lambda: quadrature(column, (2,))),
        ("Z may be infinite", lambda: quadrature(flat, (2,))),
        ("not a number at a point of the grid", lambda: quadrature(Hole(), (1,))),
        ("Z may be infinite", lambda: importance(flat, normal, 10)),
        ("Z may be infinite", lambda: Annealing(32).importance(geometric_path(normal, flat))),
        ("Z may be infinite", lambda: Annealing(32).sequential(noise_path(noise, (2,)))),
        ("wider support", lambda: importance(normal, Box(), 100, generator=stream(0))),
        ("zero at every draw", lambda: importance(Truncated(), normal, 100, generator=stream(0))),
        ("budget of 1 draws", lambda: importance(normal, normal, 1)),
        ("moves must be at least 0", lambda: Annealing(moves=-1)),
        ("particles stand still", lambda: Annealing(32, moves=0).importance(geometric_path(normal, normal))),
        ("variance of a denoising step", lambda: Denoising(2.0, 1.0, torch.zeros(2))),
        ("at least one step", lambda: Path(normal, ())),
        ("2 rungs have 1 steps between them, got 0", lambda: Path(normal, (normal, normal), steps=())),
        ("goes down to a level above 0", lambda: Denoising(1.0, 1.0, torch.ones(2))),
        ("cannot be divided", lambda: Annealing(100, islands=16)),
        ("ULA does not leave its law invariant", lambda: Annealing(kernel=ULA())),
        ("sigma must be", lambda: noise_path(noise, (2,), 1e-4)),
    ]
    for match, call in calls:
        with pytest.raises(ValueError, match=match):
            call()
    assert Annealing(kernel=MALA()).evaluations(geometric_path(normal, normal, steps=10)) == 20


class Hole(Linear):
    """Not a number at 0."""

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return (x.sin() / x - x**2)[:, 0]


class Truncated(Linear):
    """A normal law cut to x₁ > 20, where N(0, I) hardly ever is."""

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return torch.where(x[:, 0] > 20, -(x**2).sum(1) / 2, -math.inf)
