"""Coordinates that are scored, known or absent: mixtures given what is known, log-densities of what is there, imputation."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor

from scorefield.estimators import ScoreDensity
from scorefield.estimators.mixture import fitted_mixture_with_gaps
from scorefield.estimators.residual import (
    MixtureParameters,
    MixtureResidual,
    OfRows,
    RowMixtures,
    States,
    mixture_score,
    observed_states,
)
from scorefield.estimators.training import TableDenoising, random_states
from scorefield.networks import MLPConfig

D, K = 4, 3
PATTERNS = ("ssss", "sskk", "sa-k".replace("-", "s"), "kaas", "sksk")
"""scored, known, absent"""


def mixture(seed: int = 0) -> MixtureParameters:
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(K, D, D, generator=g, dtype=torch.float64)
    weights = torch.rand(K, generator=g, dtype=torch.float64) + 0.2
    return MixtureParameters(
        weights / weights.sum(), torch.randn(K, D, generator=g, dtype=torch.float64), a @ a.mT + 0.2 * torch.eye(D)
    )


def rows(seed: int = 1) -> tuple[Tensor, States]:
    """A row of each pattern: noisy scored values, and the states with their known values."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(len(PATTERNS), D, generator=g, dtype=torch.float64)
    scored, known = (torch.tensor([[float(c == kind) for c in p] for p in PATTERNS], dtype=torch.float64) for kind in "sk")
    return scored * x, States(scored, known, known * torch.randn(x.shape, generator=g, dtype=torch.float64))


def log_normal_mixture(m: MixtureParameters, x: np.ndarray, part: list[int], noise: list[float]) -> float:
    """log Σ w N(x; μ, C + diag(noise)) over some coordinates, by SciPy."""
    terms = [
        math.log(w) + stats.multivariate_normal(mu[part], c[np.ix_(part, part)] + np.diag(noise)).logpdf(x[part])
        for w, mu, c in zip(*(v.numpy() for v in m), strict=True)
    ]
    return float(np.logaddexp.reduce(terms))


@pytest.mark.parametrize("sigma", [0.05, 1.0])
def test_a_mixture_given_known_coordinates_is_a_quotient_of_mixtures(sigma: float) -> None:
    m, (x, states) = mixture(), rows()
    found = RowMixtures(m, states).log_density(x, sigma)
    for i, pattern in enumerate(PATTERNS):
        known = [j for j, c in enumerate(pattern) if c == "k"]
        both = [j for j, c in enumerate(pattern) if c != "a"]
        values = (x[i] + states.values[i]).numpy()
        noise = [0.0 if c == "k" else sigma**2 for c in pattern if c != "a"]
        expected = log_normal_mixture(m, values, both, noise)
        expected -= log_normal_mixture(m, values, known, [0.0] * len(known)) if known else 0.0
        assert float(found[i]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("sigma", [0.05, 1.0])
def test_its_score_and_laplacian_are_derivatives_by_the_scored(sigma: float) -> None:
    m, (x, states) = mixture(), rows()
    given = RowMixtures(m, states)
    score, laplacian = given.score_and_laplacian(x, sigma)
    leaf = x.clone().requires_grad_()
    gradient = torch.autograd.grad(given.log_density(leaf, sigma).sum(), leaf)[0]
    torch.testing.assert_close(score, gradient, rtol=1e-8, atol=1e-9)
    assert (score[states.scored == 0] == 0).all()
    jacobian = torch.autograd.functional.jacobian(lambda y: given.score(y, sigma).sum(0), x)  # (d, b, d)
    torch.testing.assert_close(laplacian, torch.einsum("ibi->b", jacobian), rtol=1e-7, atol=1e-7)
    level = torch.full((len(x),), sigma, dtype=torch.float64)
    torch.testing.assert_close(mixture_score(m, x, level, states), score, rtol=1e-8, atol=1e-9)


def test_draws_have_the_conditional_moments() -> None:
    m = MixtureParameters(torch.ones(1), torch.tensor([[1.0, -2.0, 0.5, 0.0]]), mixture().covariances[:1])
    n, c, mu = 40_000, m.covariances[0].numpy(), m.means[0].numpy()
    known = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(n, D)
    values = known * torch.tensor([0.0, 0.7, 0.0, -1.1])
    scored = torch.tensor([1.0, 0.0, 1.0, 0.0]).expand(n, D)
    drawn = RowMixtures(m, States(scored, known, values)).sample(0.0, torch.Generator().manual_seed(0)).numpy()
    s, k = [0, 2], [1, 3]
    gain = c[np.ix_(s, k)] @ np.linalg.inv(c[np.ix_(k, k)])
    mean = mu[s] + gain @ (np.array([0.7, -1.1]) - mu[k])
    covariance = c[np.ix_(s, s)] - gain @ c[np.ix_(k, s)]
    spread = np.sqrt(np.diag(covariance) / n)
    assert (np.abs(drawn[:, s].mean(0) - mean) < 4.5 * spread).all()
    np.testing.assert_allclose(np.cov(drawn[:, s].T), covariance, atol=6 * covariance.max() / math.sqrt(n))
    assert (drawn[:, k] == 0).all()


def test_states_leave_out_what_is_not_there_and_always_score_something() -> None:
    x = torch.randn(4000, D, generator=torch.Generator().manual_seed(0))
    out = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    x, out = x[~out.all(1)], out[~out.all(1)]
    states = random_states(x, torch.Generator().manual_seed(2), out)
    assert (states.scored * states.known == 0).all()
    assert ((states.scored + states.known)[out] == 0).all()
    assert (states.scored.sum(1) >= 1).all()
    assert torch.equal(states.values, torch.where(states.known > 0, x, 0.0))
    shares = [float(part[~out].mean()) for part in (states.scored, states.known)]
    assert shares == pytest.approx([0.64, 0.28], abs=0.03)


def test_a_network_for_states_sees_nothing_of_what_is_absent() -> None:
    torch.manual_seed(0)
    model = MixtureResidual(mixture(), MLPConfig(16, 1, 2), (0.01, 6.0)).double()
    for layer in (model.correction.network.leave, model.correction.network.states):  # type: ignore[union-attr]
        torch.nn.init.normal_(layer.weight)  # type: ignore[union-attr, arg-type]
    x, states = rows()
    other = x + 5 * (1 - states.scored)
    for sigma in (0.1, torch.full((len(x),), 0.7, dtype=torch.float64)):
        torch.testing.assert_close(model.score(other, sigma, states), model.score(x, sigma, states), rtol=0, atol=0)
    torch.testing.assert_close(OfRows(model, states).score(x, 0.3), model.score(x, 0.3, states), rtol=1e-8, atol=1e-9)
    every = States(torch.ones_like(x), torch.zeros_like(x), torch.zeros_like(x))
    whole = model.mixture.score(x, 0.3)
    torch.testing.assert_close(RowMixtures(mixture(), every).score(x, 0.3), whole, rtol=1e-9, atol=1e-10)


def test_the_loss_of_states_is_the_loss_where_all_is_scored() -> None:
    model = MixtureResidual(mixture(), MLPConfig(16, 1, 2), (0.01, 6.0))
    x = torch.randn(64, D, generator=torch.Generator().manual_seed(0))
    one = TableDenoising()(model, x, generator=torch.Generator().manual_seed(3)).value
    two = TableDenoising()(model, x, observed_states(x), generator=torch.Generator().manual_seed(3)).value
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def gaussian_table(n: int, seed: int, gaps: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows with and without gaps, missing completely at random, and the law's mean and covariance."""
    rng = np.random.default_rng(seed)
    mean, covariance = np.array([1.0, -2.0, 3.0]), np.array([[1.0, 0.8, 0.3], [0.8, 2.0, 0.5], [0.3, 0.5, 0.5]])
    x = rng.multivariate_normal(mean, covariance, n)
    holes = rng.random(x.shape) < gaps
    holes[holes.all(1), 0] = False
    return np.where(holes, np.nan, x), x, mean, covariance


def test_a_mixture_is_fitted_through_gaps() -> None:
    torn, _, mean, covariance = gaussian_table(6000, 0)
    found = fitted_mixture_with_gaps(torn[:5000], torn[5000:], (1,))
    np.testing.assert_allclose(found.means[0], mean, atol=0.08)
    np.testing.assert_allclose(found.covariances[0], covariance, atol=0.12)


def test_log_densities_are_those_of_what_is_there() -> None:
    torn, _, mean, covariance = gaussian_table(6000, 0)
    model = ScoreDensity(components=1, steps=0).fit(torn)
    new = gaussian_table(200, 1)[0]
    found = model.score_samples(new)
    truth = np.array([
        stats.multivariate_normal(mean[~h], covariance[np.ix_(~h, ~h)]).logpdf(row[~h])
        for row, h in zip(new, np.isnan(new), strict=True)
    ])  # fmt: skip
    assert np.abs(found - truth).mean() < 0.05
    i = int(np.flatnonzero(np.isnan(new).any(1))[0])
    assert model.score_samples(new[i : i + 1])[0] == pytest.approx(found[i], abs=1e-7)


def test_imputations_have_the_conditional_law_and_leave_the_rest() -> None:
    torn, _, mean, covariance = gaussian_table(6000, 0)
    model = ScoreDensity(components=1, steps=0).fit(torn)
    row = np.array([[2.0, np.nan, 2.5]])
    drawn = np.concatenate(model.impute(np.repeat(row, 400, 0), 5))
    assert (drawn[:, [0, 2]] == row[0, [0, 2]]).all()
    k = [0, 2]
    gain = covariance[1, k] @ np.linalg.inv(covariance[np.ix_(k, k)])
    expected = mean[1] + gain @ (row[0, k] - mean[k])
    spread = math.sqrt(covariance[1, 1] - gain @ covariance[k, 1])
    assert drawn[:, 1].mean() == pytest.approx(expected, abs=4.5 * spread / math.sqrt(2000) + 0.05)
    assert drawn[:, 1].std() == pytest.approx(spread, rel=0.1)


def test_frames_come_back_as_frames_with_their_types() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=400), "c": rng.choice(["x", "y"], 400), "n": rng.poisson(3, 400).astype(float)})
    torn = frame.copy()
    for name in frame:
        torn.loc[rng.random(400) < 0.2, name] = None
    torn = torn[~torn.isna().all(axis=1)].reset_index(drop=True)
    one, two = ScoreDensity(components=2, steps=0).fit(torn).impute(torn, 2)
    assert list(one.columns) == ["a", "c", "n"]
    assert not one.isna().any().any()
    assert set(one.c) == {"x", "y"}
    assert (one.n == one.n.round()).all()
    there = torn.notna()
    for name in frame:
        assert one[name][there[name]].tolist() == torn[name][there[name]].tolist()
    assert (one != two).any().any()
