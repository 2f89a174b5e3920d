"""The commands as a user calls them, on a tiny run."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import scorefield
from scorefield.cli import main
from scorefield.experiment.samplers import SAMPLERS, SamplerName, SamplerOptions, sampler_named
from scorefield.persistence import load
from scorefield.samplers import Heun


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return re.sub(r"\s+", " ", capsys.readouterr().err)


def test_train_writes_a_run_folder(tiny_run: Path) -> None:
    assert sorted(p.name for p in tiny_run.iterdir()) == [
        "checkpoints", "config.json", "log.jsonl", "model.safetensors", "run.json",
    ]  # fmt: skip
    stored = json.loads((tiny_run / "run.json").read_text())
    assert stored["format_version"] == 1
    assert stored["run"]["recipe"] == "digits"
    assert stored["run"]["training"]["steps"] == 12
    assert stored["run"]["training"]["compile"] == "off"  # resolved
    assert stored["made_with"]["scorefield"] == scorefield.__version__
    config = json.loads((tiny_run / "config.json").read_text())
    assert config["spec"]["scaling"]["levels"] == 17
    assert config["spec"]["event_shape"] == [1, 8, 8]


def test_npz_holds_pixels_and_begins_alike_for_any_n(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "run", "-n", "70", "--steps", "3", "--seed", "5", "--out", "a.npz"]) == 0
    assert "wrote a.npz" in said(capsys)
    assert main(["sample", "run", "-n", "3", "--steps", "3", "--seed", "5", "--out", "b.npz"]) == 0
    assert main(["sample", "run", "-n", "3", "--steps", "3", "--seed", "6", "--out", "c.npz"]) == 0
    a, b, c = (np.load(f"{name}.npz", allow_pickle=False) for name in "abc")
    assert list(a) == ["samples"]
    assert a["samples"].shape == (70, 8, 8)
    assert a["samples"].dtype == np.uint8
    np.testing.assert_array_equal(a["samples"][:3], b["samples"])
    assert (b["samples"] != c["samples"]).any()
    levels = np.round(np.arange(17) * 255 / 16).astype(np.uint8)
    assert set(np.unique(a["samples"])) <= set(levels)


def test_formats_hold_the_same_samples(run: Path) -> None:
    flags = ["sample", "run", "-n", "5", "--steps", "3", "--out"]
    for name in ("x.npz", "x.png", "x.gif", "folder"):
        assert main([*flags, name]) == 0
    samples = np.load("x.npz")["samples"]
    files = sorted(Path("folder").iterdir())
    assert [p.name for p in files] == [f"000{i}.png" for i in range(5)]
    np.testing.assert_array_equal(np.stack([np.asarray(Image.open(p)) for p in files]), samples)
    grid = np.asarray(Image.open("x.png").convert("L"))
    film = Image.open("x.gif")
    assert film.n_frames in (3, 4)  # the start, two levels, the end; equal frames are one
    film.seek(film.n_frames - 1)
    assert np.abs(np.asarray(film.convert("L")).astype(int) - grid).max() <= 2  # a GIF's palette


def test_overwrite_replaces(run: Path) -> None:
    Path("x.png").write_text("old")
    assert main(["sample", "run", "-n", "2", "--steps", "2", "--out", "x.png", "--overwrite"]) == 0
    assert Image.open("x.png").format == "PNG"
    assert [p.name for p in Path().iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_is_a_choice(run: Path, sampler: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "run", "-n", "2", "--steps", "4", "--sampler", sampler, "--out", "x.npz"]) == 0
    assert len(np.unique(np.load("x.npz")["samples"])) > 3
    walked = "4 steps at level 0.3" if sampler == "langevin" else "4 levels from 80 to 0.002, the model's"
    assert f"wrote x.npz: 2 samples by {sampler} ({walked}" in said(capsys)


def test_options_of_samplers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def samples(*flags: str) -> np.ndarray:
        assert main(["sample", "run", "-n", "3", "--steps", "5", "--out", "x.npz", "--overwrite", *flags]) == 0
        return np.load("x.npz")["samples"]

    heun, ddim = samples(), samples("--sampler", "ddim")
    np.testing.assert_array_equal(samples("--process", "edm", "--grid", "karras"), heun)
    for flags in (["--process", "vp"], ["--grid", "log"]):
        assert (samples(*flags) != heun).any()
    np.testing.assert_array_equal(samples("--sampler", "ddim", "--eta", "0"), ddim)
    np.testing.assert_array_equal(samples("--sampler", "ddim", "--eta", "1"), samples("--sampler", "ancestral"))
    assert (samples("--sampler", "ddim", "--eta", "1") != ddim).any()
    assert (samples("--sampler", "langevin", "--sigma", "2") != samples("--sampler", "langevin")).any()


@pytest.mark.parametrize("nfe", [11, 12, 33])
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "dormand-prince"])
def test_the_most_steps_within_a_number_of_evaluations(sampler: SamplerName, nfe: int, tiny_run: Path) -> None:
    chosen = sampler_named(SamplerOptions(sampler, nfe=nfe), load(str(tiny_run)))
    costs = [replace(chosen, steps=steps).nfe for steps in (chosen.steps, chosen.steps + 1)]
    assert costs[0] is not None
    assert costs[1] is not None
    assert costs[0] <= nfe < costs[1]


def test_the_last_line_says_what_was_walked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = run / "config.json"
    fields = json.loads(config.read_text())
    fields["spec"]["sigma_range"] = [0.0005, 200.0]
    config.write_text(json.dumps(fields))
    flags = ["sample", "run", "-n", "2", "--overwrite", "--out", "x.npz"]
    assert main([*flags, "--nfe", "8", "--seed", "3"]) == 0
    assert "2 samples by heun (4 levels from 200 to 0.0005, the model's; 7 evaluations each), seed 3" in said(capsys)
    assert main([*flags, "--steps", "4", "--process", "ve"]) == 0
    line = said(capsys)
    assert "(4 levels from 80 to 0.002, as far as the process reaches in the model's 200 to 0.0005; 7 evaluations" in line
    assert main([*flags, "--steps", "4", "--sampler", "dormand-prince"]) == 0
    assert "2 samples by dormand-prince (4 levels from 200 to 0.0005, the model's), seed 0" in said(capsys)
    assert main([*flags, "--grid", "vp"]) == 2  # whose levels end at 152
    assert "scorefield: VP has noise levels from 0.0010005 to 152.167, not [" in said(capsys)


def test_evaluate_writes_records_pictures_and_a_report(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "-n", "100", "--steps", "4", "--likelihood-rows", "8", "--likelihood.steps", "5"]) == 0
    captured = capsys.readouterr()
    written = set(re.findall(r"wrote run/(\S+)", captured.err))
    assert written == {
        "samples.png", "film.gif", "neighbours.png", "learning_curve.png", "loss_by_sigma.png", "evaluation.json",
        "report.html", "likelihood.jsonl", "bound_by_sigma.png",
    }  # fmt: skip
    assert all((run / name).stat().st_size > 0 for name in written)
    records = json.loads((run / "evaluation.json").read_text())
    assert {frozenset(r) for r in records} == {frozenset(["metric", "value", "se", "n", "unit", "seed"])}
    by_level = [r for r in records if r["metric"].startswith("denoising loss at sigma")]
    mean = next(r for r in records if r["metric"] == "denoising loss")
    assert len(by_level) == 8
    assert mean["value"] == pytest.approx(sum(r["value"] for r in by_level) / 8)
    assert "denoising loss" in captured.out
    bits = {r["metric"]: r for r in records if r["metric"].startswith("bits per dimension")}
    assert bits["bits per dimension, uniform"]["value"] == pytest.approx(math.log2(17))
    assert bits["bits per dimension, probability flow"]["se"] > 0
    assert bits["bits per dimension, evidence bound"]["n"] == 8
    lines = (run / "likelihood.jsonl").read_text().splitlines()
    (run / "likelihood.jsonl").write_text(lines[0] + "\n" + lines[1][:40])  # as a kill may leave it
    assert main(["evaluate", "run", "-n", "100", "--steps", "4", "--likelihood-rows", "8", "--likelihood.steps", "5"]) == 0
    assert (run / "likelihood.jsonl").read_text().splitlines() == lines
    assert json.loads((run / "evaluation.json").read_text()) == records


def test_logprob_writes_a_row_for_each_example(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["logprob", "run", "digits", "-n", "5", "--steps", "3", "--probes", "2"]
    assert main([*flags, "--out", "p.csv"]) == 0
    assert "wrote p.csv: 5 rows" in said(capsys)
    assert main([*flags, "--out", "p.parquet"]) == 0
    table, same = pd.read_csv("p.csv"), pd.read_parquet("p.parquet")
    assert list(table) == ["row", "log_density", "se", "refinement", "bits_per_dim", "typicality", "p_value"]
    np.testing.assert_allclose(table.to_numpy(), same.to_numpy())
    np.testing.assert_allclose(table.bits_per_dim, -table.log_density / (64 * math.log(2)))
    assert (table.se > 0).all()
    assert table.p_value.between(0, 1, inclusive="right").all()
    assert main([*flags, "--out", "p.csv"]) == 2
    assert "p.csv: it exists already" in said(capsys)
    assert main(["sample", "run", "-n", "3", "--steps", "3", "--out", "drawn"]) == 0  # a folder of images 0 … 255
    capsys.readouterr()
    assert main(["logprob", "run", "drawn", "--steps", "3", "--probes", "1", "--draws", "2", "--out", "drawn.csv"]) == 0
    assert "a single probe knows no standard error" in said(capsys)
    drawn = pd.read_csv("drawn.csv")
    assert drawn.file.tolist() == ["0000.png", "0001.png", "0002.png"]
    assert drawn.bound.notna().all()
    assert drawn.se.isna().all()
    assert main([*flags[:-2], "--probes", "0", "--out", "q.csv"]) == 2
    assert "--probes must be from 1 to 1000, got 0" in said(capsys)
    assert main([*flags, "--out", "p.txt"]) == 2
    assert "a table is a .parquet or a .csv file" in said(capsys)
    np.save("flat.npy", np.zeros((20, 3), np.float32))
    assert main(["logprob", "run", "flat.npy", "--out", "q.csv"]) == 2
    assert "the model makes events of shape (1, 8, 8), flat.npy holds (3,)" in said(capsys)


def test_a_moved_run_works(run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.move(run, tmp_path / "elsewhere" / "renamed")
    assert main(["sample", "elsewhere/renamed", "-n", "2", "--steps", "2", "--out", "x.png"]) == 0


def test_resuming_a_finished_run_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert main(["train", "digits", "--out", "run", "--resume"]) == 0
    assert "finished already: 12 steps" in said(capsys)
    assert before == {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}


def test_steps_may_grow_on_resume(run: Path, tiny_flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", "--out", "run", "--resume", "--steps", "20"]) == 0
    assert "training.steps: 12 -> 20" in said(capsys)
    assert main(["train", "digits", "--out", "whole", *tiny_flags, "--steps", "20"]) == 0
    assert (run / "model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_demo_from_images_to_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = Heun(steps=2)
    for command in ("sample", "evaluate"):  # 2 steps instead of 18, for time's sake
        monkeypatch.setattr(f"scorefield.cli.{command}.sampler_named", lambda *arguments: small)
    monkeypatch.setattr("scorefield.cli.demo.LIKELIHOOD_ROWS", 2)
    assert main(["demo", "--steps", "2", "--out", "digits"]) == 0
    err = said(capsys)
    assert "digits holds out 180 examples to compare with, so 180 samples are judged, not 2000" in err
    assert f"look at {(tmp_path / 'digits' / 'report.html').resolve()}" in err
    for name in ("digits.png", "digits.gif", "report.html"):
        assert (tmp_path / "digits" / name).stat().st_size > 0
    records = json.loads((tmp_path / "digits" / "evaluation.json").read_text())
    assert next(r["n"] for r in records if r["metric"].startswith("Fréchet")) == 180
    assert main(["demo", "--steps", "2", "--out", "digits", "-n", "50"]) == 0  # goes on with what is there
    err = said(capsys)
    assert "finished already: 2 steps" in err
    assert "holds out" not in err


def test_data_says_what_it_found(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "digits", "--out", "sheet.png"]) == 0
    out, err = capsys.readouterr()
    assert "1797 images of shape (1, 8, 8), 17 integer levels, 0 … 16" in out
    assert "wrote sheet.png" in err
    assert Image.open("sheet.png").format == "PNG"


def test_data_replaces_its_own_contact_sheet_and_no_other(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["data", "digits"]) == 0
        assert "wrote contact-sheet.png" in capsys.readouterr().err
    assert main(["data", "digits", "--out", "contact-sheet.png"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["data", "digits", "--out", "contact-sheet.png", "--overwrite"]) == 0


def test_a_contact_sheet_shows_more_than_the_first_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are read class by class; the sheet is a random part of all."""
    monkeypatch.chdir(tmp_path)
    for shade in (0, 1):
        folder = tmp_path / "set" / f"{shade}"
        folder.mkdir(parents=True)
        for i in range(120):
            Image.fromarray(np.full((4, 4), 100 * shade + i // 2, np.uint8)).save(folder / f"{i}.png")
    assert main(["data", "set", "--out", "sheet.png"]) == 0
    cells = np.asarray(Image.open("sheet.png"))[10::50, 10::50]  # 4×4 pixels twelvefold, and gaps of 2
    assert cells.shape == (10, 10)
    assert 25 < (cells >= 100).sum() < 75  # ±5 standard deviations of half of 100


def test_data_tells_official_splits(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part, n in (("train", 20), ("test", 5), ("val", 4)):
        (tmp_path / "set" / part).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(tmp_path / "set" / part / f"{i}.png")
    assert main(["data", "set"]) == 0
    assert "split: 20 train, 4 validation, 5 test (validation and test as in the source)" in capsys.readouterr().out


def test_vectors_keep_their_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    data = rng.normal([100.0, -3.0], [20.0, 0.1], (2000, 2))
    np.save("points.npy", data)
    flags = ["--steps", "300", "--network.width", "32", "--threads", "1", "--batch-size", "128"]
    assert main(["train", "points.npy", "--out", "run", *flags]) == 0
    assert main(["sample", "run", "-n", "2000", "--out", "x.npz"]) == 0
    samples = np.load("x.npz")["samples"]
    assert samples.dtype.kind == "f"
    # standard errors of a mean and a std from 2,000 draws are 2.2 % and 1.6 % of the std; the rest is for 300 steps of learning
    np.testing.assert_allclose((samples.mean(0) - data.mean(0)) / data.std(0), 0, atol=0.15)
    np.testing.assert_allclose(samples.std(0) / data.std(0), 1, atol=0.1)
    assert main(["sample", "run", "-n", "50", "--out", "x.png"]) == 0
    assert main(["evaluate", "run", "-n", "200", "--likelihood-rows", "4"]) == 0


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"scorefield {scorefield.__version__}\n"
    for command, words in {
        "--help": ["train", "sample", "evaluate", "demo", "data"],
        "train": ["--steps", "--minutes", "--recipe", "--seed", "--checkpoint-every", "--resume", "optimiser steps"],
        "sample": ["--sampler", "--steps", "--seed", "annealed-langevin"],
    }.items():
        arguments = [command] if command == "--help" else [command, "--help"]
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert not stop.value.code
        out = capsys.readouterr().out
        assert all(word in out for word in words), out


def test_completion_script(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--tyro-print-completion", "bash"])
    assert not stop.value.code
    assert "scorefield" in capsys.readouterr().out
