"""The densities of tables that `scorefield compare TABLE` sets side by side, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scorefield.data.columns import ColumnKind
from scorefield.errors import UserError
from scorefield.estimators import EnergyDensity, KernelTable, MixtureTable, ScoreDensity, SplineFlowTable, TableDensity

Columns = dict[str, ColumnKind] | None


@dataclass(frozen=True)
class TableFamily:
    """How a density is made from columns' kinds and a seed, and whether its log-density is known exactly."""

    make: Callable[[Columns, int], TableDensity]
    kind: str
    """exact, or estimate"""


TABLE_FAMILIES = {
    "kernel": TableFamily(lambda columns, seed: KernelTable(columns, random_state=seed), "exact"),
    "mixture": TableFamily(lambda columns, seed: MixtureTable(columns, random_state=seed), "exact"),
    "spline-flow": TableFamily(lambda columns, seed: SplineFlowTable(columns, seconds=600.0, random_state=seed), "exact"),
    "energy": TableFamily(lambda columns, seed: EnergyDensity(columns, random_state=seed), "estimate"),
    "score": TableFamily(lambda columns, seed: ScoreDensity(columns, random_state=seed), "estimate"),
}


def table_families(names: Sequence[str]) -> dict[str, TableFamily]:
    """Those of the names, all for none; raises `UserError` for an unknown one."""
    for name in names:
        if name not in TABLE_FAMILIES:
            raise UserError(f"no family of densities of tables is called {name!r}: {', '.join(TABLE_FAMILIES)}")
    return {name: family for name, family in TABLE_FAMILIES.items() if not names or name in names}
