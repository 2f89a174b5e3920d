"""Pictures: grids of samples, films, neighbours, scatter plots, score fields and curves; no global state of any library."""

from scorefield.plots.curves import bound_by_sigma, learning_curve, loss_by_sigma
from scorefield.plots.fields import error_by_decile, fisher_area, score_field
from scorefield.plots.images import neighbour_rows, sample_grid, save_film, to_pixels
from scorefield.plots.points import scatter, window
from scorefield.plots.style import figure_png

__all__ = [
    "bound_by_sigma",
    "error_by_decile",
    "figure_png",
    "fisher_area",
    "learning_curve",
    "loss_by_sigma",
    "neighbour_rows",
    "sample_grid",
    "save_film",
    "scatter",
    "score_field",
    "to_pixels",
    "window",
]
