"""Exponential families by score matching in closed form, on ℝᵈ, boxes, the simplex and spheres."""

from scorefield.densities.exponential.domains import Box, Domain, Metric, Simplex, Sphere, orthant, reals
from scorefield.densities.exponential.family import ExponentialFamily
from scorefield.densities.exponential.fit import ExponentialFit, Wald
from scorefield.densities.exponential.graphical import Graph, GraphicalModel
from scorefield.densities.exponential.statistics import (
    bingham,
    dirichlet,
    fisher_bingham,
    gamma,
    gaussian,
    moments,
    pairwise,
    polynomial,
    quadratic_form,
    truncated_gaussian,
    von_mises_fisher,
)

__all__ = [
    "Box",
    "Domain",
    "ExponentialFamily",
    "ExponentialFit",
    "Graph",
    "GraphicalModel",
    "Metric",
    "Simplex",
    "Sphere",
    "Wald",
    "bingham",
    "dirichlet",
    "fisher_bingham",
    "gamma",
    "gaussian",
    "moments",
    "orthant",
    "pairwise",
    "polynomial",
    "quadratic_form",
    "reals",
    "truncated_gaussian",
    "von_mises_fisher",
]
