"""Samplers turn a score into states: noise first, data last."""

from scorefield.samplers.annealed import AnnealedChains
from scorefield.samplers.chains import Draws, MarkovChains, collect
from scorefield.samplers.descent import Descent
from scorefield.samplers.exponential import DDIM, Ancestral, DPMSolver
from scorefield.samplers.flow import DormandPrince, Euler, Heun, ProbabilityFlow, RungeKutta, RungeKutta4
from scorefield.samplers.generate import CHUNK, Autocast, StartingSampler, generate
from scorefield.samplers.gibbs import Gibbs
from scorefield.samplers.inverse import DPS, BlockAverage, InverseSampler, LinearOperator, Mask, RePaint
from scorefield.samplers.kernels import BAOAB, HMC, MALA, ULA, Kernel, Target
from scorefield.samplers.langevin import AnnealedLangevin, Langevin
from scorefield.samplers.levels import GRIDS, Geometric, Grid, GridName, Karras, Uniform
from scorefield.samplers.reverse import Churn, EulerMaruyama, PredictorCorrector

__all__ = [
    "BAOAB",
    "CHUNK",
    "DDIM",
    "DPS",
    "GRIDS",
    "HMC",
    "MALA",
    "ULA",
    "Ancestral",
    "AnnealedChains",
    "AnnealedLangevin",
    "Autocast",
    "BlockAverage",
    "Churn",
    "DPMSolver",
    "Descent",
    "DormandPrince",
    "Draws",
    "Euler",
    "EulerMaruyama",
    "Geometric",
    "Gibbs",
    "Grid",
    "GridName",
    "Heun",
    "InverseSampler",
    "Karras",
    "Kernel",
    "Langevin",
    "LinearOperator",
    "MarkovChains",
    "Mask",
    "PredictorCorrector",
    "ProbabilityFlow",
    "RePaint",
    "RungeKutta",
    "RungeKutta4",
    "StartingSampler",
    "Target",
    "Uniform",
    "collect",
    "generate",
]
