"""scorefield logz: the partition function of a trained energy."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import TaskID
from rich.table import Table
from tyro.conf import Positional, arg

from scorefield.cli.display import bar, rows_bar, say, tracked
from scorefield.data import open_data
from scorefield.errors import UserError
from scorefield.experiment import read_run
from scorefield.experiment.logz import (
    HeldOut,
    LogZOptions,
    Watch,
    best,
    disagreements,
    energy_of,
    held_out,
    log_partition,
    write_log_z,
)
from scorefield.likelihood import Partition, bits_per_dim
from scorefield.persistence import load_score
from scorefield.system import default_device

WIDE = 120
"""of the table where the output is no terminal"""


@dataclass(frozen=True)
class LogZ:
    """log Z of the energy in RUN by several methods side by side, each with its standard error, what it bounds and a verdict.

    Columns: log Z (nats, of the density of scaled data at level σ), s.e., the effective number of weights, bounds, verdict.
    Methods are quadrature (up to 3 dimensions), annealed importance sampling and sequential Monte Carlo along the noise levels,
    and importance sampling by the probability flow. Those that are to be trusted are compared. Then log-densities of held-out
    rows by the normalised energy and by the probability flow, which need not agree for a learned energy. All of it is written
    to RUN/logz.json.

    Example: `scorefield logz runs/energy`, where `scorefield train digits --energy --out runs/energy` has trained.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """a run folder, trained with --energy"""
    options: Annotated[LogZOptions, arg(name="")] = LogZOptions()
    rows: int = 64
    """held-out rows whose log-density is shown both ways (0: none)"""
    seed: int = 0
    """all randomness follows from it"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "LogZ":
        return cls(tyro.MISSING)

    def __call__(self) -> int:
        run = read_run(self.run)
        if self.rows < 0 or self.rows == 1:
            raise UserError(f"--rows must be 0 or at least 2, got {self.rows}")
        device = default_device()
        model = energy_of(load_score(self.run, device=device, many_levels=False), self.run)
        with method_bars() as watch:
            found = log_partition(model, self.options, seed=self.seed, watch=watch)
        show(found)
        for line in disagreements(found):
            say(line)
        chosen, rows = best(found), None
        if chosen is None:
            say("no estimate is to be trusted: give more --rungs, --particles or --flow-draws")
        elif self.rows and chosen.sigma != model.sigma_range[0]:
            say("held-out rows are compared at the model's smallest level only: leave out --sigma")
        elif self.rows:
            data = open_data(run.data, run.reading, progress=tracked)
            raw = np.array(data.splits["test"].x[: self.rows])
            with rows_bar("held-out rows by the flow", len(raw)) as tick:
                rows = held_out(model, raw, chosen, seed=self.seed, watch=tick)
            say_rows(rows, chosen, model.event_shape)
        write_log_z(found, rows, self.run / "logz.json")
        say(f"wrote {self.run / 'logz.json'}")
        return 0


@contextmanager
def method_bars() -> Iterator[Watch]:
    """A bar for each method as it comes."""
    with bar() as progress:
        tasks: dict[str, TaskID] = {}

        def watch(method: str, done: int, total: int) -> None:
            if method not in tasks:
                tasks[method] = progress.add_task(method, total=total)
            progress.update(tasks[method], completed=done)

        yield watch


def show(found: list[Partition]) -> None:
    """The estimates as a table on stdout."""
    table = Table("method", "log Z", "± s.e.", "effective", "bounds", "trustworthy", title=f"at level σ = {found[0].sigma:g}")
    for p in found:
        ess = "" if p.ess is None else f"{p.ess:.0f}"
        table.add_row(p.method, f"{p.log_z:.3f}", f"{p.se:.2g}", ess, p.bounds, "yes" if p.trustworthy else "NO")
    out = Console(width=None if sys.stdout.isatty() else WIDE)
    out.print(table)
    for p in found:
        if not p.trustworthy:
            out.print(f"{p.method} is {p.verdict}", markup=False, highlight=False, soft_wrap=True)


def say_rows(rows: HeldOut, z: Partition, event_shape: tuple[int, ...]) -> None:
    """Both likelihoods and their gap."""
    say(f"log Z by {z.method}: {z.log_z:.3f} ± {z.se:.2g} nats")
    for name, estimate in (("normalised energy", rows.energy), ("probability flow", rows.flow)):
        if estimate is None:
            continue
        value, se = estimate
        text = f"{rows.rows} held-out rows, {name}: {value:.2f} ± {se:.2g} nats"
        if len(event_shape) == 3:
            bits, spread = (float(bits_per_dim(torch.tensor(v), event_shape)) for v in (value, se))
            text += f", {bits:.3f} ± {abs(spread):.2g} bits/dim"
        say(text)
    if rows.gap is not None:
        value, se = rows.gap
        say(f"gap, energy less flow: {value:.2f} ± {se:.2g} nats (0 if the energy solved Fokker–Planck)")
