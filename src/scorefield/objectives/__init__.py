"""Objectives: (model, x) -> a loss per example."""

from scorefield.objectives.denoising import DenoisingAt, DenoisingScoreMatching, Geometric, LogNormal, LogUniform

__all__ = ["DenoisingAt", "DenoisingScoreMatching", "Geometric", "LogNormal", "LogUniform"]
