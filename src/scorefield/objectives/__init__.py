"""Objectives: (model, x) -> a loss per example."""

from scorefield.objectives.denoising import DenoisingAt, DenoisingScoreMatching, Geometric, LogNormal, LogUniform
from scorefield.objectives.generalised import GeneralisedScoreMatching, Gradient, Marginalisation, Operator, OperatorRatio
from scorefield.objectives.ratio import ConcreteScoreMatching, MaximumLikelihood, PseudoLikelihood, RatioMatching

__all__ = [
    "ConcreteScoreMatching",
    "DenoisingAt",
    "DenoisingScoreMatching",
    "GeneralisedScoreMatching",
    "Geometric",
    "Gradient",
    "LogNormal",
    "LogUniform",
    "Marginalisation",
    "MaximumLikelihood",
    "Operator",
    "OperatorRatio",
    "PseudoLikelihood",
    "RatioMatching",
]
