"""Densities: exact oracles, and models of discrete data."""

from scorefield.densities.analytic import GaussianMixture, eight_gaussians, gaussian, ring
from scorefield.densities.discrete import (
    ConcreteScore,
    DiscreteDensity,
    FiniteSoftmax,
    Pairwise,
    Ratios,
    enumerate_states,
    log_conditionals,
    log_partition_exact,
    neighbour_log_ratios,
    ratios,
)

__all__ = [
    "ConcreteScore",
    "DiscreteDensity",
    "FiniteSoftmax",
    "GaussianMixture",
    "Pairwise",
    "Ratios",
    "eight_gaussians",
    "enumerate_states",
    "gaussian",
    "log_conditionals",
    "log_partition_exact",
    "neighbour_log_ratios",
    "ratios",
    "ring",
]
