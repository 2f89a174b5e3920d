"""ScoreDensity: densities of tables with a known law, scikit-learn's contract, anomalies, files."""

import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.mixture import GaussianMixture as EM
from torch import Tensor

from scorefield.errors import UserError
from scorefield.estimators import ScoreDensity
from scorefield.estimators.density import COARSE, FINE, LEVELS, NOISES
from scorefield.estimators.flow import log_densities_of
from scorefield.estimators.mixture import TAILS
from scorefield.estimators.residual import MixtureParameters, MixtureResidual, MixtureTrace, States
from scorefield.estimators.training import TableDenoising, validation_loss
from scorefield.interfaces import Field
from scorefield.jacobian_trace import Exact
from scorefield.networks import MLPConfig
from scorefield.randomness import keyed_generator

SMALL: dict[str, Any] = {"steps": 900, "width": 64, "blocks": 2, "batch_size": 256}


def two_bananas(n: int, seed: int) -> np.ndarray:
    """Rows whose density a few Gaussians do not have, `(n, 2)`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return np.stack([x, x**2 + 0.3 * rng.normal(size=n)], 1)


def log_two_bananas(x: np.ndarray) -> np.ndarray:
    return stats.norm.logpdf(x[:, 0]) + stats.norm.logpdf(x[:, 1], x[:, 0] ** 2, 0.3)


@pytest.fixture(scope="module")
def fitted() -> ScoreDensity:
    return ScoreDensity(components=2, **SMALL).fit(two_bananas(2000, 0))


def random_residual(seed: int = 0) -> MixtureResidual:
    """A mixture and a network that is not 0."""
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(3, 2, 2, generator=g, dtype=torch.float64)
    mixture = MixtureParameters(torch.tensor([0.2, 0.3, 0.5]), torch.randn(3, 2, generator=g), a @ a.mT + 0.1 * torch.eye(2))
    model = MixtureResidual(mixture, MLPConfig(16, 1, 2), (0.01, 6.0)).double()
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.correction.network.leave.weight, std=0.3)  # type: ignore[union-attr, arg-type]
    return model.requires_grad_(False)


def test_the_trace_is_that_of_the_jacobian() -> None:
    model, x = random_residual(), torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for sigma in (0.05, 1.3):
        found = MixtureTrace()(Field(model, sigma), x)
        jacobian = torch.func.vmap(torch.func.jacrev(lambda y, s=sigma: model.score(y[None], s)[0]))(x)
        torch.testing.assert_close(found.trace, torch.einsum("bii->b", jacobian), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found.score, model.score(x, sigma), rtol=1e-12, atol=1e-12)
        both = model.mixture.score_and_laplacian(x, sigma)
        torch.testing.assert_close(both[1], Exact()(Field(model.mixture, sigma), x).trace, rtol=1e-9, atol=1e-9)  # type: ignore[arg-type]


def test_the_network_begins_at_nothing() -> None:
    mixture = MixtureParameters(torch.ones(1), torch.zeros(1, 3), torch.eye(3)[None])
    model = MixtureResidual(mixture, MLPConfig(16, 1, 2), (0.01, 6.0))
    x = torch.randn(4, 3)
    assert model.untouched
    torch.testing.assert_close(model.score(x, 0.5), -x / 1.25)
    assert not random_residual().untouched
    # z less the best guess of it is (z − σ x₀)/(1 + σ²), whose square is d/(1 + σ²) in expectation
    u = np.linspace(math.log(0.01), math.log(6), 10_001)
    expected = 3 * np.mean(1 / (1 + np.exp(2 * u)))
    rows = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    assert validation_loss(model, rows, 0) == pytest.approx(expected, rel=0.05)


class Linear:
    """The score −θ x/(1 + σ²) of rows from N(0, I), right for θ = 1; of each row there is an own θ."""

    event_shape = (3,)

    def __init__(self, theta: Tensor, sigma_range: tuple[float, float]) -> None:
        self.theta, self.sigma_range = theta, sigma_range

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        level = torch.as_tensor(sigma)[..., None]
        return -self.theta[..., None] * x / (1 + level**2)


@pytest.mark.parametrize("sigma", [0.05, 1.0])
def test_each_noise_comes_with_its_negative(sigma: float) -> None:
    # With a = σ/(1 + σ²) the gradient of a row's loss by θ, at 1, is −2a (±(1 − 2aσ) z·x + a (‖z‖² − ‖x‖²)):
    # in a pair's mean what is odd in z is gone, which is all but a² of it at small σ.
    n, d = 40_000, 3
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta = torch.ones(2 * n, dtype=torch.float64, requires_grad=True)
    loss = TableDenoising()(Linear(theta, (sigma, sigma)), x, generator=torch.Generator().manual_seed(1)).value
    assert loss.shape == (2 * n,)
    (gradient,) = torch.autograd.grad(loss.sum(), theta)
    pairs = (gradient[:n] + gradient[n:]) / 2
    a = sigma / (1 + sigma**2)
    paired = 16 * d * a**4
    single = paired + 4 * d * (a * (1 - 2 * a * sigma)) ** 2
    error = 4 * math.sqrt(8 / n)  # of a variance, at a kurtosis below 9
    assert float(pairs.var()) == pytest.approx(paired, rel=error)
    assert float(gradient[:n].var()) == pytest.approx(single, rel=error)
    assert abs(float(pairs.mean())) < 4 * math.sqrt(paired / n)  # θ = 1 is the minimum
    if sigma == 0.05:
        assert float(pairs.var()) < 0.02 * float(gradient[:n].var()) / 2


def test_the_loss_is_what_it_is_in_expectation() -> None:
    # ẑ − z of θ is z (1 − θaσ) − θ a x: with its mean square over σ uniform in the logarithm, for each scored coordinate
    n, theta = 40_000, 0.6
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    model = Linear(torch.tensor(theta, dtype=torch.float64), (0.05, 5.0))
    sigma = np.exp(np.linspace(math.log(0.05), math.log(5), 10_001))
    a = sigma / (1 + sigma**2)
    each = float(np.mean((1 - theta * a * sigma) ** 2 + (theta * a) ** 2))
    scored = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64).expand(n, -1)
    for states, coordinates in ((None, 3), (States(scored, torch.zeros_like(scored), torch.zeros_like(scored)), 2)):
        loss = TableDenoising()(model, x, states, generator=torch.Generator().manual_seed(3)).value
        pairs = (loss[:n] + loss[n:]) / 2
        assert float(loss.mean()) == pytest.approx(coordinates * each, abs=4 * float(pairs.std()) / n**0.5)


def test_of_the_mixtures_and_the_network_the_best_is_kept() -> None:
    centres = np.array([[0, 0], [4, 1], [1, 5], [6, 6], [-4, 3], [-2, -5]])
    clusters = centres[np.arange(300) % 6] + 0.15 * np.random.default_rng(0).normal(size=(300, 2))
    kept = []
    for x in (clusters, two_bananas(400, 0)):
        model = ScoreDensity(steps=60, width=16, blocks=1, batch_size=128, flow_steps=10)
        rows = model._rows(x, None)
        bases, training = model._bases(rows), model._training(rows)
        judges = rows.table.held_out
        candidates = [training.untrained(base) for base in bases]
        candidates.append(training.trained(training.untrained(bases[0]), rows.table))
        reached = [
            float(log_densities_of(m.double().eval().requires_grad_(False), judges, training.flow_steps).mean())
            for m in candidates
        ]
        model.fit(x)
        own = float(log_densities_of(model.model_, judges, training.flow_steps).mean())
        assert own == pytest.approx(max(reached), abs=1e-9)
        kept.append((len(candidates), model.parts_.components, max(reached) - min(reached)))
    assert kept[0][:1] == (3,)  # one Gaussian and many, and a network on the one
    assert kept[0][1] >= 6  # six tight clusters are no single Gaussian, trained or not
    assert min(apart for *_, apart in kept) > 0.1  # a wrong choice would be seen


def test_a_heavy_tail_is_drawn_in_a_sane_range() -> None:
    rng, n = np.random.default_rng(0), 2000
    gain = np.where(rng.random(n) < 0.9, 0, np.minimum(np.round(np.exp(rng.normal(8, 1.2, n))), 99_999)).astype(int)
    frame = pd.DataFrame({"gain": gain, "income": rng.lognormal(0, 2, n), "age": rng.integers(17, 90, n)})
    gaps = frame[:60].astype(float)
    gaps.loc[::2, "gain"] = np.nan
    gaps.loc[::3, "income"] = np.nan
    for components in (1, 4):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # overflow, and casts of what is no integer
            model = ScoreDensity(components=components, steps=0).fit(frame)
            drawn, filled = model.sample(3000), model.impute(gaps)[0]
        assert drawn.gain.dtype == np.int64
        assert drawn.income.min() > 0
        for table in (drawn, filled):
            assert np.isfinite(table.to_numpy(float)).all()
            for name in frame:
                reach = 500 * (frame[name].max() - frame[name].min())  # 16 standard deviations of the tail's own slope
                assert frame[name].min() - reach < table[name].min()
                assert table[name].max() < frame[name].max() + reach
        assert np.isfinite(model.score_samples(drawn)).all()


def test_log_densities_integrate_to_one_and_are_near_the_truth(fitted: ScoreDensity) -> None:
    a, b = np.linspace(-4.5, 4.5, 46), np.linspace(-2, 18, 161)
    grid = np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 2)
    mass = np.exp(fitted.score_samples(grid)).sum() * (a[1] - a[0]) * (b[1] - b[0])
    assert mass == pytest.approx(1, abs=0.02)
    new = two_bananas(500, 9)
    assert np.abs(fitted.score_samples(new) - log_two_bananas(new)).mean() < 0.6  # nats, after 900 steps
    assert fitted.score(new) == pytest.approx(fitted.score_samples(new).mean())


def test_the_network_helps(fitted: ScoreDensity) -> None:
    new = two_bananas(1000, 8)
    mixture = ScoreDensity(components=2, steps=0).fit(two_bananas(2000, 0))
    gain = fitted.score_samples(new) - mixture.score_samples(new)
    assert gain.mean() > 5 * gain.std() / len(new) ** 0.5


def test_a_network_that_does_not_help_held_out_rows_is_not_kept() -> None:
    x = np.random.default_rng(0).normal(size=(300, 2))
    model = ScoreDensity(components=1, steps=300, width=64, blocks=1, learning_rate=0.03).fit(x)
    mixture = ScoreDensity(components=1, steps=0).fit(x)
    gain = model.score_samples(x) - mixture.score_samples(x)
    assert model.model_.untouched == (not gain.any())
    validation = model._split(len(x), 0)[1]
    assert gain[validation].mean() >= 0


def test_without_a_network_it_is_the_mixture_smoothed() -> None:
    x = np.random.default_rng(0).normal(size=(500, 2)) * [1.0, 3.0] + [5.0, -2.0]
    model = ScoreDensity(components=1, steps=0).fit(x)
    mixture, warps = model.model_.parameters_of_mixture, model.parts_.encoding.warps
    z = np.stack([w.forward(c)[0] for w, c in zip(warps, x.T, strict=True)], 1)
    slope = sum(w.forward(c)[1] for w, c in zip(warps, x.T, strict=True))
    parts = zip(*(part.numpy() for part in mixture), strict=True)
    density = sum(w * stats.multivariate_normal(m, c + 0.01**2 * np.eye(2)).pdf(z) for w, m, c in parts)
    np.testing.assert_allclose(model.score_samples(x), np.log(density) + slope, rtol=1e-9)


def test_a_row_alone_is_the_row_in_a_batch(fitted: ScoreDensity) -> None:
    x = two_bananas(60, 3)
    together = fitted.score_samples(x)
    for i in (0, 31, 59):
        assert fitted.score_samples(x[i : i + 1])[0] == pytest.approx(together[i], abs=1e-7)
    np.testing.assert_allclose(fitted.anomaly_score(x[7:8]), fitted.anomaly_score(x)[7:8], rtol=1e-9)


def test_the_stein_score_is_the_gradient_of_the_smoothed_law() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([rng.lognormal(0, 0.5, 800), rng.normal(size=800)], 1)
    model = ScoreDensity(components=3, steps=0).fit(x)
    at, eps = x[:20], 1e-5
    for i in range(2):
        step = eps * np.eye(2)[i]
        slope = (model.score_samples(at + step) - model.score_samples(at - step)) / (2 * eps)
        np.testing.assert_allclose(model.stein_score(at)[:, i], slope, rtol=1e-4, atol=1e-4)


def test_samples_have_the_law_of_the_data(fitted: ScoreDensity) -> None:
    drawn = fitted.sample(2000, random_state=5)
    assert stats.kstest(drawn[:, 0], "norm").pvalue > 1e-3
    residual = (drawn[:, 1] - drawn[:, 0] ** 2) / 0.3
    assert abs(residual.mean()) < 0.3
    assert 0.7 < residual.std() < 2.2  # of the mixture alone it is 3.1
    np.testing.assert_array_equal(fitted.sample(5, random_state=5), drawn[:5])


def test_p_values_of_ordinary_rows_are_uniform_at_most(fitted: ScoreDensity) -> None:
    p = fitted.anomaly_pvalue(two_bananas(1000, 4))
    for level in (0.05, 0.2, 0.5):
        spread = math.sqrt(level * (1 - level) * (1 / 1000 + 1 / 200))
        assert (p <= level).mean() < level + 4 * spread
    far = fitted.anomaly_pvalue(np.array([[0.0, 9.0], [3.0, 0.0]]))
    assert far.max() == 1 / 201


def test_an_anomaly_score_is_how_far_a_gaussian_s_posterior_mean_moves_a_row() -> None:
    """x̂ = m + C (C + σ²)⁻¹ (z + σ n − m) in transformed columns, compared in standard deviations of the table's."""
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal([5, 0], [[100, 0.6], [0.6, 0.01]], 500)
    model = ScoreDensity(components=1, steps=0).fit(x)
    mean, cov = model.model_.means[0].numpy(), model.model_.covariances[0].numpy()
    half = torch.randn(NOISES // 2, 1, 2, generator=keyed_generator(0, "noises"), dtype=torch.float64).numpy()
    z, expected = model.encoding_.encode(x)[0], np.zeros(500)
    levels = np.geomspace(FINE, COARSE, LEVELS)
    for sigma in levels:
        gain = cov @ np.linalg.inv(cov + sigma**2 * np.eye(2))
        for noise in np.concatenate([half, -half]):
            moved = (x - model.encoding_.unwarped(mean + (z + sigma * noise - mean) @ gain.T)) / np.array([10, 0.1])
            expected += (moved**2).mean(1) / (NOISES * LEVELS)
    np.testing.assert_allclose(model.anomaly_score(x), expected, rtol=0.15)  # spreads of 400 rows are known to 4 %
    parts = model.anomaly_parts(x)
    np.testing.assert_allclose(parts.mean(1), model.anomaly_score(x), rtol=1e-12)
    odd = np.array([[5.0, 0.9], [95.0, 0.0]])
    assert model.anomaly_parts(odd).argmax(1).tolist() == [1, 0]
    assert np.isnan(model.anomaly_parts(np.array([[5.0, np.nan]]))).tolist() == [[False, True]]


def test_scores_that_differ_by_rounding_are_equally_anomalous(fitted: ScoreDensity, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, n = fitted.calibration_scores_, len(fitted.calibration_scores_)
    for factor in (1 - 1e-13, 1.0, 1 + 1e-13):
        monkeypatch.setattr(fitted, "anomaly_score", lambda x, factor=factor: scores * factor)
        np.testing.assert_array_equal(fitted.anomaly_pvalue(None), (1 + np.arange(n, 0, -1)) / (n + 1))


def test_samples_come_in_parts(fitted: ScoreDensity) -> None:
    parts = list(fitted.samples(2500, random_state=5))
    assert [len(part) for part in parts] == [1024, 1024, 452]
    np.testing.assert_array_equal(np.concatenate(parts), fitted.sample(2500, random_state=5))
    assert len(np.unique(np.concatenate(parts), axis=0)) == 2500


def test_discrete_columns_have_probabilities() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"n": rng.poisson(3, 3000), "b": rng.random(3000) < 0.3})
    model = ScoreDensity(components=8, steps=0).fit(frame)
    one = pd.DataFrame({"n": np.repeat(np.arange(8), 2), "b": [False, True] * 8})
    found = np.exp(model.score_samples(one))
    truth = stats.poisson.pmf(one.n, 3) * np.where(one.b, 0.3, 0.7)
    assert np.abs(found - truth).max() < 0.06
    drawn = model.sample(500)
    assert list(drawn.columns) == ["n", "b"]
    assert set(drawn.b) == {False, True}
    assert drawn.n.dtype == np.int64


def test_the_mixture_is_scikit_learns() -> None:
    x = two_bananas(1500, 2)
    model = ScoreDensity(components=4, steps=0, random_state=3).fit(x)
    z = model.parts_.encoding.encode(x)[0]
    train = model._split(len(x), 3)[0]
    reference = EM(4, reg_covar=1e-4, random_state=3, max_iter=200, tol=1e-3).fit(z[train])
    np.testing.assert_allclose(
        model.model_.without(len(TAILS)).mixture.log_density(torch.from_numpy(z)).numpy(), reference.score_samples(z), rtol=1e-6
    )


def test_it_can_be_saved_pickled_and_cloned(fitted: ScoreDensity, tmp_path: Path) -> None:
    x = two_bananas(40, 6)
    fitted.save(tmp_path / "model")
    for other in (ScoreDensity.load(tmp_path / "model"), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(other.score_samples(x), fitted.score_samples(x))
        np.testing.assert_array_equal(other.anomaly_pvalue(x), fitted.anomaly_pvalue(x))
    again = clone(fitted)
    assert again.get_params() == fitted.get_params()
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        ScoreDensity.load(tmp_path)


def test_the_same_seed_gives_the_same_and_the_global_state_stays() -> None:
    x = two_bananas(300, 0)
    state = torch.random.get_rng_state()
    one, two = (ScoreDensity(components=2, steps=30, width=16, blocks=1).fit(x).score_samples(x) for _ in range(2))
    assert (one == two).all()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (one != ScoreDensity(components=2, steps=30, width=16, blocks=1, random_state=1).fit(x).score_samples(x)).any()


def test_weights_are_followed() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(-3, 1, (400, 1)), rng.normal(3, 1, (400, 1))])
    weights = np.concatenate([np.full(400, 3.0), np.ones(400)])
    model = ScoreDensity(components=2, steps=0).fit(x, sample_weight=weights)
    grid = np.linspace(-8, 8, 1601)
    below = np.exp(model.score_samples(grid[grid < 0][:, None])).sum() * 0.01
    assert below == pytest.approx(0.75, abs=0.07)
    for bad in (-weights, np.zeros(800), weights[:5], np.full(800, np.nan)):
        with pytest.raises(ValueError, match="sample_weight must be 800 finite numbers of at least 0, not all zero"):
            ScoreDensity().fit(x, sample_weight=bad)


def test_what_is_no_table_for_it_is_refused(fitted: ScoreDensity) -> None:
    for bad, words in (
        (np.array([[1.5, 2.5], [np.nan, np.nan], [0.1, 0.2], [3.0, 1.0]]), "row 1 has no values: leave it out"),
        (np.ones((20, 2)), "every column is constant"),
        (np.array([[0.5, 1.5]]), "a density needs at least 4 rows, to train and to be judged; n_samples = 1"),
    ):
        with pytest.raises(UserError, match=words):
            ScoreDensity().fit(bad)
    with pytest.raises(ValueError, match="X has 3 features, but ScoreDensity is expecting 2 features as input"):
        fitted.score_samples(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="n_samples must be at least 1, got 0"):
        fitted.sample(0)
