"""Other families of densities on the same data: finite softmax, autoregressive, latent variables."""

from scorefield.baselines.autoregressive import Autoregressive, AutoregressiveConfig
from scorefield.baselines.finite import (
    IndependentPixels,
    IndependentPixelsConfig,
    SoftmaxPatches,
    SoftmaxPatchesConfig,
    TrainingImages,
    TrainingImagesConfig,
    binary_patches,
    fitted_softmax,
)
from scorefield.baselines.latent import EvidenceBound, HierarchicalVAE, VAEConfig
from scorefield.baselines.model import CLOSED_FORM, Baseline, BaselineConfig, Drawing
from scorefield.baselines.spline_flow import fitted_spline_flow

__all__ = [
    "CLOSED_FORM", "Autoregressive", "AutoregressiveConfig", "Baseline", "BaselineConfig", "Drawing", "EvidenceBound",
    "HierarchicalVAE", "IndependentPixels", "IndependentPixelsConfig", "SoftmaxPatches", "SoftmaxPatchesConfig",
    "TrainingImages", "TrainingImagesConfig", "VAEConfig", "binary_patches", "fitted_softmax",
    "fitted_spline_flow",
]  # fmt: skip
