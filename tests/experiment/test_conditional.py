"""Runs that learn a score for each class: which labels are left out, what is learnt, what is refused, and resuming."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from scorefield import EnergyModel, GaussianMixture, InnerProduct, ModelSpec, ScoreModel, UserError, denoise, gaussian, load
from scorefield.data import Batches, Data, open_data, random_rows
from scorefield.experiment import Run, evaluate, train
from scorefield.experiment.train import build_model, dropped
from scorefield.interfaces import Score, State
from scorefield.likelihood import dequantise
from scorefield.networks import MLPConfig, UNetConfig
from scorefield.objectives import DenoisingScoreMatching, LogUniform
from scorefield.randomness import keyed_generator
from scorefield.samplers import Heun
from scorefield.training import Training, fit

QUICK = Training(steps=12, batch_size=32, checkpoint_every=4, warmup=2, precision="float32", threads=1)
SMALL = UNetConfig(channels=8, multipliers=(1,), blocks=1)


@pytest.fixture(scope="module")
def two_shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 4×4 images: `dark` ones around grey level 60, three times as many `light` ones around 200."""
    folder, rng = tmp_path_factory.mktemp("shades"), np.random.default_rng(0)
    for name, level, n in (("dark", 60, 100), ("light", 200, 300)):
        (folder / name).mkdir()
        for i in range(n):
            pixels = rng.normal(level, 20, (4, 4)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03}.png")
    return folder


Batch = Callable[[int], tuple[Tensor, Tensor | None]]


def batches_of(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Batch, Tensor | None]:
    """What training would see at each step, and the labels that it would validate with."""
    found = []

    class Stopped(Exception):
        pass

    def fit(model: object, objective: object, batches: Batch, *arguments: object, validation: tuple, **options: object) -> None:
        found.append((batches, validation[1]))
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(import_module("scorefield.experiment.train"), "fit", fit)
        with pytest.raises(Stopped):
            train(run, folder)
    return found[0]


def test_a_share_of_the_labels_is_left_out_as_a_function_of_seed_and_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(network=SMALL, conditional=True, label_dropout=0.3, training=replace(QUICK, batch_size=500))
    at, held_out = batches_of(run, tmp_path / "a", monkeypatch)
    again, _ = batches_of(run, tmp_path / "b", monkeypatch)
    whole = Batches(open_data("digits").splits["train"], 500, seed=0)
    parts = []
    for step in range(20):
        x, labels = at(step)
        _, true = whole.at(step)
        assert labels is not None
        assert true is not None
        kept = labels >= 0
        assert torch.equal(labels[kept], true[kept])
        assert (labels[~kept] == -1).all()
        assert torch.equal(labels, again(step)[1])  # type: ignore[arg-type]
        assert x.shape == (500, 1, 8, 8)
        parts.append(~kept)
    left_out = torch.stack(parts).double()
    assert (left_out.mean() - 0.3).abs() < 4.5 * (0.3 * 0.7 / left_out.numel()) ** 0.5
    agreement = (left_out[:-1] == left_out[1:]).double()  # of one step with the next: 0.3² + 0.7²
    assert (agreement.mean() - 0.58).abs() < 4.5 * (0.58 * 0.42 / agreement.numel()) ** 0.5
    assert held_out is not None
    assert (held_out >= 0).all()  # nothing is left out where the loss is only measured
    seeded, _ = batches_of(replace(run, training=replace(run.training, seed=1)), tmp_path / "c", monkeypatch)
    assert not torch.equal(at(0)[1] < 0, seeded(0)[1] < 0)  # type: ignore[operator]


def test_processes_leave_out_labels_of_their_own() -> None:
    labels = torch.zeros(1000, dtype=torch.long)
    first, second = (dropped(labels, 0.5, keyed_generator(0, "labels", 3, rank)) for rank in (0, 1))
    assert ((first == second).double().mean() - 0.5).abs() < 4.5 * 0.5 / 1000**0.5


def test_an_unconditional_run_sees_no_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at, held_out = batches_of(Run(network=SMALL, training=QUICK), tmp_path / "run", monkeypatch)
    assert at(0)[1] is None
    assert held_out is None


@pytest.mark.parametrize("energy", [False, True], ids=["direct", "energy"])
def test_the_score_of_each_class_and_of_all_together_is_learnt(energy: bool, tmp_path: Path) -> None:
    """Two Gaussians, one twice as likely as the other; untrained errors are larger than 0.5."""
    weights, means = torch.tensor([1.0, 2.0]), torch.tensor([[-1.0, 0.5], [1.0, 0.0]])
    exact = [gaussian(mean, 0.09) for mean in means] + [GaussianMixture(weights, means, torch.full((2,), 0.09))]
    spec = ModelSpec((2,), sigma_range=(0.1, 10.0), classes=("left", "right"))
    torch.manual_seed(0)
    network = MLPConfig(width=32, blocks=1, frequencies=2).build((2,), classes=2)
    model = EnergyModel(InnerProduct(network), spec) if energy else ScoreModel(network, spec)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        g = keyed_generator(0, "test", step)
        labels = torch.multinomial(weights, 256, replacement=True, generator=g)
        x = means[labels] + 0.3 * torch.randn(256, 2, generator=g)
        return x, dropped(labels, 0.2, g)

    training = replace(QUICK, steps=400, learning_rate=1e-2, decay_after=100, checkpoint_every=400)
    objective = DenoisingScoreMatching(noise=LogUniform())
    state, _ = fit(model, objective, batches, training, tmp_path, accelerator=Accelerator(cpu=True))
    for label, density in zip((0, 1, -1), exact, strict=True):
        for sigma in (0.3, 1.0, 3.0):
            x = density.sample(2000, sigma, generator=keyed_generator(0, "check")).float()
            learnt = state.average.score(x, sigma, torch.full((2000,), label)).detach()  # type: ignore[operator]
            error = (learnt - density.score(x, sigma)).square().sum() / density.score(x, sigma).square().sum()
            assert error < 0.05, (label, sigma)


def test_a_run_on_folders_learns_the_mean_of_each(two_shades: Path, tmp_path: Path) -> None:
    """At σ = 50 the denoiser is the mean of what it is conditioned on, whatever it is shown (Tweedie)."""
    run = Run(
        str(two_shades), network=SMALL, conditional=True, label_dropout=0.3, sigma_range=(0.1, 50.0),
        objective=DenoisingScoreMatching(LogUniform()), training=replace(QUICK, steps=200, learning_rate=3e-3),
    )  # fmt: skip
    train(run, tmp_path / "run")
    model = load(tmp_path / "run")
    assert model.spec.classes == ("dark", "light")
    data = open_data(str(two_shades)).splits["train"]
    x = 50 * torch.randn(200, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for label in (0, 1, -1):
        rows = data.x if label < 0 else data.x[data.labels == label]
        expected = model.spec.scaling.encode(torch.tensor(rows.mean())).item()
        found = denoise(model, x, 50.0, torch.full((200,), label)).mean().item()
        assert found == pytest.approx(expected, abs=0.25), label  # the means are -1.7, 0.6 and 0


@pytest.mark.parametrize("energy", [False, True], ids=["direct", "energy"])
def test_a_conditional_run_resumes_bit_for_bit(energy: bool, two_shades: Path, tmp_path: Path) -> None:
    run = Run(str(two_shades), network=SMALL, energy=energy, conditional=True, training=QUICK)
    train(run, tmp_path / "whole")
    train(replace(run, training=replace(QUICK, steps=5)), tmp_path / "parts")
    train(run, tmp_path / "parts", resume=True)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    unlike = replace(run, conditional=False)
    with pytest.raises(UserError, match="cannot resume with another configuration: conditional was True, now False"):
        train(unlike, tmp_path / "whole", resume=True)


def test_runs_from_before_there_were_classes_can_be_read(two_shades: Path, tmp_path: Path) -> None:
    run = Run(str(two_shades), network=SMALL, training=QUICK)
    train(run, tmp_path / "run")
    model = tmp_path / "old"
    shutil.copytree(tmp_path / "run", model)
    for name, drop in (
        ("config.json", lambda f: f["spec"].pop("classes")),
        ("run.json", lambda f: f["run"].pop("conditional")),
    ):
        fields = json.loads((model / name).read_text())
        drop(fields)
        (model / name).write_text(json.dumps(fields))
    assert load(model).spec == load(tmp_path / "run").spec
    train(replace(run, training=replace(QUICK, steps=13)), model, resume=True)


def test_data_without_classes_is_refused(two_shades: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 2)))
    run = Run(str(tmp_path / "x.npy"), network=MLPConfig(8, 1), conditional=True, training=QUICK)
    with pytest.raises(UserError, match=r"--conditional needs the class of every example, and .*x.npy does not tell it"):
        train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    data = open_data(str(two_shades))
    for split in ("train", "validation"):
        partly: Data = replace(data, splits={**data.splits, split: replace(data.splits[split], labels=None)})
        with pytest.raises(UserError, match="needs the class of every example"):
            build_model(Run(conditional=True), partly)


def test_a_share_that_would_leave_a_score_unlearnt_is_refused() -> None:
    for share in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(UserError, match=f"--label-dropout must be between 0 and 1, got {share}"):
            Run(label_dropout=share)


def test_a_model_with_classes_is_judged_with_the_classes_of_held_out_data(two_shades: Path, tmp_path: Path) -> None:
    run = Run(str(two_shades), network=SMALL, conditional=True, training=replace(QUICK, steps=50, learning_rate=1e-2))
    train(run, tmp_path / "run")
    model, data = load(tmp_path / "run"), open_data(str(two_shades))
    test = data.splits["test"]
    assert test.labels is not None
    seen: list[Tensor] = []

    class Watched(Heun):
        def __call__(self, model: Score, x: Tensor, cond: Tensor | None = None, **options: object) -> Iterator[State]:
            assert cond is not None
            seen.append(cond)
            return super().__call__(model, x, cond, **options)  # type: ignore[arg-type]

    records, _ = evaluate(run, model, data, tmp_path / "run", Watched(2), 1000, likelihood_rows=0)  # at most all there are
    assert sorted(torch.cat(seen)[: len(test.x)].tolist()) == sorted(test.labels.tolist())

    rows, level = random_rows(len(test.x), 1000, 0, "loss"), 3
    noised = dequantise(torch.from_numpy(test.x[rows]), keyed_generator(0, "evaluation, dequantise"))
    x, labels = model.spec.scaling.encode(noised).float(), torch.from_numpy(test.labels[rows])
    sigma = run.objective.noise.quantile((torch.arange(8) + 0.5) / 8, model.sigma_range)[level].expand(len(x))
    z = torch.randn(x.shape, generator=keyed_generator(0, "evaluation", level))
    informed, ignorant = (run.objective.at(model, x, sigma, z, c).value.mean().item() / 16 for c in (labels, None))
    found = next(r.value for r in records if r.metric == f"denoising loss at sigma {sigma[0]:.3g}")
    assert found == pytest.approx(informed, rel=1e-5)
    assert abs(found - ignorant) > 1e-3 * found
