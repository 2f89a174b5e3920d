"""Samples of a table against truths: one law and two, copies that were planted, a Gaussian's score."""

import numpy as np
import pytest
from scipy.stats import binomtest, rankdata

from scorefield.metrics.tables import (
    FOLDS,
    classifier_two_sample_test,
    closeness,
    copies_within,
    exact_copies,
    most_correlated,
    rank_correlations,
    wilson_interval,
)


def normal(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def test_two_samples_of_one_law_are_not_told_apart() -> None:
    """Of 20 intervals of 95 % at least 17 hold ½ but once in 400."""
    found = [classifier_two_sample_test(normal(80, 3, i), normal(60, 3, 100 + i), seed=i) for i in range(20)]
    assert sum(t.low <= 0.5 <= t.high for t in found) >= 17
    assert {t.n for t in found} == {60}


def test_far_samples_are_told_apart_and_gaps_are_no_obstacle() -> None:
    """Means 6 apart in one of three columns: the best rule errs in 0.13 %."""
    real, fake = normal(200, 3, 0), normal(200, 3, 1)
    fake[:, 1] += 6
    real[::7, 0] = fake[::7, 0] = np.nan
    folds: list[int] = []
    test = classifier_two_sample_test(real, fake, watch=folds.append)
    assert test.accuracy > 0.97
    assert test.low > 0.9
    assert folds == [1] * FOLDS
    with pytest.raises(ValueError, match="5 folds need as many rows"):
        classifier_two_sample_test(real[:4], fake)


def test_a_dependence_that_no_column_shows_is_found() -> None:
    """Equal marginals; of ρ = 0.95 against 0 the best rule is right in 80 %."""
    rng = np.random.default_rng(0)
    real = rng.multivariate_normal([0, 0], [[1, 0.95], [0.95, 1]], 500)
    assert 0.65 < classifier_two_sample_test(real, rng.normal(size=(500, 2))).accuracy < 0.85


@pytest.mark.parametrize(("right", "n"), [(0, 20), (7, 20), (20, 20), (510, 1000)])
def test_the_interval_is_wilsons(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(wilson_interval(right / n, n), (expected.low, expected.high), atol=1e-4)


def test_near_copies_are_near_and_honest_samples_are_not_more_so_than_rows() -> None:
    """5 % of real rows are near; of 1,000 honest samples too, with a standard error of 1 %; of near-copies all."""
    table = normal(1000, 3, 0)
    honest = closeness(normal(1000, 3, 1), table, table, within=True)
    assert honest.shares[1] == pytest.approx(0.05, abs=0.001)  # two rows may be each other's nearest
    assert honest.shares[0] == pytest.approx(0.05, abs=0.03)
    assert closeness(table + 1e-4, table, table, within=True).shares[0] == 1
    outside = closeness(table[:100], normal(500, 3, 2), table, within=False)
    assert outside.of_samples.max() == 0
    assert outside.of_real.min() > 0


def test_distances_are_those_to_the_nearest_other_row() -> None:
    table = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])
    near = closeness(np.array([[0.0, 1.0], [3.0, 4.0]]), table, table, within=True)
    assert near.of_samples.tolist() == [1, 0]
    assert near.of_real.tolist() == [5, 1, 1]
    assert near.near == 1
    assert near.shares == (1, pytest.approx(2 / 3))


def test_copies_are_counted() -> None:
    table = np.array([[1.0, 2.0], [0.0, 3.0], [1.0, 2.0], [np.nan, 4.0], [np.nan, 4.0]])
    samples = np.array([[1.0, 2.0], [-0.0, 3.0], [1.0, 2.0], [1.0, 3.0], [5.0, 4.0]])
    assert exact_copies(samples, table) == 3
    assert copies_within(table) == 2


def test_rank_correlations_use_what_is_there_and_know_no_monotone_map() -> None:
    x = normal(200, 3, 0)
    x[:, 1] += 2 * x[:, 0]
    expected = np.corrcoef(np.stack([rankdata(c) for c in x.T]))
    np.testing.assert_allclose(rank_correlations(np.exp(x)), expected, atol=1e-12)
    x[:50, 2] = np.nan
    np.testing.assert_allclose(rank_correlations(x)[:2, :2], expected[:2, :2], atol=1e-12)
    x[:, 0] = 1
    assert np.isnan(rank_correlations(x)[0, 1])


def test_the_most_correlated_columns_come_in_their_order() -> None:
    matrix = np.eye(4)
    matrix[0, 3] = matrix[3, 0] = -0.9
    matrix[1, 2] = matrix[2, 1] = 0.3
    matrix[0, 1] = matrix[1, 0] = np.nan
    assert most_correlated(matrix, 2).tolist() == [0, 3]
    assert most_correlated(matrix, 9).tolist() == [0, 1, 2, 3]
