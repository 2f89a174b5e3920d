"""Fields, errors by decile and the area under Fisher: the numbers that are drawn are those that were asked for."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scorefield.plots import error_by_decile, figure_png, fisher_area, score_field

WINDOW = ((-2.0, 2.0), (-1.0, 3.0))


def normal(x: np.ndarray) -> np.ndarray:
    return -(x**2).sum(1) / 2


def arrows(axes: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Positions and vectors of a panel's arrows, in data units."""
    quiver = axes.collections[0]
    assert (quiver.angles, quiver.scale_units, quiver.scale, quiver.pivot) == ("xy", "xy", 1, "middle")  # type: ignore[attr-defined]
    return np.asarray(quiver.get_offsets()), np.stack([quiver.U, quiver.V], 1)  # type: ignore[attr-defined]


def field(scale: float, count: int = 8) -> Figure:
    return score_field(normal, lambda x: -x, lambda x: scale * x, limits=WINDOW, arrows=count)


def test_both_fields_have_one_scale_and_one_window() -> None:
    left, right = field(0.5).axes
    (x, true), (y, learned) = arrows(left), arrows(right)
    np.testing.assert_allclose(x, y)
    assert x.shape == (64, 2)
    assert x.min(0) == pytest.approx([-1.75, -0.75])
    assert x.max(0) == pytest.approx([1.75, 2.75])
    uncut = np.linalg.norm(true, axis=1) < 0.4999
    assert 20 < uncut.sum() < 60
    np.testing.assert_allclose(learned[uncut], -true[uncut] / 2, rtol=1e-6)
    assert [axes.get_title() for axes in (left, right)] == ["true score", "learned score"]
    for axes in (left, right):
        assert (axes.get_xlim(), axes.get_ylim()) == WINDOW


def test_arrows_point_along_the_score_and_reach_one_cell_at_most() -> None:
    x, true = arrows(field(-9.0).axes[0])
    _, learned = arrows(field(-9.0).axes[1])
    cosine = -(x * true).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(true, axis=1)
    np.testing.assert_allclose(cosine, 1)
    lengths, norms = np.linalg.norm(true, axis=1), np.linalg.norm(x, axis=1)
    unit = np.quantile(norms[norms**2 / 2 < norms.min() ** 2 / 2 + 3], 0.9)
    np.testing.assert_allclose(lengths, 0.5 * np.minimum(1, norms / unit))
    np.testing.assert_allclose(np.linalg.norm(learned, axis=1), 0.5 * np.minimum(1, 9 * norms / unit))


def test_the_density_is_upright_and_under_the_arrows() -> None:
    """Its brightest pixel lies at the mode (0, 0), a quarter of the window from below."""
    image = field(-1.0).axes[0].images[0]
    assert tuple(image.get_extent()) == (-2, 2, -1, 3)
    assert image.origin == "lower"
    values = np.asarray(image.get_array())
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert values.max() == pytest.approx(1)
    assert (row / len(values), column / len(values)) == pytest.approx((0.25, 0.5), abs=0.01)
    assert image.zorder < field(-1.0).axes[0].collections[0].zorder


def test_a_field_that_vanishes_is_drawn() -> None:
    figure = score_field(normal, lambda x: 0 * x, lambda x: 0 * x, limits=WINDOW)
    assert np.all(arrows(figure.axes[0])[1] == 0)
    assert figure_png(figure)


def test_deciles_run_from_rare_to_common_with_medians_and_the_middle_half() -> None:
    """1,000 shuffled points whose error is 10^−decile, times 1 … 100 within it."""
    rng = np.random.default_rng(0)
    rank = rng.permutation(1000)
    log_p, within = rank / 7.0 - 3, rank % 100 + 1.0
    error = within * 10.0 ** -(rank // 100)
    figure = error_by_decile(log_p, {"a": error, "b": 2 * error})
    axes = figure.axes[0]
    lines = {line.get_label(): np.asarray(line.get_xydata()) for line in axes.get_lines()}
    expected = 50.5 * 10.0 ** -np.arange(10)
    np.testing.assert_allclose(lines["a"], np.stack([np.arange(1, 11), expected], 1))
    np.testing.assert_allclose(lines["b"][:, 1], 2 * expected)
    band = axes.collections[0].get_paths()[0].vertices
    assert set(np.round(band[band[:, 0] == 1][:, 1], 6)) == {25.75, 75.25}
    assert axes.get_yscale() == "log"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a", "b"]
    colours = {line.get_color() for line in axes.get_lines() if line.get_label() in ("a", "b")}
    assert len(colours) == 2


def test_an_error_of_one_is_marked() -> None:
    axes = error_by_decile(np.arange(20.0), {"a": np.ones(20)}).axes[0]
    assert [list(line.get_ydata()) for line in axes.get_lines()[1:]] == [[1, 1]]


@pytest.mark.parametrize(("n", "m"), [(9, 9), (20, 19)])
def test_too_few_points_or_errors_are_refused(n: int, m: int) -> None:
    with pytest.raises(ValueError, match="at least 10 points and one error for each"):
        error_by_decile(np.arange(float(n)), {"a": np.ones(m)})


def test_the_shaded_area_is_the_kullback_leibler_divergence() -> None:
    """N(0, 1) against N(δ, 1): F = δ²/(1 + σ²)², and half of its integral over σ² is δ²/2."""
    delta, variance = 1.5, np.concatenate([[0], np.logspace(-4, 4, 4000)])
    fisher = delta**2 / (1 + variance) ** 2
    axes = fisher_area(variance, fisher, kl=delta**2 / 2).axes[0]
    outline = axes.collections[0].get_paths()[0].vertices
    x, y = outline.T
    shoelace = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert shoelace == pytest.approx(delta**2 / 2, rel=1e-3)
    np.testing.assert_allclose(axes.get_lines()[0].get_xydata(), np.stack([variance, fisher], 1))
    (words,) = axes.texts
    assert words.get_text() == "½ ∫ F d(σ²) = 1.125\nKL(p‖q) = 1.125"
    assert axes.get_ylim()[0] == 0


def test_an_unknown_divergence_is_not_written() -> None:
    (words,) = fisher_area(np.array([0.0, 2.0]), np.array([3.0, 1.0])).axes[0].texts
    assert words.get_text() == "½ ∫ F d(σ²) = 2.000"
