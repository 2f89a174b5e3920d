"""The commands on tables: train, sample, evaluate, logprob and impute, for .csv, .tsv, .parquet and the runs made of them."""

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import pyarrow as pa
import tyro
from tyro.conf import Positional, arg

from scorefield.cli.compare_tables import CompareTable
from scorefield.cli.describe import show
from scorefield.cli.display import rows_bar, say, show_records
from scorefield.cli.evaluate_tables import FEWEST, checked_numbers, evaluate_table
from scorefield.cli.table_runs import CHECKPOINT, is_table_run
from scorefield.data.columns import ColumnKind
from scorefield.data.tables import TableFile, check_suffix, is_table, read_table, table_writer
from scorefield.errors import UserError
from scorefield.estimators import ScoreDensity
from scorefield.estimators.table import FEWEST as FEWEST_ROWS
from scorefield.experiment.sample import check_place
from scorefield.randomness import derive_seed
from scorefield.report import write_table_report
from scorefield.system import default_device

PART = 8192
"""rows of a table that are read, computed and written together"""


@dataclass(frozen=True)
class TrainTable:
    """Learn the density of the rows of TABLE and write a run folder.

    Columns are found from their values (`scorefield describe TABLE` shows them); gaps are allowed. Other data than tables has
    other flags: see `scorefield train --help`.

    Example: `scorefield train people.csv --out runs/people --columns zip=categorical`.
    """

    data: Annotated[Positional[Path], arg(metavar="TABLE")]
    """a .csv, .tsv (or .gz of them) or .parquet file"""
    out: Annotated[Path, arg(metavar="RUN")]
    """the run folder; must be new or empty, unless --resume"""
    resume: bool = False
    """go on with the training in RUN that was interrupted; all else must be as it was"""
    columns: Annotated[tuple[str, ...], arg(metavar="NAME=KIND")] = ()
    """what some columns are: continuous, positive, bounded, integer, binary, categorical, datetime or constant"""
    steps: int | None = None
    """of training (0.6 a row, from 300 to 8000); 0 for the Gaussian mixture alone"""
    seed: int = 0
    """all randomness follows from it"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "TrainTable":
        return cls(tyro.MISSING, tyro.MISSING)

    def __call__(self) -> int:
        if self.steps is not None and self.steps < 0:
            raise UserError(f"--steps must be at least 0, got {self.steps}")
        checkpoint = self.out / CHECKPOINT
        check_run(self.out, checkpoint, self.resume)
        frame = read_table(self.data)
        if FEWEST_ROWS <= len(frame) <= len(frame.columns):
            few = f"{len(frame)} rows are too few for {len(frame.columns)} columns"
            raise UserError(f"{self.data}: {few}: a density needs more rows than columns; leave columns out")
        steps: Any = "auto" if self.steps is None else self.steps
        model = ScoreDensity(
            columns=overrides(self.columns), steps=steps, random_state=self.seed, verbose=True, device=default_device().type,
            checkpoint=checkpoint,
        )  # fmt: skip
        try:
            with one_line(self.data):
                model.fit(frame)
        except KeyboardInterrupt:
            if checkpoint.exists():
                say(f"{checkpoint} keeps the training so far; go on with: {self.again}")
            raise
        show(model.columns_)
        model.save(self.out)
        components, network = model.parts_.components, not model.model_.untouched
        base = "one Gaussian" if components == 1 else f"a mixture of {components} Gaussians"
        kept = "and a network" if network else "alone (held-out rows like no network better)" if model.steps else "alone"
        say(f"{self.data}: {len(frame)} rows; {base} {kept}; seed {self.seed}")
        for name in ("config.json", "model.safetensors"):
            say(f"wrote {self.out / name}")
        return 0

    @property
    def again(self) -> str:
        """The command that goes on with this one."""
        steps = [] if self.steps is None else ["--steps", str(self.steps)]
        columns = ["--columns", *self.columns] if self.columns else []
        words = [str(self.data), "--out", str(self.out), *columns, *steps, "--seed", str(self.seed), "--resume"]
        return shlex.join(["scorefield", "train", *words])


def check_run(folder: Path, checkpoint: Path, resume: bool) -> None:
    """Raises `UserError` for a folder that is used, unless it holds just an interrupted training that is to be resumed."""
    if resume and not checkpoint.exists():
        raise UserError(f"{folder} holds no interrupted training of a table: leave out --resume")
    if folder.exists() and (not folder.is_dir() or any(path != checkpoint for path in folder.iterdir())):
        raise UserError(f"{folder} is already used: give another --out")
    if checkpoint.exists() and not resume:
        raise UserError(f"{folder} holds an interrupted training: go on with --resume, or give another --out")


def overrides(texts: Sequence[str]) -> dict[str, ColumnKind] | None:
    """NAME=KIND, each; raises `UserError` for anything else."""
    found: dict[str, ColumnKind] = {}
    for text in texts:
        name, equals, kind = text.rpartition("=")
        if not equals or kind not in get_args(ColumnKind):
            raise UserError(f"--columns takes NAME=KIND, KIND one of {', '.join(get_args(ColumnKind))}; got {text!r}")
        found[name] = kind  # type: ignore[assignment]
    return found or None


@dataclass(frozen=True)
class SampleTable:
    """Draw new rows from the model in RUN; columns, their order and their types are the table's.

    Example: `scorefield sample runs/people -n 1000 --out more.csv`.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """a run of a table"""
    out: Annotated[Path, arg(metavar="FILE")]
    """a .csv, .tsv (or .gz of them) or .parquet file"""
    n: Annotated[int, arg(aliases=("-n",))] = 1000
    """how many"""
    seed: int = 0
    """all randomness follows from it"""
    overwrite: bool = False
    """replace FILE if it exists"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "SampleTable":
        return cls(tyro.MISSING, tyro.MISSING)

    def __call__(self) -> int:
        if self.n < 1:
            raise UserError(f"-n must be at least 1, got {self.n}")
        check_out(self.out, self.overwrite)
        model = loaded(self.run)
        with rows_bar("drawing", self.n) as moved, table_writer(self.out) as write:
            for part in model.samples(self.n, random_state=self.seed):
                write(part)
                moved(len(part))
        say(f"wrote {self.out}: {self.n} rows, seed {self.seed}")
        return 0


@dataclass(frozen=True)
class EvaluateTable:
    """Judge the model in RUN on the rows of TABLE, and write evaluation.json, pictures and report.html into RUN.

    Samples are put beside rows, column by column, in pairs and in correlations, and a classifier tries to tell them apart; it
    is looked whether samples are copies; the rows' log-density is measured, and the oddest are shown with the columns that make
    them so. Rows that were not trained on judge best: say then, by --trained-on, where copies are to be looked for.

    Example: `scorefield evaluate runs/people new.csv --trained-on people.csv`.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """a run of a table"""
    data: Annotated[Positional[Path | None], arg(metavar="TABLE")] = None
    """rows with the columns that the run was trained on"""
    n: Annotated[int, arg(aliases=("-n",))] = 5000
    """how many rows of TABLE, chosen at random, are compared with as many samples (at most all)"""
    trained_on: Annotated[Path | None, arg(metavar="TABLE")] = None
    """the table the run was trained on, if it is another: copies are looked for among its rows"""
    seed: int = 0
    """all randomness follows from it"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "EvaluateTable":
        return cls(tyro.MISSING)

    def __call__(self) -> int:
        if self.n < FEWEST:
            raise UserError(f"-n must be at least {FEWEST}, got {self.n}")
        if self.data is None:
            raise UserError(f"a run of a table is judged on the rows of a table: scorefield evaluate {self.run} TABLE")
        model, frame = loaded(self.run), read_table(self.data)
        trained_on = None if self.trained_on is None else read_table(self.trained_on)
        if self.trained_on is not None:
            with one_line(self.trained_on):
                checked_numbers(model, trained_on)
        with one_line(self.data):
            records, written = evaluate_table(model, frame, self.run, self.n, trained_on=trained_on, seed=self.seed)
        show_records(records)
        for path in [*written, write_table_report(self.run)]:
            say(f"wrote {path}")
        return 0


@dataclass(frozen=True)
class LogProbTable:
    """The log-density of each row of TABLE, and how unusual it is, beside the table's own columns.

    log_density is in nats, in the units of the table, of what is there; se is 0, since nothing is left to chance;
    anomaly_pvalue is small for anomalies: at most a share α of ordinary rows has p ≤ α.

    Example: `scorefield logprob runs/people people.csv --out scored.csv`.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """a run of a table"""
    data: Annotated[Positional[Path], arg(metavar="TABLE")]
    """rows with the columns that the run was trained on"""
    out: Annotated[Path, arg(metavar="FILE")]
    """a .csv, .tsv (or .gz of them) or .parquet file"""
    overwrite: bool = False
    """replace FILE if it exists"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "LogProbTable":
        return cls(tyro.MISSING, tyro.MISSING, tyro.MISSING)

    def __call__(self) -> int:
        check_out(self.out, self.overwrite)
        model, table, odd = loaded(self.run), TableFile.open(self.data), 0
        for name in ("log_density", "se", "anomaly_pvalue"):
            if name in table.schema.names:
                raise UserError(f"{self.data} has a column {name!r} already: rename it")
        check_names(self.data, table.schema.names, model)
        with rows_bar("scoring", table.rows) as moved, table_writer(self.out, table.schema) as write:
            for part in table.frames(PART):
                with one_line(self.data, part.index[0]):
                    p_values = model.anomaly_pvalue(part)
                    write(part.assign(log_density=model.score_samples(part), se=0.0, anomaly_pvalue=p_values))
                odd += int((p_values <= 0.05).sum())
                moved(len(part))
        say(f"wrote {self.out}: {table.rows} rows, {odd / table.rows:.1%} of them with p ≤ 0.05 (ordinary: 5 %)")
        return 0


@dataclass(frozen=True)
class Impute:
    """Fill the gaps of TABLE by draws from their law given what is there; what is there stays as it is.

    Several draws tell how sure that is: they stand below each other, numbered in a first column `draw`. Values are taken to be
    missing at random: that they are may depend on what is there, not on what is not.

    Example: `scorefield impute runs/people people.csv --draws 5 --out filled.csv`.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """a run of a table"""
    data: Annotated[Positional[Path], arg(metavar="TABLE")]
    """rows with the columns that the run was trained on"""
    out: Annotated[Path, arg(metavar="FILE")]
    """a .csv, .tsv (or .gz of them) or .parquet file"""
    draws: int = 5
    """completions of the table"""
    seed: int = 0
    """all randomness follows from it"""
    overwrite: bool = False
    """replace FILE if it exists"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "Impute":
        return cls(tyro.MISSING, tyro.MISSING, tyro.MISSING)

    def __call__(self) -> int:
        if self.draws < 1:
            raise UserError(f"--draws must be at least 1, got {self.draws}")
        check_out(self.out, self.overwrite)
        if not is_table_run([str(self.run)]):
            raise UserError(f"{self.run} is no run of a table: scorefield inpaint fills images")
        model, table, gaps = loaded(self.run), TableFile.open(self.data), 0
        if self.draws > 1 and "draw" in table.schema.names:
            raise UserError(f"{self.data} has a column 'draw' already: rename it")
        check_names(self.data, table.schema.names, model)
        with (
            rows_bar("filling", table.rows * self.draws) as moved,
            table_writer(self.out, kept_types(table.schema, model)) as write,
        ):
            for draw in range(self.draws):  # the file is read once for each, so that they stand below each other
                for part in table.frames(PART):
                    with one_line(self.data, part.index[0]):
                        key = derive_seed(self.seed, "imputation of a part", draw, part.index[0])
                        filled = model.impute(part, random_state=key)[0]
                    if self.draws > 1:
                        filled.insert(0, "draw", draw + 1)
                    write(filled)
                    gaps += int(part.isna().to_numpy().sum())
                    moved(len(part))
        gaps //= self.draws
        say(f"wrote {self.out}: {gaps} gaps in {table.rows} rows filled, {self.draws} draws, seed {self.seed}")
        return 0


@contextmanager
def one_line(table: Path, before: int = 0) -> Iterator[None]:
    """What the estimator refuses of a table is the user's mistake. So many rows were before: rows are numbered throughout."""
    try:
        yield
    except ValueError as error:
        said = " ".join(str(error).split())
        said = re.sub(r"^(column '.*?', )?row (\d+)", lambda m: f"{m[1] or ''}row {before + int(m[2])}", said, count=1)
        raise UserError(f"{table}: {said}") from error


def check_out(path: Path, overwrite: bool) -> None:
    """Refuses what could not be written, before any work is done."""
    check_suffix(path)
    check_place(path, overwrite)


TABLE_COMMANDS: dict[str, Any] = {
    "train": TrainTable, "sample": SampleTable, "evaluate": EvaluateTable, "logprob": LogProbTable,
    "compare": CompareTable,
}  # fmt: skip
"""instead of the commands on images and vectors"""


NOT_YET_OF_TABLES = ("logz", "compose", "inpaint")
"""commands that a run of a table is refused by"""


def check_names(table: Path, names: Sequence[str], model: ScoreDensity) -> None:
    """Raises `UserError` for other columns than those of the model, or in another order."""
    known = [c.name for c in model.encoding_.columns]
    with one_line(table):
        model.encoding_.check_present(names)
    for name in names:
        if name not in known:
            raise UserError(f"{table}: column {name!r} was not there in fitting: leave it out")
    if [*names] != known:
        raise UserError(f"{table}: the columns are in another order than in fitting: {', '.join(known)}")


def kept_types(schema: pa.Schema, model: ScoreDensity) -> pa.Schema:
    """The types of columns that hold what the model draws: a column without values, or with decimals now, has others."""
    fractions = {c.name for c in model.encoding_.columns if c.kind in ("continuous", "positive", "bounded")}
    return pa.schema(
        field
        for field in schema
        if not pa.types.is_null(field.type) and not (pa.types.is_integer(field.type) and field.name in fractions)
    )


def loaded(folder: Path) -> ScoreDensity:
    """The density in a folder, for the device there is; raises `UserError` where there is none (yet)."""
    if (folder / CHECKPOINT).exists():
        raise UserError(f"{folder} holds an interrupted training: go on by scorefield train TABLE --out {folder} --resume")
    return ScoreDensity.load(folder, default_device().type)


def concerns_table(name: str, arguments: Sequence[str]) -> bool:
    """Whether a command is about a table, or a run of one."""
    if name not in TABLE_COMMANDS:
        return False
    if name in ("train", "compare"):
        out = arguments.index("--out") + 1 if "--out" in arguments else -1
        return any(is_table(a) for i, a in enumerate(arguments) if i != out and not a.startswith("-"))
    return is_table_run(arguments)
