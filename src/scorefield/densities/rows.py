"""Rows of data, as the closed forms take them: a tensor, an array, lists or a data frame, in float64."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def checked_rows(X: Any, least: int = 1) -> Tensor:
    """Rows `(n, d)`, float64 and without a graph; a vector is one column, tables are pandas, polars or Arrow ones.

    Raises:
        ValueError: fewer rows than `least`, no column, another shape; what is no finite real number, with its row and column.
    """
    if isinstance(X, Tensor):
        if X.is_complex():
            raise ValueError(f"real numbers expected, got {str(X.dtype).removeprefix('torch.')}")
        x, names = X.detach().to(torch.float64, copy=True), None
    elif hasattr(X, "columns"):
        x, names = of_table(X)
    else:
        x, names = of_array(X), None
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or x.shape[1] < 1 or len(x) < least:
        raise ValueError(f"rows (n, d) expected, at least {least} of them, got shape {tuple(x.shape)}")
    wrong = ~x.isfinite()
    if wrong.any():
        row, column = wrong.nonzero()[0].tolist()
        name = names[column] if names else column
        raise ValueError(f"row {row}, column {name}: {x[row, column]:g} is not a finite number")
    return x


def column_names(X: Any) -> list[str] | None:
    """Those of a table's columns, or None for what has no names."""
    return [str(name) for name in getattr(X, "column_names", X.columns)] if hasattr(X, "columns") else None


def varying_rows(X: Any) -> Tensor:
    """At least two of the same rows, in no column of which all values are equal: such a column has no density and no score.

    Raises:
        ValueError: as `checked_rows`, and a constant column, with its position from 0.
    """
    x = checked_rows(X, 2)
    constant = x.amin(0) == x.amax(0)
    if constant.any():
        raise ValueError(f"column {int(constant.nonzero()[0])} is constant: leave it out")
    return x


def of_table(X: Any) -> tuple[Tensor, list[str]]:
    """Values and names of the columns of a table; dates, durations and complex numbers are no numbers here."""
    from scorefield.data.columns import as_frame, as_numbers

    frame = as_frame(X)
    for name, values in frame.items():
        if values.dtype.kind in "Mmc":
            kind = {"M": "dates", "m": "durations", "c": "complex numbers"}[values.dtype.kind]
            raise ValueError(f"column {name!r} holds {kind}: real numbers are expected")
        if values.isna().any():
            raise ValueError(f"column {name!r}, row {int(values.isna().to_numpy().argmax())}: a value is missing")
    names = [str(name) for name in frame.columns]
    return torch.from_numpy(np.stack([as_numbers(frame[name], name) for name in names], 1)), names


def of_array(X: Any) -> Tensor:
    """A copy in float64; raises `ValueError` for text, complex numbers or ragged lists."""
    try:
        array = np.asarray(X)
        if array.dtype.kind not in "cOUSMm":
            return torch.from_numpy(np.array(array, dtype=np.float64))
        if array.dtype.kind == "O":
            import pandas as pd  # a slow import

            return torch.from_numpy(np.where(pd.isna(array), np.nan, array).astype(np.float64))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"rows of real numbers expected: {error}") from error
    raise ValueError(f"rows of real numbers expected, got {array.dtype}")
