"""scorefield compare: every family of models side by side on one data set."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from scorefield.baselines import CLOSED_FORM
from scorefield.cli.display import bar, say, show_leaderboard, tracked
from scorefield.data import Reading, open_data
from scorefield.errors import UserError
from scorefield.experiment import Run
from scorefield.experiment.compare import Interrupted, Phase, Watch, compare, planned_in, write_records
from scorefield.experiment.compared import level_records, levels_of, pictures
from scorefield.recipes import families_of
from scorefield.report import leaderboard_cells, reading, write_comparison

UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
SHARES: dict[Phase, tuple[float, float]] = {
    "trial": (0.0, 0.03), "training": (0.03, 0.6), "likelihood": (0.6, 0.9), "sampling": (0.9, 1.0), "done": (0.0, 1.0),
}  # fmt: skip
"""which part of a family's time a phase takes, about"""


@dataclass(frozen=True)
class Compare:
    """Train every family of models on DATA, each with the same time for training, and set them side by side.

    Independent pixels, a softmax over patches, one over the training images, an autoregressive transformer, a VAE and a
    hierarchical one, an energy by maximum likelihood, an energy and a direct score by denoising. The table has each one's
    likelihood with its kind (exact, bound, or estimate), how far its samples are from held-out data in the features of a
    classifier trained for that, whether they are copies, and how long they take. Families that are not for the data are named.

    If it was interrupted, the same command goes on. With 3 minutes each it takes about 45 minutes on two cores.

    Examples: `scorefield compare digits`, `scorefield compare digits --families autoregressive vae score --budget 30s`.
    """

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """as for train"""
    families: tuple[str, ...] = ()
    """which (all): independent-pixels, softmax-patches, training-images, autoregressive, vae, hierarchical-vae,
    energy-likelihood, energy-denoising, score"""
    budget: str = "3m"
    """training time of each family: 30s, 3m or 1h"""
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """where plan.json, compare.json, compare.html, pictures and a run folder for each family go (runs/compare-DATA)"""
    likelihood_rows: int = 128
    """held-out rows whose likelihood is computed"""
    reading: Reading = Reading()
    """how images are read, as for train"""
    seed: int = 0
    """all randomness follows from it"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "Compare":
        return cls(tyro.MISSING)

    def __call__(self) -> int:
        budget, runs = seconds(self.budget), families_of(self.families, self.data)
        folder = self.out or Path("runs") / f"compare-{Path(self.data).stem or 'data'}"
        try:
            with comparison_bar(runs) as watch:
                records = compare(
                    self.data, runs, folder, budget=budget, likelihood_rows=self.likelihood_rows, seed=self.seed,
                    reading=self.reading, progress=tracked, watch=watch,
                )  # fmt: skip
        except Interrupted as stop:
            say("interrupted; what is computed is kept: the same command goes on")
            return 128 + stop.signal_number
        data, plan = open_data(self.data, self.reading), planned_in(folder)
        with bar() as progress:
            task = progress.add_task("evidence bounds by level", total=None, visible=False)

            def tick(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total, visible=True)

            levels = levels_of(folder, [*runs], data, plan, tick)
        written = pictures(folder, data, records, levels)
        write_records([*records, *level_records(levels, self.seed)], folder / "compare.json")
        show([asdict(r) for r in records])
        say(reading([asdict(r) for r in records]))
        for name in runs:
            if (folder / name).exists():
                say(f"wrote {folder / name}")
        extra = [folder / "levels.json"] if levels else []
        for path in [folder / "plan.json", folder / "compare.json", *extra, *written, write_comparison(folder)]:
            say(f"wrote {path}")
        return 0


def seconds(text: str) -> float:
    """A time as people write it; raises `UserError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|)", text.strip())
    if found is None:
        raise UserError(f"--budget must be a time such as 30s, 3m or 1h, got {text!r}")
    return float(found[1]) * UNITS[found[2]]


@contextmanager
def comparison_bar(runs: dict[str, Run]) -> Iterator[Watch]:
    """One bar for all families, with the time left; families that only count are a small part of it."""
    weights = {name: 0.02 if isinstance(run.network, CLOSED_FORM) else 1.0 for name, run in runs.items()}
    before = {name: sum([*weights.values()][:i]) for i, name in enumerate(weights)}
    told = ""
    with bar("text") as progress:
        task = progress.add_task("comparing", total=1000, text="")

        def watch(family: str, phase: Phase, share: float) -> None:
            nonlocal told
            low, high = SHARES[phase]
            done = before[family] + weights[family] * (low + (high - low) * min(share, 1.0))
            progress.update(task, completed=round(1000 * done / sum(weights.values())), text=f"{family}: {phase}")
            if not progress.console.is_terminal and told != f"{family}: {phase}":
                told = f"{family}: {phase}"
                say(told)

        yield watch


def show(records: list[dict[str, object]]) -> None:
    """The leaderboard on stdout."""
    head, rows = leaderboard_cells(records)
    show_leaderboard(head, rows)
    for r in records:
        if r["kind"] in ("not applicable", "failed"):
            print(f"{r['family']} {'is not applicable' if r['kind'] == 'not applicable' else 'failed'}: {r['unit']}")
