"""Densities: exact oracles, and models of discrete data."""

from scorefield.densities.analytic import GaussianMixture, eight_gaussians, gaussian, ring_of_gaussians
from scorefield.densities.classics import Banana, DoubleWell, Funnel, StudentT
from scorefield.densities.compose import AtLevel, Contrast, LogLinear, Mixture, Product, Tempered, product_of_gaussians
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
from scorefield.densities.point_sets import checkerboard, eight_gaussian_points, pinwheel, swiss_roll, two_moons
from scorefield.densities.ring import Ring

__all__ = [
    "AtLevel",
    "Banana",
    "ConcreteScore",
    "Contrast",
    "DiscreteDensity",
    "DoubleWell",
    "FiniteSoftmax",
    "Funnel",
    "GaussianMixture",
    "LogLinear", "Mixture",
    "Pairwise",
    "Product",
    "Ratios",
    "Ring",
    "StudentT",
    "Tempered",
    "checkerboard",
    "eight_gaussian_points",
    "eight_gaussians",
    "enumerate_states",
    "gaussian",
    "log_conditionals",
    "log_partition_exact",
    "neighbour_log_ratios",
    "pinwheel",
    "product_of_gaussians",
    "ratios",
    "ring_of_gaussians",
    "swiss_roll",
    "two_moons",
]  # fmt: skip
