"""What a model says about the density of given data, in nats, with error bars."""

from scorefield.likelihood.elbo import ELBO, Bound
from scorefield.likelihood.flow import FlowLikelihood, Likelihood, prior_mismatch
from scorefield.likelihood.units import bits_per_dim, dequantise, raw_log_density

__all__ = ["ELBO", "Bound", "FlowLikelihood", "Likelihood", "bits_per_dim", "dequantise", "prior_mismatch", "raw_log_density"]
