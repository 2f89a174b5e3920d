"""Families that are no scores, and energies by maximum likelihood, as a user calls them: from training to a report."""

import json
import math
import re
import shlex
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from scorefield.baselines import CLOSED_FORM, Baseline
from scorefield.cli import main
from scorefield.data import open_data, random_rows
from scorefield.experiment import probability, read_run
from scorefield.experiment.probability import log_probabilities
from scorefield.models import EnergyModel
from scorefield.persistence import load
from scorefield.randomness import keyed_generator
from scorefield.samplers import CHUNK
from scorefield.training import read_log

FEW = [
    "--steps",
    "6",
    "--batch-size",
    "16",
    "--validate-every",
    "2",
    "--log-every",
    "2",
    "--checkpoint-every",
    "4",
    "--threads",
    "1",
]
SMALL: dict[str, list[str]] = {
    "independent-pixels": [],
    "softmax-patches": [],
    "training-images": [],
    "autoregressive": [
        *FEW,
        "--network.width",
        "16",
        "--network.heads",
        "2",
        "--network.blocks",
        "1",
        "--learning-rate",
        "0.1",
    ],
    "vae": [*FEW, "--network.width", "16", "--network.latents", "3", "--learning-rate", "0.5", "--warmup", "0"],
    "hierarchical-vae": [*FEW, "--network.width", "16", "--network.latents", "3", "2"],
}
"""flags that make each recipe a matter of a second; with those of one of them learning is so fast that it overshoots"""
ENERGY = [*FEW, "--network.width", "16", "--objective.chains", "96", "--objective.steps", "2"]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: re.sub(r"\s+", " ", capsys.readouterr().err)


@pytest.fixture(scope="module", params=SMALL)
def trained(request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of each family, in a folder of its name; copy it before changing anything."""
    folder = tmp_path_factory.mktemp("families") / request.param
    assert main(["train", "digits", "--recipe", request.param, "--out", str(folder), *SMALL[request.param]]) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it in the working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, tmp_path / trained.name).name)


@pytest.fixture(scope="module")
def energy(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished energy by maximum likelihood."""
    folder = tmp_path_factory.mktemp("families") / "energy"
    assert main(["train", "digits", "--recipe", "energy-likelihood", "--out", str(folder), *ENERGY]) == 0
    return folder


def baseline(run: Path) -> Baseline:
    model = load(run)
    assert isinstance(model, Baseline)
    return model


def as_pixels(raw: torch.Tensor) -> np.ndarray:
    """Levels 0 … 16 `(n, 1, 8, 8)` as grey values 0 … 255 `(n, 8, 8)`."""
    return (raw[:, 0].double() * 255 / 16).round().numpy().astype(np.uint8)


def test_training_leaves_the_model_of_smallest_held_out_loss_or_the_counts_of_all_training_rows(trained: Path) -> None:
    stored, data = read_run(trained), open_data("digits")
    assert stored.recipe == trained.name
    model, x = baseline(trained), torch.from_numpy(np.array(data.splits["test"].x[:20]))
    assert model.spec.scaling == data.scaling
    if isinstance(stored.network, CLOSED_FORM):
        train = torch.from_numpy(np.array(data.splits["train"].x))
        by_hand = stored.network.build((1, 8, 8), 17).fit(train)
        for rows in (x, train[:20]):
            assert torch.equal(model.log_density_bound(rows), by_hand.log_density(rows))
        return
    assert stored.training.keep_best
    losses = {r["step"]: r["loss"] for r in read_log(trained / "log.jsonl") if r["kind"] == "validation"}
    assert list(losses) == [2, 4, 6]
    with safe_open(trained / "checkpoints" / "step-00000006.safetensors", "pt") as file:
        assert json.loads(file.metadata()["scorefield"])["best_loss"] == min(losses.values())
        kept = {key: torch.equal(value, file.get_tensor(f"best.{key}")) for key, value in model.state_dict().items()}
        last = {key: torch.equal(value, file.get_tensor(f"average.{key}")) for key, value in model.state_dict().items()}
    assert all(kept.values())
    assert all(last.values()) == (min(losses, key=lambda step: losses[step]) == 6)
    assert (losses[6] > min(losses.values())) == (trained.name == "vae")  # which overshoots


def test_samples_are_what_the_family_draws(run: Path, said: Callable[[], str]) -> None:
    assert main(["sample", str(run), "-n", "5", "--seed", "7", "--out", "x.npz"]) == 0
    assert "wrote x.npz: 5 samples by its own law (exact draws), seed 7" in said()
    samples = np.load("x.npz")["samples"]
    drawn = baseline(run).family.sample(CHUNK, generator=keyed_generator(7, "samples", 0))  # type: ignore[operator]
    np.testing.assert_array_equal(samples, as_pixels(drawn[:5]))
    train = as_pixels(torch.from_numpy(np.array(open_data("digits").splits["train"].x)))
    copies = [(train == sample).all((1, 2)).any() for sample in samples]
    assert copies == [run.name == "training-images"] * 5
    assert main(["sample", str(run), "-n", "3", "--out", "x.png"]) == 0
    assert main(["sample", str(run), "-n", "3", "--out", "x.gif"]) == 0


def test_an_evaluation_has_its_likelihood_and_a_report(run: Path) -> None:
    assert main(["evaluate", str(run), "-n", "30", "--likelihood-rows", "6"]) == 0
    assert (run / "report.html").stat().st_size > 10_000
    records = {r["metric"]: r for r in json.loads((run / "evaluation.json").read_text())}
    assert not [name for name in records if "denoising" in name or "flow" in name]
    model, test = baseline(run), open_data("digits").splits["test"].x
    bits = -log_probabilities(model, test[random_rows(len(test), 6, 0, "likelihood")]) / (64 * math.log(2))
    own = records["bits per dimension, exact" if model.exact else "bits per dimension, bound of 64 importance samples"]
    page = (run / "report.html").read_text()
    if run.name == "training-images":
        assert bits.max() == math.inf
        assert (own["value"], own["se"]) == (None, None)
        assert own["unit"].endswith("; infinite: to some held-out rows it gives probability 0")
        assert "<data>∞</data>" in page
        assert records["memorisation ratio"]["value"] == 0
    else:
        assert own["value"] == pytest.approx(bits.mean().item(), rel=1e-12)
        assert own["se"] == pytest.approx(bits.std().item() / 6**0.5, rel=1e-9)
        assert f'<data value="{own["value"]!r}">' in page
        assert records["memorisation ratio"]["value"] > 0
    assert records["bits per dimension, uniform"]["value"] == pytest.approx(math.log2(17))
    assert {"samples.png", "neighbours.png"} <= {p.name for p in run.iterdir()}


def test_the_reports_own_command_trains_the_same_model(run: Path) -> None:
    assert main(["evaluate", str(run), "-n", "2", "--likelihood-rows", "0"]) == 0
    command = re.findall("<pre>(.*?)\n", unescape((run / "report.html").read_text()))[0]
    words = shlex.split(command)
    assert words[:3] == ["scorefield", "train", "digits"]
    words[words.index("--out") + 1] = "again"
    assert main(words[1:]) == 0
    for name in ("model.safetensors", "config.json"):
        assert Path("again", name).read_bytes() == (run / name).read_bytes()


@pytest.mark.parametrize(
    "flags",
    [
        ["--sampler", "heun"], ["--steps", "5"], ["--nfe", "5"], ["--process", "ve"], ["--grid", "karras"], ["--eta", "1"],
        ["--sigma-range", "0.1", "1"], ["--sigma", "0.3"],
    ],
    ids=lambda flags: flags[0],
)  # fmt: skip
def test_how_to_sample_is_no_question(run: Path, flags: list[str], said: Callable[[], str]) -> None:
    line = f"scorefield: {flags[0]} is for scores, and this model draws by itself: leave it out "
    assert main(["sample", str(run), "--out", "x.npz", *flags]) == 2
    assert said() == line
    assert main(["evaluate", str(run), "-n", "5", *flags]) == 2
    assert said() == line
    assert not Path("x.npz").exists()
    assert not (run / "evaluation.json").exists()


def test_what_needs_a_score_is_refused(run: Path, tiny_run: Path, said: Callable[[], str]) -> None:
    np.savez("images.npz", samples=np.zeros((1, 8, 8), np.uint8))
    before = sorted(Path().rglob("*"))
    for command in (
        ["logprob", run, "digits", "--out", "p.csv"],
        ["logz", run],
        ["inpaint", run, "images.npz", "--mask", "images.npz", "--out", "x.png"],
        ["compose", run, run, "--out", "x.npz"],
        ["compose", tiny_run, run, "--out", "x.npz"],
    ):
        assert main([str(word) for word in command]) == 2
        assert said() == (
            f"scorefield: {run} holds a model of another family, which has no score: use sample or evaluate, or train a score "
        )
    assert sorted(Path().rglob("*")) == before


def test_resuming_changes_nothing(run: Path, said: Callable[[], str]) -> None:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert main(["train", "digits", "--recipe", run.name, "--out", str(run)]) == 2
    assert "is already used: give another --out, or --resume" in said()
    for flags in ([], ["--recipe", run.name]):
        assert main(["train", "digits", "--out", str(run), "--resume", *flags]) == 0
        assert ("finished already" in said()) == ((run / "checkpoints").exists())
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_a_family_is_for_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("points.npy", np.random.default_rng(0).normal(size=(50, 2)))
    for name in SMALL:
        assert main(["train", "points.npy", "--recipe", name, "--out", "run"]) == 2
        kind = "vae" if name == "hierarchical-vae" else name
        assert said().endswith(f"scorefield: {kind} is a model of integers, and this data is continuous ")
    assert not Path("run").exists()


@pytest.mark.parametrize("trained", [name for name, flags in SMALL.items() if flags], indirect=True)
def test_more_steps_equal_a_whole_run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Best weights and all; the loss that is measured where the shorter run ends counts in neither."""
    monkeypatch.chdir(tmp_path)
    recipe = ["train", "digits", "--recipe", trained.name, "--out", "parts"]
    assert main([*recipe, *SMALL[trained.name], "--steps", "3"]) == 0
    assert main([*recipe, "--resume", "--steps", "6"]) == 0
    assert Path("parts/model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


# ── an energy by maximum likelihood ────────────────────────────────────────────────────────────────────────────────────


def test_an_energy_of_one_level_is_sampled_there(
    energy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = load(energy)
    assert isinstance(model, EnergyModel)
    assert model.sigma_range == (0.4, 0.4)
    for flags in ([], ["--sigma", "0.4"], ["--sampler", "langevin"]):
        assert main(["sample", str(energy), "-n", "3", "--steps", "5", "--overwrite", "--out", "x.npz", *flags]) == 0
        assert "3 samples by langevin (5 steps at level 0.4; 6 evaluations each), seed 0" in said()
        assert np.load("x.npz")["samples"].shape == (3, 8, 8)
    assert main(["sample", str(energy), "--sigma", "0.3", "--out", "y.npz"]) == 2
    assert said() == "scorefield: --sigma must be 0.4, got 0.3: this model answers for no other level "
    for sampler in ("heun", "annealed-langevin", "ddim"):
        assert main(["sample", str(energy), "--sampler", sampler, "--out", "y.npz"]) == 2
        assert said() == (
            f"scorefield: {sampler} walks many noise levels, and this model answers for one: take --sampler langevin "
        )
    for command in (
        ["logprob", energy, "digits", "--out", "p.csv"],
        ["inpaint", energy, "x.npz", "--mask", "x.npz", "--out", "y"],
    ):
        assert main([str(word) for word in command]) == 2
        assert said().endswith("holds a model of one noise level, and this needs many: train one by denoising ")
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_its_log_z_and_likelihood_come_from_annealing(
    energy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After so few small steps the energy is almost that of N(0, (1 + 0.4²) I), which log Z and bits must be near."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probability, "RUNGS", 4)
    run = Path(shutil.copytree(energy, tmp_path / "run").name)
    assert main(["evaluate", str(run), "-n", "20", "--steps", "5", "--likelihood-rows", "8"]) == 0
    records = {r["metric"]: r for r in json.loads((run / "evaluation.json").read_text())}
    own = records["bits per dimension, energy less log Z"]
    assert re.fullmatch(r"bits/dim of 17 levels, at sigma 0\.4; (AIS|SMC), trustworthy", own["unit"])
    data, log_z = open_data("digits"), 32 * math.log(2 * math.pi * 1.16)
    test = data.splits["test"].x
    x = data.scaling.encode(torch.from_numpy(test[random_rows(len(test), 8, 0, "likelihood")]))
    blur = 1 / 12 / data.scaling.scale[0] ** 2  # the variance of a level's width
    nats = ((x**2).flatten(1).sum(1).mean() + 64 * blur) / 2 / 1.16 + log_z + 64 * math.log(data.scaling.scale[0])
    # four standard errors of the blur, by the variance a²/3 of (a + u)², are 0.01; the rest is for six steps of learning
    assert own["value"] == pytest.approx(float(nats) / 64 / math.log(2), abs=0.02)
    assert not [name for name in records if "denoising" in name or "flow" in name]
    assert (run / "report.html").exists()
    capsys.readouterr()
    assert main(["logz", str(run), "--rungs", "4", "--particles", "128", "--rows", "8"]) == 0
    out, err = capsys.readouterr()
    found = json.loads((run / "logz.json").read_text())
    assert [e["method"] for e in found["estimates"]] == ["AIS", "SMC"]
    assert all(e["verdict"] == "trustworthy" for e in found["estimates"])
    assert found["log_z"]["value"] == pytest.approx(log_z, abs=1)
    assert (found["held_out"]["flow"], found["held_out"]["gap"]) == (None, None)
    assert "at level σ = 0.4" in out
    assert "probability flow" not in err


def test_its_chains_go_on_where_they_were(energy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = ["train", "digits", "--recipe", "energy-likelihood", "--out", "parts"]
    assert main([*recipe, *ENERGY, "--steps", "3"]) == 0
    assert main([*recipe, "--resume", "--steps", "6"]) == 0
    assert Path("parts/model.safetensors").read_bytes() == (energy / "model.safetensors").read_bytes()
    with safe_open("parts/checkpoints/step-00000006.safetensors", "pt") as file:
        assert file.get_tensor("model.objective.replay").shape == (1, 96, 1, 8, 8)
