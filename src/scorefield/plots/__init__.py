"""Pictures: grids of samples, films, neighbours, scatter plots and learning curves; no global state of any library."""

from scorefield.plots.curves import learning_curve, loss_by_sigma
from scorefield.plots.images import neighbour_rows, sample_grid, save_film, to_pixels
from scorefield.plots.points import scatter, window
from scorefield.plots.style import figure_png

__all__ = [
    "figure_png",
    "learning_curve",
    "loss_by_sigma",
    "neighbour_rows",
    "sample_grid",
    "save_film",
    "scatter",
    "to_pixels",
    "window",
]
