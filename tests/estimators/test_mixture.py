"""The wide components for outliers: what they weigh, and what they change."""

import numpy as np
import pytest
import torch

from scorefield.densities import GaussianMixture
from scorefield.estimators.mixture import TAILS, with_tails
from scorefield.estimators.residual import MixtureParameters

N = 500


def some_mixture() -> MixtureParameters:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(3, 2, 2, generator=g, dtype=torch.float64)
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    return MixtureParameters(weights, torch.randn(3, 2, generator=g, dtype=torch.float64), a @ a.mT + 0.1 * torch.eye(2))


def gaussian(d: int = 2) -> MixtureParameters:
    zero, one = torch.zeros(1, d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)[None]
    return MixtureParameters(torch.ones(1, dtype=torch.float64), zero, one)


def test_the_tails_share_the_weight_of_one_row_more() -> None:
    mixture = some_mixture()
    weights, means, covariances = with_tails(mixture, N)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-15)
    tails = 1 / (len(TAILS) * (N + 1))
    np.testing.assert_allclose(weights, [*(mixture.weights * N / (N + 1)), *[tails] * len(TAILS)], rtol=1e-14)
    np.testing.assert_array_equal(means[:3], mixture.means)
    np.testing.assert_array_equal(covariances[:3], mixture.covariances)
    # moments of the whole, by the law of total variance
    mean = (mixture.weights[:, None] * mixture.means).sum(0)
    apart = mixture.means - mean
    inner = mixture.covariances + apart[:, :, None] * apart[:, None]
    whole = (mixture.weights[:, None, None] * inner).sum(0)
    for i, width in enumerate((4, 16), 3):
        np.testing.assert_allclose(means[i], mean, rtol=1e-12)
        np.testing.assert_allclose(covariances[i], width**2 * whole, rtol=1e-12)


def test_ordinary_rows_keep_their_density() -> None:
    # within two standard deviations a tail's density is below the Gaussian's own, so the change is within 1/n either way
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x[x.norm(dim=1) < 2]
    change = GaussianMixture(*with_tails(gaussian(), N)).log_density(x) - GaussianMixture(*gaussian()).log_density(x)
    assert float(change.abs().max()) <= 1 / N
    # and of rows from the mixture, on average: the tails' share of p is 1/(n + 1) in expectation
    mixture = GaussianMixture(*some_mixture())
    rows = mixture.sample(20_000, 0.0, generator=torch.Generator().manual_seed(2))
    change = GaussianMixture(*with_tails(some_mixture(), N)).log_density(rows) - mixture.log_density(rows)
    error = float(change.std()) / len(rows) ** 0.5
    assert abs(float(change.mean())) <= 1 / N + 4 * error


def test_an_outlier_is_worth_tens_of_nats_and_not_hundreds() -> None:
    x = torch.tensor([[40.0, 0.0]], dtype=torch.float64)
    before, after = (float(GaussianMixture(*mixture).log_density(x)) for mixture in (gaussian(), with_tails(gaussian(), N)))
    assert before == pytest.approx(-800 - np.log(2 * np.pi))
    # of width 16, it is 2.5 widths away; the other tail is 10 widths away
    expected = -np.log(2 * (N + 1)) - np.log(2 * np.pi * 256) - 2.5**2 / 2
    assert after == pytest.approx(expected, abs=1e-6)
    assert after - before > 700
