"""Losses by noise level, and the log file."""

import errno
import io
import json
import math
import os
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scorefield.errors import RunError, UserError
from scorefield.interfaces import Loss
from scorefield.training import log as log_module
from scorefield.training.log import BINS, Log, LossByLevel, read_log

RANGE = (0.01, 100.0)


def record(step: int, loss: float = 1.0) -> dict[str, object]:
    return {"kind": "train", "step": step, "images": 32 * step, "loss": loss, "sigma": [0.1], "loss_by_sigma": [loss]}


def line(step: int) -> bytes:
    return json.dumps(record(step)).encode() + b"\n"


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
    log.write(record(1, loss=2.0))
    at_checkpoint = log.bytes_on_disk()
    log.write(record(2, loss=1.0))
    log.close()
    path = tmp_path / "log.jsonl"
    assert [r["step"] for r in read_log(path)] == [1, 2]
    again = Log(tmp_path, at_checkpoint, 1)
    assert again.bytes_on_disk() == at_checkpoint
    again.write(record(2, loss=1.5))
    again.close()
    assert read_log(path) == [record(1, loss=2.0), record(2, loss=1.5)]


def test_a_removed_log_is_begun_anew_and_a_shortened_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = Log(tmp_path, 500, 3)
    log.write(record(4))
    log.close()
    assert read_log(path) == [record(4)]
    with pytest.raises(UserError, match=rf"log.jsonl has {len(line(4))} bytes and had 500 .* remove it"):
        Log(tmp_path, 500, 3)
    assert path.read_bytes() == line(4)  # untouched


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("where", ["open", "write", "flush", "fsync", "close"])
def test_a_disk_that_fails_stops_the_run(where: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    class File(io.BytesIO):
        fileno = lambda self: 0  # noqa: E731
        write = fail if where == "write" else io.BytesIO.write
        flush = fail if where == "flush" else io.BytesIO.flush
        close = fail if where == "close" else io.BytesIO.close

    monkeypatch.setattr(log_module, "open", fail if where == "open" else lambda path, mode: File(), raising=False)
    monkeypatch.setattr(os, "fsync", fail if where == "fsync" else lambda descriptor: None)

    def use() -> None:
        log = Log(tmp_path, 0, 0)
        log.write(record(1))
        log.bytes_on_disk()
        log.close()

    with pytest.raises(RunError, match=r"cannot write .*log.jsonl: .* go on with --resume") as caught:
        use()
    assert ("the disk is full" in str(caught.value)) == (number == errno.ENOSPC)


def test_tensorboard_gets_what_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[object, ...]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            events.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            events.append((name, value, step))

        def close(self) -> None:
            events.append(("closed",))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))  # type: ignore[arg-type]
    Log(tmp_path, 0, keep_steps=6).close()
    assert events == []  # nothing to say, no file
    log = Log(tmp_path, 0, keep_steps=6)
    log.write({**record(7, loss=0.5), "images_per_s": 100.0, "learning_rate": 1e-3})
    log.write({**record(7, loss=0.75), "kind": "validation"})
    log.close()
    assert events == [
        (str(tmp_path / "tensorboard"), 7),  # steps after the checkpoint's are forgotten
        ("loss/train", 0.5, 7), ("images_per_s/train", 100.0, 7), ("learning_rate/train", 1e-3, 7),
        ("loss/validation", 0.75, 7), ("closed",),
    ]  # fmt: skip


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(line(1) + line(2) + line(3)[:9])
    assert [r["step"] for r in read_log(path)] == [1, 2]
    path.write_bytes(b"")
    assert read_log(path) == []


@pytest.mark.parametrize("damage", [b"\0\0\0\n", b'{"st\n', b"\xff\xfe\n", b"5\n", b'{"step": 2}\n', b"\n"])
def test_a_damaged_line_is_named(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(line(1) + damage + line(3))
    with pytest.raises(UserError, match=r"log.jsonl is damaged in line 2"):
        read_log(path)
