"""Densities that need no training."""

from scorefield.densities.analytic import GaussianMixture, eight_gaussians, gaussian, ring

__all__ = ["GaussianMixture", "eight_gaussians", "gaussian", "ring"]
