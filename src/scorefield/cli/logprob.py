"""scorefield logprob: how likely and how unusual each example is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from tyro.conf import Positional, arg

from scorefield.cli.display import rows_bar, say, tracked
from scorefield.data import open_data, read_all
from scorefield.errors import UserError
from scorefield.experiment import Effort, check_data, logprob, read_run
from scorefield.experiment.logprob import check_table, in_levels_of, rows_to_compute, smallest_p_value, write_table
from scorefield.persistence import load_score
from scorefield.system import default_device


@dataclass(frozen=True)
class LogProb:
    """The log-density of each example in DATA under the model in RUN, with its standard error, and how unusual that is.

    Columns: row (counted from 0, in the order of DATA), file (of a folder), log_density (nats in the units of the data), se,
    refinement (how it would change by half the solver's steps: the first 16 rows, unless --refine), bound and bound_se (the
    evidence bound, with --draws), bits_per_dim (images), typicality (distance of the log-density from that of typical data) and
    p_value (small for anomalies: at most a share α of ordinary examples has p ≤ α). If it was interrupted, the same command
    goes on.

    Examples: `scorefield logprob runs/digits digits --split test --out digits.csv`,
    `scorefield logprob runs/fashion photos/ --out photos.parquet`.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """a run folder"""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """a data source as for training, of the same shape and levels as the run's"""
    out: Annotated[Path, arg(metavar="FILE")]
    """FILE.parquet or FILE.csv"""
    split: Literal["train", "validation", "test"] | None = None
    """only this part of DATA, as training would divide it; all examples in their own order if not given"""
    n: Annotated[int | None, arg(aliases=("-n",))] = None
    """only the first n"""
    effort: Annotated[Effort, arg(name="")] = Effort(draws=0)
    seed: int = 0
    """all randomness follows from it"""
    overwrite: bool = False
    """replace FILE if it exists"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "LogProb":
        return cls(tyro.MISSING, tyro.MISSING, tyro.MISSING)

    def __call__(self) -> int:
        run = read_run(self.run)
        check_table(self.out, self.overwrite)
        if self.n is not None and self.n < 1:
            raise UserError(f"-n must be at least 1, got {self.n}")
        device = default_device()
        model = load_score(self.run, device=device)
        own = open_data(run.data, run.reading, progress=tracked)
        names: list[str] = []
        if self.split is not None:
            data = open_data(self.data, replace(run.reading, only=()), progress=tracked)
            check_data(model.spec, data.event_shape, data.levels, self.data)
            raw = np.array(data.splits[self.split].x[: self.n])
        else:
            rows, names, facts = read_all(self.data, run.reading, progress=tracked)
            raw, levels = in_levels_of(model.spec, rows[: self.n], facts.levels)
            check_data(model.spec, raw.shape[1:], levels, self.data)
            for name in facts.skipped:
                say(f"left out, and not counted as a row: {name}")
        total = rows_to_compute(own, raw)
        with rows_bar(f"log-densities ({total - len(raw)} of them say what is ordinary)", total) as watch:
            table = logprob(
                model, own, raw, effort=self.effort, seed=self.seed, device=device, cache=self.run / "logprob", watch=watch
            )
        if any(names):
            table.insert(0, "file", names[: len(table)])
        write_table(table, self.out)
        say(f"wrote {self.out}: {len(table)} rows, {(table.p_value <= 0.05).mean():.1%} of them with p ≤ 0.05 (ordinary: 5 %)")
        if (least := smallest_p_value(own)) > 0.05:
            say(f"so few held-out rows let no p-value be smaller than {least:.2g}: look at typicality, and train on more data")
        change = table.refinement.abs().median()
        say(f"with half the --steps log-densities would differ by {change:.2g} nats (median); the error left is smaller")
        if self.effort.probes == 1:
            say("a single probe knows no standard error: give --probes 2 or more")
        if far := int((~np.isfinite(table.log_density)).sum()):
            say(f"{far} rows are too far out for a log-density; they have the smallest p-value")
        return 0
