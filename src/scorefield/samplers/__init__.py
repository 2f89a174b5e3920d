"""Samplers turn a score into states: noise first, data last."""

from scorefield.samplers.generate import CHUNK, Autocast, StartingSampler, generate
from scorefield.samplers.langevin import AnnealedLangevin, Langevin
from scorefield.samplers.levels import geometric, karras
from scorefield.samplers.reverse import Euler, Heun

__all__ = [
    "CHUNK",
    "AnnealedLangevin",
    "Autocast",
    "Euler",
    "Heun",
    "Langevin",
    "StartingSampler",
    "generate",
    "geometric",
    "karras",
]
