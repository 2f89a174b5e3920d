"""`scorefield train`: where its defaults come from, when a run ends, what may change on --resume, several processes."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorefield.cli import main
from scorefield.cli.display import training_bar
from scorefield.cli.parse import Given
from scorefield.cli.train import Train, report
from scorefield.experiment import Run, read_run, train
from scorefield.interfaces import Loss
from scorefield.objectives import DenoisingScoreMatching
from scorefield.recipes import digits
from scorefield.training import Outcome, Training, read_log

QUICK = ["--batch-size", "8", "--network.channels", "8", "--threads", "1", "--precision", "float32"]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: re.sub(r"\s+", " ", capsys.readouterr().err)


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


# ── where the defaults come from ───────────────────────────────────────────────────────────────────────────────────────

GROUPS = [
    ["--steps", "2"], ["--out=r5"], ["--recipe", "digits"], ["--energy"], ["--no-energy"], ["--network.no-attention"],
    ["--network.multipliers", "1", "2", "--seed", "-3"], ["--sigma-range", "0.01", "50"], ["--skip-bad"], ["--resume"],
    ["--reading.size", "8"], ["--network.kind", "mlp", "--network.width", "32"], ["--objective.noise.kind=geometric"],
    ["--learning_rate", "1e-3"],
]  # fmt: skip


@given(st.permutations([["DATA"], *GROUPS]))
def test_data_is_told_from_the_values_of_flags_in_any_order(groups: list[list[str]]) -> None:
    arguments = Given(Train, [token for group in groups for token in group])
    assert arguments.positional == ["DATA"]
    assert arguments.value("--network.kind") == "mlp"
    assert arguments.value("--objective.noise.kind") == "geometric"
    assert arguments.value("--out") == "r5"
    assert arguments.value("--learning-rate") == "1e-3"
    assert arguments.value("--seed") == "-3"
    assert "--resume" in arguments
    assert arguments.value("--resume") is None
    assert "--minutes" not in arguments


def test_the_recipe_is_that_of_data_wherever_it_stands() -> None:
    assert Train.defaults(["--steps", "2", "--out", "r5", "digits"]).run == digits()
    assert Train.defaults(["digits", "--network.channels", "8", "--out", "r5"]).run == digits()
    assert Train.defaults(["--network.no-attention", "digits", "--out", "r5"]).run == digits()
    assert Train.defaults(["--out", "r5", "photos", "--energy"]).run.recipe == "images"
    assert Train.defaults(["digits", "--out", "r5", "--recipe", "vectors"]).run.network.kind == "mlp"


def test_the_stored_run_wins_over_a_recipe_on_resume(run: Path, said: Callable[[], str]) -> None:
    assert main(["train", "digits", "--out", "run", "--resume", "--recipe", "images"]) == 2
    assert said() == "scorefield: cannot resume with another configuration: recipe was digits, now images "
    assert main(["train", "--resume", "--recipe", "digits", "--out", "run", "digits"]) == 0
    assert "finished already" in said()


def test_energies_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--energy", "digits", "--steps", "2", "--out", "run", *QUICK]) == 0
    assert read_run(Path("run")).energy
    assert main(["sample", "run", "-n", "2", "--steps", "2", "--out", "x.npz"]) == 0


# ── when a run ends ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_minutes_instead_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scorefield.recipes.registry.OWN", {"digits": lambda: brief(digits())})
    assert main(["train", "digits", "--out", "run", "--minutes", "0.02", *QUICK]) == 0
    training = read_run(Path("run")).training
    assert (training.steps, training.minutes) == (None, 0.02)
    done = read_log(Path("run/log.jsonl"))[-1]["step"]
    assert done > 3  # the recipe's steps did not limit it
    said()

    assert main(["train", "digits", "--out", "run", "--resume"]) == 0
    assert f"run is finished already: {done} steps in 0.02 minutes; give --minutes a larger number" in said()
    assert main(["train", "digits", "--out", "run", "--resume", "--steps", str(done + 2)]) == 0
    assert f"{done + 2} steps" in said()
    training = read_run(Path("run")).training
    assert (training.steps, training.minutes) == (done + 2, None)


def brief(run: Run) -> Run:
    return replace(run, training=replace(run.training, steps=3))


def test_the_hint_can_be_pasted_into_a_shell(tmp_path: Path, said: Callable[[], str]) -> None:
    outcome = Outcome(0, 7, 1.0, signal.SIGINT)
    done = SimpleNamespace(outcome=outcome, run=digits(), changes=[])
    assert report(done, "my photos", Path("runs/it's mine")) == 130  # type: ignore[arg-type]
    command = said().split("go on with: ")[1]
    assert shlex.split(command) == ["scorefield", "train", "my photos", "--out", "runs/it's mine", "--resume"]


@pytest.mark.parametrize(
    ("log_every", "lines"),
    [(1, [*range(10, 101, 10)]), (7, [14, 21, 35, 42, 50, 63, 70, 84, 91, 100]), (45, [45, 50, 90, 100]), (100, [50, 100])],
)
def test_a_line_at_the_first_news_of_each_tenth(log_every: int, lines: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    with training_bar(Training(steps=100)) as watch:
        for step in range(1, 101):
            fields = {"loss": 0.5} if step % log_every == 0 or step == 100 else {}
            watch(step, fields | ({"validation": 0.25} if step % 50 == 0 else {}))
    said = re.findall(r"step (\d+) of 100: 0.5000 loss", capsys.readouterr().err)
    assert [int(step) for step in said] == [step for step in lines if log_every <= step]


def test_time_is_the_measure_of_a_run_of_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    with training_bar(Training(minutes=1.0)) as watch:
        for step in range(1, 21):
            watch(step, {"loss": 0.5, "trained_seconds": 3.0 * step})
    said = re.findall(r"step (\d+), (\d+) of 60 seconds", capsys.readouterr().err)
    assert said == [(str(2 * tenth), str(6 * tenth)) for tenth in range(1, 11)]


# ── what may change on --resume ────────────────────────────────────────────────────────────────────────────────────────


def test_changed_data_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]) -> None:
    monkeypatch.chdir(tmp_path)
    points = np.random.default_rng(0).normal(size=(50, 2))
    np.save("points.npy", points)
    flags = ["--steps", "2", "--network.width", "8", "--batch-size", "8"]
    assert main(["train", "points.npy", "--out", "run", *flags]) == 0
    np.save("points.npy", points)  # the same again, at another time
    assert main(["train", "points.npy", "--out", "run", "--resume", "--steps", "3"]) == 0
    np.save("points.npy", points[::-1])
    said()
    assert main(["train", "points.npy", "--out", "run", "--resume", "--steps", "4"]) == 2
    assert "scorefield: cannot resume: points.npy no longer holds the examples this run began with" in said()
    assert read_run(Path("run")).training.steps == 3


def test_another_number_of_processes_is_another_run(run: Path, said: Callable[[], str]) -> None:
    fields = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**fields, "processes": 4}))
    assert main(["train", "digits", "--out", "run", "--resume", "--steps", "20"]) == 2
    assert "cannot resume: the run was begun by 4 processes, now there are 1" in said()


def test_a_full_disk_leaves_a_run_that_goes_on(
    run: Path, tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    logged = (run / "log.jsonl").stat().st_size

    def fsync(descriptor: int, sync: Callable[[int], None] = os.fsync) -> None:
        if (run / "log.jsonl").stat().st_size > logged:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    before = sorted(p.name for p in (run / "checkpoints").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        assert main(["train", "digits", "--out", "run", "--resume", "--steps", "20"]) == 1
    assert "scorefield: cannot write run/log.jsonl: the disk is full; checkpoints stay valid, go on with --resume" in said()
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == before
    assert main(["train", "digits", "--out", "run", "--resume"]) == 0
    assert main(["train", "digits", "--out", "whole", *tiny_flags, "--steps", "20"]) == 0
    assert (run / "model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_nothing_is_written_before_the_first_gradient(tmp_path: Path) -> None:
    class Failing(DenoisingScoreMatching):
        def __call__(self, *arguments: object, **options: object) -> Loss:  # type: ignore[override]
            raise RuntimeError("cannot be trained")

    run = replace(digits(), objective=Failing())
    with pytest.raises(RuntimeError, match="cannot be trained"):
        train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_log_is_named(run: Path, said: Callable[[], str]) -> None:
    with open(run / "log.jsonl", "r+b") as file:
        file.write(b"\0" * 10)
    assert main(["evaluate", "run", "-n", "2", "--steps", "2"]) == 2
    assert "scorefield: run/log.jsonl is damaged in line 1" in said()


# ── several processes ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_processes_train_one_model(run: Path, tiny_flags: list[str]) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "scorefield"]

    def torchrun(*arguments: str) -> str:
        done = subprocess.run([*launch, *arguments], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stderr

    first = torchrun("train", "digits", "--out", "two", *tiny_flags, "--steps", "6")
    second = torchrun("train", "digits", "--out", "two", "--resume", "--steps", "12")
    for err, steps in ((first, 6), (second, 12)):
        assert err.count("training examples") == err.count(f"{steps} steps, {32 * steps} images seen") == 1, err
    assert json.loads(Path("two/run.json").read_text())["processes"] == 2
    assert [(r["kind"], r["step"]) for r in read_log(Path("two/log.jsonl"))] == [
        ("train", 4), ("train", 6), ("validation", 6), ("train", 8), ("train", 12), ("validation", 12),
    ]  # fmt: skip
    assert Path("two/model.safetensors").read_bytes() != (run / "model.safetensors").read_bytes()  # noise of their own
