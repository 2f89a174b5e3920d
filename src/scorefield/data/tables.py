"""Tables in files: CSV, TSV (plain or .gz) and Parquet, through Arrow; what is wrong is said with its line."""

import gzip
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import csv, parquet

from scorefield.errors import UserError
from scorefield.system import written_aside

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "?")
"""what stands for a missing value in a text file"""
INTEGERS = {
    **{f"int{bits}": pd.api.types.pandas_dtype(f"Int{bits}") for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": pd.api.types.pandas_dtype(f"UInt{bits}") for bits in (8, 16, 32, 64)},
}
"""pandas' types of whole numbers that may be missing, by Arrow's"""


def suffix_of(path: Path) -> str:
    """Whatever its case."""
    return path.suffix.lower()


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
    check_there(path)
    with reading(path):
        table = parquet.read_table(path) if suffix_of(path) == ".parquet" else read_text(path)
    check_shape(path, table.column_names, table.num_rows)
    return as_pandas(table)


@dataclass(frozen=True)
class TableFile:
    """A table in a file, which is read in parts, for it may be larger than memory."""

    path: Path
    schema: pa.Schema
    """of all rows: a column of whole numbers, one of which has decimals, has decimals"""
    rows: int

    @classmethod
    def open(cls, path: Path) -> "TableFile":
        """Look at all of a text file once; raises `UserError` as `read_table` does (damaged Parquet may be noticed later)."""
        check_there(path)
        with reading(path):
            if suffix_of(path) == ".parquet":
                file = parquet.ParquetFile(path)
                schema, rows = file.schema_arrow, file.metadata.num_rows
            else:
                schema, rows = looked_through(path)
        check_shape(path, schema.names, rows)
        return cls(path, schema, rows)

    def frames(self, most: int) -> Iterator[pd.DataFrame]:
        """Its rows in order, at most so many at a time, and numbered throughout."""
        start, waiting = 0, self.schema.empty_table()
        with reading(self.path):
            for batch in self._batches(most):
                waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
                while waiting.num_rows >= most or (waiting.num_rows and start + waiting.num_rows == self.rows):
                    frame, waiting = as_pandas(waiting[:most]), waiting[most:]
                    frame.index = pd.RangeIndex(start, start + len(frame))
                    start += len(frame)
                    yield frame

    def _batches(self, most: int) -> Iterator[pa.RecordBatch]:
        if suffix_of(self.path) == ".parquet":
            return iter(parquet.ParquetFile(self.path).iter_batches(most))
        return iter(opened_text(self.path, dict(zip(self.schema.names, self.schema.types, strict=True))))


def as_pandas(table: pa.Table) -> pd.DataFrame:
    """A data frame; whole numbers stay whole where some are missing, and an index that has a name is a column."""
    nameless = [name for name in table.column_names if re.fullmatch(r"__index_level_\d+__", name)]
    table = table.drop_columns(nameless)
    frame = table.to_pandas(date_as_object=False, ignore_metadata=True)
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if pa.types.is_decimal(kind):
            frame[name] = frame[name].astype(float)
        if pa.types.is_integer(kind) and table.column(name).null_count:
            frame[name] = table.column(name).to_pandas(types_mapper={kind: INTEGERS[str(kind)]}.get)
    return frame


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Arrow's errors as the user's."""
    try:
        yield
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: {in_one_line(error)}") from error
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {in_one_line(error)}") from error


def check_there(path: Path) -> None:
    """Raises `UserError` for another format, and where there is no file."""
    if not is_table(path.name):
        raise UserError(f"{path} is no table that can be read: use {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"no table at {path}")
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise UserError(f"{path} is in UTF-16: save it as UTF-8")


def check_shape(path: Path, names: list[str], rows: int) -> None:
    """Raises `UserError` for a table without rows, for columns of the same name, and for what is separated otherwise."""
    if len(names) == 1 and ";" in names[0] and suffix_of(path) != ".parquet":
        raise UserError(f"{path} seems to be separated by semicolons: save it with commas or tabs")
    if not rows:
        raise UserError(f"{path} has no rows")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} has two columns called {twice!r}: give each a name of its own")


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """A table in the format that its name asks for, whole or not at all; missing values are empty.

    Raises:
        UserError: an unknown suffix, or a place that cannot be written.
    """
    with table_writer(path) as write:
        write(frame)


@contextmanager
def table_writer(path: Path, schema: pa.Schema | None = None) -> Iterator[Callable[[pd.DataFrame], None]]:
    """What writes a table part by part, which is there when all is written; columns of `schema` have the types it says.

    Raises:
        UserError, RunError: as `write_table` and `written_aside`.
    """
    check_suffix(path)
    written = parquet_parts if suffix_of(path) == ".parquet" else text_parts
    with written_aside(path) as aside, written(path, aside, schema) as write:
        yield write


@contextmanager
def parquet_parts(path: Path, aside: Path, schema: pa.Schema | None) -> Iterator[Callable[[pd.DataFrame], None]]:
    """For Parquet; types that are not given are those of the first part."""
    writer: parquet.ParquetWriter | None = None

    def write(frame: pd.DataFrame) -> None:
        nonlocal writer
        if writer is None:
            own = pa.Schema.from_pandas(frame, preserve_index=False)
            for field in schema or ():
                if field.name in own.names:
                    own = own.set(own.get_field_index(field.name), field)
            writer = parquet.ParquetWriter(aside, own)
        writer.write_table(pa.Table.from_pandas(frame, writer.schema, preserve_index=False))

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def text_parts(path: Path, aside: Path, schema: pa.Schema | None) -> Iterator[Callable[[pd.DataFrame], None]]:
    """For CSV and TSV, packed where the name says so; moments of a schema are written alike in all parts."""
    opened = gzip.open if suffix_of(path) == ".gz" else open
    moments = [field.name for field in schema or () if pa.types.is_timestamp(field.type)]
    with opened(aside, "wt", encoding="utf-8", newline="") as file:

        def write(frame: pd.DataFrame) -> None:
            text = {
                name: frame[name].map(lambda v: v.isoformat(sep=" "), na_action="ignore") for name in moments if name in frame
            }
            frame.assign(**text).to_csv(file, sep=delimiter_of(path), index=False, header=file.tell() == 0)

        yield write


def check_suffix(path: Path) -> None:
    """Raises `UserError` for a name that is not a table's."""
    if not is_table(path.name):
        raise UserError(f"{path} is no name of a table: use {', '.join(SUFFIXES)}")


def read_text(path: Path) -> pa.Table:
    """A CSV or TSV file, its first line being the names."""
    return checked_text(csv.read_csv(unpacked(path), **text_options(path)))


def unpacked(path: Path) -> pa.NativeFile:
    """The text of a file."""
    return pa.input_stream(str(path), compression="gzip" if suffix_of(path) == ".gz" else None)


def delimiter_of(path: Path) -> str:
    """What stands between values."""
    return "\t" if ".tsv" in path.name.lower() else ","


def text_options(path: Path, **conversion: Any) -> dict[str, Any]:
    """Arrow's options for a CSV or TSV file."""
    return {
        "read_options": csv.ReadOptions(use_threads=False),  # which alone knows the line of a mistake
        "parse_options": csv.ParseOptions(delimiter=delimiter_of(path)),
        "convert_options": csv.ConvertOptions(
            null_values=list(MISSING), strings_can_be_null=True, quoted_strings_can_be_null=False, **conversion
        ),
    }


def opened_text(path: Path, types: dict[str, pa.DataType]) -> csv.CSVStreamingReader:
    """Batches of a CSV or TSV file; types that are not given are those of the first one."""
    return csv.open_csv(unpacked(path), **text_options(path, column_types=types))


def looked_through(path: Path) -> tuple[pa.Schema, int]:
    """Types and number of all rows of a CSV or TSV file.

    Of a column whose type is not that of its first rows, all of it is looked at.
    """
    types: dict[str, pa.DataType] = {}
    while True:
        reader = opened_text(path, types)
        try:
            rows = sum(len(batch) for batch in reader)
            for field in reader.schema:
                if pa.types.is_binary(field.type):
                    column_of(path, field.name)
            return reader.schema, rows
        except pa.ArrowInvalid as error:
            found = re.search(r"In CSV column #(\d+)", str(error))
            name = None if found is None else reader.schema.names[int(found[1])]
            if name is None or name in types:
                raise
            types[name] = column_of(path, name).schema.field(name).type


def column_of(path: Path, name: str) -> pa.Table:
    """One column of a CSV or TSV file."""
    return checked_text(csv.read_csv(unpacked(path), **text_options(path, include_columns=[name])))


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
