"""What a column is, from its values."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from scorefield.data.columns import Column, as_frame, atoms_of, described, grid_of, infer, inferred
from scorefield.errors import UserError

RNG = np.random.default_rng(0)
N = 400


def only(values: object, name: str = "c", **overrides: str) -> Column:
    return infer(pd.DataFrame({name: values}), overrides)[0]  # type: ignore[arg-type]


def test_every_kind_is_found_from_its_values() -> None:
    frame = pd.DataFrame(
        {
            "real": RNG.normal(size=N),
            "income": RNG.lognormal(size=N),
            "share": RNG.random(N),
            "count": RNG.poisson(4, N),
            "tenths": RNG.integers(0, 50, N) / 10,
            "sex": RNG.choice(["m", "f"], N),
            "flag": RNG.random(N) < 0.3,
            "town": RNG.choice(["a", "b", "c"], N, p=[0.2, 0.5, 0.3]),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 900, N), unit="D"),
            "same": np.full(N, 7.5),
        }
    )
    kinds = {c.name: (c.kind, c.resolution) for c in infer(frame)}
    assert kinds == {
        "real": ("continuous", 0), "income": ("positive", 0), "share": ("bounded", 0), "count": ("integer", 1),
        "tenths": ("integer", 0.1), "sex": ("binary", 1), "flag": ("binary", 1), "town": ("categorical", 1),
        "day": ("datetime", 86400), "same": ("constant", 0),
    }  # fmt: skip


def test_categories_stand_by_falling_frequency() -> None:
    assert only(["x"] * 3 + ["y"] * 5 + ["a", "b"] * 3).categories == ("y", "a", "b", "x")


@pytest.mark.parametrize(
    ("numbers", "step"),
    [([3, 9, 15], 6), ([0.25, 0.5, 1.0], 0.25), ([1.5, 2.5], 1.0), ([0.1, 0.25], 0.15), ([1e-7, 3e-7, np.pi], 0.0)],
)
def test_the_grid_is_the_coarsest_that_holds_all(numbers: list[float], step: float) -> None:
    assert grid_of(np.array(numbers)) == pytest.approx(step)


def test_atoms_are_values_of_many_rows() -> None:
    numbers = np.concatenate([RNG.normal(size=300), np.zeros(80), np.full(20, 1.5), np.full(9, 2.5)])
    assert atoms_of(numbers) == (0.0, 1.5)
    column = only(numbers)
    assert column.kind == "continuous"
    assert "many rows are exactly 0, 1.5" in column.note


def test_ends_lie_outside_of_all_values() -> None:
    column = only(RNG.random(N) * 5 + 3, c="bounded")
    assert column.ends == (0.0, 100.0)
    column = only(RNG.normal(size=N), c="bounded")
    low, high = column.ends
    assert np.isfinite([low, high]).all()
    assert only(RNG.lognormal(size=N)).ends == (0.0, np.inf)


def test_missing_values_are_counted_and_do_not_decide() -> None:
    column = only([1.0, np.nan, 3.0, 5.0, np.nan])
    assert (column.kind, column.resolution, column.missing) == ("integer", 2.0, 0.4)
    assert "40.0% missing" in described([column]).note[0]


@pytest.mark.parametrize(
    ("values", "override", "words"),
    [
        (["1", "two", "3"], "continuous", r"column 'c', row 1: 'two' is not a number"),
        ([1.0, np.inf, 2.0], None, r"column 'c', row 1: np.float64\(inf\) is not finite|column 'c', row 1: inf is not finite"),
        ([np.nan, np.nan], None, "column 'c' has no values"),
        ([1.0, -2.0, 3.5], "positive", "column 'c' cannot be positive"),
        ([1, 2, 3], "binary", "cannot be binary: it has 3 values"),
        ([1, 2, 3], "constant", "cannot be constant: it has 3 values"),
        ([str(i) for i in range(1200)], None, "has 1200 categories, more than 1000"),
    ],
)
def test_what_cannot_be_a_column_is_refused(values: list[object], override: str | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        only(values, **({} if override is None else {"c": override}))


def test_what_is_no_table_is_refused() -> None:
    for bad, words in (
        (np.zeros(3), r"an array of shape \(3,\)"),
        (np.zeros((0, 2)), "the table is empty: 0 rows, 2 columns"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns are called 'a'"),
    ):
        with pytest.raises(UserError, match=words):
            as_frame(bad)
    with pytest.raises(UserError, match="there is no column 'd': choose from c"):
        only([1.0, 2.5], d="integer")
    with pytest.raises(ValueError, match="ends must be in order"):
        Column("c", "bounded", ends=(1.0, 1.0))


def test_text_among_numbers_is_a_mistake_not_a_category() -> None:
    values = pd.Series([1.5, 2.5, "hello", 3.5, None], name="a", dtype=object)
    with pytest.raises(UserError, match="column 'a', row 2: 'hello' is not a number, and 3 of 4 values are"):
        inferred(values)
    assert inferred(values, "categorical").kind == "categorical"
    assert inferred(pd.Series(["7", "x", "y", "x"], name="a")).kind == "categorical"


def test_values_that_are_no_single_ones_and_numbers_on_no_grid_are_named() -> None:
    with pytest.raises(UserError, match="column 'v', row 2: a value of type list; values must be numbers, dates or text"):
        infer(pd.DataFrame({"v": ["a", "b", ["c"]]}))
    numbers = pd.DataFrame({"v": np.random.default_rng(0).normal(size=20)})
    with pytest.raises(UserError, match="column 'v' cannot be integer: its values are no multiples of a step"):
        infer(numbers, {"v": "integer"})
    assert infer(numbers.round(2), {"v": "integer"})[0].resolution == pytest.approx(0.01)


def test_dates_among_text_are_noticed() -> None:
    days = pd.Series([f"2024-01-{d:02}" for d in range(1, 31)])
    with pytest.raises(UserError, match="column 'day' has dates as text: make dates of them"):
        infer(pd.DataFrame({"day": days}))
    with pytest.raises(UserError, match="column 'day', row 7: '2024-13-45' is no date, and 29 of 30 values are: mend it"):
        infer(pd.DataFrame({"day": days.where(days.index != 7, "2024-13-45")}))
    assert infer(pd.DataFrame({"day": days}), {"day": "categorical"})[0].kind == "categorical"


def test_text_that_is_different_in_most_rows_is_noted() -> None:
    names, few = [f"n{i}" for i in range(80)], [f"n{i % 20}" for i in range(80)]
    first, second = infer(pd.DataFrame({"name": names, "few": few}))
    assert "most values occur once" in first.note
    assert not second.note


def test_polars_and_arrow_tables_are_read_as_pandas_ones() -> None:
    values = {
        "x": [0.5, None, 2.25, 7.125], "n": [1, 2, None, 4], "word": ["a", "b", "a", None], "yes": [True, False, True, True],
    }  # fmt: skip
    frames = [as_frame(made) for made in (pd.DataFrame(values), pl.DataFrame(values), pa.table(values))]
    expected = infer(frames[0])
    for frame in frames[1:]:
        assert infer(frame) == expected
        assert list(frame.columns) == list(values)
        assert frame["x"].isna().tolist() == [False, True, False, False]
        assert frame["word"].tolist()[:3] == ["a", "b", "a"]
