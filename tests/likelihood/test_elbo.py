"""The evidence lower bound of the chain of noise levels, against Gaussians where every expectation is known (identity 14)."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from scorefield.densities import GaussianMixture, gaussian
from scorefield.likelihood import ELBO
from scorefield.likelihood.elbo import kl_to_prior
from scorefield.processes import VP
from scorefield.samplers import Geometric, Grid, Karras, Uniform

ENDS = (0.05, 20.0)
VARIANCE = 0.49
SHAPES = [(2,), (1, 2, 2)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def losses(levels: list[float], d: int) -> tuple[float, float, float]:
    """E L_T, E ΣL_t, E L_0 for N(0, v I) with its exact score: E‖z − ẑ‖² = d v/(v + σ²)."""
    v, top, low = VARIANCE, levels[0], levels[-1]
    error = lambda s: d * v / (v + s**2)  # noqa: E731
    prior = d / 2 * ((v - 1) / (1 + top**2) + math.log((1 + top**2) / top**2))
    diffusion = sum((a**2 / b**2 - 1) / 2 * error(a) for a, b in pairwise(levels))
    return prior, diffusion, d / 2 * math.log(2 * math.pi * low**2) + error(low) / 2


def continuous(d: int) -> float:
    """∫ d v/(v + σ²) d log σ over the range."""
    part = lambda s: math.log(s) - math.log(VARIANCE + s**2) / 2  # noqa: E731
    return d * (part(ENDS[1]) - part(ENDS[0]))


def chain_variance(levels: list[float]) -> float:
    """Variance of each coordinate of what the chain makes: every step is linear in x."""
    v, law = VARIANCE, 1 + levels[0] ** 2
    for a, b in pairwise(levels):
        ratio, shrink = (b / a) ** 2, v / (v + a**2)
        law = law * (ratio + (1 - ratio) * shrink) ** 2 + b**2 * (1 - ratio)
    last = levels[-1]
    return law * (v / (v + last**2)) ** 2 + last**2


def rows(shape: tuple[int, ...], n: int = 20_000) -> Tensor:
    return math.sqrt(VARIANCE) * torch.randn(n, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def within(values: Tensor, expected: float) -> None:
    error = abs(float(values.mean()) - expected) / (float(values.std()) / len(values) ** 0.5 + 1e-12)
    assert error < 4.5, f"{error:.1f} standard errors"


GRIDS: list[Grid] = [Geometric(), Karras(), Uniform(VP())]


@each_shape
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("steps", [1, 10, 100])
def test_every_part_of_the_discrete_bound(shape: tuple[int, ...], grid: Grid, steps: int) -> None:
    d, p = math.prod(shape), gaussian(torch.zeros(shape), VARIANCE)
    found = ELBO(steps, grid, draws=4, sigma_range=ENDS)(p, rows(shape), generator=torch.Generator().manual_seed(1))
    prior, diffusion, reconstruction = losses(grid(steps + 1, ENDS), d)
    within(found.prior, prior)
    within(found.diffusion, diffusion)
    within(found.reconstruction, reconstruction)
    within(found.log_density_bound, -(prior + diffusion + reconstruction))


@each_shape
def test_single_levels(shape: tuple[int, ...]) -> None:
    """As many draws as steps of a geometric ladder meet each level once: L_t = ½ (σ_t²/σ_{t−1}² − 1) E‖z − ẑ‖²."""
    p, steps, x = gaussian(torch.zeros(shape).double(), VARIANCE), 6, rows(shape)
    bound = ELBO(steps, draws=steps, sigma_range=ENDS)(p, x, generator=torch.Generator().manual_seed(1))
    ladder = torch.tensor(Geometric()(steps + 1, ENDS)[::-1], dtype=torch.float64)
    torch.testing.assert_close(bound.sigma, ladder[1:, None].expand(steps, len(x)))
    terms = math.log(ENDS[1] / ENDS[0]) / steps * bound.density
    torch.testing.assert_close(terms.sum(0), bound.diffusion)
    for term, (low, high) in zip(terms, pairwise(ladder.tolist()), strict=True):
        within(term, (high**2 / low**2 - 1) / 2 * math.prod(shape) * VARIANCE / (VARIANCE + high**2))


@each_shape
def test_the_continuous_bound(shape: tuple[int, ...]) -> None:
    d, p = math.prod(shape), gaussian(torch.zeros(shape), VARIANCE)
    found = ELBO(draws=4, sigma_range=ENDS)(p, rows(shape), generator=torch.Generator().manual_seed(1))
    within(found.diffusion, continuous(d))


@each_shape
def test_the_bounds_tighten_towards_the_entropy(shape: tuple[int, ...]) -> None:
    """E[−ELBO_T] ≥ E[−log p_T] ≥ H(p), each falling with T, in closed form and so by more than any rounding."""
    d = math.prod(shape)
    entropy = d / 2 * (math.log(2 * math.pi * VARIANCE) + 1)
    bounds, marginals = [], []
    for steps in (10, 100, 1000):
        levels = Geometric()(steps + 1, ENDS)
        law = chain_variance(levels)
        bounds.append(sum(losses(levels, d)))
        marginals.append(d / 2 * (math.log(2 * math.pi * law) + VARIANCE / law))
        assert bounds[-1] > marginals[-1] > entropy
    prior, _, reconstruction = losses([ENDS[1], ENDS[0]], d)
    limit = prior + continuous(d) + reconstruction
    assert bounds[0] > bounds[1] > bounds[2] > limit > entropy
    assert bounds[2] - limit < 0.02 * (bounds[0] - limit)
    assert limit - entropy < 1e-3 * d


def test_standard_errors_are_those_of_the_estimate() -> None:
    """The spread over repetitions, for one row; strata make it smaller than the draws alone would tell, never larger."""
    p = GaussianMixture(torch.tensor([0.4, 0.6]), torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), torch.tensor([0.2, 0.3]))
    x = torch.tensor([[0.4, 0.2]], dtype=torch.float64).expand(4000, 2)
    found = ELBO(draws=8, sigma_range=ENDS)(p, x, generator=torch.Generator().manual_seed(0))
    assert found.se is not None
    spread, said = float(found.log_density_bound.std()), float(found.se.square().mean().sqrt())
    assert 0.5 * said < spread < 1.03 * said
    assert ELBO(draws=1, sigma_range=ENDS)(p, x[:2]).se is None


@each_shape
def test_the_priors_part_is_a_divergence(shape: tuple[int, ...]) -> None:
    x = rows(shape, 3)
    normal = torch.distributions.Normal
    q, p = normal(x, 2.0), normal(torch.zeros_like(x), math.sqrt(5.0))
    torch.testing.assert_close(kl_to_prior(x, 2.0), torch.distributions.kl_divergence(q, p).flatten(1).sum(1))


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        ELBO(0)
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        ELBO(draws=0)
    with pytest.raises(ValueError, match="cannot be walked"):
        ELBO()(gaussian(torch.zeros(2), 1.0), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="floating-point"):
        ELBO(sigma_range=ENDS)(gaussian(torch.zeros(2), 1.0), torch.zeros(1, 2, dtype=torch.long))
