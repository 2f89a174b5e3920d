"""The cache is written whole or not at all, read again without decoding, and split by content."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scorefield import RunError, UserError
from scorefield.data import Batches, Reading, ScaledRows, Split, open_data, random_rows
from scorefield.data.scaling import Scaling
from scorefield.data.sources import cache_root
from scorefield.data.splits import assign, digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "set"
    path.mkdir()
    rng = np.random.default_rng(0)
    for i in range(50):
        Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(path / f"{i:02}.png")
    return path


def test_the_second_opening_decodes_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def progress(items, label: str, total: int | None):
        seen.append(f"{label}: {total}")
        return items

    first = open_data(str(folder), cache=tmp_path / "cache", progress=progress)
    monkeypatch.setattr(Image, "open", lambda path: pytest.fail("decoded again"))
    second = open_data(str(folder), cache=tmp_path / "cache", progress=progress)
    assert seen == [f"looking at {folder}: 50", f"reading {folder}: 50"]
    assert first.folder == second.folder
    assert isinstance(second.splits["train"].x, np.memmap)
    for name, split in first.splits.items():
        np.testing.assert_array_equal(split.x, second.splits[name].x)


def test_a_changed_source_is_read_again(folder: Path, tmp_path: Path) -> None:
    first = open_data(str(folder), cache=tmp_path / "cache")
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(folder / "00.png")
    os.utime(folder / "00.png", ns=(1, 1))
    second = open_data(str(folder), cache=tmp_path / "cache")
    assert first.folder != second.folder
    assert open_data(str(folder), Reading(size=2), cache=tmp_path / "cache").event_shape == (1, 2, 2)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_reading_that_breaks_off_leaves_nothing(folder: Path, tmp_path: Path, stop: type[BaseException]) -> None:
    def progress(items, label: str, total: int | None):
        for number, item in enumerate(items):
            if number == 30 and label.startswith("reading"):
                raise stop
            yield item

    with pytest.raises(stop):
        open_data(str(folder), cache=tmp_path / "cache", progress=progress)
    assert list((tmp_path / "cache").iterdir()) == []
    whole = open_data(str(folder), cache=tmp_path / "cache")
    assert {name: len(split.x) for name, split in whole.splits.items()} == {"train": 41, "validation": 4, "test": 5}


def test_bad_images_are_named_or_left_out(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "07.png").read_bytes()
    (folder / "07.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"07\.png cannot be read .*--reading\.skip-bad"):
        open_data(str(folder), cache=tmp_path / "cache")
    data = open_data(str(folder), Reading(skip_bad=True), cache=tmp_path / "cache")
    assert data.skipped == ("07.png",)
    assert sum(len(s.x) for s in data.splits.values()) == 49


def test_decompression_bombs_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)  # the limit itself is Pillow's own; twice as many pixels are an error
    with pytest.raises(UserError, match=r"00\.png"):
        open_data(str(folder), cache=tmp_path / "cache")


def test_an_unwritable_cache_names_the_variable(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="SCOREFIELD_CACHE"):
        open_data(str(folder), cache=tmp_path / "file" / "cache")


def none_official(n: int) -> np.ndarray:
    return np.full(n, "")


@given(st.lists(st.binary(min_size=1, max_size=2), min_size=12, max_size=200))
@settings(deadline=None)
def test_splits_are_disjoint_complete_and_keep_equals_together(contents: list[bytes]) -> None:
    digests = np.array([digest(np.frombuffer(c, np.uint8)) for c in contents], np.uint64)
    splits = assign(digests, none_official(len(contents)))
    assert sum(len(indices) > 0 for indices in splits.values()) == min(3, len(set(contents)))
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(contents)))
    homes = {name: {contents[i] for i in indices} for name, indices in splits.items()}
    assert not homes["train"] & homes["test"]
    assert not homes["train"] & homes["validation"]
    assert not homes["validation"] & homes["test"]
    reversed_splits = assign(digests[::-1], none_official(len(contents)))
    assert {contents[::-1][i] for i in reversed_splits["test"]} == homes["test"]  # the order of the source does not matter


def test_split_sizes() -> None:
    digests = np.random.default_rng(0).permutation(200_000).astype(np.uint64)
    splits = assign(digests, none_official(len(digests)))
    assert {k: len(v) for k, v in splits.items()} == {"train": 190_000, "validation": 5000, "test": 5000}
    few = assign(digests[:100], none_official(100))
    assert {k: len(v) for k, v in few.items()} == {"train": 81, "validation": 9, "test": 10}
    test = assign(digests[:100], np.array([""] * 60 + ["test"] * 40))
    assert test["test"].tolist() == list(range(60, 100))
    assert len(test["validation"]) == 6
    validation = assign(digests[:100], np.array(["validation"] * 20 + [""] * 80))
    assert validation["validation"].tolist() == list(range(20))
    assert (len(validation["train"]), len(validation["test"])) == (72, 8)
    both = assign(digests[:4], np.array(["validation", "test", "", ""]))
    assert {k: v.tolist() for k, v in both.items()} == {"train": [2, 3], "validation": [0], "test": [1]}


@given(rows=st.integers(1, 40), batch=st.integers(1, 12), world=st.integers(1, 3), seed=st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_batches_go_through_every_row_once_an_epoch(rows: int, batch: int, world: int, seed: int) -> None:
    split = Split(np.arange(rows, dtype=np.float32)[:, None], np.arange(rows))
    batch *= world
    alone = Batches(split, batch, seed)
    pieces = [alone.at(k)[0] for k in range(2 * rows)]
    assert all(len(p) == batch for p in pieces)
    drawn = np.concatenate(pieces)[:, 0]
    for epoch in range(len(drawn) // rows):
        assert sorted(drawn[epoch * rows : (epoch + 1) * rows]) == list(range(rows))
    step = rows // 2
    parts = [Batches(split, batch, seed, rank, world).at(step) for rank in range(world)]
    np.testing.assert_array_equal(np.concatenate([p[0] for p in parts]), pieces[step])
    np.testing.assert_array_equal(np.concatenate([p[1] for p in parts]), pieces[step][:, 0])


def test_batches_depend_on_the_seed_and_refuse_uneven_parts() -> None:
    split = Split(np.arange(100, dtype=np.float32)[:, None], None)
    assert Batches(split, 10, 0).at(3)[0].tolist() != Batches(split, 10, 1).at(3)[0].tolist()
    assert Batches(split, 10, 0).at(3)[1] is None
    with pytest.raises(UserError, match="10 cannot be divided among 3"):
        Batches(split, 10, 0, 0, 3)


def test_batches_refuse_to_be_empty() -> None:
    with pytest.raises(UserError, match="--batch-size must be at least 1, got 0"):
        Batches(Split(np.zeros((5, 1), np.float32), None), 0, 0)


def test_sixteen_bit_batches_can_be_scaled(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    for i, image in enumerate(np.random.default_rng(0).integers(0, 65536, (40, 4, 4), dtype=np.uint16)):
        Image.fromarray(image).save(folder / f"{i}.png")
    data = open_data(str(folder), cache=tmp_path / "cache")
    train = data.splits["train"]
    raw, _ = Batches(train, len(train.x), 0).at(0)
    x = data.scaling.encode(raw)
    assert abs(x.mean()) < 1e-5
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(data.scaling.decode(x), raw.float())


def test_a_path_written_otherwise_and_hidden_files_do_not_matter(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_data(str(folder), cache=tmp_path / "cache")
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "00.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert open_data("set", cache=tmp_path / "cache").folder == first.folder


def test_a_killed_reading_leaves_no_cache(folder: Path, tmp_path: Path) -> None:
    """SIGKILL gives no time to clean up: what is left must not be taken for a cache."""
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from scorefield.data import cache, open_data\n"
        "cache.scaling_of = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"  # rows and splits lie there by then
        "open_data(sys.argv[1], cache=Path(sys.argv[2]))\n"
    )
    process = subprocess.run([sys.executable, "-c", script, str(folder), str(tmp_path / "cache")], check=False)
    assert process.returncode == -signal.SIGKILL
    left = list((tmp_path / "cache").iterdir())
    assert [p.name[0] for p in left] == ["."]
    data = open_data(str(folder), cache=tmp_path / "cache")
    assert sum(len(s.x) for s in data.splits.values()) == 50
    assert data.folder not in left


@pytest.mark.parametrize("name", ["meta.json", "train.npy"])
def test_a_damaged_cache_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    data = open_data(str(folder), cache=tmp_path / "cache")
    (data.folder / name).write_bytes((data.folder / name).read_bytes()[:150])
    with pytest.raises(UserError, match=f"cache {data.folder} .* is damaged .*remove that folder"):
        open_data(str(folder), cache=tmp_path / "cache")


def test_a_locked_cache_names_the_variable(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a locked folder gives, also where the tests run as root, whom nothing stops."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="SCOREFIELD_CACHE"):
        open_data(str(folder), cache=tmp_path / "cache")


def test_where_caches_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("SCOREFIELD_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("SCOREFIELD_CACHE")
    assert cache_root() == tmp_path / "xdg" / "scorefield"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "scorefield"


def test_parts_of_any_size_give_the_same_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_data(str(folder), cache=tmp_path / "whole")
    monkeypatch.setattr("scorefield.data.cache.CHUNK_BYTES", 3 * 16)  # three images at once, and two at the end
    parts = open_data(str(folder), cache=tmp_path / "parts")
    for name, split in whole.splits.items():
        np.testing.assert_array_equal(split.x, parts.splits[name].x)
    np.testing.assert_allclose(parts.scaling.shift + parts.scaling.scale, whole.scaling.shift + whole.scaling.scale, rtol=1e-12)


@given(st.lists(st.integers(1, 60), min_size=3, max_size=40), st.integers(0, 9))
@settings(deadline=None)
def test_groups_of_equals_do_not_flood_what_is_held_out(sizes: list[int], seed: int) -> None:
    """At most a tenth is held out where any group of equal rows is that small, else the least numerous group."""
    digests = np.repeat(np.random.default_rng(seed).permutation(2**20)[: len(sizes)].astype(np.uint64), sizes)
    splits = assign(digests, none_official(len(digests)))
    rest = len(digests)
    for name in ("test", "validation"):
        groups = np.unique(np.delete(digests, splits["test"] if name == "validation" else []), return_counts=True)[1]
        assert 1 <= len(splits[name]) <= max(1, round(rest / 10), groups.min())
        rest -= len(splits[name])
    assert len(splits["train"]) == rest > 0


def test_of_two_readings_at_once_the_faster_one_stays(folder: Path, tmp_path: Path) -> None:
    faster: list[Path] = []

    def progress(items, label: str, total: int | None):
        yield from items
        if label.startswith("reading"):
            faster.append(open_data(str(folder), cache=tmp_path / "cache").folder)
            (faster[0] / "mark").write_text("the first")

    slower = open_data(str(folder), cache=tmp_path / "cache", progress=progress)
    assert [*(tmp_path / "cache").iterdir()] == faster == [slower.folder]
    assert (slower.folder / "mark").exists()
    assert sum(len(s.x) for s in slower.splits.values()) == 50


def test_a_disk_that_is_full_at_the_end_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error is passed over only where another reading has left a whole cache."""

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="disk is full"):
        open_data(str(folder), cache=tmp_path / "cache")


def test_caches_of_killed_readings_are_removed_after_a_day(folder: Path, tmp_path: Path) -> None:
    caches = tmp_path / "cache"
    old, young = caches / ".a.01234567.part", caches / ".b.01234567.part"
    for part, hours in ((old, 25), (young, 23)):
        part.mkdir(parents=True)
        (part / "rows").write_bytes(b"half")
        for path in (part / "rows", part):
            os.utime(path, (time.time() - 3600 * hours,) * 2)
    os.utime(young, (0, 0))  # its folder is old, but its rows were written to since
    data = open_data(str(folder), cache=caches)
    assert sorted(caches.iterdir()) == sorted([young, data.folder])


def test_random_rows_are_a_fixed_part_in_random_order() -> None:
    rows = random_rows(1000, 100)
    assert len(set(rows.tolist())) == 100
    assert abs(rows.mean() - 499.5) < 4 * 1000 / 12**0.5 / 100**0.5  # standard error of 100 uniform numbers, and less
    assert abs(np.corrcoef(rows, np.arange(100))[0, 1]) < 0.4
    assert rows.tolist() == random_rows(1000, 100).tolist()
    assert rows.tolist() != random_rows(1000, 100, seed=1).tolist()
    assert rows.tolist() != random_rows(1000, 100, purpose="other").tolist()
    assert sorted(random_rows(5, 9).tolist()) == [0, 1, 2, 3, 4]


def test_scaled_rows_are_the_rows_scaled() -> None:
    x = np.random.default_rng(0).normal(3, 2, (20, 2))
    rows = ScaledRows(x, Scaling((3.0, 2.0), (2.0, 4.0)))
    assert len(rows) == 20
    assert rows[2:5].dtype == torch.float32
    np.testing.assert_allclose(rows[2:5], (x[2:5] - [3, 2]) / [2, 4], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(rows[np.array([7, 1])], (x[[7, 1]] - [3, 2]) / [2, 4], rtol=1e-6, atol=1e-6)
