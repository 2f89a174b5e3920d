"""Losses by noise level, and the log file."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from scorefield.interfaces import Loss
from scorefield.training.log import BINS, Log, LossByLevel, read_log

RANGE = (0.01, 100.0)


def loss(values: list[float], sigma: list[float]) -> Loss:
    return Loss(torch.tensor(values), torch.tensor(sigma), {})


def test_means_in_all_and_by_level() -> None:
    by_level = LossByLevel(RANGE, torch.device("cpu"))
    edges = [0.01 * 10_000 ** (i / BINS) for i in range(BINS + 1)]
    assert by_level.centres == pytest.approx([math.sqrt(a * b) for a, b in pairwise(edges)])
    by_level.add(loss([4.0, 8.0, 2.0], [by_level.centres[0], by_level.centres[0], by_level.centres[5]]), dimensions=2)
    by_level.add(loss([6.0], [by_level.centres[5] * 1.01]), dimensions=2)
    mean, means = by_level.take()
    assert mean == 2.5
    assert means == [3.0, *[None] * 4, 2.0, *[None] * 6]
    by_level.add(loss([10.0], [by_level.centres[1]]), dimensions=2)  # taking begins afresh
    assert by_level.take() == (5.0, [None, 5.0, *[None] * 10])


def test_the_ends_of_the_range_fall_into_the_end_bins() -> None:
    by_level = LossByLevel(RANGE, torch.device("cpu"))
    by_level.add(loss([1.0, 3.0], [0.0099999, 100.001]), dimensions=1)
    assert by_level.take() == (2.0, [1.0, *[None] * 10, 3.0])


def test_sums_are_exact_over_many_batches() -> None:
    by_level = LossByLevel(RANGE, torch.device("cpu"))
    for _ in range(1000):
        by_level.add(loss([0.1] * 100, [1.1] * 100), dimensions=1)
    assert by_level.take()[0] == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)  # float32 sums would lose 1e-5


def test_the_log_is_cut_back_to_a_checkpoint(tmp_path: Path) -> None:
    log = Log(tmp_path, 0, 0)
    log.write({"kind": "train", "step": 1, "loss": 2.0})
    at_checkpoint = log.bytes_on_disk()
    log.write({"kind": "train", "step": 2, "loss": 1.0})
    log.close()
    path = tmp_path / "log.jsonl"
    assert [r["step"] for r in read_log(path)] == [1, 2]
    again = Log(tmp_path, at_checkpoint, 1)
    assert again.bytes_on_disk() == at_checkpoint
    again.write({"kind": "train", "step": 2, "loss": 1.5})
    again.close()
    assert read_log(path) == [
        {"kind": "train", "step": 1, "loss": 2.0},
        {"kind": "train", "step": 2, "loss": 1.5},
    ]


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"st')
    assert [r["step"] for r in read_log(path)] == [1, 2]
    path.write_bytes(b"")
    assert read_log(path) == []
