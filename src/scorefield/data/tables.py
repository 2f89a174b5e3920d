"""Tables in files: CSV, TSV (plain or .gz) and Parquet, through Arrow; what is wrong is said with its line."""

import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import csv, parquet

from scorefield.errors import UserError
from scorefield.system import written_aside

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "?")
"""what stands for a missing value in a text file"""


def is_table(source: str) -> bool:
    """Whether a source's name is that of a table."""
    return source.lower().endswith(SUFFIXES)


def read_table(path: str | Path) -> pd.DataFrame:
    """A table in memory, its columns in the order of the file.

    Raises:
        UserError: no such file, another format, lines of different lengths, another encoding than UTF-8, a damaged file, no
            rows, or columns of the same name.
    """
    path = Path(path)
    if not is_table(path.name):
        raise UserError(f"{path} is no table that can be read: use {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"no table at {path}")
    try:
        table = parquet.read_table(path) if path.suffix == ".parquet" else read_text(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: {in_one_line(error)}") from error
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {in_one_line(error)}") from error
    if not table.num_rows:
        raise UserError(f"{path} has no rows")
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} has two columns called {twice!r}: give each a name of its own")
    return table.to_pandas(date_as_object=False)


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """A table in the format that its name asks for, whole or not at all; missing values are empty.

    Raises:
        UserError: an unknown suffix, or a place that cannot be written.
    """
    check_suffix(path)
    with written_aside(path) as aside:
        if path.suffix == ".parquet":
            frame.to_parquet(aside, index=False)
        else:
            delimiter = "\t" if ".tsv" in path.suffixes else ","
            packed = "gzip" if path.suffix == ".gz" else None
            frame.to_csv(aside, sep=delimiter, index=False, compression=packed)


def check_suffix(path: Path) -> None:
    """Raises `UserError` for a name that is not a table's."""
    if not is_table(path.name):
        raise UserError(f"{path} is no name of a table: use {', '.join(SUFFIXES)}")


def read_text(path: Path) -> pa.Table:
    """A CSV or TSV file, its first line being the names."""
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    table = csv.read_csv(
        path,
        read_options=csv.ReadOptions(use_threads=False),  # which alone knows the line of a mistake
        parse_options=csv.ParseOptions(delimiter=delimiter),
        convert_options=csv.ConvertOptions(
            null_values=list(MISSING), strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    return checked_text(table)


def checked_text(table: pa.Table) -> pa.Table:
    """The table, if all its text is; Arrow makes bytes of what is not UTF-8."""
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if pa.types.is_binary(kind):
            row = next(i for i, value in enumerate(table.column(name).to_pylist()) if value is not None and not is_utf8(value))
            raise pa.ArrowInvalid(f"column {name!r}, line {row + 2}: the text is not UTF-8; save the file in that encoding")
    return table


def is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def in_one_line(error: Exception) -> str:
    """What Arrow says, in our words where it is known."""
    said = " ".join(str(error).split())
    ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", said)
    if ragged:
        line, expected, got = ragged.groups()
        return f"line {line} has {got} values, the first line has {expected}: mend the line"
    ragged = re.search(r"Expected (\d+) columns, got (\d+)", said)
    if ragged:
        return f"some line has {ragged[2]} values, the first line has {ragged[1]}: mend the line"
    return said
