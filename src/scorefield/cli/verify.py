"""scorefield verify: the identities of score matching, computed before your eyes."""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Annotated

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from tyro.conf import arg

from scorefield.cli.display import console, say
from scorefield.errors import UserError
from scorefield.system import write_durably
from scorefield.verify import ROWS, Record, verify

COLUMNS = (("row", 3), ("statement", 0), ("left", 11), ("right", 11), ("error", 8), ("tolerance", 9), ("pass", 4))
"""heads and widths; the statement takes what is left"""
NARROW = 150
"""width where the output is no terminal"""


@dataclass(frozen=True)
class Verify:
    """Compute both sides of every identity that score matching rests on, and compare them.

    Prints row, statement, left side, right side, error, tolerance and pass; ends with exit code 1 if a check fails. Where
    numbers of draws are given the tolerance is five standard errors, elsewhere what rounding can do, or as stated.

    Example: `scorefield verify --rows 1,5,7 --json checks.json`.
    """

    rows: Annotated[str | None, arg(metavar="N,N,…")] = None
    """which identities, by number; all if not given"""
    full: bool = False
    """more draws, more shapes, longer training: tighter tolerances, and ten times as long"""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """also write the records to this file"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "Verify":
        return cls()

    def __call__(self) -> int:
        rows = list(ROWS) if self.rows is None else numbers(self.rows)
        if self.json is not None:
            check_writable(self.json)
        began = time.monotonic()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the tensors are small: a second thread gains nothing, and loses much on a busy machine
        try:
            records = shown(rows, self.full)
        finally:
            torch.set_num_threads(threads)
        failed = [r for r in records if not r.passed]
        say(f"{len(records) - len(failed)} of {len(records)} checks passed in {time.monotonic() - began:.0f} s")
        for row in sorted({r.row for r in failed}):
            say(f"row {row} failed: {ROWS[row].title}")
        if self.json is not None:
            lines = dumps({"rows": [r.as_json() for r in records]}, indent=1, ensure_ascii=False, allow_nan=False)
            write_durably(self.json, lines + "\n")
            say(f"wrote {self.json}")
        return 1 if failed else 0


def numbers(text: str) -> list[int]:
    """Rows named in `text`, once each, in ascending order.

    Raises:
        UserError: not numbers separated by commas, or one that is no row.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--rows takes numbers separated by commas, like 1,5,7, got {text!r}")
    asked = sorted({int(part) for part in parts})
    unknown = [row for row in asked if row not in ROWS]
    if unknown:
        raise UserError(f"unknown row {unknown[0]}: choose among {', '.join(map(str, ROWS))}")
    return asked


def check_writable(path: Path) -> None:
    """Refuses a file that could not be written, before anything is computed.

    Raises:
        UserError: `path` is a folder, or its folder does not exist or cannot be written.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".part"):
            pass
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {str(path)!r}: {reason}; choose another place") from error


def shown(rows: list[int], full: bool) -> list[Record]:
    """All records, each printed on stdout as it is found, with a bar on stderr."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out = Console(highlight=False, width=NARROW)
    records = []
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"))
    # on a terminal lines on stdout must go round the bar; into a file or a pipe they go as they are
    bar = Progress(*columns, TimeRemainingColumn(), console=console, redirect_stdout=sys.stdout.isatty())
    out.print(table_line([Text(head, style="bold") for head, _ in COLUMNS], out.width))
    with bar:
        task = bar.add_task("", total=sum(ROWS[row].seconds for row in rows))
        for row in rows:
            bar.update(task, description=f"row {row}: {ROWS[row].title}")
            for record in verify([row], full):
                out.print(table_line(cells(record), out.width))
                records.append(record)
            bar.advance(task, ROWS[row].seconds)
    return records


def cells(r: Record) -> list[Text]:
    """The record as the texts of one line."""
    verdict = Text("yes", style="green") if r.passed else Text("NO", style="bold red")
    figures = f"{r.left:.5g}", f"{r.right:.5g}", f"{r.error:.2g}", f"{r.tolerance:.2g}"
    return [Text(str(r.row)), Text(r.statement), *map(Text, figures), verdict]


def table_line(texts: list[Text], width: int) -> Table:
    """One line of the table (more where the statement wraps), its columns where those of the other lines are."""
    table = Table.grid(padding=(0, 2, 0, 0))
    taken = sum(w for _, w in COLUMNS) + 2 * len(COLUMNS)
    for head, w in COLUMNS:
        left = head in ("statement", "pass")
        table.add_column(width=w or max(20, width - taken), justify="left" if left else "right")
    table.add_row(*texts)
    return table
