"""Curves and scatter plots, readable at the width of a phone."""

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure

BLUE, ORANGE = "#0072b2", "#d55e00"
"""a pair that colour-blind people tell apart (Okabe & Ito)"""
POINTS = 5000
RECENT = 10
"""records of the training loss by noise level that are averaged"""


def figure_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def new_figure(width: float = 6.0, height: float = 4.0) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=10)
    return figure, axes


def learning_curve(log: list[dict[str, Any]]) -> Figure:
    """Training and held-out loss against examples seen, from the records of log.jsonl."""
    figure, axes = new_figure()
    train, held_out = of_kind(log, "train"), of_kind(log, "validation")
    if not train:
        return empty(figure, axes)
    axes.plot(*columns(train, "images", "loss"), color=BLUE, lw=1, alpha=0.5, label="training")
    if held_out:
        axes.plot(
            *columns(held_out, "images", "loss"), color=ORANGE, lw=2, marker="o", ms=4, label="held out, averaged weights"
        )
    tail = sorted(r["loss"] for r in [*train[len(train) // 20 :], *held_out])
    axes.set_ylim(0.95 * tail[0], min(1.05 * tail[-1], 3 * tail[len(tail) // 2]))
    axes.set_xlabel("examples seen", fontsize=11)
    axes.set_ylabel("loss per dimension", fontsize=11)
    axes.legend(frameon=False, fontsize=10)
    return figure


def loss_by_sigma(log: list[dict[str, Any]]) -> Figure:
    """The latest loss at each noise level, in training and held out."""
    figure, axes = new_figure()
    train, held_out = of_kind(log, "train")[-RECENT:], of_kind(log, "validation")[-1:]
    if not train:
        return empty(figure, axes)
    for records, colour, label in ((train, BLUE, "training"), (held_out, ORANGE, "held out, averaged weights")):
        if records:
            axes.plot(records[-1]["sigma"], mean_by_level(records), color=colour, marker="o", ms=5, lw=1.5, label=label)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("noise level σ, in units of the data's standard deviation", fontsize=11)
    axes.set_ylabel("loss per dimension", fontsize=11)
    axes.legend(frameon=False, fontsize=10)
    return figure


def scatter(real: np.ndarray, fake: np.ndarray | None = None, *, limits: tuple[np.ndarray, np.ndarray] | None = None) -> Figure:
    """The first two coordinates of vectors `(n, d)` (a histogram if there is but one), `fake` over `real` if given.

    Args:
        limits: lower and upper corner `(d,)` of what is shown; by default nearly all of `real`.
    """
    low, high = limits or window(real)
    sets = [(real, BLUE, "data" if fake is not None else "samples"), *([(fake, ORANGE, "samples")] if fake is not None else [])]
    figure, axes = new_figure(5.0, 5.0)
    for x, colour, label in sets:
        if x.shape[1] == 1:
            axes.hist(x[:, 0], bins=60, range=(low[0], high[0]), density=True, color=colour, alpha=0.5, label=label)
        else:
            axes.scatter(*x[:POINTS, :2].T, s=4, color=colour, alpha=0.4, linewidths=0, label=label)
    axes.set_xlim(low[0], high[0])
    axes.set_xlabel("column 0", fontsize=11)
    axes.set_ylabel("density" if real.shape[1] == 1 else "column 1", fontsize=11)
    if real.shape[1] > 1:
        axes.set_ylim(low[1], high[1])
    axes.legend(frameon=False, fontsize=10, markerscale=3, loc="upper right")
    return figure


def window(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a box with a margin around 99.8 % of `x` in each coordinate."""
    low, high = np.quantile(x, [0.001, 0.999], axis=0)
    margin = 0.1 * (high - low) + 1e-9
    return low - margin, high + margin


def of_kind(log: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [r for r in log if r["kind"] == kind]


def columns(records: list[dict[str, Any]], *names: str) -> list[list[float]]:
    return [[r[name] for r in records] for name in names]


def mean_by_level(records: list[dict[str, Any]]) -> np.ndarray:
    """Mean over records of the loss in each bin; NaN (a gap in the line) where no example fell."""
    table = np.array([[np.nan if v is None else v for v in r["loss_by_sigma"]] for r in records], float)
    seen = ~np.isnan(table)
    return np.where(seen.any(0), np.where(seen, table, 0).sum(0) / np.maximum(seen.sum(0), 1), np.nan)


def empty(figure: Figure, axes: Any) -> Figure:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "nothing logged yet", ha="center", fontsize=12)
    return figure
