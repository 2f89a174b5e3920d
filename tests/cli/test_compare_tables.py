"""scorefield compare TABLE: densities side by side, kept families, refusals."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scorefield.cli import main
from scorefield.cli.compare_tables import TEST
from scorefield.estimators import MixtureTable
from scorefield.randomness import derive_seed

QUICK = ("--families", "kernel", "mixture")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    a = rng.normal(size=300)
    pd.DataFrame({"a": a, "b": 0.8 * a + 0.6 * rng.normal(size=300)}).to_csv(tmp_path / "two.csv", index=False)
    return tmp_path / "two.csv"


def content(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Records by density and measure."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for record in json.loads((folder / "compare.json").read_text())["records"]:
        found.setdefault(record["family"], {})[record["metric"]] = record
    return found


def test_densities_are_those_of_held_out_rows(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["compare", str(table), *QUICK, "--out", str(out), "--seed", "3"]) == 0
    frame = pd.read_csv(table)
    order = np.random.default_rng(derive_seed(3, "held-out rows of a table")).permutation(300)
    cut = round(TEST * 300)
    rows = MixtureTable(random_state=3).fit(frame.iloc[order[cut:]]).score_samples(frame.iloc[order[:cut]])
    found = content(out)
    assert found["mixture"]["log-density"]["value"] == pytest.approx(rows.mean(), abs=1e-9)
    truth = stats.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]]).logpdf(frame.iloc[order[:cut]])
    assert abs((rows - truth).mean()) < 0.15
    gap = found["mixture"]["log-density"]["value"] - found["kernel"]["log-density"]["value"]
    assert gap > 0
    assert found["kernel"]["less than the best"]["value"] == pytest.approx(gap, abs=1e-9)
    assert found["mixture"]["less than the best"]["value"] == 0
    assert found["mixture"]["two-sample accuracy"]["value"] == pytest.approx(0.5, abs=0.2)
    page = (out / "compare.html").read_text()
    assert "mixture" in page
    assert "data:image/png" in page


def test_what_is_done_is_kept(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["compare", str(table), "--families", "mixture", "--out", str(out)]) == 0
    kept = json.loads((out / "mixture.json").read_text())
    kept["log_density"] = [7.0] * len(kept["log_density"])
    (out / "mixture.json").write_text(json.dumps(kept))
    assert main(["compare", str(table), *QUICK, "--out", str(out)]) == 0
    assert content(out)["mixture"]["log-density"]["value"] == 7.0
    assert main(["compare", str(table), *QUICK, "--out", str(out), "--seed", "1"]) == 2
    assert "other data or another seed" in capsys.readouterr().err


def test_gaps_are_for_the_score_alone(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.read_csv(table)
    frame.loc[::7, "b"] = np.nan
    frame.to_csv(table, index=False)
    assert main(["compare", str(table), *QUICK, "--out", str(tmp_path / "out")]) == 2
    assert "row 0 has missing values, which only score takes: add it to --families" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("scorefield.estimators.density.default_steps", lambda rows: 0)
    assert main(["compare", str(table), *QUICK, "score", "--out", str(tmp_path / "out")]) == 0
    assert content(tmp_path / "out").keys() == {"score"}
    assert "kernel is not applicable: row" in capsys.readouterr().out
    assert "mixture is not applicable" in (tmp_path / "out" / "compare.html").read_text()


def test_without_zuko_the_flow_says_so(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zuko", None)
    assert main(["compare", str(table), "--families", "spline-flow", "--out", str(tmp_path / "out")]) == 0
    assert "needs the library zuko" in json.loads((tmp_path / "out" / "compare.json").read_text())["refused"]["spline-flow"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--families", "forest"], "'forest'"), (["--out", "."], "already used")],
)
def test_mistakes_are_one_line(
    table: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    assert main(["compare", str(table), *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_too_few_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.DataFrame({"a": range(20)}).to_csv(tmp_path / "few.csv", index=False)
    assert main(["compare", str(tmp_path / "few.csv"), "--out", str(tmp_path / "out")]) == 2
    assert "at least 50 rows" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
