"""Tables in files: what is read, what is said of damaged ones, what comes back."""

import gzip
from pathlib import Path

import pandas as pd
import pytest
from pyarrow import csv

from scorefield.data.tables import TableFile, read_table, table_writer, write_table
from scorefield.errors import UserError

FRAME = pd.DataFrame({"n": [1.5, None, 3.0], "w": ["a", "b, c", None], "k": [1, 2, 3]})


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.tsv.gz", "t.parquet"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    write_table(FRAME, tmp_path / name)
    back = read_table(tmp_path / name)
    assert list(back.columns) == ["n", "w", "k"]
    assert back.isna().to_numpy().tolist() == FRAME.isna().to_numpy().tolist()
    for name in FRAME:
        assert back[name].dropna().tolist() == FRAME[name].dropna().tolist()


def test_many_marks_stand_for_a_gap(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\nNA,x\n?,\n2,null\n")
    assert read_table(tmp_path / "t.csv").isna().to_numpy().tolist() == [[True, False], [True, True], [False, True]]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"a,b\n1,2\n3\n4,5\n", r"t\.csv: line 3 has 1 values, the first line has 2: mend the line"),
        ("t.tsv", b"a\tb\n1\t2\t3\n", r"t\.tsv: line 2 has 3 values, the first line has 2: mend the line"),
        (
            "t.csv",
            b"a,b\n1,x\n2,\xff\xfe\n",
            r"t\.csv: column 'b', line 3: the text is not UTF-8; save the file in that encoding",
        ),
        ("t.csv", b"a,b\n", r"t\.csv has no rows"),
        ("t.csv", b"", r"t\.csv: Empty CSV file"),
        ("t.csv", b"a,a\n1,2\n", r"t\.csv has two columns called 'a'"),
        ("t.parquet", b"PAR1 and no more", r"t\.parquet"),
        ("t.csv.gz", gzip.compress(b"a\n1\n", mtime=0)[:12], r"t\.csv\.gz"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), r"t\.csv is in UTF-16: save it as UTF-8"),
        ("t.xlsx", b"", r"t\.xlsx is no table that can be read: use \.csv"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no table at .*t\.csv"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"t\.txt is no name of a table"):
        write_table(FRAME, tmp_path / "t.txt")
    assert not (tmp_path / "t.txt").exists()


PARTS = pd.DataFrame(
    {
        "whole": pd.array([None if i % 7 == 3 else i for i in range(50)], dtype="Int64"),
        "late": pd.Series([None] * 40 + [0.5] * 10),
        "mixed": [str(i) for i in range(45)] + ["1.5"] * 5,
        "word": [None if i % 11 == 0 else f"a, {i}" for i in range(50)],
        "day": pd.to_datetime("2024-01-01") + pd.to_timedelta(range(50), unit="D"),
        "kind": pd.Categorical(["x", "y"] * 25),
    }
)
PARTS["mixed"] = PARTS["mixed"].astype(float)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv.gz", "t.parquet"])
def test_parts_are_the_whole(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = csv.ReadOptions
    monkeypatch.setattr(csv, "ReadOptions", lambda **options: read(block_size=256, **options))  # types change between blocks
    path = tmp_path / name
    text = PARTS.assign(mixed=[str(int(v)) if v == int(v) else str(v) for v in PARTS["mixed"]])
    write_table(PARTS if name.endswith("parquet") else text, path)
    table, whole = TableFile.open(path), read_table(path)
    assert (table.rows, table.schema.names) == (50, list(PARTS))
    parts = list(table.frames(8))
    assert [len(part) for part in parts] == [8] * 6 + [2]
    assert [part.index[0] for part in parts] == [0, 8, 16, 24, 32, 40, 48]
    together = pd.concat([part.astype(object) for part in parts])
    pd.testing.assert_frame_equal(together, whole.astype(object), check_dtype=False)
    assert str(whole["whole"].dtype) == "Int64"
    assert whole["whole"].dropna().tolist() == PARTS["whole"].dropna().tolist()
    with table_writer(tmp_path / f"copy-{name}", table.schema) as write:
        for part in table.frames(8):
            write(part)
    pd.testing.assert_frame_equal(read_table(tmp_path / f"copy-{name}"), whole)
    if not name.endswith(".gz"):
        write_table(whole, tmp_path / f"once-{name}")
        if name.endswith(".csv"):
            assert (tmp_path / f"once-{name}").read_text() == (tmp_path / f"copy-{name}").read_text()


def test_damage_far_down_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n" + b"1,x\n" * 300_000 + b"2,\xff\n")
    with pytest.raises(UserError, match=r"column 'b', line 300002: the text is not UTF-8"):
        TableFile.open(path)
    path.write_text("a,b\n" + "1,x\n" * 300_000 + "2\n")
    with pytest.raises(UserError, match=r"line 300002 has 1 values, the first line has 2"):
        TableFile.open(path)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
def test_what_is_not_written_to_its_end_is_not_there(tmp_path: Path, name: str) -> None:
    def fail() -> None:
        with table_writer(tmp_path / name) as write:
            write(FRAME)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.iterdir())
