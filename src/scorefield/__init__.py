"""scorefield learns ∇ₓ log p(x) from samples alone, by score matching, and turns it into samples."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from scorefield.densities import (
    Banana,
    ConcreteScore,
    DiscreteDensity,
    DoubleWell,
    FiniteSoftmax,
    Funnel,
    GaussianMixture,
    Mixture,
    Pairwise,
    Product,
    Ratios,
    Ring,
    StudentT,
    checkerboard,
    eight_gaussian_points,
    eight_gaussians,
    enumerate_states,
    gaussian,
    log_conditionals,
    log_partition_exact,
    neighbour_log_ratios,
    pinwheel,
    product_of_gaussians,
    ratios,
    ring_of_gaussians,
    swiss_roll,
    two_moons,
)
from scorefield.errors import RunError, UserError
from scorefield.guidance import AutoGuidance, ClassifierFreeGuidance
from scorefield.interfaces import Density, Energy, Field, JacobianTrace, Loss, Objective, Sampler, Score, State, TraceEstimate
from scorefield.jacobian_trace import Exact, FiniteDifference, Hutchinson
from scorefield.likelihood import ELBO, FlowLikelihood, bits_per_dim
from scorefield.models import (
    EnergyModel,
    InnerProduct,
    ModelSpec,
    Parameterisation,
    PlainEnergy,
    PlainScore,
    ScoreModel,
    WithoutNoise,
    denoise,
    predict_noise,
)
from scorefield.networks import MLPConfig, UNetConfig
from scorefield.objectives import (
    ConcreteScoreMatching,
    DenoisingAt,
    DenoisingScoreMatching,
    EDMWeighting,
    ExplicitScoreMatching,
    FiniteDifferenceScoreMatching,
    GeneralisedScoreMatching,
    Geometric,
    Gradient,
    ImplicitScoreMatching,
    LogNormal,
    LogUniform,
    Marginalisation,
    MaximumLikelihood,
    Operator,
    OperatorRatio,
    PowerWeighting,
    PseudoLikelihood,
    RatioMatching,
    SlicedScoreMatching,
)
from scorefield.persistence import load, save_model
from scorefield.processes import EDM, VE, VP, Cosine, Process, RectifiedFlow, SubVP
from scorefield.samplers import (
    DDIM,
    DPS,
    Ancestral,
    AnnealedLangevin,
    BlockAverage,
    Churn,
    DormandPrince,
    DPMSolver,
    Euler,
    EulerMaruyama,
    Heun,
    Langevin,
    Mask,
    PredictorCorrector,
    RePaint,
    RungeKutta4,
    generate,
)

if TYPE_CHECKING:
    from scorefield.data import Reading, open_data
    from scorefield.experiment import Run, evaluate, train, write_samples
    from scorefield.metrics import NetworkFeatures, PixelPCA, Record, evaluate_samples
    from scorefield.recipes import recipe
    from scorefield.training import Training

# imported when first asked for: they need data and training libraries that take seconds to import
_LATER = {
    "Reading": "data", "open_data": "data", "Run": "experiment", "evaluate": "experiment", "train": "experiment",
    "write_samples": "experiment", "recipe": "recipes", "Training": "training", "NetworkFeatures": "metrics",
    "PixelPCA": "metrics", "Record": "metrics", "evaluate_samples": "metrics",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"scorefield.{_LATER[name]}"), name)
    raise AttributeError(f"module 'scorefield' has no attribute {name!r}")


try:
    __version__ = version("scorefield")
except PackageNotFoundError:
    __version__ = "0+unknown"

__all__ = [
    "DDIM", "DPS", "EDM", "ELBO", "VE", "VP", "Ancestral", "AnnealedLangevin", "AutoGuidance", "Banana", "BlockAverage",
    "Churn", "ClassifierFreeGuidance", "ConcreteScore", "ConcreteScoreMatching", "Cosine", "DPMSolver", "DenoisingAt",
    "DenoisingScoreMatching", "Density", "DiscreteDensity", "DormandPrince", "DoubleWell", "EDMWeighting", "Energy",
    "EnergyModel", "Euler", "EulerMaruyama", "Exact", "ExplicitScoreMatching", "Field", "FiniteDifference",
    "FiniteDifferenceScoreMatching", "FiniteSoftmax", "FlowLikelihood", "Funnel", "GaussianMixture",
    "GeneralisedScoreMatching", "Geometric", "Gradient", "Heun", "Hutchinson", "ImplicitScoreMatching", "InnerProduct",
    "JacobianTrace", "Langevin", "LogNormal", "LogUniform", "Loss", "MLPConfig", "Marginalisation", "Mask",
    "MaximumLikelihood", "Mixture", "ModelSpec", "NetworkFeatures", "Objective", "Operator", "OperatorRatio", "Pairwise",
    "Parameterisation", "PixelPCA", "PlainEnergy", "PlainScore", "PowerWeighting", "PredictorCorrector", "Process", "Product",
    "PseudoLikelihood", "RatioMatching", "Ratios", "RePaint", "Reading", "Record", "RectifiedFlow", "Ring", "Run", "RunError",
    "RungeKutta4", "Sampler", "Score", "ScoreModel", "SlicedScoreMatching", "State", "StudentT", "SubVP", "TraceEstimate",
    "Training", "UNetConfig", "UserError", "WithoutNoise", "bits_per_dim", "checkerboard", "denoise", "eight_gaussian_points",
    "eight_gaussians", "enumerate_states", "evaluate", "evaluate_samples", "gaussian", "generate", "load", "log_conditionals",
    "log_partition_exact", "neighbour_log_ratios", "open_data", "pinwheel", "predict_noise", "product_of_gaussians", "ratios",
    "recipe", "ring_of_gaussians", "save_model", "swiss_roll", "train", "two_moons", "write_samples",
]  # fmt: skip
