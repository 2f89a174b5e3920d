"""What a model says about the density of given data, in nats, with error bars."""

from scorefield.likelihood.annealing import Annealing, Path, geometric_path, noise_path
from scorefield.likelihood.elbo import ELBO, Bound
from scorefield.likelihood.flow import FlowLikelihood, Likelihood, prior_mismatch
from scorefield.likelihood.partition import Normalised, Partition, flow_importance, importance, noise_constant, quadrature
from scorefield.likelihood.units import bits_per_dim, dequantise, raw_log_density

__all__ = [
    "ELBO", "Annealing", "Bound", "FlowLikelihood", "Likelihood", "Normalised", "Partition", "Path", "bits_per_dim",
    "dequantise", "flow_importance", "geometric_path", "importance", "noise_constant", "noise_path", "prior_mismatch",
    "quadrature", "raw_log_density",
]  # fmt: skip
