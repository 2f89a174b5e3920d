"""scorefield describe: what the columns of a table are."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from scorefield.cli.display import say
from scorefield.data.columns import described, infer
from scorefield.data.tables import read_table

WIDE = 140
"""columns of the table where it is not written to a terminal"""


@dataclass(frozen=True)
class Describe:
    """Show what the columns of TABLE are taken for.

    Kinds are continuous, positive, bounded, integer, binary, categorical, datetime and constant.
    `scorefield train --columns NAME=KIND`, and in Python `ScoreDensity(columns={"NAME": "KIND"})`, say otherwise.

    Example: `scorefield describe people.csv`.
    """

    table: Annotated[Positional[Path], arg(metavar="TABLE")]
    """a .csv, .tsv (or .gz of them) or .parquet file"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "Describe":
        return cls(tyro.MISSING)

    def __call__(self) -> int:
        frame = read_table(self.table)
        show(described(infer(frame)))
        copies = int(frame.duplicated().sum())
        say(f"{self.table}: {len(frame)} rows, {len(frame.columns)} columns; {copies} rows are copies of others")
        return 0


def show(columns: pd.DataFrame) -> None:
    """The columns on stdout."""
    table = Table(*columns.columns)
    for row in columns.itertuples(index=False):
        table.add_row(*map(str, row))
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)
