"""Samplers turn a score into states: noise first, data last."""

from scorefield.samplers.descent import Descent
from scorefield.samplers.exponential import DDIM, Ancestral, DPMSolver
from scorefield.samplers.flow import DormandPrince, Euler, Heun, ProbabilityFlow, RungeKutta, RungeKutta4
from scorefield.samplers.generate import CHUNK, Autocast, StartingSampler, generate
from scorefield.samplers.langevin import AnnealedLangevin, Langevin
from scorefield.samplers.levels import GRIDS, Geometric, Grid, GridName, Karras, Uniform
from scorefield.samplers.reverse import Churn, EulerMaruyama, PredictorCorrector

__all__ = [
    "CHUNK",
    "DDIM",
    "GRIDS",
    "Ancestral",
    "AnnealedLangevin",
    "Autocast",
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
    "Karras",
    "Langevin",
    "PredictorCorrector",
    "ProbabilityFlow",
    "RungeKutta",
    "RungeKutta4",
    "StartingSampler",
    "Uniform",
    "generate",
]
