"""Metrics: how far samples lie from data, how much of it they cover, whether they are copies, and how good a score is."""

from scorefield.metrics.chains import ChainWarning, Diagnosis, diagnose, expectation
from scorefield.metrics.copies import Rows, memorisation_ratio, nearest
from scorefield.metrics.distances import frechet_distance, kernel_distance
from scorefield.metrics.evaluation import evaluate_samples
from scorefield.metrics.features import Features, NetworkFeatures, PixelPCA
from scorefield.metrics.modes import ModeMasses, ScoreWarning, mode_masses
from scorefield.metrics.neighbourhoods import Neighbourhoods, precision_recall_density_coverage
from scorefield.metrics.record import Estimate, Record
from scorefield.metrics.score import curl, error_by_log_density, relative_error
from scorefield.metrics.stein import SteinTest, fisher_divergence, kernel_stein_discrepancy

__all__ = [
    "ChainWarning",
    "Diagnosis",
    "Estimate",
    "Features",
    "ModeMasses",
    "Neighbourhoods",
    "NetworkFeatures",
    "PixelPCA",
    "Record",
    "Rows",
    "ScoreWarning",
    "SteinTest",
    "curl",
    "diagnose",
    "error_by_log_density",
    "evaluate_samples",
    "expectation",
    "fisher_divergence",
    "frechet_distance",
    "kernel_distance",
    "kernel_stein_discrepancy",
    "memorisation_ratio",
    "mode_masses",
    "nearest",
    "precision_recall_density_coverage",
    "relative_error",
]
