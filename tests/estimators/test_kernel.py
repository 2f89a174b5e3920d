"""KernelScoreDensity: near a known law, normalised, its score the gradient, its rows of the law, scikit-learn's manners."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone

from scorefield.densities import Tempered, gaussian
from scorefield.densities.kernel import median_bandwidth
from scorefield.errors import UserError
from scorefield.estimators import KernelScoreDensity, MixtureTable
from scorefield.likelihood import Annealing, geometric_path
from scorefield.samplers import HMC

SMALL: dict[str, Any] = {"inducing": 60, "particles": 256, "tuning_steps": 10}
WIDTH = 0.5


def bent(n: int, seed: int) -> np.ndarray:
    """Rows whose density no Gaussian has, `(n, 2)`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return np.stack([x, 0.6 * x**2 + WIDTH * rng.normal(size=n)], 1)


def log_bent(x: np.ndarray) -> np.ndarray:
    return stats.norm.logpdf(x[:, 0]) + stats.norm.logpdf(x[:, 1], 0.6 * x[:, 0] ** 2, WIDTH)


@pytest.fixture(scope="module")
def fitted() -> KernelScoreDensity:
    return KernelScoreDensity(**SMALL).fit(bent(800, 0))  # type: ignore[return-value]


def test_it_is_normalised_and_near_the_truth(fitted: KernelScoreDensity) -> None:
    a, b = np.linspace(-6, 6, 250), np.linspace(-6, 16, 450)
    grid = np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 2)
    mass = np.exp(fitted.score_samples(grid)).sum() * (a[1] - a[0]) * (b[1] - b[0])
    assert fitted.partition_.trustworthy
    assert mass == pytest.approx(1, abs=3 * fitted.partition_.se)
    assert fitted.partition_.se < 0.025  # 0.019 to 0.020 over three seeds
    new = bent(1000, 9)
    off = fitted.score_samples(new) - log_bent(new)
    assert np.abs(off).mean() < 0.3
    gain = fitted.score_samples(new) - MixtureTable().fit(bent(40, 1)).score_samples(new)
    assert gain.mean() > 0


def test_the_stein_score_is_the_gradient(fitted: KernelScoreDensity) -> None:
    x, eps = bent(20, 3), 1e-5
    found = fitted.stein_score(x)
    for i, step in enumerate(eps * np.eye(2)):
        slope = (fitted.score_samples(x + step) - fitted.score_samples(x - step)) / (2 * eps)
        np.testing.assert_allclose(found[:, i], slope, rtol=1e-4, atol=1e-4)


def test_a_row_alone_is_the_row_in_a_batch(fitted: KernelScoreDensity) -> None:
    x = bent(60, 3)
    together = fitted.score_samples(x)
    for i in (0, 31, 59):
        assert fitted.score_samples(x[i : i + 1])[0] == pytest.approx(together[i], abs=1e-8)


def test_its_rows_have_the_law_of_the_data(fitted: KernelScoreDensity) -> None:
    drawn = fitted.sample(1000, random_state=5)
    assert np.abs(np.quantile(drawn[:, 0], (0.25, 0.5, 0.75)) - [-0.674, 0, 0.674]).max() < 0.2
    spread = np.median(np.abs(drawn[:, 1] - 0.6 * drawn[:, 0] ** 2)) / 0.6745
    assert spread == pytest.approx(WIDTH, abs=0.15)  # of a Gaussian with these moments it is 0.98
    np.testing.assert_array_equal(fitted.sample(5, random_state=5), drawn[:5])


def test_p_values_of_new_rows_are_uniform(fitted: KernelScoreDensity) -> None:
    n, m = 1000, len(fitted.calibration_scores_)
    p = fitted.anomaly_pvalue(bent(n, 4))
    assert stats.kstest(p, "uniform").statistic < 1.95 * math.sqrt(1 / n + 1 / m) + 1 / (m + 1)


def test_particles_along_a_path_are_draws_of_its_end() -> None:
    """From N(0, 4) to N(±1, ¼): mean and variance within four standard errors of half as many independent draws."""
    end, n = gaussian(torch.tensor([1.0, -1.0]), torch.eye(2) / 4), 4000
    path = geometric_path(gaussian(torch.zeros(2), 4 * torch.eye(2)), Tempered(end, 1.0), steps=12)
    walk = Annealing(n, HMC(3), 1)
    generator = torch.Generator().manual_seed(0)
    draws = walk.draws(path, walk.step_sizes(path, generator=generator), generator=generator)
    assert (draws.mean(0) - torch.tensor([1.0, -1.0])).abs().max() < 4 * 0.5 / math.sqrt(n / 2)
    assert (draws.var(0) - 0.25).abs().max() < 4 * 0.25 * math.sqrt(2 / (n / 2))


def test_the_same_seed_gives_the_same() -> None:
    x = bent(120, 0)
    one, two = (
        KernelScoreDensity(inducing=20, particles=64, tuning_steps=3, rungs=10, random_state=1).fit(x) for _ in range(2)
    )
    assert (one.score_samples(x) == two.score_samples(x)).all()


def test_rows_with_gaps_are_refused(fitted: KernelScoreDensity) -> None:
    x = bent(30, 0)
    x[7, 1] = np.nan
    for refuse in (KernelScoreDensity(**SMALL).fit, fitted.score_samples):
        with pytest.raises(UserError, match=r"row 7 has missing values \(NaN\), which KernelScoreDensity cannot take"):
            refuse(x)


@pytest.mark.filterwarnings("ignore:log Z is not trustworthy")  # of a few particles
def test_kernels_are_no_narrower_than_the_bound_and_it_is_not_told() -> None:
    """Rows along a thin wave want kernels of a tenth of their median distance; the user cannot set the bound."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    wave = np.stack([x, np.sin(4 * x) + 0.05 * rng.normal(size=300)], 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".* is at its lower bound")
        model = KernelScoreDensity(inducing=60, particles=64, rungs=10, tuning_steps=10).fit(wave)
    assert model.family_.kernel.bandwidth == pytest.approx(0.25 * median_bandwidth(model.model_.centres), rel=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inducing": 10.5}, r"inducing must be a whole number of at least 1, got 10\.5"),
        ({"tuning_steps": 0}, "tuning_steps must be a whole number of at least 1, got 0"),
        ({"rungs": "many"}, "rungs must be a whole number of at least 1, got 'many'"),
    ],
)
def test_settings_that_make_no_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KernelScoreDensity(**settings).fit(bent(30, 0))


def test_it_can_be_cloned() -> None:
    model = KernelScoreDensity(**SMALL)
    assert clone(model).get_params() == model.get_params()
    assert model.get_params() | SMALL == model.get_params()
