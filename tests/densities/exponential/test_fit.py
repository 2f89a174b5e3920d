"""What a fit says of itself: intervals, tests, criterion, text; and that it is an energy like any other."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from scorefield.densities import Product
from scorefield.densities import gaussian as normal
from scorefield.densities.exponential import (
    Box,
    ExponentialFamily,
    ExponentialFit,
    bingham,
    dirichlet,
    gamma,
    gaussian,
    moments,
    polynomial,
    truncated_gaussian,
    von_mises_fisher,
)
from scorefield.likelihood import quadrature
from scorefield.samplers import HMC, MALA, MarkovChains, collect

RNG = np.random.default_rng


def fitted(n: int = 300, seed: int = 0) -> tuple[ExponentialFit, np.ndarray]:
    x = RNG(seed).multivariate_normal([1.0, -1.0], [[1.0, 0.6], [0.6, 2.0]], size=n)
    return gaussian(2, ["a", "b"]).fit(x), x


def test_intervals_and_table_are_the_normal_ones() -> None:
    fit, _ = fitted()
    ends, half = fit.intervals(0.9), 1.6448536269514722 * fit.covariance.diagonal().sqrt()
    torch.testing.assert_close(ends, torch.stack([fit.coef - half, fit.coef + half], 1), rtol=1e-12, atol=0)
    lines = fit.summary(0.9).splitlines()
    row = next(line for line in lines if line.startswith("a·b")).split()
    z = float(fit.coef[3] / fit.standard_errors[3])
    expected = [fit.coef[3], fit.standard_errors[3], z, 2 * stats.norm.sf(abs(z)), *ends[3]]
    assert [float(v) for v in row[1:]] == pytest.approx([float(v) for v in expected], rel=2e-2, abs=6e-4)
    assert "[0.05" in fit.summary(0.9)
    assert "rows 300" in lines[2]
    assert f"SMIC {fit.information_criterion:.6g}" in lines[2]
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit.intervals(1.0)


def test_walds_statistic_is_that_of_independent_differences() -> None:
    fit, _ = fitted()
    root = torch.linalg.cholesky(fit.covariance)
    away = torch.linalg.solve_triangular(root, fit.coef[:, None] - 0.1, upper=False)
    test = fit.wald_test(torch.eye(5), 0.1)
    assert test.statistic == pytest.approx(float((away**2).sum()), rel=1e-9)
    assert test.degrees == 5
    one = fit.wald_test(["a·b"])
    assert one.statistic == pytest.approx(float((fit.coef[3] / fit.standard_errors[3]) ** 2), rel=1e-12)
    assert one.p_value == pytest.approx(2 * stats.norm.sf(math.sqrt(one.statistic)), rel=1e-9)
    assert fit.wald_test("a·b") == one
    assert fit.wald_test(["a", "b"], [0.1, 0.2]) == fit.wald_test(np.eye(2, 5), np.array([0.1, 0.2]))
    assert fit.wald_test(["a", "b"], [0.1, 0.2]) != fit.wald_test(["a", "b"], [0.2, 0.1])
    with pytest.raises(ValueError, match="2 restrictions need a value or 2 of them"):
        fit.wald_test(["a", "b"], [0.1, 0.2, 0.3])
    contrast = fit.wald_test([[1.0, -1.0, 0.0, 0.0, 0.0]])
    variance = fit.covariance[0, 0] + fit.covariance[1, 1] - 2 * fit.covariance[0, 1]
    assert contrast.statistic == pytest.approx(float((fit.coef[0] - fit.coef[1]) ** 2 / variance), rel=1e-9)


@pytest.mark.parametrize(
    ("restriction", "said"),
    [
        (["c"], "no coefficient is called c: there are a, b, a², a·b, b²"),
        ([], "no coefficient is called (nothing)"),
        (torch.ones(1, 4), "must be (q, 5), got (1, 4)"),
        (torch.ones(2, 5), "follows from the others"),
        ("c", "no coefficient is called c: there are a, b, a², a·b, b²"),
        (np.full((1, 5), math.nan), "must be finite"),
    ],
)
def test_restrictions_that_are_none(restriction: str | list[str] | torch.Tensor | np.ndarray, said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        fitted()[0].wald_test(restriction)
    assert said in str(caught.value)


def test_the_walds_p_values_are_uniform_where_the_hypothesis_holds() -> None:
    rng = RNG(3)
    p = [gaussian(2).fit(rng.normal(size=(400, 2))).wald_test(["x0", "x1", "x0·x1"]).p_value for _ in range(300)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_the_criterion_is_the_loss_on_new_rows() -> None:
    """E[2n · loss on new rows] = E[criterion], of a wrong model, less what both have of the loss at the best coefficients."""
    rng, n, differences, corrections = RNG(4), 500, [], []

    def drawn(count: int) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(-1.5, 1.5, count) + 0.3 * rng.normal(size=count))

    def terms(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.stack([0 * x + 1, 2 * x, 3 * x**2, 4 * x**3], 1), torch.stack([0 * x, 0 * x + 2, 6 * x, 12 * x**2], 1)

    first, second = terms(drawn(400_000))
    gram, linear = first.T @ first / len(first), second.mean(0)
    best = -torch.linalg.solve(gram, linear)
    at_best = float(linear @ best) / 2
    for _ in range(400):
        x = drawn(n)
        first, second = terms(x)
        luck = float(((first @ best) ** 2 / 2 + second @ best).mean()) - at_best
        fit = polynomial(1).fit(x)
        new = float(fit.coef @ gram @ fit.coef / 2 + linear @ fit.coef)
        differences.append(fit.information_criterion - 2 * n * (new + luck))
        corrections.append(2 * fit.effective)
    # a remainder of second order, of relative size d/n, is allowed for
    assert abs(np.mean(differences)) < 4 * np.std(differences) / 20 + 0.03 * np.mean(corrections)
    assert np.mean(corrections) > 10 * np.std(differences) / 20  # a factor of 2 would be noticed


def test_the_criterion_prefers_the_family_the_rows_are_of() -> None:
    x = RNG(5).normal(size=(2000, 1))
    assert polynomial(1, 2).fit(x).information_criterion < polynomial(1, 4).fit(x).information_criterion + 5
    mixed = np.concatenate([x[:1000] - 2, x[1000:] + 2])
    assert polynomial(1, 4).fit(mixed).information_criterion < polynomial(1, 2).fit(mixed).information_criterion - 100


def test_it_is_an_energy() -> None:
    fit, x = fitted()
    mean, covariance = moments(fit.coef, 2)
    exact, at = normal(mean, covariance), torch.from_numpy(x[:20])
    torch.testing.assert_close(fit.score(at), exact.score(at), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(-fit.energy(at), fit.log_density(at))
    log_z = quadrature(fit, (2,)).log_z
    torch.testing.assert_close(fit.log_density(at) - log_z, exact.log_density(at), rtol=0, atol=1e-6)
    both = Product([fit, normal(torch.zeros(2), torch.eye(2))])
    torch.testing.assert_close(both.score(at), exact.score(at) - at)
    with pytest.raises(ValueError, match="sigma must be 0"):
        fit.score(at, 0.5)
    with pytest.raises(ValueError, match="shape"):
        fit.log_density(torch.zeros(3, 3))


@pytest.mark.parametrize("kernel", [MALA(), HMC(5)])
def test_chains_draw_from_it(kernel: MALA | HMC) -> None:
    """A truncated Gaussian between walls, which reflect: the mean of its chains against quadrature."""
    fit = truncated_gaussian(1, Box(0.0, 2.0)).fit(
        stats.truncnorm.rvs(-0.5, 1.5, 0.5, 1.0, size=(2000, 1), random_state=RNG(6))
    )
    grid = torch.linspace(0, 2, 4001, dtype=torch.float64)[:, None]
    weight = fit.log_density(grid).exp()
    mean = float((weight * grid[:, 0]).sum() / weight.sum())
    chains = MarkovChains(kernel, steps=400, warmup=200, step_size=0.1, box=(0.0, 2.0))
    start = torch.rand(50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    draws = collect(chains(fit, start, generator=torch.Generator().manual_seed(1)))
    per_chain = draws.x[..., 0].mean(0)
    assert abs(float(per_chain.mean()) - mean) < 4 * float(per_chain.std()) / math.sqrt(50)
    beyond = fit.log_density(torch.tensor([[-0.1], [2.1]]).double())
    assert beyond.tolist() == [-math.inf] * 2


# ── coverage of 95 % intervals, 2,000 replicates each, seeds fixed: `make test-slow` ───────────────────────────────────


def truncated(rng: np.random.Generator, n: int, upper: float) -> np.ndarray:
    x = rng.multivariate_normal([0.4, 0.2], [[1.0, 0.5], [0.5, 0.89]], size=12 * n)
    return x[((x > 0) & (x < upper)).all(1)][:n]


def truth(mean: list[float], covariance: list[list[float]]) -> list[float]:
    k = np.linalg.inv(covariance)
    return [*(k @ mean), -k[0, 0] / 2, -k[0, 1], -k[1, 1] / 2]


MEAN, COVARIANCE = [0.4, 0.2], [[1.0, 0.5], [0.5, 0.89]]
DIRECTION = np.array([1.0, 2.0, 2.0]) / 3
Replicate = Callable[[np.random.Generator], ExponentialFit]
COVERED: dict[str, tuple[Replicate, list[float]]] = {
    "reals": (
        lambda rng: gaussian(2).fit(rng.multivariate_normal(MEAN, COVARIANCE, size=800)),
        truth(MEAN, COVARIANCE),
    ),
    "orthant": (lambda rng: truncated_gaussian(2).fit(truncated(rng, 1500, math.inf)), truth(MEAN, COVARIANCE)),
    "orthant, gamma": (lambda rng: gamma(1).fit(rng.gamma(2.0, 1 / 3, (1500, 1))), [-3.0, 1.0]),
    "box": (lambda rng: truncated_gaussian(2, Box(0.0, 1.5)).fit(truncated(rng, 1500, 1.5)), truth(MEAN, COVARIANCE)),
    "simplex": (lambda rng: dirichlet(3).fit(rng.dirichlet([1.5, 2.0, 4.0], 1500)), [0.5, 1.0, 3.0]),
    "sphere": (
        lambda rng: von_mises_fisher(3).fit(stats.vonmises_fisher(DIRECTION, 4.0).rvs(800, random_state=rng)),
        list(4 * DIRECTION),
    ),
}


def replicated(replicate: Replicate, truth: list[float], count: int) -> torch.Tensor:
    """Share of 95 % intervals that hold the truth, for each coefficient."""
    value, held = torch.tensor(truth, dtype=torch.float64), torch.zeros(len(truth))
    for seed in range(count):
        ends = replicate(RNG(seed)).intervals()
        held += (ends[:, 0] <= value) & (value <= ends[:, 1])
    return held / count


@pytest.mark.slow
@pytest.mark.parametrize("name", COVERED)
def test_intervals_cover(name: str) -> None:
    shares = replicated(*COVERED[name], 2000)
    assert ((shares >= 0.935) & (shares <= 0.965)).all(), shares


@pytest.mark.parametrize("name", COVERED)
def test_intervals_cover_roughly(name: str) -> None:
    """Of 150 replicates 142.5 are expected; fewer than 131 or all 150 for one of a few coefficients has odds below 1e-3."""
    shares = replicated(*COVERED[name], 150)
    assert ((shares >= 0.87) & (shares < 1)).all(), shares


def test_errors_of_bingham_are_those_of_the_bootstrap() -> None:
    """Where no exact draws are at hand: the sandwich against 200 resamplings, whose own error is 5 %."""
    rng = RNG(7)
    x = rng.normal(size=(2000, 3)) * [1.0, 0.7, 0.4]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    fit = bingham(3).fit(x)
    again = torch.stack([bingham(3).fit(x[rng.integers(0, 2000, 2000)]).coef for _ in range(200)])
    assert ((again.std(0) / fit.standard_errors - 1).abs() < 0.2).all()


def test_a_ridge_is_in_the_standard_errors_and_in_the_summary() -> None:
    """Beside 400 fits to fresh rows; without the ridge in ψ the first would be 1.7 times too large."""
    draws = RNG(0).normal(1.0, 0.5, size=(400, 300, 1))
    fits = [gaussian(1).fit(x, ridge=0.3) for x in draws]
    spread = torch.stack([fit.coef for fit in fits]).std(0)
    said = torch.stack([fit.standard_errors for fit in fits]).mean(0)
    assert (said / spread - 1).abs().max() < 4 * (1 / (2 * 400)) ** 0.5 + 0.03  # the sandwich of 300 rows is 3 % small at most
    assert "ridge 0.3: estimates are drawn to 0" in fits[0].summary()
    assert "ridge" not in gaussian(1).fit(draws[0]).summary()


def test_the_effective_number_with_a_ridge_is_what_rows_left_out_lose() -> None:
    """Σ loss of a row to a fit without it − to the fit with it, which tends to tr(A⁻¹ V) with the ridge in A and one ψ of V."""
    x = RNG(1).normal(1.0, 0.5, size=(300, 1))
    fit = gaussian(1).fit(x, ridge=0.3)
    left_out = [gaussian(1).fit(np.delete(x, i, 0), ridge=0.3).loss(x[i : i + 1]) for i in range(300)]
    assert float(torch.cat(left_out).sum()) - 300 * fit.training_loss == pytest.approx(fit.effective, rel=0.05)


def test_the_loss_of_own_rows_is_the_training_loss() -> None:
    x = RNG(0).gamma(2.0, size=(200, 2))
    fit = truncated_gaussian(2).fit(x)
    assert float(fit.loss(x).mean()) == pytest.approx(fit.training_loss, rel=1e-12)
    other = fit.loss(x[:7] + 0.1)
    torch.testing.assert_close(other, torch.cat([fit.loss(row[None] + 0.1) for row in x[:7]]), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="row 0: -1 in column 0"):
        fit.loss([[-1.0, 1.0]])


def test_rows_without_weight_are_as_if_they_were_not_there() -> None:
    x = RNG(0).gamma(2.0, size=(300, 1))
    alone = truncated_gaussian(1).fit(x)
    more = truncated_gaussian(1).fit(np.concatenate([x, 50 + x]), [1.0] * 300 + [0.0] * 300)
    torch.testing.assert_close(more.coef, alone.coef, rtol=1e-12, atol=0)
    torch.testing.assert_close(more.covariance, alone.covariance, rtol=1e-12, atol=0)
    assert more.n == 300
    assert more.information_criterion == pytest.approx(alone.information_criterion, rel=1e-12)


@pytest.mark.parametrize("n", [5, 6])
def test_whole_weights_are_repeated_rows_in_a_box_too(n: int) -> None:
    x, times = RNG(0).gamma(2.0, size=(n, 1)), RNG(1).integers(1, 5, size=n)
    repeated = truncated_gaussian(1).fit(np.repeat(x, times, 0))
    torch.testing.assert_close(truncated_gaussian(1).fit(x, times).coef, repeated.coef, rtol=1e-12, atol=0)


def test_the_base_is_a_factor_of_the_density() -> None:
    x = torch.from_numpy(RNG(0).normal(size=(100, 1)))
    base = lambda y: -0.1 * (y**4).sum(1)  # noqa: E731
    fit = ExponentialFamily(lambda y: y**2, base=base).fit(x)
    torch.testing.assert_close(fit.log_density(x), (x**2 @ fit.coef) - 0.1 * x[:, 0] ** 4, rtol=1e-12, atol=0)
    torch.testing.assert_close(fit.score(x), 2 * fit.coef * x - 0.4 * x**3, rtol=1e-12, atol=0)


@pytest.mark.parametrize("what", [np.zeros((2, 2)), [[0.0, 0.0]], "x"])
def test_what_is_no_tensor_is_told_how_to_become_one(what: object) -> None:
    fit, _ = fitted()
    for verb in (fit.log_density, fit.score):
        with pytest.raises(ValueError, match=r"a tensor is expected, got .*torch.tensor"):
            verb(what)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must hold floating-point numbers"):
        fit.score(torch.zeros(2, 2, dtype=torch.int64))
