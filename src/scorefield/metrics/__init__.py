"""How far samples are from data: numbers from two sets of examples."""

from scorefield.metrics.evaluation import evaluate_samples
from scorefield.metrics.features import Features, NetworkFeatures, PixelPCA
from scorefield.metrics.neighbours import memorisation_ratio, nearest, precision_recall_density_coverage
from scorefield.metrics.record import Record
from scorefield.metrics.two_sample import frechet_distance, kernel_distance

__all__ = [
    "Features", "NetworkFeatures", "PixelPCA", "Record", "evaluate_samples", "frechet_distance", "kernel_distance",
    "memorisation_ratio", "nearest", "precision_recall_density_coverage",
]  # fmt: skip
