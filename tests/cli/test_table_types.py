"""What columns of all types are when they come back from the commands, and from the estimator."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from scorefield.cli import main
from scorefield.data.columns import infer
from scorefield.data.tables import read_table
from scorefield.errors import UserError
from scorefield.estimators import ScoreDensity
from scorefield.system import Interruption

N = 120
RNG = np.random.default_rng(0)
X = RNG.normal(size=N)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: re.sub(r"\s+", " ", capsys.readouterr().err)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scorefield.cli.tables.PART", 50)


def train(frame: pd.DataFrame, name: str = "t.parquet", *flags: str) -> None:
    (frame.to_parquet if name.endswith("parquet") else frame.to_csv)(name, index=False)
    assert main(["train", name, "--out", "run", "--steps", "0", *flags]) == 0


def filled(name: str, out: str) -> pd.DataFrame:
    assert main(["impute", "run", name, "--draws", "1", "--out", out]) == 0
    return read_table(out)


def with_gaps(values: pd.Series) -> pd.Series:
    return values.where(np.arange(N) % 5 > 0)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_constant_date_is_kept(name: str) -> None:
    day = pd.Timestamp("2024-01-01 10:00")
    train(pd.DataFrame({"day": [day] * N, "x": X}), name)
    assert main(["sample", "run", "-n", "5", "--out", "more.parquet"]) == 0
    assert (read_table("more.parquet")["day"] == day).all()
    assert main(["logprob", "run", name, "--out", "scored.csv"]) == 0


@pytest.mark.parametrize("out", ["f.csv", "f.parquet"])
def test_dates_keep_their_zone_and_one_format(out: str) -> None:
    days = pd.Series(pd.Timestamp("2024-01-01 23:00", tz="Europe/Berlin") + pd.to_timedelta(np.arange(N) % 40, unit="h"))
    frame = pd.DataFrame({"when": with_gaps(days), "x": X})
    train(frame)
    back = filled("t.parquet", out)
    there = frame["when"].notna().to_numpy()
    assert (pd.to_datetime(back["when"], utc=True)[there] == days[there]).all()
    assert pd.to_datetime(back["when"], utc=True).between(days.min(), days.max()).all()
    assert main(["logprob", "run", out, "--out", "again.csv"]) == 0
    model = ScoreDensity.load("run")
    assert str(model.sample(3)["when"].dtype).endswith("Europe/Berlin]")
    if out == "f.csv":
        assert len({len(line.split(",")[0]) for line in Path(out).read_text().splitlines()[1:]}) == 1


def test_dictionaries_that_differ_from_part_to_part_are_filled() -> None:
    colour = pd.Series(["red"] * 60 + ["blue"] * 60)
    frame = pd.DataFrame({"colour": with_gaps(colour).astype("category"), "x": np.where(RNG.random(N) < 0.5, X, X + 9)})
    train(frame)
    parts = [pa.Table.from_pandas(frame[i : i + 60].assign(colour=frame["colour"][i : i + 60].cat.remove_unused_categories()))
             for i in (0, 60)]  # fmt: skip
    with parquet.ParquetWriter("parts.parquet", parts[0].schema) as file:
        for part in parts:
            file.write_table(part)
    back = filled("parts.parquet", "f.parquet")["colour"]
    assert set(back) == {"red", "blue"}
    there = frame["colour"].notna()
    assert (back[there].astype(str) == colour[there]).all()
    torn = frame.assign(colour=frame["colour"].cat.remove_categories("blue"))
    assert ScoreDensity.load("run").impute(torn)[0]["colour"].notna().all()


def test_a_column_without_values_is_filled_and_whole_numbers_may_get_decimals() -> None:
    frame = pd.DataFrame(
        {"n": with_gaps(pd.Series(RNG.integers(1, 90, N))).astype("Int64"), "x": X, "k": RNG.integers(0, 9, N)}
    )
    train(frame, "t.parquet", "--columns", "n=positive")
    back = filled("t.parquet", "f.parquet")
    assert back["n"].notna().all()
    assert str(back["k"].dtype) == "int64"
    table = pa.Table.from_pandas(frame)
    parquet.write_table(table.set_column(1, "x", pa.nulls(N)), "empty.parquet")
    assert filled("empty.parquet", "g.parquet")["x"].notna().all()


def test_whole_numbers_with_gaps_stay_whole() -> None:
    frame = pd.DataFrame({"n": with_gaps(pd.Series(RNG.integers(1, 90, N))).astype("Int64"), "x": X})
    train(frame, "t.csv")
    filled("t.csv", "f.csv")
    assert all(re.fullmatch(r"\d+", line.split(",")[0]) for line in Path("f.csv").read_text().splitlines()[1:])


def test_columns_that_are_others_again_are_named_and_kept(said: Callable[[], str]) -> None:
    frame = pd.DataFrame({"a": X, "b": RNG.normal(size=N), "again": X})
    columns = infer(frame)
    assert [c.copy_of for c in columns] == ["", "", "a"]
    assert columns[2].note == "the same as a in every row: left out of the model"
    assert infer(frame, {"again": "continuous"})[2].copy_of == ""
    model = ScoreDensity(steps=0).fit(frame)
    drawn = model.sample(20)
    assert (drawn["a"] == drawn["again"]).all()
    np.testing.assert_allclose(
        model.score_samples(frame), ScoreDensity(steps=0).fit(frame[["a", "b"]]).score_samples(frame[["a", "b"]])
    )
    torn = frame.assign(again=with_gaps(frame["again"]))
    assert (model.impute(torn)[0]["again"] == frame["again"]).all()
    np.testing.assert_allclose(
        model.impute(torn.assign(a=frame["a"].where(torn["again"].isna())))[0]["a"], frame["a"], rtol=1e-12
    )
    with pytest.raises(UserError, match=r"column 'again', row 3: .* is not what 'a' has"):
        model.score_samples(frame.assign(again=np.where(np.arange(N) == 3, 7.0, frame["again"])))


def test_large_whole_numbers_are_integers() -> None:
    found = infer(pd.DataFrame({"id": 2**60 + np.arange(50) * 2**40, "x": X[:50]}))
    assert found[0].kind == "integer"


def test_names_of_other_columns_get_one_line_and_text_in_quotes_is_not_renumbered(said: Callable[[], str]) -> None:
    frame = pd.DataFrame({"x": X, "c": ["row 1", "row 2"] * (N // 2)})
    train(frame, "t.csv")
    for wrong, words in (
        (frame[["c", "x"]], "w.csv: the columns are in another order than in fitting: x, c"),
        (frame.assign(id=1), "w.csv: column 'id' was not there in fitting: leave it out"),
        (frame[["x"]], "w.csv: column 'c' is missing: the model was fitted on x, c"),
        (
            frame.assign(c=["row 1"] * 70 + ["row 9"] * 50),
            "w.csv: column 'c', row 70: 'row 9' was not seen in fitting; known are row 1",
        ),
    ):
        wrong.to_csv("w.csv", index=False)
        for command in ("logprob", "impute"):
            assert main([command, "run", "w.csv", "--out", "o.csv"]) == 2
            assert words in said()
    assert not Path("o.csv").exists()


def test_suffixes_may_be_in_capitals() -> None:
    train(pd.DataFrame({"x": X, "y": X**2}))
    for name in ("A.CSV", "A.TSV", "A.CSV.GZ", "A.PARQUET"):
        assert main(["sample", "run", "-n", "7", "--out", name]) == 0
        assert list(read_table(name).columns) == ["x", "y"]
    assert Path("A.CSV.GZ").read_bytes()[:2] == b"\x1f\x8b"
    assert Path("A.PARQUET").read_bytes()[:4] == b"PAR1"


def test_an_index_with_a_name_is_a_column() -> None:
    frame = pd.DataFrame({"x": X}, index=pd.Index(np.arange(N) * 3, name="id"))
    frame.to_parquet("i.parquet")
    assert set(read_table("i.parquet").columns) == {"x", "id"}
    frame.sort_values("x").rename_axis(None).to_parquet("i.parquet")
    assert list(read_table("i.parquet").columns) == ["x"]


def test_semicolons_are_noticed(said: Callable[[], str]) -> None:
    Path("s.csv").write_text("a;b\n1;2\n")
    assert main(["describe", "s.csv"]) == 2
    assert "s.csv seems to be separated by semicolons" in said()


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGINT)
        assert interruption.signal_number is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


def test_the_estimator_behaves_as_others() -> None:
    for method in ("score_samples", "anomaly_score", "stein_score", "impute"):
        with pytest.raises(NotFittedError):
            getattr(ScoreDensity(), method)(X[:, None])
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        ScoreDensity(steps=-1).fit(X[:, None])
    frame = pd.DataFrame({"x": X, "y": with_gaps(pd.Series(X + 1))}, index=np.arange(N)[::-1])
    found = make_pipeline(ScoreDensity(steps=0)).fit(frame)
    assert found.score_samples(frame).shape == (N,)
    assert (found[-1].impute(frame)[0].index == frame.index).all()
    search = GridSearchCV(ScoreDensity(steps=0), {"components": [1, 4]}, cv=2).fit(frame)
    assert search.best_params_["components"] in (1, 4)
    table = pa.Table.from_pandas(frame.reset_index(drop=True))
    np.testing.assert_array_equal(ScoreDensity(steps=0).fit(table).score_samples(table), found.score_samples(frame))


def test_a_column_that_no_training_row_has_is_named() -> None:
    values = np.full((N, 2), np.nan)
    values[:, 0] = X
    model = ScoreDensity(steps=0)
    order = model._split(N, 0)
    values[order[2], 1] = RNG.normal(size=len(order[2]))
    with pytest.raises(UserError, match=r"column 'x1' has 12 values, none in a row that is trained on: leave it out"):
        model.fit(values)
