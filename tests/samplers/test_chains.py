"""Markov chains against exact laws; tolerances are 4.5 Monte-Carlo standard errors by the effective sample size."""

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from scorefield.densities import Banana, Funnel, GaussianMixture, Pairwise, enumerate_states, gaussian, log_partition_exact
from scorefield.errors import RunError
from scorefield.interfaces import ScoredDensity
from scorefield.metrics import ChainWarning, diagnose, expectation
from scorefield.models import PlainEnergy
from scorefield.samplers import BAOAB, HMC, MALA, ULA, Draws, Gibbs, Kernel, MarkovChains, Target, collect
from scorefield.samplers.chains import DualAveraging
from scorefield.samplers.kernels import Point, metropolis

SIGMAS = 4.5
EXACT: list[Kernel] = [MALA(), HMC(8)]
ALL: list[Kernel] = [*EXACT, ULA(), BAOAB()]


def named(kernel: Kernel) -> str:
    return type(kernel).__name__


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(chains: MarkovChains, p: ScoredDensity, start: Tensor, seed: int = 0) -> Draws:
    return collect(chains(p, start, generator=stream(seed)))


def agree(values: Tensor, exact: float, bias: float = 0.0) -> None:
    """The mean of `values` `(draws, chains)` is `exact`, up to chance and a given bias."""
    found, se = expectation(values)
    assert se is not None
    assert abs(found - exact) < SIGMAS * se + bias, f"{found:.4f} for {exact:.4f}, standard error {se:.4f}"
    assert se < 0.1 * max(1.0, abs(exact)), f"a standard error of {se} shows nothing"


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("kernel", ALL, ids=named)
@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_variance_of_a_normal_law_is_the_temperature(kernel: Kernel, shape: tuple[int, ...], temperature: float) -> None:
    """ULA's is τ/(1 − h/2); the others' are exact at any h."""
    h = 0.4
    start = torch.randn(40, *shape, generator=stream(1), dtype=torch.float64)
    chains = MarkovChains(kernel, 1000, warmup=0, step_size=h, temperature=temperature)
    draws = draw(chains, gaussian(torch.zeros(shape), 1.0), start)
    late = draws.x[100:].flatten(2)
    exact = temperature / (1 - h / 2) if isinstance(kernel, ULA) else temperature
    agree(late.pow(2).mean(2), exact)
    agree(late.mean(2), 0.0)


@pytest.mark.parametrize("kernel", EXACT, ids=named)
def test_moments_of_a_banana(kernel: Kernel) -> None:
    """E x₁² = w², E x₂² = s² + 2 b² w⁴, E x₁²x₂ = 2 b w⁴; from exact draws, for MALA leaves the far tails rarely."""
    p = Banana(width=1.0, bend=0.5, std=0.5)
    x = draw(MarkovChains(kernel, 2500, warmup=0, step_size=0.06), p, p.sample(100, generator=stream(2))).x
    agree(x[..., 0], 0.0)
    agree(x[..., 0] ** 2, 1.0)
    agree(x[..., 1], 0.0)
    agree(x[..., 1] ** 2, 0.25 + 2 * 0.25)
    agree(x[..., 0] ** 2 * x[..., 1], 2 * 0.5)


@pytest.mark.parametrize("kernel", EXACT, ids=named)
def test_moments_of_a_mild_funnel(kernel: Kernel) -> None:
    """v ~ N(0, 1), the other two given v ~ N(0, eᵛ): E xᵢ² = e^½, E v xᵢ² = e^½."""
    p = Funnel(dimension=3, std=1.0)
    x = draw(
        MarkovChains(kernel, 4000 if isinstance(kernel, MALA) else 2000, warmup=0, step_size=0.2),
        p,
        p.sample(100, generator=stream(3)),
    ).x
    squares = x[..., 1:].pow(2).mean(-1)
    agree(x[..., 0], 0.0)
    agree(x[..., 0] ** 2, 1.0)
    agree(squares, math.exp(0.5))
    agree(x[..., 0] * squares, math.exp(0.5))


@pytest.mark.parametrize("kernel", EXACT, ids=named)
def test_every_second_moment_of_a_correlated_gaussian(kernel: Kernel) -> None:
    d = 10
    a = torch.randn(d, d, generator=stream(4), dtype=torch.float64)
    covariance, mean = a @ a.T / d + torch.eye(d) / 2, torch.linspace(-2, 2, d, dtype=torch.float64)
    p = gaussian(mean, covariance)
    draws = draw(
        MarkovChains(kernel, 2500 if isinstance(kernel, MALA) else 1000, warmup=400),
        p,
        torch.randn(50, d, generator=stream(5), dtype=torch.float64) * 3,
    )
    centred = draws.x - mean
    for i in range(d):
        agree(centred[..., i], 0.0)
        for j in range(i, d):
            agree(centred[..., i] * centred[..., j], float(covariance[i, j]))
    assert diagnose(draws).problems == ()


def test_the_warm_up_is_marked_and_finds_the_acceptance_aimed_at() -> None:
    p = gaussian(torch.zeros(4), 0.01)
    for kernel in EXACT:
        states = list(MarkovChains(kernel, 200, 300, step_size=5.0)(p, torch.zeros(64, 4).double(), generator=stream(6)))
        warm = [bool(s.info["warmup"]) for s in states]
        assert warm == [True] * 301 + [False] * 200
        draws = collect(states)
        assert len(draws.x) == 200
        assert {float(s.info["step_size"]) for s in states if not s.info["warmup"]} == {draws.step_size}
        assert abs(float(draws.acceptance.mean()) - kernel.aim) < 0.05  # type: ignore[operator]
    assert collect(states, thin=3).x.equal(draws.x[2::3])


@pytest.mark.parametrize("kernel", ALL, ids=named)
def test_walls_reflect(kernel: Kernel) -> None:
    """The exponential law e^{−x} on x ≥ 0 beside the normal law cut to [−½, 1]: a product of one-dimensional laws."""

    class Both(PlainEnergy):
        def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
            return -x[:, 0] - x[:, 1] ** 2 / 2

    box = (torch.tensor([0.0, -0.5]), torch.tensor([math.inf, 1.0]))
    start = torch.rand(200, 2, generator=stream(7), dtype=torch.float64) / 2
    h = 0.02 if kernel.aim is None else 0.1
    x = draw(
        MarkovChains(kernel, 800 if isinstance(kernel, HMC) else 2000, warmup=0, step_size=h, box=box),
        Both(nn.Identity()),
        start,
    ).x[300:]
    assert (x >= box[0]).all()
    assert (x <= box[1]).all()
    grid = torch.linspace(-0.5, 1, 10_001, dtype=torch.float64)
    weights = (-(grid**2) / 2).exp()
    mean, second = (float((weights * grid**k).sum() / weights.sum()) for k in (1, 2))
    bias = 0.03 if kernel.aim is None else 1e-3  # ULA and BAOAB, of order h; the grid's
    agree(x[..., 0], 1.0, bias)
    agree(x[..., 0] ** 2, 2.0, 3 * bias)
    agree(x[..., 1], mean, bias)
    agree(x[..., 1] ** 2, second, bias)


def test_hmc_with_one_step_is_mala() -> None:
    p, start = Banana(), torch.zeros(5, 2).double()
    one, other = (draw(MarkovChains(k, 20, 0), p, start).x for k in (HMC(1, jitter=0.0), MALA()))
    assert one.equal(other)


def test_r_hat_sees_modes_that_chains_do_not_leave() -> None:
    p = GaussianMixture(torch.tensor([0.5, 0.5]), torch.tensor([[-6.0], [6.0]]), torch.ones(2))
    start = torch.tensor([-6.0, 6.0]).repeat(8)[:, None].double()
    draws = draw(MarkovChains(HMC(), 400, 100), p, start)
    with pytest.warns(ChainWarning, match="R̂"):
        found = diagnose(draws)
    assert found.rhat[0] > 1.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        near = GaussianMixture(torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), torch.ones(2))
        assert diagnose(draw(MarkovChains(HMC(), 400, 100), near, start)).problems == ()


def test_other_diagnostics_have_their_names_said() -> None:
    p = gaussian(torch.zeros(1), 1.0)
    start = torch.randn(8, 1, generator=stream(8), dtype=torch.float64)
    with pytest.warns(ChainWarning, match="effective sample size"):
        diagnose(draw(MarkovChains(MALA(), 200, 0, step_size=0.01), p, start))
    with pytest.warns(ChainWarning, match="acceptance is"):
        diagnose(draw(MarkovChains(MALA(), 200, 0, step_size=100.0), p, start))
    with pytest.raises(ValueError, match="at least 2 chains"):
        diagnose(draw(MarkovChains(MALA(), 200, 0), p, start[:1]))


@pytest.mark.parametrize("states", [2, 3])
def test_gibbs_draws_the_enumerated_law(states: int) -> None:
    d = 4
    model = Pairwise(d, states).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=stream(9), dtype=torch.float64))
    space = enumerate_states(d, states)
    law = (model.log_density(space) - log_partition_exact(model, d)).exp().detach()
    x = collect(Gibbs(600, 50)(model, torch.zeros(100, d, dtype=torch.int64), generator=stream(10))).x
    place = states ** torch.arange(d - 1, -1, -1)
    index = (x * place).sum(-1)
    common = law.argsort(descending=True)[:12]
    for state in common.tolist():
        agree((index == state).double(), float(law[state]))
    for i in range(d):
        for j in range(i):
            exact = float((law * space[:, i] * space[:, j]).sum())
            agree((x[..., i] * x[..., j]).double(), exact)


def test_what_chains_refuse() -> None:
    normal, start = gaussian(torch.zeros(2), 1.0), torch.zeros(3, 2)

    def go(p: object, x: Tensor = start, chains: MarkovChains | Gibbs = MarkovChains(MALA(), 5, 0)) -> None:
        list(chains(p, x, generator=stream(0)))  # type: ignore[arg-type]

    column = PlainEnergy(nn.Identity())
    column.log_density = lambda x, sigma=0.0, cond=None: -(x**2).sum(1, keepdim=True)  # type: ignore[method-assign]
    for match, call in {
        "one number per example": lambda: go(column),
        "use Gibbs": lambda: go(Pairwise(2)),
        "sigma must be": lambda: go(PlainEnergy(nn.Linear(2, 1)), chains=MarkovChains(MALA(), 5, 0, sigma=1.0)),
        "outside the box": lambda: go(normal, chains=MarkovChains(MALA(), 5, 0, box=(1.0, 2.0))),
        "must be below": lambda: go(normal, chains=MarkovChains(MALA(), 5, 0, box=(1.0, 1.0))),
        "chain 0 begins where": lambda: go(PlainEnergy(nn.Sequential(nn.Linear(2, 1), NotANumber()))),
        "Linear lacks log_density and score and sigma_range": lambda: go(nn.Linear(2, 1)),
        "a tensor is expected, got ndarray": lambda: go(normal, start.numpy()),
        "chain 0 begins at NaN": lambda: go(normal, start * math.nan),
        "step_size must be positive": lambda: MarkovChains(step_size=0.0),
        "warmup must be": lambda: MarkovChains(warmup=-1),
        "leapfrog_steps must be": lambda: HMC(0),
        "jitter must be": lambda: HMC(jitter=1.0),
        "friction must be": lambda: BAOAB(0.0),
        "discrete log-density": lambda: go(normal, chains=Gibbs(1)),
        "int64": lambda: go(Pairwise(2), chains=Gibbs(1)),
        "too few": lambda: collect(MarkovChains(MALA(), 5, 0)(normal, start, generator=stream(0)), thin=6),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()
    steep = gaussian(torch.zeros(2), 1e-30)
    with pytest.raises(RunError, match="left the range of numbers in step"):
        go(steep, chains=MarkovChains(ULA(), 500, 0))


def test_a_wall_on_one_side_mirrors_what_passes_it() -> None:
    x, velocity = torch.tensor([[1.3, -0.2]]), torch.tensor([[2.0, -3.0]])
    below_one = Target(gaussian(torch.zeros(2), 1.0), box=(-math.inf, 1.0)).reflect(x, velocity)
    torch.testing.assert_close(below_one, (torch.tensor([[0.7, -0.2]]), torch.tensor([[-2.0, -3.0]])))
    above_zero = Target(gaussian(torch.zeros(2), 1.0), box=(0.0, math.inf)).reflect(x, velocity)
    torch.testing.assert_close(above_zero, (torch.tensor([[1.3, 0.2]]), torch.tensor([[2.0, 3.0]])))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_move_to_where_the_density_is_no_number_is_never_taken(value: float) -> None:
    x = torch.zeros(100, 1)
    begin, end = Point(x, x[:, 0], x, x), Point(x + 1, x[:, 0] + value, x, x)
    point, probability = metropolis(Target(gaussian(torch.zeros(1), 1.0)), begin, end, stream(0))
    assert (probability == 0).all()
    assert (point.x == 0).all()


def test_after_the_warm_up_the_step_size_is_the_mean_of_its_path() -> None:
    chains = MarkovChains(MALA(), 3, warmup=40)
    start = torch.randn(20, 2, generator=stream(3), dtype=torch.float64)
    states = list(chains(gaussian(torch.zeros(2), 1.0), start, generator=stream(4)))[1:]
    tuning = DualAveraging(chains.step_size, MALA.aim)
    path = [tuning.update(float(state.info["acceptance"].mean())) for state in states[:40]]
    assert [float(state.info["step_size"]) for state in states[1:40]] == pytest.approx(path[:39])
    assert float(states[40].info["step_size"]) == pytest.approx(tuning.result)
    assert abs(path[-1] / tuning.result - 1) > 1e-3


def test_a_proposal_that_is_not_a_number_is_refused() -> None:
    class Edge(PlainEnergy):
        def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
            return x[:, 0].log() - x[:, 0]

    start = torch.ones(50, 1, dtype=torch.float64)
    x = draw(MarkovChains(MALA(), 2000, 0, step_size=0.5), Edge(nn.Identity()), start).x[200:]
    assert (x > 0).all()
    agree(x[..., 0], 2.0, 0.01)  # the law of shape 2


class NotANumber(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log() - torch.inf
