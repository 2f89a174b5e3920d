"""Densities and scores of a sample by kernels, each one linear solve: no training loop."""

from scorefield.densities.kernel.expansion import Expansion
from scorefield.densities.kernel.exponential import FittedKernelFamily, GaussianBase, KernelExponentialFamily
from scorefield.densities.kernel.kernels import Gaussian, InverseMultiquadric, Kernel, RationalQuadratic, median_bandwidth
from scorefield.densities.kernel.scores import (
    CurlFreeScore,
    CurlFreeTikhonov,
    DiagonalScore,
    NuMethod,
    ScoreEstimator,
    SpectralSteinEstimator,
    SteinEstimator,
    select,
)

__all__ = [
    "CurlFreeScore",
    "CurlFreeTikhonov",
    "DiagonalScore",
    "Expansion",
    "FittedKernelFamily",
    "Gaussian",
    "GaussianBase",
    "InverseMultiquadric",
    "Kernel",
    "KernelExponentialFamily",
    "NuMethod",
    "RationalQuadratic",
    "ScoreEstimator",
    "SpectralSteinEstimator",
    "SteinEstimator",
    "median_bandwidth",
    "select",
]
