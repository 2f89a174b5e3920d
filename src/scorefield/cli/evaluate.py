"""scorefield evaluate: judge a trained model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from scorefield.cli.display import evaluation_bar, say, show_records, tracked
from scorefield.data import open_data
from scorefield.experiment import (
    LIKELIHOOD_ROWS,
    Effort,
    SamplerOptions,
    evaluate,
    levels_walked,
    read_run,
    sampler_name,
    sampler_named,
)
from scorefield.experiment.evaluate import check_numbers
from scorefield.persistence import load
from scorefield.report import write_report
from scorefield.system import default_device


@dataclass(frozen=True)
class Evaluate:
    """Judge the model in RUN on held-out data, and write evaluation.json, pictures and report.html into RUN.

    Measured are the loss at each noise level, distances between samples and held-out data (with the same distances for other
    real data beside them), on the run's own data whether samples are copies of training examples, and the likelihood of
    held-out data: by the probability-flow ODE and by the evidence lower bound, both with standard errors. A model with classes
    draws as many samples of each as there are among held-out examples.

    Example: `scorefield evaluate runs/digits -n 2000`.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """a run folder"""
    data: Annotated[str | None, arg(metavar="DATA")] = None
    """judge on this data instead of the run's own; it is named in every unit"""
    n: Annotated[int, arg(aliases=("-n",))] = 2000
    """how many samples to draw (at most as many as there are held-out examples)"""
    options: Annotated[SamplerOptions, arg(name="")] = SamplerOptions()
    likelihood_rows: int = LIKELIHOOD_ROWS
    """held-out rows whose log-density is computed (0: none); they are kept, so an interrupted evaluation goes on"""
    likelihood: Effort = Effort()
    seed: int = 0
    """all randomness follows from it"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "Evaluate":
        return cls(tyro.MISSING)

    def __call__(self) -> int:
        check_numbers(self.n, self.likelihood_rows)
        run = read_run(self.run)
        device = default_device()
        model = load(self.run, device=device)
        sampler = sampler_named(self.options, model)
        reading = run.reading if self.data is None else replace(run.reading, only=())
        data = open_data(self.data or run.data, reading, progress=tracked)
        say(f"{sampler_name(self.options, model)}: {levels_walked(sampler, model)}")
        held_out = len(data.splits["test"].x)
        with evaluation_bar(sampler, min(self.n, held_out), min(self.likelihood_rows, held_out)) as (watch, watch_rows):
            records, written = evaluate(
                run, model, data, self.run, sampler, self.n, likelihood_rows=self.likelihood_rows, effort=self.likelihood,
                seed=self.seed, device=device, watch=watch, watch_rows=watch_rows,
            )  # fmt: skip
        show_records(records)
        for path in [*written, write_report(self.run)]:
            say(f"wrote {path}")
        return 0
