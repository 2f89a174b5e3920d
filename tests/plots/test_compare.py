"""Pictures of families: a dot with its error for each value, words where there is none, steps as high as the loss is dense."""

import math
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from scorefield.plots import figure_png
from scorefield.plots.compare import Chain, Panel, bound_by_level, leaderboard, sample_rows
from scorefield.plots.style import BLUE, GREY, ORANGE

NAMES = ["exact one", "bound", "estimate", "infinite one", "timed"]
PANEL = Panel(
    "bits/dim",
    [2.0, 1.5, 3.0, None, 4.0],
    [0.1, 0.25, None, None, 0.0],
    ["exact", "bound", "estimate", "infinite", "measured"],
    best=1.5,
)


def drawn(axes: Axes) -> list[tuple[float, float, str, str, tuple[float, float]]]:
    """x, y, marker, colour and the ends of the bar of each dot."""
    found = []
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        dot, _, bars = container.lines
        ((left, right),) = (segment[:, 0] for segment in bars[0].get_segments())
        (x,), (y,) = dot.get_data()
        found.append((float(x), float(y), str(dot.get_marker()), to_hex(dot.get_color()).upper(), (float(left), float(right))))
    return found


def test_every_value_is_a_dot_with_a_bar_of_two_standard_errors() -> None:
    axes = leaderboard(NAMES, [PANEL]).axes[0]
    assert drawn(axes) == [
        (2.0, 4, "o", BLUE, (1.8, 2.2)),
        (1.5, 3, "<", ORANGE, (1.0, 2.0)),
        (3.0, 2, "s", BLUE, (3.0, 3.0)),
        (4.0, 0, "o", BLUE, (4.0, 4.0)),
    ]
    assert [(t.get_text(), t.get_position()[1], t.get_color()) for t in axes.texts] == [("infinite", 1, GREY)]
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES
    assert axes.get_yticks().tolist() == [4, 3, 2, 1, 0]  # the first on top
    assert axes.get_xlabel() == "bits/dim"
    assert axes.get_xscale() == "linear"
    assert axes.get_lines()[-1].get_linestyle() != "--"  # no line of real data


def test_each_measure_has_a_panel_and_names_stand_once() -> None:
    speed = Panel("seconds", [2.0, 0.004, 300.0, 1.0, 7.0], [None] * 5, ["measured"] * 5, True, 0.5, best=0.004)
    figure = leaderboard(NAMES, [PANEL, speed])
    first, second = figure.axes
    assert [label.get_text() for label in second.get_yticklabels()] == [""] * 5
    assert (first.get_xscale(), second.get_xscale()) == ("linear", "log")
    assert [(x, colour) for x, _, _, colour, _ in drawn(second)] == [
        (2.0, BLUE), (0.004, ORANGE), (300.0, BLUE), (1.0, BLUE), (7.0, BLUE),
    ]  # fmt: skip
    lines = [line for line in second.get_lines() if line.get_linestyle() == "--"]
    assert [np.asarray(line.get_xdata()).tolist() for line in lines] == [[0.5, 0.5]]
    assert figure_png(figure)[:4] == b"\x89PNG"


def labels(figure: Figure) -> list[str]:
    """What is written at the ticks of the first panel's x axis, within its window."""
    figure_png(figure)
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    return [text.get_text() for place, text in ticks if low <= place <= high]


def test_logarithmic_axes_have_plain_numbers_at_any_width() -> None:
    def panel(*values: float) -> Figure:
        return leaderboard(["a", "b"], [Panel("distance", values, [None] * 2, ["measured"] * 2, logarithmic=True)])

    assert {"0.3", "0.5", "0.8"} <= set(labels(panel(0.3, 0.8)))
    assert {"0.5", "1", "2"} <= set(labels(panel(0.4, 3.0)))
    assert {"0.1", "10", "1000"} <= set(labels(panel(0.05, 5000.0)))


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_measure_that_no_family_has_says_why(logarithmic: bool) -> None:
    kinds = ["infinite", "not trustworthy"]
    figure = leaderboard(["a", "b"], [Panel("bits/dim", [None, None], [None, 0.1], kinds, logarithmic, 2.0)])
    assert [t.get_text() for t in figure.axes[0].texts] == kinds
    assert drawn(figure.axes[0]) == []
    assert figure_png(figure)


def test_samples_stand_in_rows_beside_their_names() -> None:
    rng = np.random.default_rng(0)
    rows = {"grey": rng.integers(0, 256, (3, 4, 5), np.uint8), "two": rng.integers(0, 256, (2, 4, 5), np.uint8)}
    axes = sample_rows(rows).axes
    shown = [np.asarray(a.get_images()[0].get_array()) for a in axes]
    np.testing.assert_array_equal(np.stack(shown), np.concatenate([*rows.values()]))
    assert all(a.get_images()[0].get_clim() == (0, 255) for a in axes)
    assert [a.get_ylabel() for a in axes] == ["grey", "", "", "two", ""]
    columns = [a.get_subplotspec().colspan.start for a in axes]  # type: ignore[union-attr]
    assert columns == [0, 1, 2, 0, 1]
    colours = rng.integers(0, 256, (2, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(sample_rows({"rgb": colours}).axes[1].get_images()[0].get_array()), colours[1])


def steps_of(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """Heights and edges of each labelled staircase."""
    patches = [p for p in axes.patches if isinstance(p, StepPatch)]
    return {str(p.get_label()): (p.get_data().values.tolist(), p.get_data().edges.tolist()) for p in patches}


def test_a_diffusions_steps_are_as_high_as_its_loss_is_dense() -> None:
    """Loss over the logarithm of the ratio of the ends, so that areas on the logarithmic axis are the losses."""
    coarse = Chain("T = 1", [10.0], [6.0], 0.1)
    fine = Chain("T = 3", [0.2, 1.0, 10.0], [0.5, 1.5, 3.0], 0.1)
    figure = bound_by_level(None, [coarse, fine], "bits/dim")
    (axes,) = figure.axes
    found = steps_of(axes)
    assert found["T = 1"] == ([pytest.approx(6 / math.log(100))], [0.1, 10.0])
    heights, edges = found["T = 3"]
    assert edges == [0.1, 0.2, 1.0, 10.0]
    assert heights == pytest.approx([0.5 / math.log(2), 1.5 / math.log(5), 3 / math.log(10)])
    assert (np.array(heights) * np.diff(np.log(edges))).sum() == pytest.approx(sum(fine.losses))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_ylabel() == "bits/dim per unit of log σ"
    legend: Any = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["T = 1", "T = 3"]
    colours = [to_hex(p.get_edgecolor()).upper() for p in axes.patches if isinstance(p, StepPatch)]
    assert colours == [BLUE, ORANGE]  # the most levels stand out


def test_the_levels_of_a_vae_are_bars_beside() -> None:
    vae = (["L_0: x given z_1", "L_1: z_1", "L_2: z_2"], [2.0, 0.5, 0.25])
    figure = bound_by_level(vae, [Chain(f"T = {t}", [1.0], [2.0], 0.1) for t in range(4)], "bits/dim")
    left, right = figure.axes
    (bars,) = (c for c in left.containers if isinstance(c, BarContainer))
    assert [bar.get_height() for bar in bars] == [2.0, 0.5, 0.25]
    assert [label.get_text() for label in left.get_xticklabels()] == ["L_0", "L_1", "L_2"]
    assert left.get_ylabel() == "bits/dim"
    assert list(steps_of(right)) == [f"T = {t}" for t in range(4)]
    assert figure_png(figure)
