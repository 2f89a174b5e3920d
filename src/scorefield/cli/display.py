"""Progress on the terminal: live bars where it is one, a few plain lines where it is not. All of it goes to stderr."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from scorefield.experiment.sample import Watch
from scorefield.interfaces import State
from scorefield.metrics import Record
from scorefield.samplers import CHUNK, StartingSampler
from scorefield.samplers.generate import chunks
from scorefield.training import Training
from scorefield.training.loop import Watcher

T = TypeVar("T")
console = Console(stderr=True, highlight=False)


def say(line: str) -> None:
    """One line for the user."""
    console.print(line, markup=False, soft_wrap=True)


def bar(*columns: str) -> Progress:
    """A progress bar with count, elapsed time and time left, and further text columns by field name."""
    fields = [TextColumn(f"{{task.fields[{name}]}}") for name in columns]
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *fields,
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console,
    )  # fmt: skip


def tracked(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    """`items` unchanged, with a bar as they pass."""
    with bar() as progress:
        yield from progress.track(items, total=total, description=label)


@contextmanager
def training_bar(training: Training) -> Iterator[Watcher]:
    """A watcher for the training loop: steps (or seconds) done of all, loss, validation loss, images a second.

    Where there is no terminal, a line at the first news of each tenth of the run.
    """
    steps, seconds = training.limits
    by_time = seconds < math.inf
    total = math.ceil(seconds if by_time else steps)
    latest: dict[str, Any] = {"trained_seconds": 0.0}
    tenths = 0
    with bar("text") as progress:
        task = progress.add_task("training, seconds" if by_time else "training", total=total, text="")

        def watch(step: int, fields: dict[str, Any]) -> None:
            nonlocal tenths
            latest.update(fields)
            done = int(latest["trained_seconds"]) if by_time else step
            progress.update(task, completed=done)
            if not fields:
                return
            text = " · ".join(f"{latest[k]:{f}} {label}" for k, f, label in SHOWN if k in latest)
            progress.update(task, text=text)
            if not console.is_terminal and 10 * done // total > tenths:
                tenths = 10 * done // total
                say(f"step {step}, {done} of {total} seconds: {text}" if by_time else f"step {step} of {total}: {text}")

        yield watch


SHOWN = (("loss", ".4f", "loss"), ("validation", ".4f", "held out"), ("images_per_s", ".0f", "images/s"))


@contextmanager
def sampling_bar(sampler: StartingSampler, n: int, chunk: int = CHUNK) -> Iterator[Watch]:
    """A watcher for n samples in chunks: one tick a state of a chunk."""
    with bar() as progress:
        task = progress.add_task("sampling", total=chunks(n, chunk) * sampler.states)
        yield lambda chunk, state: progress.advance(task)


@contextmanager
def rows_bar(label: str, rows: int) -> Iterator[Callable[[int], None]]:
    """A watcher that is told the number of rows just done."""
    with bar() as progress:
        task = progress.add_task(label, total=rows)
        yield lambda done: progress.advance(task, done)


@contextmanager
def evaluation_bar(sampler: StartingSampler, n: int, rows: int) -> Iterator[tuple[Watch, Callable[[int], None]]]:
    """Watchers for an evaluation: of sampling, and of rows whose log-density is done, which come before."""
    with bar() as progress:
        densities = progress.add_task("log-densities", total=rows, visible=rows > 0)
        sampling = progress.add_task("sampling", total=chunks(n) * sampler.states, start=False)

        def watch(chunk: int, state: State) -> None:
            progress.start_task(sampling)
            progress.advance(sampling)

        yield watch, lambda done: progress.advance(densities, done)


WIDE = 150
"""columns of a leaderboard where it is not written to a terminal"""


def show_leaderboard(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Plain cells as a table on stdout."""
    table = Table(*head)
    for cells in rows:
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def show_records(records: list[Record]) -> None:
    """The evaluation as a table on stdout."""
    table = Table("metric", "value", "± s.e.", "n", "unit")
    for r in records:
        table.add_row(r.metric, f"{r.value:.4g}", "" if r.se is None else f"{r.se:.2g}", str(r.n), r.unit)
    Console().print(table)


__all__ = ["evaluation_bar", "rows_bar", "sampling_bar", "say", "show_leaderboard", "show_records", "tracked", "training_bar"]
