"""Other families of densities on the same data: finite softmax, autoregressive, latent variables."""

from scorefield.baselines.autoregressive import Autoregressive, AutoregressiveConfig
from scorefield.baselines.finite import IndependentPixels, TrainingImages, binary_patches, fitted_softmax
from scorefield.baselines.latent import EvidenceBound, HierarchicalVAE, VAEConfig

__all__ = [
    "Autoregressive", "AutoregressiveConfig", "EvidenceBound", "HierarchicalVAE", "IndependentPixels", "TrainingImages",
    "VAEConfig", "binary_patches", "fitted_softmax",
]  # fmt: skip
