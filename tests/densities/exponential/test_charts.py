"""Coordinates without walls: the volume is that of the map, Z is the domain's, and chains stay in it."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from scorefield.densities.exponential import (
    Box,
    ExponentialFamily,
    ExponentialFit,
    Simplex,
    dirichlet,
    gamma,
    gaussian,
    moments,
    truncated_gaussian,
    von_mises_fisher,
)
from scorefield.densities.exponential.charts import BoxChart, SimplexChart
from scorefield.likelihood import quadrature
from scorefield.randomness import keyed_generator
from scorefield.samplers import HMC, MarkovChains, collect

INF = math.inf
BOX = Box((-INF, 2.0, -INF, -1.0), (INF, INF, 3.0, 4.0))
RNG = np.random.default_rng


def with_coef(fit: ExponentialFit, *coef: float) -> ExponentialFit:
    """The fit with coefficients of ours, whose Z is known."""
    fit.coef.copy_(torch.tensor(coef, dtype=torch.float64))
    return fit


def log_volume_written_out(points: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """log |det dx/dy| of each row by autograd."""
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda one: points(one[None])[0]))(y)
    return torch.linalg.slogdet(jacobian).logabsdet


def test_a_boxs_volume_is_that_of_its_map_and_coordinates_go_back() -> None:
    chart = BoxChart(*BOX.walls)
    y = torch.from_numpy(RNG(0).normal(size=(50, 4)) * 3)
    x = chart.points(y)
    assert BOX.inside(x).all()
    torch.testing.assert_close(chart.coordinates(x), y, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(chart.log_volume(y), log_volume_written_out(chart.points, y))


def test_the_simplex_volume_is_that_of_all_shares_but_the_last() -> None:
    chart = SimplexChart(4)
    y = torch.from_numpy(RNG(0).normal(size=(50, 3)) * 2)
    x = chart.points(y)
    assert Simplex().inside(x).all()
    torch.testing.assert_close(chart.coordinates(x), y, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(chart.log_volume(y), log_volume_written_out(lambda v: chart.points(v)[:, :-1], y))


@pytest.mark.parametrize("d", [2, 3])
def test_z_on_a_sphere_without_a_model_is_its_surface(d: int) -> None:
    x = torch.from_numpy(RNG(0).normal(size=(50, d)))
    fit = with_coef(von_mises_fisher(d).fit(x / x.norm(dim=1, keepdim=True)), *[0.0] * d)
    area = 2 * math.pi ** (d / 2) / math.gamma(d / 2)
    assert quadrature(fit.unconstrained(), (d,)).log_z == pytest.approx(math.log(area), abs=1e-5)


def sphere_rows() -> np.ndarray:
    return stats.vonmises_fisher([0.6, 0.0, 0.8], 4.0).rvs(300, random_state=np.random.RandomState(0))


def test_z_of_a_von_mises_fisher_law() -> None:
    fit = with_coef(von_mises_fisher(3).fit(sphere_rows()), 3.0, 0.0, -4.0)
    assert quadrature(fit.unconstrained(), (3,)).log_z == pytest.approx(math.log(4 * math.pi * math.sinh(5) / 5), abs=1e-5)


def test_z_of_a_dirichlet_law_however_much_of_it_is_at_the_edge() -> None:
    alpha = np.array([0.4, 2.0, 1.0])
    fit = with_coef(dirichlet(3).fit(RNG(0).dirichlet([1.0, 1.0, 1.0], 50)), *(alpha - 1))
    expected = special.gammaln(alpha).sum() - special.gammaln(alpha.sum())
    assert quadrature(fit.unconstrained(), (2,)).log_z == pytest.approx(expected, abs=1e-5)


def test_z_of_a_gamma_law_that_is_infinite_at_0() -> None:
    fit = with_coef(gamma().fit(RNG(0).gamma(2.0, size=(50, 1))), -3.0, 0.3 - 1)
    expected = special.gammaln(0.3) - 0.3 * math.log(3)
    assert quadrature(fit.unconstrained(), (1,)).log_z == pytest.approx(expected, abs=1e-5)


def test_z_of_a_beta_law_between_two_walls() -> None:
    x = RNG(0).beta(2.0, 3.0, size=(50, 1))
    family = ExponentialFamily(lambda x: torch.cat([x.log(), (1 - x).log()], 1), Box(0.0, 1.0, power=2))
    fit = with_coef(family.fit(x), 2.0 - 1, 3.0 - 1)
    assert quadrature(fit.unconstrained(), (1,)).log_z == pytest.approx(special.betaln(2, 3), abs=1e-5)


def test_z_of_a_truncated_gaussian() -> None:
    """x ≤ 1 in the first column, x ≥ 0 in the second."""
    mean, covariance = np.array([0.3, 0.5]), np.array([[1.0, 0.4], [0.4, 0.8]])
    box = Box((-INF, 0.0), (1.0, INF))
    x = RNG(0).multivariate_normal(mean, covariance, 500)
    fit = truncated_gaussian(2, box).fit(x[(x[:, 0] <= 1) & (x[:, 1] >= 0)])
    precision = np.linalg.inv(covariance)
    eta = precision @ mean
    with_coef(fit, *eta, -precision[0, 0] / 2, -precision[0, 1], -precision[1, 1] / 2)
    seen = stats.multivariate_normal([0.3, -0.5], [[1.0, -0.4], [-0.4, 0.8]], allow_singular=False).cdf([1.0, 0.0])
    whole = math.log(2 * math.pi) + math.log(np.linalg.det(covariance)) / 2 + mean @ precision @ mean / 2
    assert quadrature(fit.unconstrained(), (2,)).log_z == pytest.approx(whole + math.log(seen), abs=1e-4)


def test_without_walls_nothing_changes() -> None:
    x = torch.from_numpy(RNG(0).normal(size=(30, 2)))
    fit = gaussian(2).fit(x)
    free = fit.unconstrained()
    assert torch.equal(free.log_density(x), fit.log_density(x))
    assert torch.equal(free.coordinates(x), x)
    mean, covariance = moments(fit.coef, 2)
    torch.testing.assert_close(free.score(x), (mean - x) @ torch.linalg.inv(covariance))


@pytest.mark.parametrize("name", ["sphere", "simplex", "orthant"])
def test_chains_in_coordinates_have_the_laws_mean(name: str) -> None:
    rows, fitted = {
        "sphere": (sphere_rows(), lambda x: von_mises_fisher(3).fit(x)),
        "simplex": (RNG(0).dirichlet([0.7, 2.0, 3.0], 300), lambda x: dirichlet(3).fit(x)),
        "orthant": (RNG(0).gamma(0.8, size=(300, 1)), lambda x: gamma().fit(x)),
    }[name]
    fit = fitted(rows)
    free, start = fit.unconstrained(), torch.from_numpy(rows[:64])
    walk = MarkovChains(HMC(5), steps=200, warmup=200)
    found = collect(walk(free, free.coordinates(start), generator=keyed_generator(0, "chains"))).x
    x = free.points(found.flatten(0, 1) if found.ndim == 3 else found)
    if name == "sphere":
        kappa = float(fit.coef.norm())
        expected = fit.coef / kappa * (1 / math.tanh(kappa) - 1 / kappa)
    elif name == "simplex":
        expected = (fit.coef + 1) / (fit.coef + 1).sum()
    else:
        expected = (fit.coef[1:] + 1) / -fit.coef[:1]
    # 64 chains of 200 correlated draws are worth at least 600 apart ones
    off = (x.mean(0) - expected) / (x.std(0) / 600**0.5)
    assert off.abs().max() < 4.5, (x.mean(0), expected)
    assert fit.domain.inside(x).all()


def test_outside_a_surface_the_log_density_is_refused_and_coordinates_are_named() -> None:
    fit = von_mises_fisher(3).fit(sphere_rows())
    with pytest.raises(ValueError, match=r"row 1 is not on the sphere, its length is 2: .*unconstrained\(\)"):
        fit.log_density(torch.tensor([[1.0, 0, 0], [2, 0, 0]]).double())
    with pytest.raises(ValueError, match="row 0 is not in the simplex"):
        dirichlet(3).fit(RNG(0).dirichlet([1.0, 1, 1], 50)).log_density(torch.tensor([[-1.0, 1, 1]]).double())
    with pytest.raises(ValueError, match="row 1 is at the edge of the domain"):
        gamma().fit(RNG(0).gamma(2.0, size=50)).unconstrained().coordinates(torch.tensor([[1.0], [0.0]]).double())
    with pytest.raises(ValueError, match="row 0: -1 in column 0"):
        gamma().fit(RNG(0).gamma(2.0, size=50)).unconstrained().coordinates(torch.tensor([[-1.0]]).double())


def test_chains_that_leave_a_sphere_are_refused() -> None:
    fit = von_mises_fisher(3).fit(sphere_rows())
    with pytest.raises(ValueError, match=r"unconstrained\(\)"):
        collect(MarkovChains(HMC(5), steps=10, warmup=10)(fit, torch.from_numpy(sphere_rows()[:8])))
