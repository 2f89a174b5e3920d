"""scikit-learn's interface to densities of tables."""

from scorefield.estimators.density import ScoreDensity
from scorefield.estimators.energy import EnergyDensity
from scorefield.estimators.kernel import KernelScoreDensity
from scorefield.estimators.peers import KernelTable, MixtureTable, SplineFlowTable
from scorefield.estimators.table import TableDensity

__all__ = [
    "EnergyDensity",
    "KernelScoreDensity",
    "KernelTable",
    "MixtureTable",
    "ScoreDensity",
    "SplineFlowTable",
    "TableDensity",
]
