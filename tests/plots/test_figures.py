"""Figures: what is drawn, in which window, against which axes."""

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from scorefield.plots import bound_by_sigma, figure_png, learning_curve, loss_by_sigma, scatter, window


def record(kind: str, step: int, loss: float, by_sigma: list[float | None] | None = None) -> dict[str, Any]:
    return {
        "kind": kind, "step": step, "images": 10 * step, "loss": loss, "images_per_s": 5.0,
        "sigma": [0.1, 1.0, 10.0], "loss_by_sigma": by_sigma or [loss, loss, loss],
    }  # fmt: skip


def lines(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """The labelled lines of a figure, as points."""
    found = {line.get_label(): np.asarray(line.get_xydata()) for line in figure.axes[0].get_lines()}
    return {str(name): [tuple(p) for p in points.tolist()] for name, points in found.items() if not str(name).startswith("_")}


def test_learning_curve_against_images_seen() -> None:
    log = [record("train", 1, 4.0), record("train", 2, 2.0), record("validation", 2, 3.0)]
    figure = learning_curve(log)
    assert lines(figure) == {"training, smoothed": [(10, 4), (20, 2)], "held out": [(20, 3)]}
    assert figure.axes[0].get_xlabel() == "training examples seen"
    assert figure.axes[0].get_ylabel() == "loss per dimension"


def test_long_curves_are_smoothed_by_a_centred_mean() -> None:
    """200 records: a window of 5, cut at the ends."""
    loss = np.random.default_rng(0).uniform(1, 2, 200)
    curve = lines(learning_curve([record("train", i, x) for i, x in enumerate(loss)]))["training, smoothed"]
    for i in (0, 1, 100, 199):
        assert curve[i] == pytest.approx((10 * i, loss[max(0, i - 2) : i + 3].mean()))


def test_loss_by_sigma_is_the_mean_of_the_last_ten_records() -> None:
    early = [record("train", 1, 99.0)] * 3
    late = [record("train", 5, 1.0, [1.0, None, 5.0]), record("train", 6, 1.0, [None, None, 7.0])] * 5
    log = [*early, *late, record("validation", 1, 9.0), record("validation", 6, 2.0, [2.0, 3.0, None])]
    figure = loss_by_sigma(log)
    assert lines(figure) == {"training": [(0.1, 1), (10, 6)], "held out": [(0.1, 2), (1, 3)]}
    assert figure.axes[0].get_xscale() == "log"


def test_the_bars_of_a_bound() -> None:
    """A bar's height is the mean over rows, its width a stratum of log σ; the title names both ends and the sum."""
    terms = np.array([[-3.0, 1.0, 4.0, 0.5], [-5.0, 3.0, 6.0, 0.5]])
    figure = bound_by_sigma(terms, (0.01, 1.0), "nats")
    axes = figure.axes[0]
    bars = [(p.get_x(), p.get_width(), p.get_height()) for p in axes.patches if isinstance(p, Rectangle)]
    assert bars == [pytest.approx((0.01, 0.09, 2)), pytest.approx((0.1, 0.9, 5))]
    assert axes.get_title() == "evidence bound: 3.5 nats\nall bars 7, the last step to the data -4, the prior 0.5"


@pytest.mark.parametrize("draw", [learning_curve, loss_by_sigma])
def test_an_empty_log_says_so(draw: Any) -> None:
    figure = draw([])
    assert [text.get_text() for text in figure.axes[0].texts] == ["nothing logged yet"]


@pytest.mark.parametrize("draw", [learning_curve, loss_by_sigma])
@pytest.mark.parametrize("kind", ["train", "validation"])
def test_one_record_is_enough(draw: Any, kind: str) -> None:
    assert len(lines(draw([record(kind, 1, 0.5)]))) == 1
    assert figure_png(draw([record(kind, 1, 0.5)]))


def test_the_window_is_the_bulk_of_the_data_with_a_margin() -> None:
    x = np.arange(1001.0)
    points = np.stack([x, 2 * x, -x], 1)
    (left, right), (bottom, top) = window(points)
    assert (left, right) == pytest.approx((1 - 0.05 * 998, 999 + 0.05 * 998))
    assert (bottom, top) == pytest.approx((2 * left, 2 * right))
    assert window(np.ones((5, 2))) == ((0.5, 1.5), (0.5, 1.5))


def test_points_of_both_sets_thinned_evenly_in_the_window_of_the_data() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.standard_normal((12_000, 3)), 9 * rng.standard_normal((10, 3))
    figure = scatter(real, fake)
    axes = figure.axes[0]
    drawn = [np.asarray(c.get_offsets()) for c in axes.collections]
    assert [len(d) for d in drawn] == [5000, 10]
    np.testing.assert_allclose(drawn[0][[0, -1]], real[[0, -1], :2])
    np.testing.assert_allclose(drawn[1], fake[:, :2])
    assert (axes.get_xlim(), axes.get_ylim()) == window(real)
    assert axes.get_aspect() == 1
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["data", "samples"]


def test_a_given_window_is_kept_whatever_is_drawn() -> None:
    limits = ((-4.0, 4.0), (-3.0, 3.0))
    sizes = set()
    for scale in (0.1, 100.0):
        figure = scatter(scale * np.random.default_rng(2).standard_normal((50, 2)), limits=limits)
        sizes.add(Image.open(io.BytesIO(figure_png(figure))).size)
        assert (figure.axes[0].get_xlim(), figure.axes[0].get_ylim()) == limits
        assert figure.legends == []
    assert len(sizes) == 1


def test_one_coordinate_gives_a_histogram_that_integrates_to_one() -> None:
    values = np.random.default_rng(3).uniform(0, 4, (5000, 1))
    axes = scatter(values, values, limits=((0.0, 4.0), (0.0, 0.0))).axes[0]
    outline = axes.patches[0].get_path().vertices  # type: ignore[attr-defined]
    assert np.trapezoid(outline[:, 1], outline[:, 0]) == pytest.approx(1)
    assert "density" in axes.get_ylabel()


def test_png_is_what_was_drawn() -> None:
    with Image.open(io.BytesIO(figure_png(scatter(np.zeros((3, 2)))))) as image:
        assert (image.format, image.size) == ("PNG", (660, 660))
