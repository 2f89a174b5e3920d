"""Vectors as points in the plane of their first two coordinates, or as a histogram if they have one only."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scorefield.plots.style import BLUE, FONT, GREY, ORANGE, label, new_figure

POINTS = 5000
"""most points drawn of each set"""
BINS = 60
TAIL = 0.001
"""share of the data beyond each edge of the window"""

Limits = tuple[tuple[float, float], tuple[float, float]]


def scatter(real: np.ndarray, fake: np.ndarray | None = None, *, limits: Limits | None = None) -> Figure:
    """Points `real` `(n, d)` and, over them, `fake` `(m, d)`, in the data's units; one set alone goes without a legend.

    `limits` is the window ((left, right), (bottom, top)); by default the central 99.8 % of `real` in each coordinate.
    """
    sets = [(real, "data", GREY, 0.5)] if fake is not None else [(real, "data", BLUE, 0.6)]
    if fake is not None:
        sets.append((fake, "samples", ORANGE, 0.5))
    frame = limits or window(real)
    figure, axes = new_figure(4.4, 4.4) if real.shape[1] > 1 else new_figure()
    for points, name, colour, alpha in sets:
        if real.shape[1] > 1:
            draw_points(axes, points, name, colour, alpha)
        else:
            draw_histogram(axes, points[:, 0], frame[0], name, colour)
    axes.set_xlim(*frame[0])
    if real.shape[1] > 1:
        axes.set_ylim(*frame[1])
        axes.set_aspect("equal", adjustable="box")
        label(axes, "coordinate 1 (data units)", "coordinate 2 (data units)")
    else:
        label(axes, "coordinate 1 (data units)", "density (1 / data unit)")
    if fake is not None:
        figure.legend(loc="outside upper center", ncols=2, fontsize=FONT, markerscale=4, frameon=False)
    return figure


def draw_points(axes: Axes, points: np.ndarray, name: str, colour: str, alpha: float) -> None:
    """At most `POINTS` points, taken evenly over the rows."""
    rows = np.linspace(0, len(points) - 1, min(POINTS, len(points))).astype(int)
    x, y = points[rows, :2].T
    axes.scatter(x, y, s=4, c=colour, alpha=alpha, linewidths=0, label=name)


def draw_histogram(axes: Axes, values: np.ndarray, ends: tuple[float, float], name: str, colour: str) -> None:
    """The density of all values between both ends."""
    axes.hist(values, bins=BINS, range=ends, density=True, histtype="step", linewidth=2, color=colour, label=name)


def window(points: np.ndarray) -> Limits:
    """From the 0.1 % to the 99.9 % quantile of the first two coordinates, with a margin of 5 %; never of width 0."""
    low, high = np.quantile(points[:, :2].astype(np.float64), (TAIL, 1 - TAIL), axis=0)
    margin = np.where(high > low, 0.05 * (high - low), 0.5)
    ends = [(float(a), float(b)) for a, b in zip(low - margin, high + margin, strict=True)]
    return ends[0], ends[-1]
