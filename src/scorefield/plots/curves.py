"""Figures of a training log: a list of records as in log.jsonl."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from scorefield.plots.style import BLUE, FONT, GREY, ORANGE, label, new_figure, note

LogRecord = dict[str, Any]
SMOOTHING = 50
"""the training loss is averaged over a window of one in so many of its records"""
RECENT = 10
"""training records averaged for the loss by noise level"""
LOSS = "loss per dimension"


def learning_curve(log: list[LogRecord]) -> Figure:
    """Loss per dimension against examples seen: training (faint, and smoothed) and held-out; both axes but x logarithmic."""
    figure, axes = new_figure()
    label(axes, "training examples seen", LOSS)
    train, validation = of_kind(log, "train"), of_kind(log, "validation")
    if not train and not validation:
        note(axes, "nothing logged yet")
        return figure
    if train:
        images, loss = column(train, "images"), column(train, "loss")
        axes.plot(images, loss, color=BLUE, alpha=0.25, linewidth=1)
        axes.plot(images, smoothed(loss), color=BLUE, linewidth=2, label="training, smoothed")
    if validation:
        x, y = column(validation, "images"), column(validation, "loss")
        axes.plot(x, y, color=ORANGE, linewidth=2, marker="o", markersize=4, label="held out")
    axes.xaxis.set_major_formatter(lambda value, _: thousands(value))
    axes.legend(fontsize=FONT - 1, frameon=False)
    if any(record["loss"] <= 0 for record in log):  # differences of log-densities, say
        return figure
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    low, high = axes.get_ylim()
    shown = (2, 5) if high / low > 10 else range(2, 10)
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if leading_digit(value) in shown else "")
    axes.tick_params(which="minor", labelsize=FONT - 1)
    return figure


def loss_by_sigma(log: list[LogRecord]) -> Figure:
    """Loss per dimension against noise level (logarithmic): the last training records' mean, and the last held-out one."""
    figure, axes = new_figure()
    label(axes, "noise level σ (standard deviations of the data)", LOSS)
    train, validation = of_kind(log, "train")[-RECENT:], of_kind(log, "validation")[-1:]
    if not train and not validation:
        note(axes, "nothing logged yet")
        return figure
    for records, name, colour, marker in ((train, "training", BLUE, "s"), (validation, "held out", ORANGE, "o")):
        if records:
            sigma, loss = level_means(records)
            axes.plot(sigma, loss, color=colour, marker=marker, markersize=5, linewidth=2, label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=FONT - 1, frameon=False)
    return figure


def bound_by_sigma(terms: np.ndarray, sigma_range: tuple[float, float], unit: str) -> Figure:
    """An evidence bound's parts: a bar for each of equal strata of log σ, its mean over rows with two standard errors.

    Args:
        terms: `(n, strata + 2)` in `unit`, losses: L_0, the strata from small to large σ, L_T; both ends are named in words.
    """
    figure, axes = new_figure()
    label(axes, "noise level σ (standard deviations of the data)", f"{unit} by each range of levels")
    means, errors = terms.mean(0), terms.std(0, ddof=1) / len(terms) ** 0.5
    edges = np.geomspace(*sigma_range, terms.shape[1] - 1)
    axes.bar(edges[:-1], means[1:-1], np.diff(edges), align="edge", color=BLUE, edgecolor="white", linewidth=0.5)
    axes.errorbar(np.sqrt(edges[1:] * edges[:-1]), means[1:-1], 2 * errors[1:-1], fmt="none", ecolor=GREY, capsize=2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axhline(0, color=GREY, linewidth=0.8)
    levels, last, prior = (f"{part:.3g}" for part in (means[1:-1].sum(), means[0], means[-1]))
    ends = f"all bars {levels}, the last step to the data {last}, the prior {prior}"
    axes.set_title(f"evidence bound: {means.sum():.3g} {unit}\n{ends}", fontsize=FONT - 2)
    return figure


def of_kind(log: list[LogRecord], kind: str) -> list[LogRecord]:
    """The records of one kind, in their order."""
    return [record for record in log if record["kind"] == kind]


def column(records: list[LogRecord], name: str) -> np.ndarray:
    """One field of all records, float64."""
    return np.array([record[name] for record in records], dtype=np.float64)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Centred moving average over an odd window of about n/`SMOOTHING` values, shorter at the ends."""
    half = len(values) // SMOOTHING // 2
    window = np.ones(2 * half + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def level_means(records: list[LogRecord]) -> tuple[np.ndarray, np.ndarray]:
    """σ of each bin and its mean loss over records; bins in which no record has a value are left out."""
    losses = np.array([record["loss_by_sigma"] for record in records], dtype=np.float64)  # None becomes NaN
    sigma = np.array(records[-1]["sigma"], dtype=np.float64)
    seen = np.isfinite(losses).any(0)
    return sigma[seen], np.nanmean(losses[:, seen], 0)


def thousands(value: float) -> str:
    """1500 as 1.5k, 2000000 as 2M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def leading_digit(value: float) -> int:
    """The first digit of a positive number."""
    exponent: int = math.floor(math.log10(value) + 1e-9)
    return round(value * 10.0**-exponent)
