"""Tables in files: what is read, what is said of damaged ones, what comes back."""

import gzip
from pathlib import Path

import pandas as pd
import pytest

from scorefield.data.tables import read_table, write_table
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
