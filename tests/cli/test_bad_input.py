"""Every mistake: one clear line on stderr, exit code 2, nothing written."""

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scorefield.cli import main

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Runs a command line and returns its one line on stderr; checks the exit code and that nothing was written."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 2) -> str:
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        capsys.readouterr()
        assert main(list(arguments)) == code
        out, err = capsys.readouterr()
        assert out == ""
        lines = [line for line in err.splitlines() if line.startswith("scorefield: ")]
        assert len(lines) == 1, err
        assert err.strip().endswith(lines[0]), err
        assert "Traceback" not in err
        assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        return lines[0]

    return run


def images(folder: Path, *sizes: tuple[int, int]) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, (w, h) in enumerate(sizes):
        Image.fromarray(rng.integers(0, 256, (h, w), dtype=np.uint8)).save(folder / f"{i:03}.png")
    return folder


# ── arguments ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian", "digits"], ["trian", "train, sample, evaluate, demo, data"]),
        ([], ["no command", "train, sample, evaluate, demo, data"]),
        (["train"], ["DATA", "--out"]),
        (["train", "digits"], ["--out"]),
        (["train", "digits", "--out"], ["--out"]),
        (["train", "digits", "--out", "run", "--stepz", "3"], ["--stepz"]),
        (["train", "digits", "--out", "run", "--steps", "many"], ["--steps", "many"]),
        (["train", "digits", "--out", "run", "--steps", "0"], ["--steps", "at least 1", "0"]),
        (["train", "digits", "--out", "run", "--steps", "-5"], ["--steps", "at least 1", "-5"]),
        (["train", "digits", "--out", "run", "--minutes", "0"], ["--minutes", "positive"]),
        (["train", "digits", "--out", "run", "--minutes=1", "--steps", "9"], ["--steps and --minutes", "one of them"]),
        (["train", "digits", "--out", "run", "--threads", "999999999999"], ["--threads", "1024", "999999999999"]),
        (["train", "digits", "--out", "run", "--batch-size", "10000000000000"], ["--batch-size", "1048576"]),
        (["train", "--steps", "2", "--out", "run"], ["DATA"]),
        (["train", "--steps", "2", "--out", "run", "no-such-data"], ["no data at no-such-data"]),
        (["demo", "-n", "0", "--out", "run"], ["-n", "at least 2", "0"]),
        (["demo", "--steps", "0", "--out", "run"], ["--steps", "at least 1", "0"]),
        (["train", "digits", "--out", "run", "--batch-size", "0"], ["--batch-size"]),
        (["train", "digits", "--out", "run", "--learning-rate", "nan"], ["--learning-rate", "nan"]),
        (["train", "digits", "--out", "run", "--recipe", "digit"], ["digit", "digits-classes, digits-energy"]),
        (["train", "digits", "--out", "run", "--network.kind", "cnn"], ["cnn", "unet, mlp"]),
        (["train", "digits", "--out", "run", "--network.kind", "vae"], ["vae", "cannot be learnt by", "denoising"]),
        (["train", "digits", "--out", "run", "--objective.kind", "likelihood"], ["unet", "cannot be learnt by", "likelihood"]),
        (["train", "digits", "--out", "run", "--recipe", "vae", "--energy"], ["--energy", "vae is none"]),
        (["train", "digits", "--out", "run", "--recipe", "energy-likelihood", "--no-energy"], ["persistent-chains"]),
        (["train", "digits", "--out", "run", "--precision", "fp16"], ["fp16", "bf16"]),
        (["train", "digits", "--out", "run", "--parameterisation.name", "eps"], ["eps", "edm"]),
        (["train", "digits", "--out", "run", "--sigma-range", "1", "0.1"], ["--sigma-range", "1 0.1"]),
        (["train", "digits", "--out", "run", "--objective.noise.std", "0"], ["objective.noise", "positive std", "0.0"]),
        (["train", "digits", "--out", "run", "--network.channels", "0"], ["network", "channels", "at least 1", "0"]),
        (["train", "digits", "--out", "run", "--network.channels", "-4"], ["network", "channels", "at least 1", "-4"]),
        (["train", "digits", "--out", "run", "--network.fold", "0"], ["network", "fold", "at least 1", "0"]),
        (["train", "digits", "--out", "run", "--network.blocks", "-1"], ["network", "blocks", "at least 1", "-1"]),
        (["train", "digits", "--out", "run", "--network.multipliers"], ["network", "multipliers", "one or more"]),
        (["train", "digits", "--out", "run", "--label-dropout", "0"], ["label-dropout", "between 0 and 1", "0.0"]),
        (["train", "digits", "--out", "no/such/\0/run"], ["run"]),
        (["train", "digits", "extra", "--out", "run"], ["extra"]),
        (["sample"], ["RUN"]),
        (["evaluate"], ["RUN"]),
        (["evaluate", "nowhere"], ["nowhere", "run.json"]),
        (["sample", "nowhere", "--out", "x.png"], ["nowhere"]),
        (["data"], ["DATA"]),
        (["data", "digits", "--out", "sheet.bmp"], ["sheet.bmp", ".png"]),
        (["train", "no-such-data", "--out", "run"], ["no-such-data"]),
        (["train", "digits", "--out", "run", "--resume"], ["run", "run.json"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_arguments(refused: Refused, arguments: list[str], words: list[str]) -> None:
    line = refused(*arguments)
    for word in words:
        assert word in line, line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-n", "0", "--out", "x.png"], ["-n", "at least 1", "0"]),
        (["-n", "-3", "--out", "x.png"], ["-n", "at least 1", "-3"]),
        (["--steps", "0", "--out", "x.png"], ["--steps", "0"]),
        (["--sampler", "ddpm", "--out", "x.png"], ["ddpm", "heun", "dpm-solver-3m", "annealed-langevin", "langevin"]),
        (["--process", "vq", "--out", "x.png"], ["vq", "edm", "vp", "cosine", "sub-vp", "flow"]),
        (["--grid", "linnear", "--out", "x.png"], ["linnear", "karras", "log", "linear", "cosine", "vp"]),
        (["--steps", "1", "--out", "x.png"], ["--steps must be at least 2, got 1"]),
        (["--steps", "9999999999", "--out", "x.png"], ["--steps must be at most 1000000"]),
        (["--steps", "9", "--nfe", "9", "--out", "x.png"], ["--steps and --nfe", "one of them"]),
        (["--nfe", "0", "--out", "x.png"], ["--nfe must be at least 1, got 0"]),
        (["--nfe", "2", "--out", "x.png"], ["--nfe must be at least 3 for heun, got 2"]),
        (["--nfe", "9999999999", "--out", "x.png"], ["--nfe must be at most 1000000"]),
        (["--sampler", "langevin", "--nfe", "1", "--out", "x.png"], ["--nfe must be at least 2 for langevin, got 1"]),
        (["--sampler", "dpm-solver-3m", "--nfe", "2", "--out", "x.png"], ["--nfe must be at least 3 for dpm-solver-3m"]),
        (["--sampler", "dormand-prince", "--nfe", "9", "--out", "x.png"], ["--nfe is not for dormand-prince"]),
        (["--sampler", "ddim", "--process", "vp", "--out", "x.png"], ["--process is for heun", "reverse-sde; ddim has none"]),
        (["--sampler", "annealed-langevin", "--grid", "log", "--out", "x.png"], ["--grid is for heun", "langevin has none"]),
        (["--sampler", "langevin", "--grid", "log", "--out", "x.png"], ["--grid is for heun", "langevin has none"]),
        (["--sigma-range", "0.001", "10", "--out", "x.png"], ["sigma", "0.001", "0.002", "80"]),
        (["--sigma-range", "0.1", "100", "--out", "x.png"], ["sigma", "100", "80"]),
        (["--sigma-range", "10", "0.1", "--out", "x.png"], ["sigma_range", "10", "0.1"]),
        (["--sigma-range", "0", "nan", "--out", "x.png"], ["sigma_range", "nan"]),
        (["--sampler", "annealed-langevin", "--sigma-range", "0.1", "100", "--out", "x.png"], ["sigma", "100", "80"]),
        (["--sampler", "langevin", "--sigma-range", "1", "2", "--out", "x.png"], ["--sigma-range is for", "langevin has none"]),
        (["--eta", "1", "--out", "x.png"], ["--eta is for ddim; heun has none"]),
        (["--sampler", "ancestral", "--eta", "1", "--out", "x.png"], ["--eta is for ddim; ancestral has none"]),
        (["--sampler", "ddim", "--eta", "2", "--out", "x.png"], ["--eta must be in [0, 1], got 2"]),
        (["--sampler", "ddim", "--eta", "nan", "--out", "x.png"], ["--eta must be in [0, 1], got nan"]),
        (["--sampler", "langevin", "--sigma", "-1", "--out", "x.png"], ["--sigma", "-1", "80"]),
        (["--sampler", "langevin", "--sigma", "1000", "--out", "x.png"], ["sigma", "1000", "80"]),
        (["--sigma", "1", "--out", "x.png"], ["--sigma", "langevin"]),
        (["--out", "x.jpg"], [".jpg", ".png", ".npz", ".gif"]),
        (["--out", "x.PNG.zip"], [".zip", ".png"]),
        (["--out", ".png"], [".png", "name", "samples.png"]),
        (["--out", "missing/x.png"], ["missing"]),
        (["-n", "5000", "--out", "x.png"], ["4096"]),
        (["-n", "100", "--out", "x.gif"], ["64"]),
        ([], ["--out"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_sample_arguments(refused: Refused, tiny_run: Path, flags: list[str], words: list[str]) -> None:
    line = refused("sample", str(tiny_run), *flags)
    for word in words:
        assert word in line, line


def test_evaluate_takes_the_same_options(refused: Refused, tiny_run: Path) -> None:
    assert "--nfe must be at least 3 for heun, got 1" in refused("evaluate", str(tiny_run), "--nfe", "1")
    assert "--sigma is for langevin; heun has none" in refused("evaluate", str(tiny_run), "--sigma", "1")
    assert "--eta must be in [0, 1]" in refused("evaluate", str(tiny_run), "--sampler", "ddim", "--eta", "-1")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--class", "10"], ["unknown class '10'", "0, 1, 2, 3", "a number from 0 to 9, or all"]),
        (["--class", "-1"], ["class", "-1"]),
        (["--class", "three"], ["unknown class 'three'"]),
        (["--guidance", "2"], ["--guidance", "--class"]),
        (["--class", "3", "--guidance", "nan"], ["--guidance", "finite", "nan"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_classes(refused: Refused, tiny_classes: Path, flags: list[str], words: list[str]) -> None:
    line = refused("sample", str(tiny_classes), *flags, "--out", "x.png")
    for word in words:
        assert word in line, line


def test_classes_of_a_model_without(refused: Refused, tiny_run: Path) -> None:
    for name in ("3", "all"):
        assert "the model knows no classes" in refused("sample", str(tiny_run), "--class", name, "--out", "x.png")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["one.png", "--mask", "small.png"], ["small.png", "(4, 4)", "(8, 8)"]),
        (["one.png", "--mask", "stack.npy"], ["stack.npy", "(1, 8, 8)", "(8, 8)"]),
        (["one.png", "--mask", "shades.png"], ["shades.png", "64 different values", "black and white"]),
        (["one.png", "--mask", "white.png"], ["white.png", "white all over", "black is filled in"]),
        (["one.png", "--mask", "black.png"], ["black.png", "black all over", "white is known"]),
        (["one.png", "--mask", "missing.png"], ["missing.png", "No such file"]),
        (["one.png", "--mask", "cut.png"], ["cut.png", "cannot be read"]),
        (["one.png"], ["--mask"]),
        (["small.png", "--mask", "mask.png"], ["small.png", "(1, 4, 4)", "(1, 8, 8)"]),
        (["colour.png", "--mask", "mask.png"], ["colour.png", "(3, 8, 8)", "(1, 8, 8)"]),
        (["missing.png", "--mask", "mask.png"], ["missing.png", "No such file"]),
        (["missing.npz", "--mask", "mask.png"], ["no data at missing.npz"]),
        (["vectors.npy", "--mask", "mask.png"], ["vectors.npy", "(5,)", "(1, 8, 8)"]),
        (["one.png", "--mask", "mask.png", "-n", "0"], ["-n", "at least 1", "0"]),
        (["one.png", "--mask", "mask.png", "-n", "4095"], ["4096", "4097", ".npz"]),
        (["one.png", "--mask", "mask.png", "--steps", "1"], ["--steps", "at least 2", "1"]),
        (["one.png", "--mask", "mask.png", "--method", "magic"], ["magic", "dps", "repaint"]),
        (["one.png", "--mask", "mask.png", "--out", "x.gif"], ["x.gif", ".png", ".npz"]),
        (["one.png", "--mask", "mask.png", "--out", "one.png"], ["one.png", "--overwrite"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_inpainting(refused: Refused, tiny_run: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    shades = np.arange(64, dtype=np.uint8).reshape(8, 8)
    known = np.where(shades < 32, 255, 0).astype(np.uint8)
    for name, array in {
        "one": shades, "shades": shades, "mask": known, "small": known[:4, :4] & shades[:4, :4], "white": known | 255,
        "black": known & 0, "colour": np.stack([shades] * 3, 2),
    }.items():  # fmt: skip
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    np.save(tmp_path / "stack.npy", known[None])
    np.save(tmp_path / "vectors.npy", np.ones((3, 5)))
    (tmp_path / "cut.png").write_bytes((tmp_path / "shades.png").read_bytes()[:50])
    line = refused("inpaint", str(tiny_run), *arguments, *([] if "--out" in arguments else ["--out", "x.png"]))
    for word in words:
        assert word in line, line


def test_evaluate_needs_samples(refused: Refused, tiny_run: Path) -> None:
    for n in ("0", "-1", "1"):
        line = refused("evaluate", str(tiny_run), "-n", n)
        assert f"-n must be at least 2 to compare distributions, got {n}" in line


def test_used_outputs(refused: Refused, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("mine")
    assert "--overwrite" in refused("sample", str(tiny_run), "--out", "x.png")
    assert "--overwrite" in refused("data", "digits", "--out", "x.png")
    (tmp_path / "folder").mkdir()
    assert "exists" in refused("sample", str(tiny_run), "--out", "folder")
    (tmp_path / "folder" / "file").write_text("mine")
    assert "--resume" in refused("train", "digits", "--out", "folder")
    assert "x.png" in refused("train", "digits", "--out", "x.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_outputs(refused: Refused, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "locked" in refused("train", "digits", "--out", "locked/run")
    assert "locked" in refused("sample", str(tiny_run), "--out", "locked/x.png")


def test_refused_by_the_system(refused: Refused, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a locked folder gives, also where the tests run as root, whom nothing stops."""

    def mkdir(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", mkdir)
        assert "Permission denied" in refused("train", "digits", "--out", "locked/run")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "no permission" in refused("sample", str(tiny_run), "--out", "x.png")


def test_output_below_a_file(refused: Refused, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "file" in refused("train", "digits", "--out", "file/run")
    assert "file" in refused("sample", str(tiny_run), "--out", "file/x.png")


# ── resuming ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_resume_with_another_configuration(refused: Refused, tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    line = refused("train", "digits", "--out", "run", "--resume", "--learning-rate", "0.5", "--network.channels", "16")
    assert "training.learning_rate was 0.001, now 0.5" in line
    assert "network.channels was 8, now 16" in line
    assert "steps" not in line
    assert "--steps may only grow" in refused("train", "digits", "--out", "run", "--resume", "--steps", "5")
    assert "data was digits, now fashion-mnist" in refused("train", "fashion-mnist", "--out", "run", "--resume")


def test_a_finished_run_without_checkpoints_is_not_begun_anew(refused: Refused, tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()}
    assert "no checkpoint to go on from" in refused("train", "digits", "--out", "run", "--resume")
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()} == before


def test_a_file_is_no_run(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "points.npy").write_bytes(b"")
    assert "points.npy is a file" in refused("sample", "points.npy", "--out", "x.png")


def test_damaged_run_json(refused: Refused, tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{")
    assert "run.json" in refused("train", "digits", "--out", "run", "--resume")
    assert "run.json" in refused("evaluate", "run")


# ── data ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_empty_folder(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert "photos" in refused("train", "photos", "--out", "run")


def test_corrupt_image(refused: Refused, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = images(tmp_path / "photos", *[(8, 8)] * 30)
    (folder / "bad.png").write_bytes((folder / "000.png").read_bytes()[:40])
    line = refused("train", "photos", "--out", "run")
    assert "bad.png" in line
    assert "skip-bad" in line
    for flag in ("--skip-bad", "--reading.skip-bad"):
        assert main(["data", "photos", flag, "--overwrite"]) == 0
        assert "bad.png" in capsys.readouterr().out
    assert main(["train", "photos", "--out", "run", "--skip-bad", "--steps", "1", "--network.channels", "8"]) == 0
    assert "1 unreadable left out" in capsys.readouterr().err


def test_mixed_sizes(refused: Refused, tmp_path: Path) -> None:
    images(tmp_path / "photos", *[(8, 8)] * 20, (9, 8))
    line = refused("train", "photos", "--out", "run")
    assert "--reading.size" in line
    assert "020.png" in line


def test_one_image(refused: Refused, tmp_path: Path) -> None:
    images(tmp_path / "photos", (8, 8))
    assert "few" in refused("train", "photos", "--out", "run")


def test_images_without_classes(refused: Refused, tmp_path: Path) -> None:
    images(tmp_path / "photos", *[(8, 8)] * 30)
    line = refused("train", "photos", "--out", "run", "--conditional")
    assert "--conditional needs the class of every example, and photos does not tell it" in line


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("nan.npy", lambda p: np.save(p, with_nan()), ["nan.npy", "row 3", "column 1"]),
        ("int.npy", lambda p: np.save(p, np.zeros((30, 2), np.int64)), ["int64"]),
        ("object.npy", lambda p: np.save(p, np.array([{}] * 30, dtype=object), allow_pickle=True), ["object.npy"]),
        ("cut.npy", lambda p: p.write_bytes(npy(np.ones((300, 2)))[:900]), ["cut.npy"]),
        ("cut.npz", lambda p: (np.savez(p, x=np.ones((300, 2))), p.write_bytes(p.read_bytes()[:900])), ["cut.npz"]),
        ("cut-idx3-ubyte", lambda p: p.write_bytes(idx(30)[:500]), ["cut-idx3-ubyte"]),
        ("cut-idx3-ubyte.gz", lambda p: p.write_bytes(gzip.compress(idx(30))[:300]), ["cut-idx3-ubyte.gz"]),
        ("table.csv", lambda p: p.write_text("a,b\n1,2\n"), ["table.csv", "at least 4 rows"]),
        ("notes.txt", lambda p: p.write_text("hello"), ["notes.txt"]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_files(refused: Refused, tmp_path: Path, name: str, write: Callable[[Path], object], words: list[str]) -> None:
    write(tmp_path / name)
    line = refused("train", name, "--out", "run")
    for word in words:
        assert word in line, line


def with_nan() -> np.ndarray:
    return np.where(np.arange(60).reshape(30, 2) == 7, np.nan, 1.0)


def npy(array: np.ndarray) -> bytes:
    import io

    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def idx(n: int) -> bytes:
    rng = np.random.default_rng(0)
    return bytes([0, 0, 8, 3]) + b"".join(k.to_bytes(4, "big") for k in (n, 8, 8)) + rng.bytes(64 * n)


# ── models ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_model_folders(refused: Refused, tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    weights, config = tmp_path / "run" / "model.safetensors", tmp_path / "run" / "config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "model.safetensors" in refused("sample", "run", "--out", "x.png")
    weights.write_bytes(b"\x80\x04cposix\nsystem\n(X\x0b\x00\x00\x00touch owned\x85R.")
    assert "model.safetensors" in refused("sample", "run", "--out", "x.png")
    weights.unlink()
    assert "model.safetensors" in refused("sample", "run", "--out", "x.png")
    weights.write_bytes(whole)
    fields = json.loads(config.read_text())
    config.write_text(json.dumps({**fields, "format_version": 99}))
    line = refused("sample", "run", "--out", "x.png")
    assert "format version 99" in line
    assert "upgrade" in line


def test_data_of_another_shape(refused: Refused, tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    images(tmp_path / "photos", *[(9, 9)] * 20)
    line = refused("evaluate", "run", "--data", "photos")
    assert "(1, 8, 8)" in line
    assert "(1, 9, 9)" in line


def test_a_full_disk_is_not_the_users_mistake(
    refused: Refused, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "disk is full" in refused("sample", "run", "--out", "x.png", "-n", "2", "--steps", "2", code=1)
