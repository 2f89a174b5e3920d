"""scorefield demo: the whole chain on handwritten digits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from scorefield.cli.display import say
from scorefield.cli.evaluate import Evaluate
from scorefield.cli.sample import Sample
from scorefield.cli.train import Train
from scorefield.data import open_data
from scorefield.errors import UserError
from scorefield.recipes import recipe

LIKELIHOOD_ROWS = 64
"""held-out rows whose log-density is computed: enough for an error bar, few enough for a demonstration"""


@dataclass(frozen=True)
class Demo:
    """Train on scikit-learn's handwritten digits (nothing is downloaded), sample, evaluate and write a report.

    About five minutes on two cores. If it was interrupted, the same command goes on.
    """

    out: Path = Path("runs/digits")
    """the run folder"""
    steps: int | None = recipe("digits").training.steps
    """training steps; fewer for a quick look"""
    n: Annotated[int, arg(aliases=("-n",))] = 2000
    """samples to judge (at most as many as there are held-out examples)"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "Demo":
        return cls()

    def __call__(self) -> int:
        if self.n < 2:
            raise UserError(f"-n must be at least 2 to compare distributions, got {self.n}")
        run = recipe("digits")
        run = replace(run, training=replace(run.training, steps=self.steps))
        held_out = len(open_data(run.data).splits["test"].x)
        if self.n > held_out:
            say(f"{run.data} holds out {held_out} examples to compare with, so {held_out} samples are judged, not {self.n}")
        code = Train(run.data, self.out, resume=(self.out / "run.json").exists(), run=run)()
        if code:
            return code
        for name in ("digits.png", "digits.gif"):
            Sample(str(self.out), self.out / name, overwrite=True)()
        Evaluate(self.out, n=min(self.n, held_out), likelihood_rows=LIKELIHOOD_ROWS)()
        say(f"look at {(self.out / 'report.html').resolve()}")
        return 0
