"""Ctrl-C and SIGTERM outside the training loop: an exit code of their own, and nothing half written."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scorefield.cli import main

NUMBERS = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@contextmanager
def stopped_by(number: int, files: list[str], folder: Path) -> Iterator[object]:
    """In the place of a progress bar: notes what lies in the folder at the first tick, and sends the signal."""

    def watch(chunk: int, state: object) -> None:
        files.extend(p.name for p in folder.iterdir())
        os.kill(os.getpid(), number)

    yield watch


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
@NUMBERS
@pytest.mark.parametrize("out", ["x.npz", "x.gif", "folder"])
def test_samples_are_written_whole_or_not_at_all(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    number: int, code: int, out: str,
) -> None:  # fmt: skip
    run = shutil.copytree(tiny_run, tmp_path / "run")
    seen: list[str] = []
    monkeypatch.setattr("scorefield.cli.sample.sampling_bar", lambda sampler, n: stopped_by(number, seen, tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    assert main(["sample", str(run), "-n", "2", "--steps", "3", "--out", str(tmp_path / out)]) == code
    assert capsys.readouterr().err == "scorefield: interrupted; nothing was left half written\n"
    assert any(name.endswith(".part") for name in seen) or out == "x.gif"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
@NUMBERS
def test_data_is_read_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCOREFIELD_CACHE", str(tmp_path / "cache"))
    seen: list[str] = []

    def tracked(items: Iterator[object], label: str, total: int) -> Iterator[object]:
        yield next(iter(items))
        seen.extend(p.name for p in (tmp_path / "cache").iterdir())
        os.kill(os.getpid(), number)
        yield from items

    monkeypatch.setattr("scorefield.cli.data.tracked", tracked)
    assert main(["data", "digits"]) == code
    assert any(name.endswith(".part") for name in seen)
    assert list((tmp_path / "cache").iterdir()) == []
