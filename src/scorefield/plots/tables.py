"""Rows of a table and rows drawn from a model of it, side by side: columns, pairs of them, correlations, distances.

Rows are the columns as numbers: categories by their place, dates in seconds. Real is grey, sampled orange.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from scorefield.data import random_rows
from scorefield.data.columns import Column
from scorefield.plots.style import BLUE, FONT, GREY, ORANGE, label, new_figure, note

ACROSS = 4
"""panels beside each other"""
FEW = 20
"""most values of an integer column that is shown by bars"""
MOST_BARS = 12
"""of categories, the rest being one more"""
BINS = 40
"""at most, and about the root of the number of real rows"""
TAIL = 0.002
"""share of the real values beyond each end of an axis"""
WIDE = 50.0
"""ratio of an axis's ends from which on positive values are shown on a logarithmic one"""
POINTS = 800
"""most rows in a panel of a pair"""
LONGEST = 18
"""letters of a name"""
FILLED: dict[str, Any] = {"fill": True, "color": "#b5b5b5"}
OUTLINED: dict[str, Any] = {"color": ORANGE, "linewidth": 1.8}


def marginals(columns: Sequence[Column], real: np.ndarray, fake: np.ndarray) -> Figure:
    """Every column of `real` `(n, d)` and `fake` `(m, d)` in a panel: bars for few values, else histograms; NaNs left out."""
    down, across = -(-len(columns) // ACROSS), min(ACROSS, len(columns))
    figure = Figure(figsize=(max(2.9 * across, 4.0), 2.4 * down + 0.5), layout="constrained", facecolor="white")
    for place, (column, x, y) in enumerate(zip(columns, real.T, fake.T, strict=True)):
        axes = figure.add_subplot(down, across, place + 1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=FONT - 3)
        axes.set_title(short(column.name), fontsize=FONT - 1)
        draw_marginal(axes, column, x[~np.isnan(x)], y[~np.isnan(y)])
    add_legend(figure)
    return figure


def draw_marginal(axes: Axes, column: Column, real: np.ndarray, fake: np.ndarray) -> None:
    """Shares of values where these are few, else of bins."""
    if not len(real):
        note(axes, "no values")
        return
    values = np.unique(np.concatenate([real, fake]))
    if column.categories or (column.kind == "integer" and len(values) <= FEW):
        draw_bars(axes, column, values, real, fake)
        return
    span = Span.of(column, real)
    bins = span.bins(column, bins_for(len(real)))
    for x, style in ((real, FILLED), (fake, OUTLINED)):
        axes.stairs(np.histogram(x, bins)[0] / len(x), bins, **style)  # what lies outside counts, too
    set_scale(axes, "x", column, span)
    axes.set_yticks([])


def draw_bars(axes: Axes, column: Column, values: np.ndarray, real: np.ndarray, fake: np.ndarray) -> None:
    """The share of each value; of many categories the rare ones are together."""
    kept = values[:MOST_BARS] if column.categories else values
    names = [short(str(column.categories[int(v)])) if column.categories else f"{v:g}" for v in kept]
    shares = np.array([[(x == v).mean() for v in kept] for x in (real, fake)])
    if len(kept) < len(values):
        names, shares = [*names, "others"], np.column_stack([shares, 1 - shares.sum(1)])
    places = np.arange(len(names))
    axes.bar(places - 0.2, shares[0], 0.4, color=FILLED["color"])
    axes.bar(places + 0.2, shares[1], 0.4, color=ORANGE)
    every = 1 if column.categories else -(-len(names) // 8)
    slanted = column.categories and len(names) * max(map(len, names)) > 24
    axes.set_xticks(places[::every], names[::every], rotation=40 if slanted else 0, ha="right" if slanted else "center")
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")


def pairs(columns: Sequence[Column], real: np.ndarray, fake: np.ndarray) -> Figure:
    """A panel for each pair of columns `(n, d)`: below the diagonal as many real rows, above it sampled ones, axes alike.

    Discrete values are spread over their resolution, so that as much ink stands for as many rows.
    """
    d, n = len(columns), min(POINTS, len(real), len(fake))
    widths = np.array([c.resolution for c in columns])
    spread = widths * (np.random.default_rng(0).random((n, d)) - 0.5)
    of_real, of_fake = (x[random_rows(len(x), n, purpose="pairs")] + spread for x in (real, fake))
    spans = [Span.of(column, x) for column, x in zip(columns, real.T, strict=True)]
    figure = Figure(figsize=(1.7 * d + 0.8, 1.7 * d + 0.9), layout="constrained", facecolor="white")
    grid = figure.subplots(d, d, squeeze=False)
    for (i, j), axes in np.ndenumerate(grid):
        if i == j:
            axes.axis("off")
            name = short(columns[i].name)
            axes.text(0.5, 0.5, name, transform=axes.transAxes, ha="center", va="center", fontsize=FONT - 1)
            continue
        rows, colour = (of_real, GREY) if i > j else (of_fake, ORANGE)
        axes.scatter(rows[:, j], rows[:, i], s=3, c=colour, alpha=0.5, linewidths=0)
        set_scale(axes, "x", columns[j], spans[j])
        set_scale(axes, "y", columns[i], spans[i])
        axes.tick_params(labelsize=FONT - 4, which="both", labelbottom=i == d - 1, labelleft=j == 0)
    add_legend(figure)
    return figure


def correlations(names: Sequence[str], real: np.ndarray, fake: np.ndarray) -> Figure:
    """Three matrices `(d, d)` with a scale of their own each side of 0: real, sampled, and sampled less real; NaN is white."""
    size = min(max(0.42 * len(names), 2.4), 7.0)
    figure = Figure(figsize=(3 * size + 3.2, size + 1.6), layout="constrained", facecolor="white")
    lost = fake - real
    most = max(0.1, float(np.nanmax(np.abs(lost), initial=0.0)))
    for place, (title, matrix, limit) in enumerate(
        (("real", real, 1.0), ("sampled", fake, 1.0), ("sampled less real", lost, most))
    ):
        axes = figure.add_subplot(1, 3, place + 1)
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(title, fontsize=FONT)
        places, shown = np.arange(len(names)), [short(name) for name in names]
        axes.set_xticks(places, shown, rotation=90, fontsize=min(FONT - 2, 300 * size / 7 / len(names)))
        axes.set_yticks(places, shown if place == 0 else [""] * len(names), fontsize=min(FONT - 2, 300 * size / 7 / len(names)))
        figure.colorbar(image, ax=axes, shrink=0.75).ax.tick_params(labelsize=FONT - 3)
    return figure


def nearest_distances(of_samples: np.ndarray, of_real: np.ndarray, near: float) -> Figure:
    """Histograms of distances to the nearest row of a table, and the distance that counts as near."""
    figure, axes = new_figure(6.4)
    top = float(np.quantile(np.concatenate([of_samples, of_real]), 0.99)) or 1.0
    bins = np.linspace(0, top, bins_for(len(of_real)) + 1)
    for x, name, style in ((of_real, "from real rows", FILLED), (of_samples, "from samples", OUTLINED)):
        axes.stairs(np.histogram(x, bins)[0] / len(x), bins, label=name, **style)
    axes.axvline(near, color=BLUE, linestyle="--", linewidth=1.5, label="counts as near")
    label(axes, "distance to the nearest row (encoded, standardised)", "share of rows")
    figure.legend(loc="outside upper center", ncols=3, fontsize=FONT - 1, frameon=False)
    return figure


def add_legend(figure: Figure) -> None:
    """Which colour is which, above all panels."""
    keys = [Patch(color=FILLED["color"], label="real"), Patch(color=ORANGE, label="sampled")]
    figure.legend(handles=keys, loc="outside upper center", ncols=2, fontsize=FONT, frameon=False)


class Span(NamedTuple):
    """What an axis shows."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, column: Column, values: np.ndarray) -> "Span":
        """All but a share of `TAIL` of the values on each side, with a margin; never of width 0."""
        low, high = (float(end) for end in np.quantile(values, (TAIL, 1 - TAIL)))
        if column.kind == "positive" and high / low > WIDE:
            return cls(low / 1.2, high * 1.2, True)
        margin = max(column.resolution, 0.04 * (high - low)) or 0.5
        return cls(low - margin, high + margin, False)

    def bins(self, column: Column, count: int) -> np.ndarray:
        """Edges of about `count` bins, each of as many values if the column is discrete."""
        if self.logarithmic:
            return np.geomspace(self.low, self.high, count + 1)
        if not column.resolution:
            return np.linspace(self.low, self.high, count + 1)
        width = column.resolution * np.ceil((self.high - self.low) / column.resolution / count)
        first = column.origin - column.resolution / 2 + width * np.floor((self.low - column.origin) / width)
        return np.arange(first, self.high + width, width)


def bins_for(rows: int) -> int:
    """How many bins so many rows deserve."""
    return min(BINS, max(10, round(rows**0.5)))


def set_scale(axes: Axes, which: Literal["x", "y"], column: Column, span: Span) -> None:
    """Ends, scale and marks of one axis: months of dates, numbers of categories."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log" if span.logarithmic else "linear", f"{which}lim": span[:2]})
    if span.logarithmic:
        axis.set_major_locator(LogLocator(numticks=4))
        axis.set_minor_formatter(NullFormatter())
        return
    axis.set_major_locator(MaxNLocator(3, integer=column.resolution >= 1))
    if column.kind == "datetime":
        axis.set_major_formatter(lambda second, _: pd.Timestamp(second, unit="s").strftime("%Y-%m"))
    else:
        axis.set_major_formatter(lambda value, _: f"{value:g}" if abs(value) < 1e5 else f"{value:.0e}".replace("e+0", "e"))


def short(name: str) -> str:
    """A name that fits a panel."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
