"""scorefield demo: the whole chain on handwritten digits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scorefield.cli.display import say
from scorefield.cli.evaluate import Evaluate
from scorefield.cli.sample import Sample
from scorefield.cli.train import Train
from scorefield.recipes import recipe


@dataclass(frozen=True)
class Demo:
    """Train on scikit-learn's handwritten digits (nothing is downloaded), sample, evaluate and write a report.

    About five minutes on two cores. If it was interrupted, the same command goes on.
    """

    out: Path = Path("runs/digits")
    """the run folder"""
    steps: int = recipe("digits").training.steps
    """training steps; fewer for a quick look"""
    n: int = 2000
    """samples to judge"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "Demo":
        return cls()

    def __call__(self) -> int:
        run = recipe("digits")
        run = replace(run, training=replace(run.training, steps=self.steps))
        code = Train(run.data, self.out, resume=(self.out / "run.json").exists(), run=run)()
        if code:
            return code
        for name in ("digits.png", "digits.gif"):
            Sample(str(self.out), self.out / name, overwrite=True)()
        Evaluate(self.out, n=self.n)()
        say(f"look at {(self.out / 'report.html').resolve()}")
        return 0
