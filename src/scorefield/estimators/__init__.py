"""Densities of tables behind scikit-learn's interface."""

from scorefield.estimators.density import ScoreDensity

__all__ = ["ScoreDensity"]
