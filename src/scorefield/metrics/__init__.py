"""Metrics: how far samples lie from data, how much of it they cover, and whether they are copies of it."""

from scorefield.metrics.copies import Rows, memorisation_ratio, nearest
from scorefield.metrics.distances import frechet_distance, kernel_distance
from scorefield.metrics.evaluation import evaluate_samples
from scorefield.metrics.features import Features, NetworkFeatures, PixelPCA
from scorefield.metrics.neighbourhoods import Neighbourhoods, precision_recall_density_coverage
from scorefield.metrics.record import Estimate, Record

__all__ = [
    "Estimate",
    "Features",
    "Neighbourhoods",
    "NetworkFeatures",
    "PixelPCA",
    "Record",
    "Rows",
    "evaluate_samples",
    "frechet_distance",
    "kernel_distance",
    "memorisation_ratio",
    "nearest",
    "precision_recall_density_coverage",
]
