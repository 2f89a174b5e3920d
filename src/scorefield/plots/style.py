"""One look for all figures: light, legible on a phone, told apart by the colour-blind (colours of Okabe & Ito 2008)."""

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"
FONT = 12
DPI = 150


def new_figure(width: float = 5.0, height: float = 3.8) -> tuple[Figure, Axes]:
    """An empty figure (inches) with one plain pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=FONT - 1)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def label(axes: Axes, x: str, y: str) -> None:
    """Name both axes, units included."""
    axes.set_xlabel(x, fontsize=FONT)
    axes.set_ylabel(y, fontsize=FONT)


def note(axes: Axes, text: str) -> None:
    """Words in the middle of empty axes."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=FONT, color=GREY)


def figure_png(figure: Figure) -> bytes:
    """The figure as a PNG file; its size in pixels depends on its size in inches only."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()
