"""Annealed chains of compositions, whose law at σ_min is known, where a reverse ODE of the same scores goes astray."""

import math

import pytest
import torch
from torch import Tensor, nn

from scorefield.densities import GaussianMixture, LogLinear, Product, Ring, gaussian, product_of_gaussians
from scorefield.errors import RunError
from scorefield.interfaces import Score, State
from scorefield.models import PlainScore
from scorefield.samplers import HMC, MALA, ULA, AnnealedChains, Heun, Target, generate
from scorefield.samplers.kernels import Point

SIGMAS = 4.5


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(sampler: AnnealedChains | Heun, p: Score, shape: tuple[int, ...], n: int) -> State:
    x = sampler.start(p, (n, *shape), stream(0)).double()
    *_, state = sampler(p, x, generator=stream(1))
    return state


def correlated(shape: tuple[int, ...], seed: int) -> GaussianMixture:
    d = math.prod(shape)
    root = torch.randn(d, d, generator=stream(seed), dtype=torch.float64) / d**0.5
    return gaussian(torch.randn(shape, generator=stream(seed + 1), dtype=torch.float64), root @ root.T + 0.3 * torch.eye(d))


@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("kernel", [HMC(3), MALA()], ids=["hmc", "mala"])
def test_moments_of_a_product_at_its_level(shape: tuple[int, ...], kernel: HMC | MALA) -> None:
    """Π N(μᵢ, Cᵢ + σ²I) at σ = 0.3, in closed form; independent chains, so plain standard errors."""
    n, sigma = 4000, 0.3
    one, other = correlated(shape, 1), correlated(shape, 3)
    eye = torch.eye(math.prod(shape))
    exact = product_of_gaussians(*(gaussian(p.mean(), p.covariance() + sigma**2 * eye) for p in (one, other)))
    sampler = AnnealedChains(kernel, 40, 8, sigma_range=(sigma, 20.0), to_zero=False)
    x = run(sampler, Product([one, other]), shape, n).x.flatten(1)
    mean, covariance = exact.mean().flatten(), exact.covariance()
    assert ((x.mean(0) - mean) / (covariance.diagonal() / n).sqrt()).abs().max() < SIGMAS
    centred = x - mean
    products = (centred[:, :, None] * centred[:, None]).flatten(1)
    assert ((products.mean(0) - covariance.flatten()) / (products.std(0) / n**0.5)).abs().max() < SIGMAS


class Recorded:
    """Takes no step, and writes down how large each would have been."""

    aim, evaluations = None, 0

    def __init__(self) -> None:
        self.sizes: list[float] = []

    def __call__(self, target: Target, point: Point, h: float, generator: torch.Generator | None) -> tuple[Point, Tensor]:
        self.sizes.append(h)
        return point, torch.ones(len(point.x))


def test_steps_grow_with_the_square_of_the_level() -> None:
    kernel = Recorded()
    run(AnnealedChains(kernel, 3, 2, 0.2, (0.1, 10.0)), gaussian(torch.zeros(2), 1.0), (2,), 4)
    assert kernel.sizes == pytest.approx([20.0, 20.0, 0.2, 0.2, 0.002, 0.002])


def stripes() -> GaussianMixture:
    """Three upright stripes, of unequal weight."""
    covariance = torch.diag(torch.tensor([0.01, 4.0])).expand(3, 2, 2)
    return GaussianMixture(torch.tensor([1.0, 2.0, 1.0]), torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), covariance)


def ring_and_stripes_by_rejection(n: int) -> Tensor:
    """The ring's draws, kept in proportion to the stripes' density."""
    x = Ring(1.3, 0.1).sample(30 * n, generator=stream(5))
    log = stripes().log_density(x)
    u = torch.rand(len(x), generator=stream(6), dtype=torch.float64).log()
    kept = x[u < log - log.max()]
    assert len(kept) >= n
    return kept[:n]


def total_variation(x: Tensor, y: Tensor, cells: int = 16) -> float:
    """Between two sets of points on a grid over [−2, 2]²."""
    histograms = []
    for points in (x, y):
        index = ((points + 2) / 4 * cells).long().clamp(0, cells - 1)
        histograms.append(torch.bincount(index[:, 0] * cells + index[:, 1], minlength=cells**2) / len(points))
    return float((histograms[0] - histograms[1]).abs().sum()) / 2


def test_ring_and_stripes() -> None:
    """A product of shapes is what is on both; the probability flow of the summed scores gives another law."""
    n = 8000
    both = Product([Ring(1.3, 0.1), stripes()])
    exact = ring_and_stripes_by_rejection(n)
    chance = total_variation(exact[: n // 2], exact[n // 2 :])
    corrected = run(AnnealedChains(HMC(4), 50, 8, sigma_range=(0.01, 10.0)), both, (2,), n).x
    assert total_variation(corrected, exact) < min(0.1, chance + 0.02)
    flow = run(Heun(60, sigma_range=(0.01, 10.0)), both, (2,), n).x
    assert total_variation(flow, exact) > 2 * chance + 0.05


def test_scores_alone_go_without_a_test_and_states_tell_the_acceptance() -> None:
    p = gaussian(torch.zeros(2), 1.0)
    linear = nn.Linear(2, 2).double()
    torch.nn.init.zeros_(linear.bias)
    with torch.no_grad():
        linear.weight.copy_(-torch.eye(2))
    clean = PlainScore(linear, (2,))
    clean.sigma_range = (0.0, 30.0)  # type: ignore[misc]
    with pytest.raises(ValueError, match="lacks log_density, which chains need"):
        run(AnnealedChains(sigma_range=(0.1, 5.0)), clean, (2,), 10)
    both = Product([p, p])
    scores = LogLinear([ScoreAlone(p), p], [1.0, 1.0])
    walk = AnnealedChains(ULA(), 10, 3, 0.05, sigma_range=(0.1, 5.0))
    assert run(walk, scores, (2,), 50).x.equal(run(walk, both, (2,), 50).x)
    with pytest.raises(ValueError, match="ScoreAlone has only a score: compose energies"):
        run(AnnealedChains(sigma_range=(0.1, 5.0)), scores, (2,), 10)
    states = list(AnnealedChains(HMC(2), 40, 5, sigma_range=(0.1, 5.0))(p, torch.zeros(500, 2).double(), generator=stream(2)))
    assert len(states) == AnnealedChains(HMC(2), 40, 5).states == 42
    assert [float(s.sigma) for s in states[-2:]] == [pytest.approx(0.1), 0.0]
    acceptance = torch.stack([s.info["acceptance"] for s in states[10:-1]]).mean()
    assert abs(float(acceptance) - 0.8) < 0.1
    assert AnnealedChains(HMC(2), 20, 5).nfe == 20 * 11 + 1
    fixed = list(AnnealedChains(ULA(), 3, 2, 0.05, sigma_range=(0.1, 5.0))(p, torch.zeros(5, 2).double()))
    assert float(fixed[1].info["step_ratio"]) == pytest.approx(0.05)


class ScoreAlone:
    """A density that keeps its log-density to itself."""

    def __init__(self, p: GaussianMixture) -> None:
        self.p, self.sigma_range = p, p.sigma_range

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return self.p.score(x, sigma)


def test_it_is_a_sampler_like_others() -> None:
    p = LogLinear([gaussian(torch.zeros(2), 1.0), gaussian(torch.ones(2), 4.0)], [2.0, -1.0])  # precision 2 − ¼
    sampler = AnnealedChains(steps=30, sigma_range=(0.01, 10.0))
    few, many = (torch.cat(list(generate(p, sampler, n, (2,)))) for n in (10, 640))
    assert few.equal(many[:10])
    variance = 1 / (2 - 0.25)
    assert (many.mean(0) + 0.25 * variance).abs().max() < SIGMAS * (variance / 640) ** 0.5
    assert (many.var(0) / variance - 1).abs().max() < SIGMAS * (2 / 640) ** 0.5


def test_what_it_refuses() -> None:
    for match, call in {
        "steps must be at least 2": lambda: AnnealedChains(steps=1),
        "steps_per_level must be": lambda: AnnealedChains(steps_per_level=0),
        "step_ratio must be": lambda: AnnealedChains(step_ratio=0.0),
        "give the sampler a sigma_range": lambda: run(AnnealedChains(), gaussian(torch.zeros(2), 1.0), (2,), 5),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()
    with pytest.raises(ValueError, match="as many finite coefficients"):
        LogLinear([gaussian(torch.zeros(2), 1.0)], [1.0, 2.0])


def test_a_products_own_noise_is_what_is_removed_at_the_end() -> None:
    """Three equal narrow members at σ = 0.1: the product's spread is 0.1/√3, and after the last step next to nothing."""
    narrow = Product([gaussian(torch.zeros(2), 1e-8)] * 3)
    walk = AnnealedChains(HMC(3), 30, 5, sigma_range=(0.1, 2.0))
    states = list(walk(narrow, walk.start(narrow, (500, 2), stream(3)).double(), generator=stream(4)))
    assert float(states[-2].x.std()) == pytest.approx(0.1 / 3**0.5, rel=0.15)
    assert float(states[-1].x.std()) < 1e-4


def test_chains_that_cannot_begin_or_go_on_say_so() -> None:
    p = gaussian(torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match="chain 1 begins where"):
        list(AnnealedChains(sigma_range=(0.1, 5.0))(p, torch.tensor([[0.0, 0.0], [1e200, 0.0]], dtype=torch.float64)))
    with pytest.raises(RunError, match="left the range of numbers at level"):
        list(AnnealedChains(ULA(), 300, 50, 1e3, sigma_range=(0.1, 5.0))(p, torch.ones(2, 2).double(), generator=stream(5)))
