"""Families side by side: the same split, the same training time, the same measures; what is done is kept, and so it goes on.

A budget of time is turned into a number of steps once, by a short trial on this machine, and kept in plan.json: an interrupted
comparison ends with the same numbers as one that was not, those of the clock excepted.
"""

import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from scorefield.baselines import CLOSED_FORM, AutoregressiveConfig
from scorefield.data import Data, Progress, Reading, ScaledRows, open_data, random_rows
from scorefield.data.examples import silent
from scorefield.errors import RunError, UserError
from scorefield.experiment.config import Run, check_resumable, read_run
from scorefield.experiment.evaluate import PCA_ROWS, likelihoods
from scorefield.experiment.likelihood import Effort
from scorefield.experiment.sample import arrays
from scorefield.experiment.samplers import SamplerOptions, in_precision, sampler_named
from scorefield.experiment.train import build_model, inherit_resolved, make_folder, train
from scorefield.metrics import Features, PixelPCA, Record, memorisation_ratio
from scorefield.metrics.classifier import fit_classifier
from scorefield.metrics.evaluation import REAL
from scorefield.metrics.evaluation import compare as compare_features
from scorefield.metrics.record import finite
from scorefield.persistence import AnyModel, from_json, load, to_json
from scorefield.samplers import generate
from scorefield.samplers.generate import chunks
from scorefield.system import default_device, write_durably, written_aside
from scorefield.training import read_log

LEAST_BUDGET = 10.0
"""seconds"""
TRIAL = 0.03
"""of the budget goes into the trial that tells how many steps fit in, but at least `LEAST_TRIAL` seconds"""
LEAST_TRIAL = 2.0
MOST_PIXELS = 1024
"""an autoregressive sample costs a pass for each"""
MOST_LOGITS = 2**18
"""tables and last layers of integer families have a row for each level of each pixel"""
SAMPLES = 1000
"""drawn of each family, timed, and compared"""
MEASURES = ("Fréchet distance", "coverage")
SPEED = "seconds per 1,000 samples"
Kind = Literal["exact", "bound", "estimate", "measured", "not applicable", "failed"]
Phase = Literal["trial", "training", "likelihood", "sampling", "done"]
Watch = Callable[[str, Phase, float], None]
"""called with the family, what it is at, and the share of it that is done"""


@dataclass(frozen=True)
class FamilyRecord:
    """One line of compare.json."""

    family: str
    metric: str
    value: float | None
    """None where it is infinite, or the family not applicable or failed, which `unit` then says"""
    se: float | None
    n: int
    unit: str
    kind: Kind
    seed: int | None


@dataclass(frozen=True)
class Plan:
    """plan.json: what must stay as it is when a comparison goes on, and the steps of each family."""

    data: str
    data_fingerprint: str
    budget: float
    """seconds of training for each family"""
    likelihood_rows: int
    seed: int
    reading: Reading = field(default_factory=Reading)
    steps: dict[str, int] = field(default_factory=dict)


class Interrupted(Exception):
    """A signal came while a family was trained; its checkpoint is written."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number


def compare(
    source: str,
    runs: dict[str, Run],
    folder: Path,
    *,
    budget: float,
    likelihood_rows: int = 128,
    seed: int = 0,
    reading: Reading = Reading(),
    progress: Progress = silent,
    watch: Watch = lambda family, phase, share: None,
) -> list[FamilyRecord]:
    """Train and judge every run; the records of all, from this call or an earlier one.

    Args:
        runs: by name of the family; each is given the data, the seed, and as many steps as fit into `budget` seconds.
        folder: receives plan.json and a run folder for each family.
        likelihood_rows: held-out rows whose likelihood is computed.
        reading: how images are read.
        watch: called with what is going on.

    A family whose training or sampling breaks down has a record that says so, and is tried again next time.

    Raises:
        UserError: a budget that is too small, a folder with another comparison or something else, other settings of a family
            than those it was begun with, data that cannot be read or holds out less than two examples.
        Interrupted: a signal while training.
    """
    if not budget >= LEAST_BUDGET:
        raise UserError(f"--budget must be at least {LEAST_BUDGET:g} s, got {budget:g} s: so little trains nothing")
    if likelihood_rows < 2:
        raise UserError(f"--likelihood-rows must be at least 2, got {likelihood_rows}")
    data = open_data(source, reading, progress=progress)
    if len(data.splits["test"].x) < 2:
        raise UserError(f"{source}: too few examples are held out for testing to compare with; at least 2 are needed")
    plan = planned(folder, Plan(source, data.fingerprint, budget, likelihood_rows, seed, reading))
    features = cache(lambda: features_of(data, seed))
    records: list[FamilyRecord] = []
    for name, run in runs.items():
        training = replace(
            run.training, seed=seed, minutes=None, compile="off"
        )  # which a short trial could not tell from steps
        run = replace(run, data=source, reading=reading, training=training)
        reason = not_applicable(run, data)
        kept = folder / name / "compare.json"
        if reason is not None:
            records.append(FamilyRecord(name, "not applicable", None, None, 0, reason, "not applicable", None))
        elif kept.exists():
            check_same(run, folder / name, plan.steps.get(name))
            records += read_records(kept)
        else:
            plan = with_steps(name, run, folder, plan, progress, watch)
            try:
                fit_one(name, run, folder, plan.steps[name], progress, watch)
                found = judge(name, folder / name, data, features(), plan, watch)
            except (RunError, MemoryError, torch.OutOfMemoryError) as error:
                found = [FamilyRecord(name, "failed", None, None, 0, str(error), "failed", None)]
            else:
                write_records(found, kept)
            records += found
        if reason is None:
            watch(name, "done", 1.0)
    return records


def check_same(run: Run, folder: Path, steps: int | None) -> None:
    """Refuses a family's folder that holds another run, or one that was trained on: its records would not be the run's."""
    stored = read_run(folder)
    if stored.training.steps != steps:
        raise UserError(f"{folder} was trained for {stored.training.steps} steps, not {steps}: remove the folder")
    check_resumable(stored, replace(run, training=replace(inherit_resolved(run.training, stored.training), steps=steps)))


def planned(folder: Path, asked: Plan) -> Plan:
    """The plan in a folder, or a new one; steps that are known are kept.

    Raises:
        UserError: the folder holds another comparison, or something else.
    """
    path = folder / "plan.json"
    if path.exists():
        stored = from_json(Plan, path)
        for name in ("data", "reading", "data_fingerprint", "budget", "likelihood_rows", "seed"):
            if getattr(stored, name) != getattr(asked, name):
                said = {"data_fingerprint": "other examples in the data", "reading": "images read in another way"}
                what = said.get(name, f"{name} {getattr(stored, name)}")
                raise UserError(f"{folder} holds a comparison with {what}: give another --out, or the same settings")
        return stored
    if folder.exists() and (not folder.is_dir() or any(p.suffix != ".part" for p in folder.iterdir())):
        raise UserError(f"{folder} is already used, and not by a comparison: give another --out")
    make_folder(folder)
    write_durably(path, to_json(asked))
    return asked


def not_applicable(run: Run, data: Data) -> str | None:
    """Why a family is not for this data; None if it is."""
    d = math.prod(data.event_shape)
    if run.of_integers and data.levels is None:
        return "it models integer levels, and this data is continuous"
    if isinstance(run.network, AutoregressiveConfig) and d > MOST_PIXELS:
        return f"a sample takes a pass for each of {d:,} numbers; more than {MOST_PIXELS:,} are too slow"
    if run.of_integers and d * (data.levels or 0) > MOST_LOGITS:
        return f"it counts {d * (data.levels or 0):,} levels of numbers apart; more than {MOST_LOGITS:,} are too many"
    try:
        build_model(run, data)
    except UserError as error:
        return str(error)
    return None


def features_of(data: Data, seed: int) -> Features:
    """The last layer of a classifier of the training split where the data has classes, else its principal components."""
    train, test = data.splits["train"], data.splits["test"]
    rows, others = (ScaledRows(split.x, data.scaling) for split in (train, test))
    if not data.classes or train.labels is None or test.labels is None:
        return PixelPCA.fit(rows[random_rows(len(rows), PCA_ROWS, seed, "components")])
    found = fit_classifier(rows, train.labels, others, test.labels, len(data.classes), seed=seed)
    return replace(found.features, name=f"{found.features.name} that is right on {found.accuracy:.1%} of held-out data")


def with_steps(name: str, run: Run, folder: Path, plan: Plan, progress: Progress, watch: Watch) -> Plan:
    """The plan with the steps of a family, written down before its training begins."""
    if name in plan.steps:
        return plan
    if isinstance(run.network, CLOSED_FORM):
        steps = 1
    else:
        watch(name, "trial", 0.0)
        steps = affordable(run, plan.budget, progress)
    plan = replace(plan, steps=plan.steps | {name: steps})
    write_durably(folder / "plan.json", to_json(plan))
    return plan


def fit_one(name: str, run: Run, folder: Path, steps: int, progress: Progress, watch: Watch) -> None:
    """Train a family's run, from where it was left."""
    run = replace(run, training=replace(run.training, steps=steps))
    resume = (folder / name / "run.json").exists()
    done = train(
        run,
        folder / name,
        resume=resume,
        progress=progress,
        started=lambda run, data, model: lambda step, fields: watch(name, "training", step / steps),
    )
    if done.outcome.signal_number is not None:
        raise Interrupted(done.outcome.signal_number)


def affordable(run: Run, budget: float, progress: Progress) -> int:
    """How many steps of this run the budget pays for, by a short trial; rounded to two digits."""
    trial = max(LEAST_TRIAL, TRIAL * budget)
    with tempfile.TemporaryDirectory() as aside:
        run = replace(run, training=replace(run.training, steps=None, minutes=trial / 60))
        outcome = train(run, Path(aside) / "trial", progress=progress).outcome
    if outcome.signal_number is not None:
        raise Interrupted(outcome.signal_number)
    steps = max(1.0, budget * outcome.step / outcome.seconds)
    digits = 10 ** max(0, math.floor(math.log10(steps)) - 1)
    return max(1, round(steps / digits) * digits)


def judge(name: str, folder: Path, data: Data, features: Features, plan: Plan, watch: Watch) -> list[FamilyRecord]:
    """The likelihood of held-out data, how far samples are from it, what they cost, and the model's size."""
    device = default_device()
    model = load(folder, device=device)
    rows = min(plan.likelihood_rows, len(data.splits["test"].x))
    densities, _ = likelihoods(
        model, data, folder, rows, Effort(), plan.seed, device, counting(lambda done: watch(name, "likelihood", done / rows))
    )
    found = likelihood_records(name, densities)
    samples, seconds = timed_samples(model, folder, plan.seed, device, lambda share: watch(name, "sampling", share))
    found += sample_records(name, samples, data, features, plan.seed)
    size = sum(p.numel() for p in model.parameters()) or sum(b.numel() for b in model.buffers())
    trained, threads = read_run(folder).training, torch.get_num_threads()
    clock = f"seconds, {device.type}, {threads} thread{'s' * (threads > 1)}"
    for metric, value, n, unit in (
        (SPEED, seconds, SAMPLES, clock),
        ("parameters", float(size), 1, "numbers"),
        ("training", trained_seconds(folder), 1, clock),
        ("training steps", float(trained.steps or 0), 1, f"steps of {trained.batch_size}"),
    ):
        found.append(FamilyRecord(name, metric, value, None, n, unit, "measured", None))
    return found


def counting(told: Callable[[int], None]) -> Callable[[int], None]:
    """A function that is told parts, and tells their sum."""
    done = 0

    def tick(part: int) -> None:
        nonlocal done
        done += part
        told(done)

    return tick


def timed_samples(
    model: AnyModel, folder: Path, seed: int, device: torch.device, watch: Callable[[float], None]
) -> tuple[Tensor, float]:
    """`SAMPLES` samples as a user gets them, in scaled units, and the seconds they take; they are kept in samples.npz."""
    sampler = sampler_named(SamplerOptions(), model)
    score, states = in_precision(model, "auto", device, sampler), chunks(SAMPLES) * sampler.states
    tick = counting(lambda done: watch(done / states))
    began = time.monotonic()
    drawn = generate(score, sampler, SAMPLES, model.event_shape, seed=seed, device=device, watch=lambda chunk, state: tick(1))
    x = torch.cat([part.cpu() for part in drawn])
    seconds = time.monotonic() - began
    with written_aside(folder / "samples.npz") as aside, aside.open("wb") as file:
        np.savez_compressed(file, samples=arrays(x, model.spec))
    scaling = model.spec.scaling
    return scaling.encode(scaling.decode(x)), seconds


def trained_seconds(folder: Path) -> float:
    """What training took, all resumes together; 0 for families that only count."""
    log = folder / "log.jsonl"
    times = [r["trained_seconds"] for r in read_log(log) if "trained_seconds" in r] if log.exists() else []
    return times[-1] if times else 0.0


LIKELIHOODS: tuple[tuple[str, Kind], ...] = (
    (", exact", "exact"), (", bound of", "bound"), (", energy less log Z", "estimate"), (", probability flow", "estimate"),
    (", evidence bound", "bound"),
)  # fmt: skip
"""how names of `evaluate`'s metrics go on after the unit's name, the one to quote first"""


def likelihood_records(name: str, records: Sequence[Record]) -> list[FamilyRecord]:
    """The likelihood, with its kind; of scores two, by the probability flow and the evidence bound of the chain."""
    found: list[FamilyRecord] = []
    for ending, kind in LIKELIHOODS:
        for r in records:
            if ending in r.metric:
                metric = "likelihood" if not found else "likelihood, second estimate"
                unit = f"{r.unit}; {r.metric.partition(', ')[2]}"
                found.append(FamilyRecord(name, metric, finite(r.value), finite(r.se), r.n, unit, kind, r.seed))
    return found


def sample_records(name: str, samples: Tensor, data: Data, features: Features, seed: int) -> list[FamilyRecord]:
    """Distances of samples from held-out data, and of as many training rows in their place; whether samples are copies."""
    train, test = (ScaledRows(data.splits[split].x, data.scaling) for split in ("train", "test"))
    n = min(len(samples), len(train))
    real = test[random_rows(len(test), n, seed, "real rows")]
    reference = train[random_rows(len(train), n, seed, "reference rows")]
    found = []
    for fake, ending in ((samples[:n], ""), (reference, REAL)):
        for metric, (value, se), unit in compare_features(features(fake), features(real), features.name):
            if metric in MEASURES:
                unit = f"{unit}; {len(fake):,} against {len(real):,} held out"
                found.append(FamilyRecord(name, metric + ending, value, se, len(fake), unit, "measured", seed))
    copies = memorisation_ratio(samples, train, real, seed=seed)
    if copies is not None:
        unit = "ratio of median distances to the nearest training row"
        found.append(FamilyRecord(name, "memorisation ratio", *copies, SAMPLES, unit, "measured", seed))
    return found


def write_records(records: Sequence[FamilyRecord], path: Path) -> None:
    """A list of records as JSON, atomically."""
    lines = finite([asdict(r) for r in records])
    write_durably(path, json.dumps(lines, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_records(path: Path) -> list[FamilyRecord]:
    """The records in a file that `write_records` wrote; `UserError` if it is damaged."""
    try:
        return [FamilyRecord(**line) for line in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): remove it, and the family is judged again") from error


def planned_in(folder: Path) -> Plan:
    """The plan of a comparison."""
    return from_json(Plan, folder / "plan.json")
