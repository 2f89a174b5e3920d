"""Samplers turn a score into states: noise first, data last."""

from scorefield.samplers.descent import Descent
from scorefield.samplers.exponential import DDIM, Ancestral, DPMSolver
from scorefield.samplers.flow import DormandPrince, Euler, Heun, ProbabilityFlow, RungeKutta, RungeKutta4
from scorefield.samplers.generate import CHUNK, Autocast, StartingSampler, generate
from scorefield.samplers.inverse import DPS, BlockAverage, InverseSampler, LinearOperator, Mask, RePaint
from scorefield.samplers.langevin import AnnealedLangevin, Langevin
from scorefield.samplers.levels import GRIDS, Geometric, Grid, GridName, Karras, Uniform
from scorefield.samplers.reverse import Churn, EulerMaruyama, PredictorCorrector

__all__ = [
    "CHUNK",
    "DDIM",
    "DPS",
    "GRIDS",
    "Ancestral",
    "AnnealedLangevin",
    "Autocast",
    "BlockAverage",
    "Churn",
    "DPMSolver",
    "Descent",
    "DormandPrince",
    "Euler",
    "EulerMaruyama",
    "Geometric",
    "Grid",
    "GridName",
    "Heun",
    "InverseSampler",
    "Karras",
    "Langevin",
    "LinearOperator",
    "Mask",
    "PredictorCorrector",
    "ProbabilityFlow",
    "RePaint",
    "RungeKutta",
    "RungeKutta4",
    "StartingSampler",
    "Uniform",
    "generate",
]
