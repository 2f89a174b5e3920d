"""Pictures of tables show the numbers they are about."""

import numpy as np
import pytest

from scorefield.data.columns import Column
from scorefield.plots.tables import MOST_BARS, Span, correlations, marginals, pairs

TOWN = Column("town", "categorical", 1.0, categories=("a", "b", "c"))
SIZE = Column("size", "continuous")
YEAR = Column("year", "integer", 1.0, origin=1900.0)


def test_bars_are_the_shares_of_values_with_gaps_left_out() -> None:
    real = np.array([[0], [0], [1], [np.nan]])
    figure = marginals([TOWN], real, np.array([[0.0], [2.0]]))
    assert [p.get_height() for p in figure.axes[0].patches] == pytest.approx([2 / 3, 1 / 3, 0, 0.5, 0, 0.5])


def test_rare_categories_are_together() -> None:
    many = Column("town", "categorical", 1.0, categories=tuple(map(str, range(30))))
    x = np.arange(30.0)[:, None]
    axes = marginals([many], x, x).axes[0]
    heights = [p.get_height() for p in axes.patches]
    assert heights == pytest.approx(2 * [*[1 / 30] * MOST_BARS, (30 - MOST_BARS) / 30])
    assert axes.get_xticklabels()[-1].get_text() == "others"


@pytest.mark.parametrize("values", [np.arange(1900.0, 2020), np.arange(1950.0, 2003, 2)], ids=["120", "53"])
def test_bins_of_whole_numbers_hold_equally_many(values: np.ndarray) -> None:
    bins = Span.of(YEAR, values).bins(YEAR, 10)
    counts = np.histogram(np.arange(1800, 2200), bins)[0]
    assert len(set(counts)) == 1
    assert bins[0] < values.min()
    assert bins[-1] > values.max()
    assert not set(bins) & set(np.arange(1800, 2200))


def test_only_wide_positive_columns_get_a_logarithmic_axis() -> None:
    wide, narrow = np.geomspace(1, 1e4, 100), np.linspace(1, 3, 100)
    assert Span.of(Column("x", "positive"), wide).logarithmic
    assert not Span.of(Column("x", "positive"), narrow).logarithmic
    assert not Span.of(SIZE, wide).logarithmic
    span = Span.of(SIZE, np.ones(5))
    assert span.low < 1 < span.high


def test_pairs_are_real_below_the_diagonal_and_sampled_above() -> None:
    real, fake = np.random.default_rng(0).normal(size=(2, 50, 2))
    upper, lower = (figure_axes for i, figure_axes in enumerate(pairs([SIZE, SIZE], real, fake).axes) if i in (1, 2))
    assert set(map(tuple, lower.collections[0].get_offsets())) == set(map(tuple, real))
    assert set(map(tuple, upper.collections[0].get_offsets())) == set(map(tuple, fake[:, ::-1]))


def test_the_third_matrix_is_the_difference() -> None:
    real, fake = np.array([[1, 0.5], [0.5, 1]]), np.array([[1, 0.2], [0.2, 1]])
    figure = correlations(["a", "b"], real, fake)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    np.testing.assert_allclose(images[2].get_array(), fake - real)
    assert images[2].get_clim() == pytest.approx((-0.3, 0.3))
