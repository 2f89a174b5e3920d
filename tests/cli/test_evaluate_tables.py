"""`scorefield evaluate RUN TABLE`: from a table with a planted outlier to a page that names it."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scorefield.cli import main
from scorefield.estimators import ScoreDensity

PICTURES = ("marginals.png", "nearest.png", "pairs.png", "correlations.png")


def people(n: int, seed: int) -> pd.DataFrame:
    """Eight columns, gaps and a hostile name among them."""
    rng = np.random.default_rng(seed)
    age, height = rng.integers(18, 80, n), rng.normal(172, 9, n)
    frame = pd.DataFrame({"age": age, "income": rng.lognormal(10 + age / 100, 0.4), "height": height, "k": 7})
    frame["<b>weight & co"] = 0.9 * height - 80 + rng.normal(0, 5, n)
    frame["town"] = rng.choice(["a", "b", "<i>c"], n)
    frame["smoker"] = rng.random(n) < 0.2
    frame["day"] = pd.Timestamp("2020-01-05") + pd.to_timedelta(rng.integers(0, 900, n), unit="D")
    frame["income"] = frame.income.where(rng.random(n) > 0.1)
    return frame


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    people(300, 0).to_csv(folder / "people.csv", index=False)
    flags = ["train", str(folder / "people.csv"), "--out", str(folder / "run"), "--steps", "10", "--columns", "k=constant"]
    assert main(flags) == 0
    return folder


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: re.sub(r"\s+", " ", capsys.readouterr().err)


def content(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text())


def test_an_outlier_is_the_oddest_row_and_its_column_is_named(trained: Path, said: Callable[[], str]) -> None:
    odd = people(60, 1)
    odd.loc[23, "income"] = 1e9
    odd.to_parquet(trained / "odd.parquet")
    run = trained / "run"
    flags = ["evaluate", str(run), str(trained / "odd.parquet"), "--trained-on", str(trained / "people.csv")]
    assert main(flags) == 0
    words = said()
    for name in (*PICTURES, "evaluation.json", "report.html"):
        assert f"wrote {run / name}" in words
        assert (run / name).exists()
    found = content(run)
    assert len(found["oddest"]) == 10
    first = found["oddest"][0]
    assert first["row"] == 23
    assert first["because"][0]["column"] == "income"
    assert first["values"]["income"] == 1e9
    assert first["p_value"] == pytest.approx(1 / 31)
    assert found["oddest"][1]["score"] < first["score"]
    assert (found["rows"], found["compared"], found["trained_on"], found["columns"]) == (60, 60, 300, 7)
    assert found["gaps"] == odd.isna().to_numpy().sum()
    assert found["paired"] != []


def test_a_true_model_passes_and_copies_do_not(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own samples as the table: they are told from others no better than by chance, and are no copies."""
    run = shutil.copytree(trained / "run", tmp_path / "run")
    assert main(["sample", str(run), "-n", "300", "--out", str(tmp_path / "own.parquet"), "--seed", "5"]) == 0
    assert main(["evaluate", str(run), str(tmp_path / "own.parquet"), "-n", "200"]) == 0
    found = content(run)
    test = found["two_sample_test"]
    assert test["low"] <= 0.5 <= test["high"]
    assert test["n"] == 200
    values = {r["metric"]: r["value"] for r in found["records"]}
    assert values["exact copies"] == 0
    assert values["samples near a row"] == pytest.approx(0.05, abs=0.06)
    assert values["samples near a row, real data"] == pytest.approx(0.05, abs=0.01)
    page = (run / "report.html").read_text()
    assert "it found no difference" in page
    assert "no sign of copying" in page

    own = pd.read_parquet(tmp_path / "own.parquet")
    monkeypatch.setattr(ScoreDensity, "sample", lambda self, n, seed: own.head(n))
    assert main(["evaluate", str(run), str(tmp_path / "own.parquet")]) == 0
    values = {r["metric"]: r["value"] for r in content(run)["records"]}
    assert values["exact copies"] == 300
    assert values["samples near a row"] == 1
    assert "so some are near-copies" in (run / "report.html").read_text()


def test_the_log_density_is_that_of_score_samples(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained / "run", tmp_path / "run")
    frame = people(40, 2)
    frame.to_parquet(tmp_path / "new.parquet")
    assert main(["evaluate", str(run), str(tmp_path / "new.parquet")]) == 0
    expected = ScoreDensity.load(run).score_samples(frame)
    record = next(r for r in content(run)["records"] if r["metric"] == "log-density")
    assert record["value"] == pytest.approx(expected.mean())
    assert record["se"] == pytest.approx(expected.std(ddof=1) / 40**0.5)


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_has_everything_in_it_and_names_are_escaped(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained / "run", tmp_path / "run")
    assert main(["evaluate", str(run), str(trained / "people.csv"), "-n", "50"]) == 0
    page = (run / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    names = [tag for tag, _ in tags.found]
    assert not {"b", "i", "script", "link"} & set(names)
    sources = [attributes["src"] or "" for tag, attributes in tags.found if tag == "img"]
    assert len(sources) == len(PICTURES)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "&lt;b&gt;weight &amp; co" in page
    assert "of the 7 columns the 6 with the strongest rank correlations" in page
    for name in PICTURES:
        assert Image.open(run / name).width > 300


def test_the_same_seed_gives_the_same_numbers(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained / "run", tmp_path / "run")
    found = []
    for _ in range(2):
        assert main(["evaluate", str(run), str(trained / "people.csv"), "-n", "40", "--seed", "1"]) == 0
        found.append((run / "evaluation.json").read_bytes())
    assert found[0] == found[1]


def test_a_column_without_values_is_no_obstacle(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained / "run", tmp_path / "run")
    people(30, 3).assign(income=np.nan).to_csv(tmp_path / "poor.csv", index=False)
    assert main(["evaluate", str(run), str(tmp_path / "poor.csv")]) == 0
    assert content(run)["gaps"] == 30
    assert not any(b["column"] == "income" for r in content(run)["oddest"] for b in r["because"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["{run}"], "a run of a table is judged on the rows of a table: scorefield evaluate {run} TABLE"),
        (["{run}", "none.csv"], "no table at none.csv"),
        (["{run}", "{p}", "-n", "5"], "-n must be at least 10, got 5"),
        (["{run}", "few.csv"], "few.csv: at least 10 rows are needed to compare, got 4"),
        (["{run}", "bad.csv"], "bad.csv: column 'town', row 1: 'z' was not seen in fitting"),
        (["{run}", "narrow.csv"], "narrow.csv: column 'age' is missing"),
        (["{run}", "hole.parquet"], "hole.parquet: row 2 has no values"),
        (["{run}", "{p}", "--trained-on", "bad.csv"], "bad.csv: column 'town', row 1: 'z' was not seen in fitting"),
        (["{run}", "{p}", "--trained-on", "none.csv"], "no table at none.csv"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
def test_mistakes_get_one_line_and_write_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str], flags: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(trained / "run", tmp_path / "run")
    frame = people(20, 0)
    frame.head(4).to_csv("few.csv", index=False)
    frame.assign(town=["a", "z"] + ["b"] * 18).to_csv("bad.csv", index=False)
    frame.drop(columns="age").to_csv("narrow.csv", index=False)
    frame.reindex([0, 1, 99, *range(3, 20)]).assign(k=7).to_parquet("hole.parquet")
    before = {p: p.read_bytes() for p in run.iterdir()}
    names = {"run": str(run), "p": str(trained / "people.csv")}
    said()
    assert main(["evaluate", *(flag.format(**names) for flag in flags)]) == 2
    line = said()
    assert words.format(**names) in line
    assert line.count("scorefield: ") == 1
    assert {p: p.read_bytes() for p in run.iterdir()} == before
