"""scorefield compare TABLE: densities of a table side by side."""

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tyro
from tyro.conf import Positional, arg

from scorefield.cli.display import bar, say, show_leaderboard
from scorefield.data.columns import infer
from scorefield.data.tables import read_table
from scorefield.data.transforms import Encoding
from scorefield.errors import UserError
from scorefield.experiment.compare import FamilyRecord
from scorefield.metrics.tables import classifier_two_sample_test
from scorefield.plots import figure_png
from scorefield.plots.compare import Panel, leaderboard
from scorefield.randomness import derive_seed
from scorefield.recipes.tables import TableFamily, table_families
from scorefield.report import table_comparison_cells, write_table_comparison
from scorefield.system import write_durably

TEST = 0.2
"""share of the rows that are held out"""
FEWEST = 50
"""rows"""
DRAWN = 1000
"""samples by whose time the speed is told"""


@dataclass(frozen=True)
class CompareTable:
    """Fit densities of several kinds to the rows of TABLE, and set them side by side.

    A kernel density, a Gaussian mixture, a neural spline flow (if zuko is installed), an energy and a score, all of the same
    columns under the same transforms. A fifth of the rows is held out, and gets a log-density from each, nats a row, in the
    units of the table; a classifier tries to tell their samples from it.

    If it was interrupted, the same command goes on after the last density that was done.

    Example: `scorefield compare people.csv`.
    """

    data: Annotated[Positional[Path], arg(metavar="TABLE")]
    """a .csv, .tsv (or .gz of them) or .parquet file"""
    families: tuple[str, ...] = ()
    """which (all): kernel, mixture, spline-flow, energy, score"""
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """where compare.json, compare.html and leaderboard.png go (runs/compare-TABLE)"""
    seed: int = 0
    """all randomness follows from it"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "CompareTable":
        return cls(tyro.MISSING)

    def __call__(self) -> int:
        families, frame = table_families(self.families), read_table(self.data)
        folder = self.out or Path("runs") / f"compare-{self.data.name.partition('.')[0]}"
        if len(frame) < FEWEST:
            raise UserError(f"{self.data}: at least {FEWEST} rows are needed to compare, got {len(frame)}")
        torn = np.flatnonzero(frame.isna().any(axis=1))
        if len(torn) and "score" not in families:
            raise UserError(
                f"{self.data}: row {torn[0]} has missing values, which only score takes: add it to --families, or fill them by "
                "scorefield impute"
            )
        print_of_data = hashlib.sha256(self.data.read_bytes()).hexdigest()
        plan = {"data": self.data.name, "sha256": print_of_data, "rows": len(frame), "seed": self.seed, "held_out": TEST}
        begin(folder, plan)
        found: dict[str, dict[str, Any]] = {}
        with bar("text") as progress:
            task = progress.add_task("comparing", total=len(families), text="")
            for name, family in families.items():
                progress.update(task, text=name)
                found[name] = judged(name, family, frame, self.seed, folder)
                progress.advance(task)
        records = table_of(found, self.seed)
        content = {"plan": plan, "records": [asdict(r) for r in records], "refused": refused_of(found)}
        write_durably(folder / "compare.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
        written = [folder / "compare.json"]
        if records:
            written.append(folder / "leaderboard.png")
            write_durably(written[-1], figure_png(leaderboard([*done(found)], panels(records))))
        show(records)
        for name, reason in refused_of(found).items():
            print(f"{name} is not applicable: {reason}")
        for path in [
            folder / "compare.json",
            *([folder / "leaderboard.png"] if records else []),
            write_table_comparison(folder),
        ]:
            say(f"wrote {path}")
        return 0


def begin(folder: Path, plan: dict[str, Any]) -> None:
    """Write the plan, or find the same one; raises `UserError` for a folder with another."""
    path, text = folder / "plan.json", json.dumps(plan, indent=2) + "\n"
    if path.exists() and path.read_text() != text:
        raise UserError(f"{folder} holds a comparison with other data or another seed: give another --out")
    if not path.exists() and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is already used: give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(path, text)


def judged(name: str, family: TableFamily, frame: pd.DataFrame, seed: int, folder: Path) -> dict[str, Any]:
    """What there is to say of a density, kept in `folder`/NAME.json; read from there if it was computed before."""
    path = folder / f"{name}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    order = np.random.default_rng(derive_seed(seed, "held-out rows of a table")).permutation(len(frame))
    cut = round(TEST * len(frame))
    test, train = (frame.iloc[rows].reset_index(drop=True) for rows in (order[:cut], order[cut:]))
    columns = infer(frame)
    model, began = family.make({c.name: c.kind for c in columns}, seed), time.monotonic()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(train)
            words = [str(w.message) for w in caught if issubclass(w.category, UserWarning) and "log Z" in str(w.message)]
        fitted = time.monotonic()
        rows = model.score_samples(test)
        scored = time.monotonic()
        samples = model.sample(DRAWN, random_state=seed)
        drawn = time.monotonic()
    except UserError as error:
        return {"refused": str(error)}  # not kept: a library may be installed
    many = samples if len(test) <= DRAWN else model.sample(len(test), random_state=seed)
    plain = Encoding(tuple(columns), ())
    told_apart = classifier_two_sample_test(plain.numbers(test), plain.numbers(many), seed=seed)
    found = {
        "kind": family.kind, "log_density": rows.tolist(), "problems": words, "two_sample": told_apart._asdict(),
        "fit": fitted - began, "score": scored - fitted, "sample": drawn - scored,
    }  # fmt: skip
    write_durably(path, json.dumps(found) + "\n")
    return found


def done(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those that were fitted."""
    return {name: values for name, values in found.items() if "refused" not in values}


def refused_of(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Reasons of those that were not, by name."""
    return {name: values["refused"] for name, values in found.items() if "refused" in values}


def table_of(found: dict[str, dict[str, Any]], seed: int) -> list[FamilyRecord]:
    """Records of the densities; differences to the best are row by row."""
    fitted = done(found)
    rows = {name: np.array(values["log_density"]) for name, values in fitted.items()}
    best, records = max(rows, key=lambda name: float(rows[name].mean()), default=""), []
    for name, values in fitted.items():
        n, test = len(rows[name]), values["two_sample"]
        share = f"share; 95 % from {test['low']:.3f} to {test['high']:.3f}"

        def add(metric: str, value: float, se: float | None, n: int, unit: str, of: str = name) -> None:
            records.append(FamilyRecord(of, metric, value, se, n, unit, fitted[of]["kind"], seed))

        add("log-density", *mean(rows[name]), n, "; ".join(["nats a row", *values["problems"]]))
        add("less than the best", *mean(rows[best] - rows[name]), n, "nats a row, paired")
        add("two-sample accuracy", test["accuracy"], (test["high"] - test["low"]) / (2 * 1.96), test["n"], share)
        add("seconds per 1,000 samples", values["sample"] / DRAWN * 1000, None, DRAWN, "s")
        add("seconds of training", values["fit"], None, n, "s")
    return records


def mean(values: np.ndarray) -> tuple[float, float]:
    """With its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def panels(records: Sequence[FamilyRecord]) -> list[Panel]:
    """log-density, how well samples are told from rows, and speed."""

    def of(metric: str, title: str, best: Callable[[list[float]], float], logarithmic: bool = False) -> Panel:
        own = [r for r in records if r.metric == metric]
        values: list[float] = [r.value for r in own if r.value is not None]
        return Panel(title, values, [r.se for r in own], [r.kind for r in own], logarithmic, None, best(values))

    return [
        of("log-density", "log-density, nats", max),
        of("two-sample accuracy", "two-sample accuracy (½: alike)", lambda values: min(values, key=lambda v: abs(v - 0.5))),
        of("seconds per 1,000 samples", "seconds per 1,000 samples", min, logarithmic=True),
    ]


def show(records: Sequence[FamilyRecord]) -> None:
    """The leaderboard on stdout."""
    head, rows = table_comparison_cells([asdict(r) for r in records], plain=True)
    show_leaderboard(head, rows)
