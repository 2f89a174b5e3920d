"""scorefield learns ∇ₓ log p(x) from samples alone, by score matching, and turns it into samples."""

from importlib.metadata import PackageNotFoundError, version

from scorefield.densities import GaussianMixture
from scorefield.errors import RunError, UserError
from scorefield.interfaces import Density, Energy, Loss, Objective, Sampler, Score, State
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, Parameterisation, ScoreModel, denoise, predict_noise
from scorefield.networks import MLPConfig, UNetConfig
from scorefield.objectives import DenoisingAt, DenoisingScoreMatching, Geometric, LogNormal, LogUniform
from scorefield.persistence import load, save_model
from scorefield.samplers import AnnealedLangevin, Euler, Heun, Langevin, generate

try:
    __version__ = version("scorefield")
except PackageNotFoundError:
    __version__ = "0+unknown"

__all__ = [
    "AnnealedLangevin", "DenoisingAt", "DenoisingScoreMatching", "Density", "Energy", "EnergyModel", "Euler",
    "GaussianMixture", "Geometric", "Heun", "InnerProduct", "Langevin", "LogNormal", "LogUniform", "Loss", "MLPConfig",
    "ModelSpec", "Objective", "Parameterisation", "RunError", "Sampler", "Score", "ScoreModel", "State", "UNetConfig",
    "UserError", "denoise", "generate", "load", "predict_noise", "save_model",
]  # fmt: skip
