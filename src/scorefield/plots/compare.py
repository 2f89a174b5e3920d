"""Pictures of families side by side."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from scorefield.plots.style import BLUE, FONT, GREY, ORANGE, label

MARKERS = {"exact": "o", "bound": "<", "estimate": "s"}
"""a bound says that the truth is no larger: its marker points left"""


class Panel(NamedTuple):
    """One measure of all families."""

    title: str
    values: Sequence[float | None]
    errors: Sequence[float | None]
    kinds: Sequence[str]
    """exact, bound or estimate have markers of their own; where there is no value, the word is shown instead"""
    logarithmic: bool = False
    reference: float | None = None
    """a vertical line: what real data has"""
    best: float | None = None
    """the value to be drawn in orange"""


def leaderboard(names: Sequence[str], panels: Sequence[Panel]) -> Figure:
    """Families below each other, a panel for each measure; the best value of each is orange."""
    figure = Figure(figsize=(3.2 * len(panels) + 1.6, 0.38 * len(names) + 1.3), layout="constrained", facecolor="white")
    places = np.arange(len(names))[::-1]
    for column, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), column + 1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_yticks(places, names if column == 0 else [""] * len(names), fontsize=FONT - 1)
        axes.set_ylim(-0.6, len(names) - 0.4)
        draw_panel(axes, places, panel)
    return figure


def draw_panel(axes: Axes, places: np.ndarray, panel: Panel) -> None:
    """The dots of one measure, bars of two standard errors."""
    if panel.reference is not None:
        axes.axvline(panel.reference, color=GREY, linewidth=1.2, linestyle="--")
    for y, value, error, kind in zip(places, panel.values, panel.errors, panel.kinds, strict=True):
        if value is None:
            axes.text(0.02, y, kind, transform=axes.get_yaxis_transform(), va="center", fontsize=FONT - 3, color=GREY)
            continue
        colour = ORANGE if value == panel.best else BLUE
        spread = 0.0 if error is None else 2 * error
        axes.errorbar(value, y, xerr=spread, color=colour, marker=MARKERS.get(kind, "o"), markersize=7, linestyle="none")
    if panel.logarithmic:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        if high / low < 100:
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=FONT - 2)
    axes.set_xlabel(panel.title, fontsize=FONT - 1)


def sample_rows(rows: dict[str, np.ndarray]) -> Figure:
    """A named row of images `(k, h, w[, 3])`, uint8, for each family, all of one size."""
    k = max(len(images) for images in rows.values())
    figure = Figure(figsize=(0.62 * k + 2.2, 0.68 * len(rows) + 0.1), layout="constrained", facecolor="white")
    for number, (name, images) in enumerate(rows.items()):
        for column, image in enumerate(images):
            axes = figure.add_subplot(len(rows), k, number * k + column + 1)
            axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=FONT - 1)
    return figure


class Chain(NamedTuple):
    """The mean loss of every step of a diffusion between neighbouring levels, the smallest first."""

    name: str
    sigma: Sequence[float]
    """upper ends of the steps"""
    losses: Sequence[float]
    lowest: float
    """the lower end of the first step"""


def bound_by_level(vae: tuple[Sequence[str], Sequence[float]] | None, chains: Sequence[Chain], unit: str) -> Figure:
    """Left what each level of a VAE adds to its bound, right what each unit of log σ adds to a diffusion's, for every chain."""
    figure = Figure(figsize=(9.6 if vae else 6.4, 3.9), layout="constrained", facecolor="white")
    widths = figure.add_gridspec(1, 2 if vae else 1, width_ratios=[1, 2] if vae else [1])
    if vae is not None:
        axes = figure.add_subplot(widths[0])
        axes.spines[["top", "right"]].set_visible(False)
        axes.bar(range(len(vae[0])), vae[1], color=BLUE)
        axes.set_xticks(range(len(vae[0])), [name.partition(":")[0] for name in vae[0]])
        label(axes, "level of the VAE", unit)
    axes = figure.add_subplot(widths[-1])
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    shades = itertools.chain(["#a6c8e0", "#5aa0cc", BLUE, ORANGE][-len(chains) or 4 :], itertools.repeat(GREY))
    for chain, colour in zip(chains, shades, strict=False):
        edges = [chain.lowest, *chain.sigma]
        density = [loss / math.log(b / a) for loss, a, b in zip(chain.losses, edges[:-1], edges[1:], strict=True)]
        axes.stairs(density, edges, color=colour, linewidth=2, label=chain.name, baseline=None)
    axes.set_xscale("log")
    axes.set_yscale("log")
    label(axes, "noise level σ (standard deviations of the data)", f"{unit} per unit of log σ")
    axes.legend(fontsize=FONT - 1, frameon=False)
    return figure


__all__ = ["Chain", "Panel", "bound_by_level", "leaderboard", "sample_rows"]
