"""A comparison that is killed without warning, and started again, gives the table of one that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

CLOCKS = ("seconds per 1,000 samples", "training")
FAMILIES = ("vae", "score")


def start(source: Path, out: Path) -> subprocess.Popen[bytes]:
    flags = ["--families", *FAMILIES, "--budget", "10s", "--likelihood-rows", "4", "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, "-m", "scorefield", "compare", str(source), *flags],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def killed_at(source: Path, out: Path, words: str) -> None:
    """Run until a phase is told, and a little of it is done, then SIGKILL."""
    process = start(source, out)
    assert process.stderr is not None
    for line in process.stderr:
        if words in line.decode():
            break
    else:
        raise AssertionError(f"it ended before {words}")
    time.sleep(1.0)
    process.send_signal(signal.SIGKILL)
    process.wait()


def table(out: Path) -> list[dict[str, Any]]:
    return [r for r in json.loads((out / "compare.json").read_text()) if r["metric"] not in CLOCKS]


@pytest.mark.slow
def test_a_killed_comparison_goes_on_to_the_same_table(tmp_path: Path) -> None:
    source = tmp_path / "points.npy"
    import numpy as np

    rng = np.random.default_rng(0)
    np.save(source, rng.integers(0, 256, (200, 6, 6), dtype=np.uint8))
    torn, whole = tmp_path / "torn", tmp_path / "whole"
    for words in ("vae: training", "score: training", "score: likelihood", "score: sampling"):
        killed_at(source, torn, words)
    assert start(source, torn).wait() == 0
    whole.mkdir()
    shutil.copy(torn / "plan.json", whole / "plan.json")
    assert start(source, whole).wait() == 0
    assert table(torn) == table(whole)
    assert {r["family"] for r in table(whole)} == set(FAMILIES)
