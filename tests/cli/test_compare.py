"""scorefield compare as a user calls it, on tiny families."""

import io
import json
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image

from scorefield.baselines import EvidenceBound, VAEConfig
from scorefield.cli import main
from scorefield.cli.compare import seconds
from scorefield.errors import UserError
from scorefield.experiment import Run, compared
from scorefield.experiment import compare as comparing
from scorefield.experiment.compare import Interrupted, Phase, Watch
from scorefield.networks import MLPConfig
from scorefield.recipes import FAMILIES
from scorefield.training import Training

STEPS = 6
ROWS = 6
FIELDS = {"family", "metric", "value", "se", "n", "unit", "kind", "seed"}
TRAINING = Training(steps=1, batch_size=16, checkpoint_every=4)
TINY = {
    "vae": Run(network=VAEConfig((2,), width=8), objective=EvidenceBound(), training=TRAINING),
    "hierarchical-vae": Run(network=VAEConfig((3, 2), width=8), objective=EvidenceBound(), training=TRAINING),
    "score": Run(network=MLPConfig(width=8, blocks=1, frequencies=0), sigma_range=(0.05, 20.0), training=TRAINING),
}


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Few samples, few steps, families that learn nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "SAMPLES", 20)
        patch.setattr(comparing, "affordable", lambda run, budget, progress: STEPS)
        patch.setattr(compared, "STEPS", (2, 5))
        patch.setattr(compared, "SHOWN", 3)
        for name, run in TINY.items():
            patch.setitem(FAMILIES, name, lambda source, run=run: run)
        yield


@dataclass(frozen=True)
class Finished:
    """A comparison of two families, and what it said."""

    folder: Path
    source: Path
    out: str
    err: str


def call(*arguments: str) -> tuple[str, str]:
    """What such a comparison says on stdout and stderr."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        assert main(["compare", *arguments, "--likelihood-rows", str(ROWS), "--budget", "10s"]) == 0
    return out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (150, 4, 4), dtype=np.uint8))
    return path


@pytest.fixture(scope="module")
def made(images: Path) -> Finished:
    folder = images.parent / "out"
    out, err = call(str(images), "--families", "score", "hierarchical-vae", "--out", str(folder))
    return Finished(folder, images, out, err)


@pytest.fixture
def finished(made: Finished, tmp_path: Path) -> Finished:
    """A copy, to be changed at will."""
    return replace(made, folder=Path(shutil.copytree(made.folder, tmp_path / "out")))


def strict(path: Path) -> list[dict[str, Any]]:
    """JSON without NaN and infinities, which are none."""

    def refuse(name: str) -> NoReturn:
        raise AssertionError(name)

    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert isinstance(content, list)
    return content


def families_in(page: str) -> list[str]:
    """First cells of the table."""
    table = page.split("<table>")[1].split("</table>")[0]
    return re.findall(r"<tr><td>([^<]*)</td>", table)


def test_the_table_is_a_strict_list_of_records(finished: Finished) -> None:
    records = strict(finished.folder / "compare.json")
    assert {frozenset(record) for record in records} == {frozenset(FIELDS)}
    assert [*dict.fromkeys(r["family"] for r in records)] == ["hierarchical-vae", "score"]
    assert {r["kind"] for r in records} == {"bound", "estimate", "measured"}
    for name in ("hierarchical-vae", "score"):
        own = {r["metric"]: r for r in records if r["family"] == name}
        assert own["likelihood"]["n"] == ROWS
        assert own["training steps"]["value"] == STEPS
        assert own["seconds per 1,000 samples"]["value"] > 0
        assert strict(finished.folder / name / "compare.json") == [
            r for r in records if r["family"] == name and not r["metric"].startswith("evidence bound by level")
        ]
    totals = [r for r in records if r["metric"] == "evidence bound by level, together"]
    assert [r["unit"] for r in totals] == [
        f"bits/dim; {chain}" for chain in ("VAE of 2 levels", "diffusion, T = 2", "diffusion, T = 5")
    ]


def test_every_file_is_named_and_is_there(finished: Finished) -> None:
    told = [Path(path) for path in re.findall(r"^wrote (.+)$", finished.err, re.MULTILINE)]
    assert sorted(path.name for path in told) == sorted(path.name for path in finished.folder.iterdir()) == [
        "compare.html", "compare.json", "hierarchical-vae", "leaderboard.png", "levels.json", "levels.png", "plan.json",
        "samples.png", "score",
    ]  # fmt: skip
    assert len({path.parent for path in told}) == 1
    for name in ("leaderboard.png", "levels.png", "samples.png"):
        assert Image.open(finished.folder / name).format == "PNG"
    page = (finished.folder / "compare.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert families_in(page) == ["hierarchical-vae", "score", "real data"]


def test_the_table_is_shown_and_the_way_there_told(finished: Finished) -> None:
    rows = [line for line in finished.out.splitlines() if "│" in line]
    assert [row.split("│")[1].strip() for row in rows] == ["hierarchical-vae", "score", "real data"]
    for record in strict(finished.folder / "compare.json"):
        if record["metric"] == "likelihood":
            row = next(row for row in rows if f" {record['family']} " in row)
            assert f"({record['kind']})" in row
            digits = re.findall(r"\d+\.(\d+) ± ", row)[0]
            assert f"{record['value']:.{len(digits)}f} ± {record['se']:.{len(digits)}f} (" in row
    phases = [f"{name}: {phase}" for name in ("hierarchical-vae", "score") for phase in (
        "trial", "training", "likelihood", "sampling", "done",
    )]  # fmt: skip
    lines = finished.err.splitlines()
    assert [line for line in lines if line in phases] == phases


def test_the_same_command_again_changes_nothing_and_others_are_added(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in finished.folder.rglob("*.json")}
    judge = comparing.judge
    monkeypatch.setattr(comparing, "judge", lambda name, *rest: judge(name, *rest) if name == "vae" else pytest.fail(name))
    flags = [str(finished.source), "--out", str(finished.folder), "--families", "hierarchical-vae", "score"]
    call(*flags)
    assert {path: path.read_bytes() for path in finished.folder.rglob("*.json")} == before
    old = strict(finished.folder / "compare.json")
    call(*flags, "vae")
    records = strict(finished.folder / "compare.json")
    assert [r for r in records if r["family"] != "vae"] == old
    assert families_in((finished.folder / "compare.html").read_text()) == ["vae", "hierarchical-vae", "score", "real data"]


def test_fewer_families_have_fewer_rows(finished: Finished) -> None:
    call(str(finished.source), "--out", str(finished.folder), "--families", "score")
    assert families_in((finished.folder / "compare.html").read_text()) == ["score", "real data"]


def test_levels_tell_the_rows_they_are_means_of(finished: Finished) -> None:
    records = strict(finished.folder / "compare.json")
    assert {r["n"] for r in records if r["metric"].startswith("evidence bound by level")} == {ROWS}


def test_families_that_are_not_for_vectors_are_named_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("points.npy", np.random.default_rng(0).normal(3, 2, (80, 3)))
    out, err = call("points.npy", "--families", "vae", "independent-pixels", "score")
    folder = Path("runs") / "compare-points"
    reason = "it models integer levels, and this data is continuous"
    for name in ("independent-pixels", "vae"):
        assert f"{name} is not applicable: {reason}" in out.splitlines()
        assert not (folder / name).exists()
        assert f"{name} is not applicable: {reason}." in (folder / "compare.html").read_text()
    assert [r for r in strict(folder / "compare.json") if r["family"] != "score"] == [
        {
            "family": name, "metric": "not applicable", "value": None, "se": None, "n": 0, "unit": reason,
            "kind": "not applicable", "seed": None,
        }
        for name in ("independent-pixels", "vae")
    ]  # fmt: skip
    told = [Path(path) for path in re.findall(r"^wrote (.+)$", err, re.MULTILINE)]
    assert sorted(told) == sorted(folder.iterdir())
    assert [path.name for path in sorted(told)] == ["compare.html", "compare.json", "leaderboard.png", "plan.json", "score"]
    first = next(r for r in strict(folder / "compare.json") if r["metric"] == "likelihood")
    assert first["unit"] == "nats, at sigma 0.05; probability flow"


def test_images_are_read_as_told(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [str(images), "--families", "independent-pixels", "--out", str(tmp_path / "out"), "--reading.size"]
    call(*flags, "2")
    sizes = [r["value"] for r in strict(tmp_path / "out" / "compare.json") if r["metric"] == "parameters"]
    assert sizes == [2 * 2 * 256]
    assert np.load(tmp_path / "out" / "independent-pixels" / "samples.npz")["samples"].shape == (20, 2, 2)
    assert main(["compare", *flags, "3", "--likelihood-rows", str(ROWS), "--budget", "10s"]) == 2
    assert "holds a comparison with images read in another way" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--families", "gan"], "unknown family 'gan': choose from independent-pixels, softmax-patches, training-images,"),
        (["--families", "vae", "score", "x"], "unknown family 'x'"),
        (["--budget", "soon"], "--budget must be a time such as 30s, 3m or 1h, got 'soon'"),
        (["--budget", "-3m"], "--budget"),
        (["--budget", "5s"], "--budget must be at least 10 s, got 5 s"),
        (["--budget", "0.1m"], "--budget must be at least 10 s, got 6 s"),
        (["--likelihood-rows", "1"], "--likelihood-rows must be at least 2, got 1"),
        (["--likelihood-rows", "many"], "--likelihood-rows"),
        (["--out", "images.npy"], "images.npy is already used, and not by a comparison"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    flags: list[str], words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shutil.copy(images, "images.npy")
    assert main(["compare", "images.npy", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("scorefield: ")]
    assert len(lines) == 1
    assert err.strip().endswith(lines[0])
    assert words in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]


@pytest.mark.parametrize(
    ("stop", "code"),
    [(Interrupted(signal.SIGINT), 130), (Interrupted(signal.SIGTERM), 143), (KeyboardInterrupt(), 130)],
    ids=["Ctrl-C in training", "SIGTERM in training", "Ctrl-C elsewhere"],
)
def test_an_interruption_says_how_to_go_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    stop: BaseException, code: int,
) -> None:  # fmt: skip
    def interrupted(*arguments: object, watch: Watch, **options: object) -> NoReturn:
        phase: Phase = "training"
        watch("vae", phase, 0.5)
        raise stop

    monkeypatch.setattr("scorefield.cli.compare.compare", interrupted)
    assert main(["compare", str(images), "--families", "vae", "--out", str(tmp_path / "out")]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "interrupted" in err.splitlines()[-1]
    assert "what is computed is kept: the same command goes on" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_the_help_names_every_family(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"which (all): {', '.join(FAMILIES)}" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30), ("3m", 180), ("3 min", 180), ("1.5h", 5400), ("45", 45), (" 0.5m ", 30)],
)  # fmt: skip
def test_times_as_people_write_them(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "m", "-3m", "3d", "3m 20s", "1e3s", "1.m", "inf", "nan"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="--budget must be a time such as 30s, 3m or 1h"):
        seconds(text)
