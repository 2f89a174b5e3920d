"""A process killed at random moments, again and again, ends with the bits of one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scorefield.training import read_log

FLAGS = [
    "--checkpoint-every", "7", "--batch-size", "32", "--log-every", "5", "--validate-every", "15",
    "--network.channels", "8", "--threads", "1",
]  # fmt: skip


def start(out: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scorefield", "train", "digits", "--out", str(out), *flags]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=300)
    return process.returncode, err


def bytes_of(out: Path) -> dict[str, bytes]:
    """What must be equal: the model, and the tensors of the checkpoints (their headers tell the length of the log)."""
    found = {name: (out / name).read_bytes() for name in ("model.safetensors", "config.json", "run.json")}
    for path in sorted((out / "checkpoints").iterdir()):
        raw = path.read_bytes()
        found[path.name] = raw[8 + int.from_bytes(raw[:8], "little") :]
    return found


def logged(out: Path) -> list[tuple[str, int, float | None]]:
    """Kind, step and held-out loss of the log's records (a training loss is averaged since the process began)."""
    records = read_log(out / "log.jsonl")
    return [(r["kind"], r["step"], r["loss"] if r["kind"] == "validation" else None) for r in records]


def kill_and_resume(tmp_path: Path, kills: int, seed: int) -> None:
    """A run without an end is killed so many times, then given an end a little later; a run to there is its measure."""
    moments, out = random.Random(seed), tmp_path / "killed"
    checkpoints = out / "checkpoints"
    for done in range(kills):
        process = start(out, *(["--resume"] if (out / "run.json").exists() else [*FLAGS, "--minutes", "1000"]))
        while not checkpoints.exists():
            assert process.poll() is None, finish(process)
            time.sleep(0.01)
        seen = set(checkpoints.iterdir())
        while done and set(checkpoints.iterdir()) == seen:  # the first kill may come before the first checkpoint
            assert process.poll() is None, finish(process)
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.25))
        assert process.poll() is None, finish(process)
        process.kill()
        finish(process)
    newest = max((int(p.stem.split("-")[1]) for p in checkpoints.glob("step-*.safetensors")), default=0)
    steps = ["--steps", str(newest + 20)]
    for process in (start(out, "--resume", *steps), start(tmp_path / "whole", *FLAGS, *steps)):
        code, err = finish(process)
        assert code == 0, err
    assert bytes_of(out) == bytes_of(tmp_path / "whole")
    assert logged(out) == logged(tmp_path / "whole")


@pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
def test_three_kills(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=3, seed=int(time.time()))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
def test_ten_kills(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=10, seed=int(time.time()))


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_says_how_to_go_on(tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "run"
    process = start(out, *FLAGS, "--steps", "100000")
    while not list(out.glob("checkpoints/step*")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    returned, err = finish(process)
    assert returned == code, err
    assert "--resume" in err
    assert "Traceback" not in err
    newest = sorted((out / "checkpoints").iterdir())[-1]
    assert f"step {int(newest.stem.split('-')[1])}" in err
    assert (out / "model.safetensors").exists()
