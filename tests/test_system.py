"""Durable files and signals."""

import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from scorefield.errors import RunError, UserError
from scorefield.system import Interruption, remove_leftovers, write_durably, written_aside


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_durably(path, "old")
    with written_aside(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"  # a reader meanwhile
    assert path.read_text() == "new"
    write_durably(path, b"\x00bytes")
    assert path.read_bytes() == b"\x00bytes"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_and_replaces_none(tmp_path: Path) -> None:
    path = tmp_path / "folder"

    def write(name: str) -> None:
        with written_aside(path) as aside:
            aside.mkdir()
            (aside / name).write_text(name)

    write("first")
    with pytest.raises(RunError, match=r"cannot write .*folder.*; what was there is unchanged"):
        write("second")
    assert [p.name for p in path.iterdir()] == ["first"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), SystemExit(143), GeneratorExit()], ids=repr)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_exception_leaves_what_was_there(error: BaseException, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_durably(path, "old")

    def interrupted_writing() -> None:
        with written_aside(path) as aside:
            if kind == "folder":
                aside.mkdir()
                (aside / "part").write_text("half")
            else:
                aside.write_text("half")
            raise error

    with pytest.raises(type(error)):
        interrupted_writing()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("where", ["fsync", "replace", "write"])
def test_a_disk_that_fails_leaves_what_was_there(
    number: int, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    write_durably(path, "old")

    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(*((Path, "write_bytes") if where == "write" else (os, where)), fail)
        with pytest.raises(RunError, match="what was there is unchanged") as caught:
            write_durably(path, "new")
    assert ("the disk is full" in str(caught.value)) == (number != errno.EIO)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "missing" / "file.txt", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"cannot write .*; choose another place"):
            write_durably(path, "new")


def test_leftovers_are_removed_once_they_are_idle(tmp_path: Path) -> None:
    old, young = tmp_path / ".a.01234567.part", tmp_path / ".b.01234567.part"
    old.write_text("half")
    os.utime(old, (0, 0))
    young.mkdir()
    (tmp_path / "mine.part").write_text("not hidden, so not ours")
    remove_leftovers(tmp_path, idle=60)
    assert sorted(p.name for p in tmp_path.iterdir()) == [young.name, "mine.part"]
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.part"]


def test_everything_is_on_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replace(a, b)))
    write_durably(tmp_path / "file.txt", "new")
    assert events == ["sync", "rename", "sync"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        assert interruption.signal_number is None
        os.kill(os.getpid(), number)
        assert interruption.signal_number == number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(first: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    reached: list[int | None] = []

    def interrupted_twice() -> None:
        with Interruption() as interruption:
            os.kill(os.getpid(), first)
            reached.append(interruption.signal_number)
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(None)

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert reached == [first]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_outside_the_main_thread_it_does_nothing() -> None:
    seen: list[int | None] = []

    def work() -> None:
        with Interruption() as interruption:
            seen.append(interruption.signal_number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
