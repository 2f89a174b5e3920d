"""Pictures: grids of images, films, curves."""

from scorefield.plots.figures import figure_png, learning_curve, loss_by_sigma, scatter, window
from scorefield.plots.grids import neighbour_rows, sample_grid, save_film, to_pixels

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
