"""What the columns of a table are, found from their values, and how rows become numbers and back.

    continuous, positive, bounded     numbers; positive ones are above 0, bounded ones within known ends
    integer                           whole numbers, or multiples of a step that is their `resolution`
    binary, categorical               two values, or a few names; numbered by falling frequency
    datetime                          seconds since 1970
    constant                          one value: it is remembered, and not modelled

Discrete columns are dequantised: uniform noise as wide as their resolution makes a density of them, whose integral over a
value's own interval is the value's probability. A continuous column in which one value occurs in many rows has an `atom`: its
likelihood has no upper limit, and is named so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from scorefield.errors import UserError

ColumnKind = Literal["continuous", "positive", "bounded", "integer", "binary", "categorical", "datetime", "constant"]
NUMERIC = ("continuous", "positive", "bounded", "integer")
DISCRETE = ("integer", "binary", "categorical", "datetime")
ATOM = 0.02
"""share of rows from which on equal values of a continuous column are an atom"""
TIED = 0.05
"""share of rows that must repeat another's value for a grid to be looked for"""
FINEST = 6
"""decimals of the finest grid that is looked for"""
MOST_CATEGORIES = 1000
SINGLE = 0.5
"""share of the values, and 50 of them, from which on so many different texts are noted"""
DATE = r"\d{4}-\d\d-\d\d"


@dataclass(frozen=True)
class Column:
    """One column.

    Raises:
        ValueError: ends that are not in order, or a resolution below 0.
    """

    name: str
    kind: ColumnKind
    resolution: float = 0.0
    """of discrete columns, in their own units: the width of the noise that is added"""
    origin: float = 0.0
    """one of the values of a discrete column, which are that plus multiples of the resolution"""
    categories: tuple[Any, ...] = ()
    """values of binary, categorical and constant columns, by falling frequency"""
    ends: tuple[float, float] = (-math.inf, math.inf)
    """what the column lies within, if it is positive or bounded"""
    atoms: tuple[float, ...] = ()
    """values that occur in many rows although the column is continuous"""
    missing: float = 0.0
    """share of the rows"""
    zone: str = ""
    """time zone of dates that have one"""
    dated: bool = False
    """whether a constant is a date"""
    single: bool = False
    """whether most values of a categorical column are of one row each"""
    copy_of: str = ""
    """another column that has the same value in every row"""

    def __post_init__(self) -> None:
        if not self.ends[0] < self.ends[1]:
            raise ValueError(f"column {self.name}: ends must be in order, got {self.ends}")
        if self.resolution < 0:
            raise ValueError(f"column {self.name}: resolution must be at least 0, got {self.resolution}")

    @property
    def note(self) -> str:
        """What one should know about it, in words."""
        said = []
        if self.atoms:
            shown = ", ".join(f"{a:g}" for a in self.atoms[:3])
            said.append(f"many rows are exactly {shown}: such atoms let the likelihood grow without limit")
        if self.kind == "constant":
            said.append(f"always {self.categories[0]}: left out of the model")
        if self.single:
            said.append("most values occur once: as categories they say little; leave the column out")
        if self.copy_of:
            said.append(f"the same as {self.copy_of} in every row: left out of the model")
        if self.missing:
            said.append(f"{self.missing:.1%} missing")
        return "; ".join(said)


def as_frame(x: Any) -> pd.DataFrame:
    """A data frame of an array `(n, d)`, or of a pandas, polars or Arrow table; columns of arrays are x0, x1, ….

    Raises:
        UserError: something else, or no rows or columns.
    """
    if isinstance(x, pd.DataFrame):
        frame = x
    elif hasattr(x, "to_pandas"):
        frame = x.to_pandas()
    else:
        values = np.asarray(x)
        if values.ndim != 2:
            raise UserError(f"a table has rows and columns, got an array of shape {values.shape}")
        frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(values.shape[1])])
    if not len(frame) or not len(frame.columns):
        raise UserError(f"the table is empty: {len(frame)} rows, {len(frame.columns)} columns")
    frame = frame.reset_index(drop=True)
    for name, values in frame.items():
        if values.dtype == object and isinstance(values.dropna().iloc[:1].squeeze(), date):
            frame[name] = pd.to_datetime(values)
    frame.columns = [str(name) for name in frame.columns]
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise UserError(f"two columns are called {twice!r}: give each a name of its own")
    return frame


def infer(frame: pd.DataFrame, overrides: dict[str, ColumnKind] | None = None) -> list[Column]:
    """The columns of a frame; `overrides` says what some of them are.

    Raises:
        UserError: an override for a column that is not there, that is no kind, or that its values contradict; infinite values;
            a column without values.
    """
    overrides = overrides or {}
    if not isinstance(overrides, dict):
        raise UserError(f"columns must map names to kinds, such as {{'age': 'integer'}}, got {overrides!r}")
    for name, kind in overrides.items():
        if name not in frame.columns:
            raise UserError(f"there is no column {name!r}: choose from {', '.join(frame.columns)}")
        if kind not in get_args(ColumnKind):
            raise UserError(f"column {name!r} cannot be {kind!r}: choose from {', '.join(get_args(ColumnKind))}")
    found = [inferred(frame[name], overrides.get(name)) for name in frame.columns]
    return [replace(c, copy_of="" if c.name in overrides else original(frame, found[:i], c)) for i, c in enumerate(found)]


def original(frame: pd.DataFrame, others: Sequence[Column], column: Column) -> str:
    """The first of the other columns that has the same values, gaps included; "" if none has."""
    if column.kind == "constant":
        return ""
    return next((c.name for c in others if c.kind == column.kind and frame[c.name].equals(frame[column.name])), "")


def inferred(values: pd.Series, kind: ColumnKind | None = None) -> Column:
    """One column from its values, of a given kind or of the one that fits."""
    name, missing = str(values.name), float(values.isna().mean())
    known = values.dropna()
    if not len(known):
        raise UserError(f"column {name!r} has no values: leave it out")
    check_single(known)
    if kind is None:
        kind = natural_kind(known)
    if kind == "constant":
        if known.nunique() > 1:
            raise UserError(f"column {name!r} cannot be constant: it has {known.nunique()} values")
        return Column(
            name, "constant", categories=(kept(known.iloc[0]),), missing=missing, dated=isinstance(known.iloc[0], date)
        )
    if kind in ("binary", "categorical"):
        counts = known.value_counts()
        if kind == "binary" and len(counts) > 2:
            raise UserError(f"column {name!r} cannot be binary: it has {len(counts)} values")
        if len(counts) > MOST_CATEGORIES:
            raise UserError(f"column {name!r} has {len(counts)} categories, more than {MOST_CATEGORIES}: leave it out")
        order = sorted(counts.index, key=lambda value: (-counts[value], str(value)))
        single = len(counts) > max(50, SINGLE * len(known))
        return Column(name, kind, 1.0, categories=tuple(kept(v) for v in order), missing=missing, single=single)
    numbers = as_numbers(known, name)
    if kind == "integer" and not grid_of(numbers) and not np.array_equal(numbers, np.round(numbers)):
        raise UserError(f"column {name!r} cannot be integer: its values are no multiples of a step of 10⁻⁶ or more")
    if kind in ("integer", "datetime"):
        return Column(name, kind, grid_of(numbers) or 1.0, float(numbers.min()), missing=missing, zone=zone_of(known))
    ends = {"positive": (0.0, math.inf), "bounded": bounds_of(numbers)}.get(kind, (-math.inf, math.inf))
    if not ends[0] < numbers.min() <= numbers.max() < ends[1]:
        raise UserError(f"column {name!r} cannot be {kind}: it has values outside ({ends[0]:g}, {ends[1]:g})")
    return Column(name, kind, 0.0, ends=ends, atoms=atoms_of(numbers), missing=missing)


def natural_kind(known: pd.Series) -> ColumnKind:
    """What values without gaps are."""
    distinct = known.nunique()
    if distinct == 1:
        return "constant"
    if pd.api.types.is_datetime64_any_dtype(known):
        return "datetime"
    if not pd.api.types.is_numeric_dtype(known) or pd.api.types.is_bool_dtype(known):
        check_no_numbers(known)
        check_no_dates(known)
        return "binary" if distinct == 2 else "categorical"
    if distinct == 2:
        return "binary"
    numbers = as_numbers(known, str(known.name))
    if distinct <= (1 - TIED) * len(numbers) and grid_of(numbers):
        return "integer"
    if np.array_equal(numbers, np.round(numbers)):
        return "integer"
    if atoms_of(numbers):
        return "continuous"
    low, high = bounds_of(numbers)
    if (low, high) == (0.0, 1.0) and numbers.min() < 0.05 and numbers.max() > 0.95:
        return "bounded"
    return "positive" if numbers.min() > 0 else "continuous"


def check_single(known: pd.Series) -> None:
    """Raises `UserError` for lists, durations and the like, with the first row."""
    if pd.api.types.is_timedelta64_dtype(known) or known.dtype == object:
        wrong = ~known.map(lambda value: isinstance(value, str | bool | int | float | np.generic | date)).to_numpy(bool)
        wrong |= pd.api.types.is_timedelta64_dtype(known)
        if wrong.any():
            row = known.index[wrong][0]
            kind = type(known[row]).__name__
            raise UserError(
                f"column {str(known.name)!r}, row {row}: a value of type {kind}; values must be numbers, dates or text"
            )


def check_no_numbers(known: pd.Series) -> None:
    """Raises `UserError` for text in a column most of whose values are numbers, with the first row."""
    numeric = known.map(is_number)
    if 0.5 < numeric.mean() < 1:
        row = known.index[~numeric][0]
        raise UserError(
            f"column {str(known.name)!r}, row {row}: {known[row]!r} is not a number, and {numeric.sum()} of {len(known)} "
            "values are: mend it, or say that the column is categorical"
        )


def check_no_dates(known: pd.Series) -> None:
    """Raises `UserError` for text most of which is dates, 2024-01-31 and the like, with the first row that is none."""
    text = known.astype(str)
    if text.str.match(DATE).mean() <= 0.5:
        return
    wrong = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True).isna()
    name = str(known.name)
    if wrong.any():
        row = known.index[wrong][0]
        raise UserError(
            f"column {name!r}, row {row}: {known[row]!r} is no date, and {(~wrong).sum()} of {len(known)} values are: mend it, "
            "or say that the column is categorical"
        )
    raise UserError(
        f"column {name!r} has dates as text: make dates of them (pandas.to_datetime), or say that it is categorical"
    )


def as_numbers(known: pd.Series, name: str) -> np.ndarray:
    """float64 values; dates as seconds.

    Raises:
        UserError: text, or infinite values, with the first row.
    """
    if pd.api.types.is_datetime64_any_dtype(known):
        moments = pd.to_datetime(known, utc=True).dt.tz_localize(None)
        return moments.to_numpy("datetime64[us]").astype(np.int64) / 1e6
    try:
        numbers = pd.to_numeric(known).to_numpy(np.float64)
    except (ValueError, TypeError):
        row = next(i for i, v in known.items() if not is_number(v))
        raise UserError(f"column {name!r}, row {row}: {known[row]!r} is not a number") from None
    if not np.isfinite(numbers).all():
        row = known.index[~np.isfinite(numbers)][0]
        raise UserError(
            f"column {name!r}, row {row}: {plain(known[row])!r} is not finite; leave the row out, or make it missing"
        )
    return numbers


def is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True


def grid_of(numbers: np.ndarray) -> float:
    """The coarsest decimal step of which all numbers are multiples; 0 if there is none down to 10⁻⁶.

    Of whole numbers it is the greatest common divisor of their differences.
    """
    for decimals in range(FINEST + 1):
        scaled = numbers * 10.0**decimals
        whole = np.round(scaled)
        if np.abs(whole).max() < 2**53 and np.allclose(scaled, whole, rtol=0, atol=1e-6):
            steps = np.diff(np.unique(whole)).astype(np.int64)
            divisor = int(np.gcd.reduce(steps)) if len(steps) else 1
            return divisor / 10.0**decimals
    return 0.0


def atoms_of(numbers: np.ndarray) -> tuple[float, ...]:
    """Values that at least `ATOM` of the rows (and ten of them) have, the most frequent first."""
    values, counts = np.unique(numbers, return_counts=True)
    frequent = counts >= max(10, ATOM * len(numbers))
    order = np.argsort(-counts[frequent], kind="stable")
    return tuple(values[frequent][order].tolist())


def bounds_of(numbers: np.ndarray) -> tuple[float, float]:
    """(0, 1) or (0, 100) where all numbers lie within; else just outside of what was seen."""
    low, high = float(numbers.min()), float(numbers.max())
    for top in (1.0, 100.0):
        if low > 0 and high < top:
            return 0.0, top
    margin = (high - low) / len(numbers)
    return low - margin, high + margin


def kept(value: Any) -> Any:
    """A value as JSON has it: dates are text."""
    return value.isoformat() if isinstance(value, date) else plain(value)


def zone_of(known: pd.Series) -> str:
    """The time zone of a column of dates, "" without one."""
    return str(known.dtype.tz) if isinstance(known.dtype, pd.DatetimeTZDtype) else ""


def plain(value: Any) -> Any:
    """NumPy's scalars as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def described(columns: Sequence[Column]) -> pd.DataFrame:
    """A table of the columns, to be read and overridden."""
    rows = [
        {
            "column": c.name,
            "kind": c.kind,
            "resolution": "" if c.kind in ("binary", "categorical") or not c.resolution else f"{c.resolution:g}",
            "values": len(c.categories) or "",
            "missing": f"{c.missing:.1%}" if c.missing else "",
            "note": c.note,
        }
        for c in columns
    ]
    return pd.DataFrame(rows)
