"""The commands on tables, from a CSV file to a filled one."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scorefield.cli import main
from scorefield.cli.tables import concerns_table
from scorefield.estimators import ScoreDensity
from scorefield.estimators.training import Learning


def people(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = rng.integers(18, 80, n)
    frame = pd.DataFrame(
        {"age": age, "income": rng.lognormal(10 + age / 100, 0.4), "town": rng.choice(["a", "b", "c"], n), "k": 7}
    )
    frame["income"] = frame.income.where(rng.random(n) > 0.1)
    frame["day"] = pd.Timestamp("2020-01-05") + pd.to_timedelta(rng.integers(0, 900, n), unit="D")
    return frame


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: re.sub(r"\s+", " ", capsys.readouterr().err)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    people().to_csv(folder / "people.csv", index=False)
    assert (
        main(["train", str(folder / "people.csv"), "--out", str(folder / "run"), "--steps", "20", "--columns", "k=constant"])
        == 0
    )
    return folder / "run"


def test_samples_look_like_the_table(run: Path, tmp_path: Path, said: Callable[[], str]) -> None:
    assert main(["sample", str(run), "-n", "50", "--out", str(tmp_path / "more.tsv.gz")]) == 0
    assert f"wrote {tmp_path / 'more.tsv.gz'}: 50 rows, seed 0" in said()
    drawn = pd.read_csv(tmp_path / "more.tsv.gz", sep="\t")
    assert list(drawn.columns) == ["age", "income", "town", "k", "day"]
    assert len(drawn) == 50
    assert drawn.age.dtype == np.int64
    assert set(drawn.town) <= {"a", "b", "c"}
    assert (drawn.k == 7).all()
    assert (drawn.income > 0).all()


def test_scores_stand_beside_the_table(run: Path, tmp_path: Path) -> None:
    odd = people().head(30)
    odd.loc[3, "income"] = 1e9
    odd.to_parquet(tmp_path / "odd.parquet")
    assert main(["logprob", str(run), str(tmp_path / "odd.parquet"), "--out", str(tmp_path / "scored.csv")]) == 0
    scored = pd.read_csv(tmp_path / "scored.csv")
    assert list(scored.columns) == ["age", "income", "town", "k", "day", "log_density", "se", "anomaly_pvalue"]
    assert scored.anomaly_pvalue.idxmin() == scored.log_density.idxmin() == 3
    assert scored.anomaly_pvalue[3] == pytest.approx(1 / 41)


def test_gaps_are_filled_and_the_rest_is_left(run: Path, tmp_path: Path, said: Callable[[], str]) -> None:
    torn = people().head(40)
    torn.to_csv(tmp_path / "torn.csv", index=False)
    flags = ["impute", str(run), str(tmp_path / "torn.csv"), "--draws", "2", "--out", str(tmp_path / "filled.csv")]
    assert main(flags) == 0
    gaps = int(torn.isna().to_numpy().sum())
    assert f"{gaps} gaps in 40 rows filled, 2 draws, seed 0" in said()
    filled = pd.read_csv(tmp_path / "filled.csv", parse_dates=["day"])
    assert list(filled.columns) == ["draw", "age", "income", "town", "k", "day"]
    assert filled.draw.tolist() == [1] * 40 + [2] * 40
    assert not filled.isna().any().any()
    for draw in (1, 2):
        own = filled[filled.draw == draw].drop(columns="draw").reset_index(drop=True)
        there = torn.notna()
        pd.testing.assert_frame_equal(own[there], torn[there], check_dtype=False)
    holes = torn.income.isna()
    assert (filled.income[:40][holes].to_numpy() != filled.income[40:][holes.to_numpy()].to_numpy()).all()
    assert main(flags) == 2
    assert "it exists already" in said()


def test_a_table_may_come_in_parts(run: Path, tmp_path: Path, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    table, whole = tmp_path / "people.csv", people().head(70)
    whole.to_csv(table, index=False)
    assert main(["logprob", str(run), str(table), "--out", str(tmp_path / "whole.csv")]) == 0
    monkeypatch.setattr("scorefield.cli.tables.PART", 16)
    assert main(["logprob", str(run), str(table), "--out", str(tmp_path / "parts.csv")]) == 0
    one, other = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("whole", "parts"))
    pd.testing.assert_frame_equal(one, other, rtol=1e-9)
    assert main(["impute", str(run), str(table), "--draws", "2", "--out", str(tmp_path / "filled.csv")]) == 0
    filled = pd.read_csv(tmp_path / "filled.csv")
    assert filled.draw.tolist() == [1] * 70 + [2] * 70
    assert filled.age.tolist() == whole.age.tolist() * 2
    gaps = whole.income.isna().to_numpy()
    drawn = filled.income.to_numpy().reshape(2, 70)[:, gaps]
    assert f"{gaps.sum()} gaps in 70 rows filled" in said()
    assert len(np.unique(drawn)) == drawn.size
    whole.assign(town=["a"] * 40 + ["z"] * 30).to_csv(table, index=False)
    assert main(["logprob", str(run), str(table), "--out", str(tmp_path / "no.csv")]) == 2
    assert "column 'town', row 40: 'z' was not seen in fitting" in said()
    assert not (tmp_path / "no.csv").exists()


def test_columns_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people().to_csv(tmp_path / "people.csv", index=False)
    assert main(["describe", str(tmp_path / "people.csv")]) == 0
    lines = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if line.startswith("│")}
    for name, kind in (("age", "integer"), ("income", "positive"), ("town", "categorical"), ("k", "constant")):
        assert kind in lines[name]
    assert "% missing" in lines["income"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["train", "{p}", "--out", "{new}", "--columns", "age"], "--columns takes NAME=KIND"),
        (["train", "{p}", "--out", "{new}", "--columns", "age=number"], "--columns takes NAME=KIND"),
        (["train", "{p}", "--out", "{new}", "--columns", "size=integer"], "there is no column 'size'"),
        (["train", "{p}", "--out", "{new}", "--columns", "town=integer"], "column 'town', row 0: "),
        (["train", "{p}", "--out", "{run}"], "is already used"),
        (["train", "none.csv", "--out", "{new}"], "no table at none.csv"),
        (["sample", "{run}", "--out", "x.png"], "x.png is no name of a table"),
        (["sample", "{run}", "-n", "0", "--out", "x.csv"], "-n must be at least 1"),
        (["logprob", "{run}", "{bad}", "--out", "x.csv"], "column 'town', row 1: 'z' was not seen in fitting"),
        (["logprob", "{run}", "{few}", "--out", "x.csv"], "column 'age' is missing: the model was fitted on age, income"),
        (["impute", "{run}", "{p}", "--draws", "0", "--out", "x.csv"], "--draws must be at least 1"),
        (["impute", ".", "{p}", "--out", "x.csv"], "is no run of a table"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_mistakes_get_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str], flags: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    people().to_csv("people.csv", index=False)
    people().head(9).assign(town=["a", "z"] + ["b"] * 7).to_csv("bad.csv", index=False)
    people().drop(columns="age").to_csv("few.csv", index=False)
    before = sorted(p.name for p in tmp_path.iterdir())
    names = {"p": "people.csv", "bad": "bad.csv", "few": "few.csv", "run": str(run), "new": "new"}
    assert main([flag.format(**names) for flag in flags]) == 2
    line = said()
    assert words in line
    assert line.count("scorefield: ") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_only_tables_are_treated_as_tables(run: Path) -> None:
    assert concerns_table("train", ["people.csv", "--out", "x"])
    assert not concerns_table("train", ["digits", "--out", "people.csv"])
    assert concerns_table("sample", [str(run), "--out", "x.csv"])
    assert not concerns_table("sample", ["runs/digits", "--out", "x.csv"])
    assert concerns_table("evaluate", [str(run)])
    assert not concerns_table("evaluate", ["runs/digits"])


def test_more_columns_than_rows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.DataFrame(np.random.default_rng(0).normal(size=(5, 12))).to_csv(tmp_path / "wide.csv", index=False)
    assert main(["train", str(tmp_path / "wide.csv"), "--out", str(tmp_path / "run")]) == 2
    assert "5 rows are too few for 12 columns" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_ctrl_c_keeps_what_is_trained_and_resume_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    monkeypatch.chdir(tmp_path)
    people().to_csv("people.csv", index=False)
    command = ["train", "people.csv", "--steps", "6", "--columns", "town=categorical", "--out"]
    assert main([*command, "whole"]) == 0
    advance = Learning.advance

    def stopped(self: Learning) -> None:
        if self.state.step == 2:
            signal.raise_signal(signal.SIGINT)
        advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Learning, "advance", stopped)
        assert main([*command, "run"]) == 130
    assert "scorefield train people.csv --out run --columns town=categorical --steps 6 --seed 0 --resume" in said()
    assert [p.name for p in Path("run").iterdir()] == ["training.safetensors"]
    assert main([*command, "run"]) == 2
    assert "run holds an interrupted training: go on with --resume" in said()
    assert main([*command, "run", "--resume", "--seed", "1"]) == 2
    assert "belongs to other rows or settings" in said()
    assert main([*command, "run", "--resume"]) == 0
    assert sorted(p.name for p in Path("run").iterdir()) == ["config.json", "model.safetensors"]
    assert Path("run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert main([*command, "new", "--resume"]) == 2
    assert "holds no interrupted training of a table" in said()


def test_an_interrupted_training_is_no_density_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/training.safetensors").touch()
    people().to_csv("people.csv", index=False)
    for command in (["sample", "run", "--out", "x.csv"], ["logprob", "run", "people.csv", "--out", "x.csv"]):
        assert main(command) == 2
        assert "go on by scorefield train TABLE --out run --resume" in said()
    assert not Path("x.csv").exists()


def test_the_commands_take_what_the_estimator_saved(tmp_path: Path, said: Callable[[], str]) -> None:
    ScoreDensity(steps=0).fit(people()).save(tmp_path / "density")
    assert main(["sample", str(tmp_path / "density"), "-n", "5", "--out", str(tmp_path / "x.csv")]) == 0
    assert len(pd.read_csv(tmp_path / "x.csv")) == 5


def test_interrupted_scoring_does_not_promise_to_go_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    people().to_csv(tmp_path / "people.csv", index=False)
    monkeypatch.setattr(ScoreDensity, "score_samples", lambda *_: signal.raise_signal(signal.SIGINT))
    assert main(["logprob", str(run), str(tmp_path / "people.csv"), "--out", str(tmp_path / "x.csv")]) == 130
    assert said().strip().endswith("interrupted; nothing was left half written")
    assert [p.name for p in tmp_path.iterdir()] == ["people.csv"]
