"""Rows of data: the same numbers from whatever holds them, and one clear line for what holds none."""

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from scorefield.densities.rows import checked_rows, varying_rows

NUMBERS = {"a": [1, 2, 4], "b": [0.5, -1.5, 3.0]}
EXPECTED = torch.tensor([[1, 0.5], [2, -1.5], [4, 3]], dtype=torch.float64)


@pytest.mark.parametrize(
    "rows",
    [
        EXPECTED.tolist(),
        EXPECTED.numpy(),
        EXPECTED.numpy().astype(object),
        EXPECTED.float().requires_grad_(),
        pd.DataFrame(NUMBERS, index=[7, 7, 2]),
        pd.DataFrame(NUMBERS).astype({"a": "Int64"}),
        pl.DataFrame(NUMBERS),
        pa.table(NUMBERS),
    ],
    ids=["lists", "array", "objects", "float32 tensor", "pandas", "pandas, nullable", "polars", "Arrow"],
)
def test_the_same_numbers_from_whatever_holds_them(rows: Any) -> None:
    found = checked_rows(rows)
    assert torch.equal(found, EXPECTED)
    assert (found.dtype, found.requires_grad) == (torch.float64, False)


@pytest.mark.parametrize("vector", [[1, 2, 4], np.array([1, 2, 4]), torch.tensor([1, 2, 4]), pd.Series([1, 2, 4])])
def test_a_vector_is_one_column_and_integers_are_numbers(vector: Any) -> None:
    found = checked_rows(vector)
    assert found.dtype == torch.float64
    assert torch.equal(found, EXPECTED[:, :1])


def test_an_array_is_copied() -> None:
    array = EXPECTED.numpy().copy()
    found = checked_rows(array)
    array[0] = 9
    assert torch.equal(found, EXPECTED)


def table(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"a": [1, 2], **columns})


MISSING = r"row 1, column 0: nan is not a finite number"
REFUSED: dict[str, tuple[Any, str]] = {
    "text": ([["1", "2"]], "rows of real numbers expected, got <U1"),
    "text among objects": (np.array([[1, "x"]], dtype=object), "rows of real numbers expected: .*'x'"),
    "text in a column": (table(acid=[3, "high"]), "column 'acid', row 1: 'high' is not a number"),
    "NaN": ([[1.0, 2.0], [np.nan, 3.0]], MISSING),
    "NaN, tensor": (torch.tensor([[1.0, 2.0], [np.nan, 3.0]]), MISSING),
    "None": ([[1.0, 2.0], [None, 3.0]], MISSING),
    "NA": ([[1.0, 2.0], [pd.NA, 3.0]], MISSING),
    "infinity": ([[1.0, 2.0], [3.0, -np.inf]], r"row 1, column 1: -inf is not a finite number"),
    "NaN in a column": (table(acid=[3.0, np.nan]), "column 'acid', row 1: a value is missing"),
    "None in a column": (table(acid=[None, 3.0]), "column 'acid', row 0: a value is missing"),
    "NA in a column": (table(acid=pd.array([3, pd.NA], dtype="Int64")), "column 'acid', row 1: a value is missing"),
    "null, polars": (pl.DataFrame({"a": [1, 2], "acid": [0.5, None]}), "column 'acid', row 1: a value is missing"),
    "null, Arrow": (pa.table({"a": [1, 2], "acid": [0.5, None]}), "column 'acid', row 1: a value is missing"),
    "infinity in a column": (table(acid=[np.inf, 3.0]), "column 'acid', row 0: inf is not finite"),
    "dates": (np.array(["2020-01-01"], dtype="datetime64[D]"), r"rows of real numbers expected, got datetime64\[D\]"),
    "dates in a column": (
        table(day=[date(2020, 1, 1), date(2020, 1, 2)]),
        "column 'day' holds dates: real numbers are expected",
    ),
    "time stamps": (table(day=pd.to_datetime(["2020-01-01"] * 2, utc=True)), "column 'day' holds dates"),
    "durations": (table(wait=pd.to_timedelta([1, 2])), "column 'wait' holds durations"),
    "complex": ([[1j, 2.0]], "rows of real numbers expected, got complex128"),
    "complex, tensor": (torch.tensor([[1j, 2.0]]), "real numbers expected, got complex64"),
    "complex column": (table(wave=[1j, 2.0]), "column 'wave' holds complex numbers: real numbers are expected"),
    "equal names": (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns are called 'a': give each a name of its own"),
    "ragged": ([[1, 2], [3]], "rows of real numbers expected: .*inhomogeneous"),
    "too large": ([[10**400]], "rows of real numbers expected: int too large"),
    "nothing": ([], r"rows \(n, d\) expected, at least 1 of them, got shape \(0, 1\)"),
    "no rows": (np.empty((0, 3)), r"rows \(n, d\) expected, at least 1 of them, got shape \(0, 3\)"),
    "no columns": (torch.empty(4, 0), r"rows \(n, d\) expected, at least 1 of them, got shape \(4, 0\)"),
    "empty table": (pd.DataFrame(), "the table is empty: 0 rows, 0 columns"),
    "one number": (3.0, r"rows \(n, d\) expected, at least 1 of them, got shape \(\)"),
    "images": (np.zeros((2, 3, 3)), r"rows \(n, d\) expected, at least 1 of them, got shape \(2, 3, 3\)"),
}


@pytest.mark.parametrize(("rows", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_numbers_is_refused(rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        checked_rows(rows)


def test_as_many_rows_as_are_asked_for() -> None:
    assert torch.equal(checked_rows(EXPECTED, 3), EXPECTED)
    with pytest.raises(ValueError, match=r"at least 4 of them, got shape \(3, 2\)"):
        checked_rows(EXPECTED, 4)


def test_constant_columns_are_refused_with_their_position() -> None:
    assert torch.equal(varying_rows(EXPECTED), EXPECTED)
    nearly = torch.cat([EXPECTED, torch.tensor([[5.0], [5.0], [5.0 + 1e-9]], dtype=torch.float64)], 1)
    assert torch.equal(varying_rows(nearly), nearly)
    nearly[2, 2] = 5.0
    for rows in (nearly, nearly.numpy(), pd.DataFrame(nearly.numpy(), columns=["a", "b", "c"])):
        with pytest.raises(ValueError, match=r"^column 2 is constant: leave it out$"):
            varying_rows(rows)
    with pytest.raises(ValueError, match=r"at least 2 of them, got shape \(1, 2\)"):
        varying_rows(EXPECTED[:1])
