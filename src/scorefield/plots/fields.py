"""Figures of score matching: a field beside its truth, where it is wrong, and KL as half the area under Fisher.

    relative error of a learned score ŝ at x     ‖ŝ(x) − s(x)‖² / ‖s(x)‖²          1 is what ŝ = 0 would get
    KL(p‖q) = ½ ∫₀^∞ F(p_σ‖q_σ) d(σ²)            F(p‖q) = E_p ‖∇log p − ∇log q‖²

Everything drawn is an array or a function of arrays; no figure knows what a model is.

Reference: Lyu 2009, arXiv:1205.2629 (KL and Fisher); Song & Ermon 2019, arXiv:1907.05600, section 3.2 (where scores go wrong).
"""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from scorefield.plots.points import Limits
from scorefield.plots.style import BLUE, FONT, GREY, ORANGE, label, new_figure

PIXELS = 160
"""resolution of the density's image, in each coordinate"""
LONGEST, VISIBLE = 0.9, 3.0
"""where the density is within so many nats of its highest, this quantile of the true score is drawn one grid cell long"""
DECILES = 10
SHADES = LinearSegmentedColormap.from_list("shades", ["white", "#b4b4b4"])
CURVES = [(BLUE, "o"), (ORANGE, "s"), (GREY, "^")]

Function = Callable[[np.ndarray], np.ndarray]


def score_field(
    log_density: Function,
    true: Function,
    learned: Function,
    *,
    limits: Limits,
    arrows: int = 16,
    names: tuple[str, str] = ("true score", "learned score"),
) -> Figure:
    """Two vector fields in the plane, side by side, over the same density in grey and with the same scale of arrows.

    Arrows are proportional to the scores up to the length of one cell; longer ones, far from the data, are cut to it.

    Args:
        log_density: points `(n, 2)` to log-densities `(n,)`, up to a constant.
        true: points `(n, 2)` to the score there, `(n, 2)`.
        learned: the same of the field to compare.
        limits: the window ((left, right), (bottom, top)).
        arrows: arrows in each coordinate.
        names: what is written above the panels.
    """
    figure = Figure(figsize=(8.0, 4.3), layout=ConstrainedLayoutEngine(w_pad=0.12), facecolor="white")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    centres = lattice(limits, arrows)
    fields, height = [true(centres), learned(centres)], log_density(centres)
    lengths = np.linalg.norm(fields[0], axis=1)[height > height.max() - VISIBLE]
    unit = max(float(np.quantile(lengths, LONGEST)), np.finfo(float).tiny)
    cell = min(high - low for low, high in limits) / arrows
    for axes, field, name, colour in zip(panels, fields, names, (BLUE, ORANGE), strict=True):
        draw_density(axes, log_density, limits)
        draw_arrows(axes, centres, field * (cell / unit), cell, colour)
        axes.set_title(name, fontsize=FONT)
        axes.set_xlim(*limits[0])
        axes.set_ylim(*limits[1])
        axes.set_aspect("equal", adjustable="box")
        axes.tick_params(labelsize=FONT - 1)
        label(axes, "coordinate 1", "coordinate 2" if axes is panels[0] else "")
    return figure


def error_by_decile(log_density: np.ndarray, errors: Mapping[str, np.ndarray]) -> Figure:
    """Error of several models against deciles of log-density, the rarest tenth of the points first; errors logarithmic.

    Lines are medians, bands hold the middle half of each tenth.

    Args:
        log_density: `(n,)`, at n ≥ 10 points.
        errors: for each model's name the error at those points, `(n,)`, positive.

    Raises:
        ValueError: fewer points than tenths, or not one error a point.
    """
    if len(log_density) < DECILES or any(error.shape != log_density.shape for error in errors.values()):
        shapes = {name: error.shape for name, error in errors.items()}
        raise ValueError(f"at least {DECILES} points and one error for each are needed, got {log_density.shape} and {shapes}")
    figure, axes = new_figure(5.6, 4.2)
    order = np.array_split(np.argsort(log_density, kind="stable"), DECILES)
    tenth = np.arange(1, DECILES + 1)
    for i, (name, error) in enumerate(errors.items()):
        colour, marker = CURVES[i % len(CURVES)]
        low, middle, high = np.array([np.quantile(error[rows], (0.25, 0.5, 0.75)) for rows in order]).T
        axes.fill_between(tenth, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(tenth, middle, color=colour, marker=marker, markersize=5, linewidth=2, label=name)
    axes.axhline(1, color="black", linewidth=1, linestyle=":")
    axes.annotate("as good as no answer", (DECILES, 1), (0, 3), textcoords="offset points", ha="right", fontsize=FONT - 2)
    axes.set_yscale("log")
    axes.set_xticks(tenth)
    label(axes, "tenth of the points, from rare to common", "relative squared error of the score")
    figure.legend(loc="outside upper center", ncols=min(3, len(errors)), fontsize=FONT - 1, frameon=False)
    return figure


def fisher_area(variance: np.ndarray, fisher: np.ndarray, kl: float | None = None) -> Figure:
    """F(p_σ‖q_σ) against σ², and below it, shaded, half of the area under it: KL(p‖q) up to the largest σ² given.

    Args:
        variance: σ², `(n,)`, increasing from 0.
        fisher: F(p_σ‖q_σ), no ½, `(n,)`.
        kl: the known KL(p‖q) in nats, written beside the area.
    """
    area = float(np.trapezoid(fisher, variance)) / 2
    figure, axes = new_figure()
    axes.fill_between(variance, 0, fisher / 2, color=BLUE, alpha=0.25, linewidth=0, label="half the area below")
    axes.plot(variance, fisher, color=BLUE, linewidth=2, label="Fisher divergence")
    words = f"½ ∫ F d(σ²) = {area:.3f}" + ("" if kl is None else f"\nKL(p‖q) = {kl:.3f}")
    axes.text(0.97, 0.5, words, transform=axes.transAxes, ha="right", va="center", fontsize=FONT)
    axes.set_xlim(variance[0], variance[-1])
    axes.set_ylim(bottom=0)
    label(axes, "variance of the noise σ²", r"$F(p_\sigma\|q_\sigma)$")
    axes.legend(fontsize=FONT - 1, frameon=False)
    return figure


def lattice(limits: Limits, count: int) -> np.ndarray:
    """Centres of `count` × `count` equal cells of the window, `(count², 2)`, the first coordinate running fastest."""
    x, y = (low + (np.arange(count) + 0.5) * (high - low) / count for low, high in limits)
    return np.stack([a.ravel() for a in np.meshgrid(x, y)], 1)


def draw_density(axes: Axes, log_density: Function, limits: Limits) -> None:
    """exp(log-density), white where it is nothing."""
    values = log_density(lattice(limits, PIXELS)).reshape(PIXELS, PIXELS)
    image = np.exp(values - values.max())
    axes.imshow(image, origin="lower", extent=(*limits[0], *limits[1]), cmap=SHADES, aspect="auto", interpolation="bilinear")


def draw_arrows(axes: Axes, centres: np.ndarray, arrows: np.ndarray, longest: float, colour: str) -> None:
    """Arrows about their centres, in data units; longer ones than `longest` are cut to it."""
    length = np.linalg.norm(arrows, axis=1, keepdims=True)
    u, v = (arrows * np.minimum(1, longest / np.maximum(length, np.finfo(float).tiny))).T
    x, y = centres.T
    axes.quiver(x, y, u, v, color=colour, angles="xy", scale_units="xy", scale=1, pivot="mid", width=0.005)
