"""EnergyDensity: log Z against quadrature, densities and scores against the law and differences, scikit-learn's manners."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone

from scorefield.densities import GaussianMixture
from scorefield.errors import UserError
from scorefield.estimators import EnergyDensity
from scorefield.estimators.energy import GaussianEnergy
from scorefield.estimators.mixture import with_tails
from scorefield.estimators.residual import MixtureParameters
from scorefield.networks import MLPConfig

WIDTH = 0.6
SMALL: dict[str, Any] = {
    "steps": 300, "width": 32, "blocks": 2, "batch_size": 256, "particles": 256, "sigma_range": (0.1, 6.0),
}  # fmt: skip
TINY: dict[str, Any] = {**SMALL, "steps": 10, "width": 8, "blocks": 1, "particles": 32}


def banana(n: int, seed: int) -> np.ndarray:
    """Rows whose density no Gaussian has, `(n, 2)`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return np.stack([x, x**2 + WIDTH * rng.normal(size=n)], 1)


def log_banana(x: np.ndarray) -> np.ndarray:
    return stats.norm.logpdf(x[:, 0]) + stats.norm.logpdf(x[:, 1], x[:, 0] ** 2, WIDTH)


@pytest.fixture(scope="module")
def fitted() -> EnergyDensity:
    return EnergyDensity(**SMALL).fit(banana(2000, 0))


def mixture() -> MixtureParameters:
    covariance = torch.tensor([[[1.0, 0.4], [0.4, 0.7]]], dtype=torch.float64)
    one = MixtureParameters(torch.ones(1, dtype=torch.float64), torch.tensor([[0.3, -0.2]], dtype=torch.float64), covariance)
    return with_tails(one, 100)


def energy(std: float) -> GaussianEnergy:
    """With the last weights drawn at random; 0 at the start."""
    torch.manual_seed(0)
    model = GaussianEnergy(mixture(), MLPConfig(width=16, blocks=1, frequencies=2), (0.1, 6.0)).double()
    torch.nn.init.normal_(model.network.leave.weight, std=std)
    return model.requires_grad_(False)


def test_with_a_network_of_0_it_is_the_gaussian_with_its_tails() -> None:
    x = 3 * torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for sigma in (0.1, 2.0):
        torch.testing.assert_close(energy(0).log_density(x, sigma), GaussianMixture(*mixture()).log_density(x, sigma))
    model = EnergyDensity(**{**TINY, "steps": 0, "particles": 512}).fit(banana(300, 0))
    # the noise goes down as the Gaussian's own does: hardly anything is left to weigh
    assert model.partition_.log_z == pytest.approx(0, abs=4 * model.partition_.se + 1e-9)
    assert model.partition_.se < 0.05
    z = model.encoding_.encode(banana(20, 1))[0]
    own = model.model_.gaussian.log_density(torch.from_numpy(z), 0.1).numpy()
    np.testing.assert_allclose(model._log_density(z), own - model.partition_.log_z, rtol=1e-12)


def test_what_the_network_adds_is_bounded_and_falls_with_the_level() -> None:
    model, base = energy(1.0), GaussianMixture(*mixture())
    x = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for sigma in (0.1, 0.5, 5.0):
        phi = model.network(x / math.sqrt(1 + sigma**2), torch.full((40,), math.log(sigma) / 4, dtype=torch.float64))
        added = model.log_density(x, sigma) - base.log_density(x, sigma)
        torch.testing.assert_close(added, phi / sigma, rtol=1e-9, atol=1e-9)
        # ‖silu(features of norm √width)‖ ≤ √width
        far = 1e6 * x
        most = float(model.network.leave.weight.norm()) * 16**0.5 / sigma
        assert float((model.log_density(far, sigma) - base.log_density(far, sigma)).abs().max()) <= most + 1e-3


def test_its_score_is_its_gradient() -> None:
    model, eps = energy(1.0), 1e-6
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for i, step in enumerate(eps * torch.eye(2, dtype=torch.float64)):
        slope = (model.log_density(x + step, 0.3) - model.log_density(x - step, 0.3)) / (2 * eps)
        torch.testing.assert_close(model.score(x, 0.3)[:, i], slope, rtol=1e-5, atol=1e-6)


def test_its_density_has_the_integral_one_and_is_near_the_truth(fitted: EnergyDensity) -> None:
    a, b = np.linspace(-5, 5, 250), np.linspace(-4, 26, 500)
    grid = np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 2)
    mass = np.exp(fitted.score_samples(grid)).sum() * (a[1] - a[0]) * (b[1] - b[0])
    assert fitted.partition_.trustworthy
    assert fitted.partition_.se < 0.05
    assert mass == pytest.approx(1, abs=3 * fitted.partition_.se + 0.02)
    new = banana(1000, 9)
    assert np.abs(fitted.score_samples(new) - log_banana(new)).mean() < 0.6  # nats, after 300 steps
    alone = EnergyDensity(**{**SMALL, "steps": 0}).fit(banana(2000, 0))
    gain = fitted.score_samples(new) - alone.score_samples(new)
    assert gain.mean() > 5 * gain.std() / len(new) ** 0.5


def test_the_stein_score_is_the_gradient(fitted: EnergyDensity) -> None:
    x, eps = banana(20, 3), 1e-5
    found = fitted.stein_score(x)
    for i, step in enumerate(eps * np.eye(2)):
        slope = (fitted.score_samples(x + step) - fitted.score_samples(x - step)) / (2 * eps)
        np.testing.assert_allclose(found[:, i], slope, rtol=1e-5, atol=1e-5)


def test_a_row_alone_is_the_row_in_a_batch(fitted: EnergyDensity) -> None:
    x = banana(60, 3)
    together = fitted.score_samples(x)
    for i in (0, 31, 59):
        assert fitted.score_samples(x[i : i + 1])[0] == pytest.approx(together[i], abs=1e-9)


def test_p_values_of_new_rows_are_uniform(fitted: EnergyDensity) -> None:
    n, m = 1000, len(fitted.calibration_scores_)
    p = fitted.anomaly_pvalue(banana(n, 4))
    # both samples have a part in the distance; p lies on a grid of 1/(m + 1)
    assert stats.kstest(p, "uniform").statistic < 1.95 * math.sqrt(1 / n + 1 / m) + 1 / (m + 1)
    assert fitted.anomaly_pvalue(np.array([[0.0, 9.0], [3.0, -3.0]])).max() == pytest.approx(1 / (m + 1))


def test_its_rows_have_the_law_of_the_data(fitted: EnergyDensity) -> None:
    drawn = fitted.sample(1000, random_state=5)
    low, middle, high = np.quantile(drawn[:, 0], (0.25, 0.5, 0.75))  # a row or so in 1000 is of the tails
    assert abs(middle) < 0.3
    assert (high - low) / 1.349 == pytest.approx(1, abs=0.25)
    spread = np.median(np.abs(drawn[:, 1] - drawn[:, 0] ** 2)) / 0.6745
    assert spread == pytest.approx(WIDTH, abs=0.25)  # of a Gaussian with these moments it is 1.95
    np.testing.assert_array_equal(fitted.sample(5, random_state=5), drawn[:5])


def test_the_same_seed_gives_the_same_and_the_global_state_stays() -> None:
    x = banana(200, 0)
    state = torch.random.get_rng_state()
    with pytest.warns(UserWarning, match="log Z is not trustworthy"):  # of 8 particles
        one, two = (EnergyDensity(**{**TINY, "particles": 8, "random_state": 1}).fit(x) for _ in range(2))
    assert (one.score_samples(x) == two.score_samples(x)).all()
    assert one.partition_ == two.partition_
    assert torch.equal(torch.random.get_rng_state(), state)


def test_rows_with_gaps_are_refused(fitted: EnergyDensity) -> None:
    x = banana(30, 0)
    x[7, 1] = np.nan
    for refuse in (EnergyDensity(**TINY).fit, fitted.score_samples, fitted.stein_score, fitted.anomaly_pvalue):
        with pytest.raises(
            UserError, match=r"row 7 has missing values \(NaN\), which EnergyDensity cannot take: ScoreDensity can"
        ):
            refuse(x)


def test_it_can_be_cloned() -> None:
    model = EnergyDensity(**TINY)
    assert clone(model).get_params() == model.get_params()
    assert model.get_params() | TINY == model.get_params()
