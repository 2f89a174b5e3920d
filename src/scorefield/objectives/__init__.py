"""Objectives: (model, x) -> a loss per example."""

from scorefield.objectives.contrastive import (
    ContrastiveDivergence,
    NoiseContrastiveEstimation,
    PersistentChains,
    PersistentContrastiveDivergence,
)
from scorefield.objectives.denoising import (
    DenoisingAt,
    DenoisingScoreMatching,
    EDMWeighting,
    Geometric,
    LogNormal,
    LogUniform,
    PowerWeighting,
)
from scorefield.objectives.generalised import GeneralisedScoreMatching, Gradient, Marginalisation, Operator, OperatorRatio
from scorefield.objectives.matching import (
    ExplicitScoreMatching,
    FiniteDifferenceScoreMatching,
    ImplicitScoreMatching,
    SlicedScoreMatching,
)
from scorefield.objectives.ratio import ConcreteScoreMatching, MaximumLikelihood, PseudoLikelihood, RatioMatching

__all__ = [
    "ConcreteScoreMatching",
    "ContrastiveDivergence",
    "DenoisingAt",
    "DenoisingScoreMatching",
    "EDMWeighting",
    "ExplicitScoreMatching",
    "FiniteDifferenceScoreMatching",
    "GeneralisedScoreMatching",
    "Geometric",
    "Gradient",
    "ImplicitScoreMatching",
    "LogNormal",
    "LogUniform",
    "Marginalisation",
    "MaximumLikelihood",
    "NoiseContrastiveEstimation",
    "Operator",
    "OperatorRatio",
    "PersistentChains",
    "PersistentContrastiveDivergence",
    "PowerWeighting",
    "PseudoLikelihood",
    "RatioMatching",
    "SlicedScoreMatching",
]
