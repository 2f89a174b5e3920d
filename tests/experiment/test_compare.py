"""Comparisons: interrupted ones end as others do, numbers are those of independent calculations, what does not fit is said."""

import json
import math
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.spatial.distance import cdist

from scorefield.baselines import (
    AutoregressiveConfig,
    BaselineConfig,
    EvidenceBound,
    IndependentPixelsConfig,
    SoftmaxPatchesConfig,
    TrainingImagesConfig,
    VAEConfig,
)
from scorefield.data import Reading, ScaledRows, open_data, random_rows
from scorefield.errors import UserError
from scorefield.experiment import Run
from scorefield.experiment import compare as comparing
from scorefield.experiment.compare import FamilyRecord, Interrupted, compare, likelihood_records
from scorefield.metrics import Record
from scorefield.metrics import classifier as classifying
from scorefield.networks import MLPConfig
from scorefield.training import Outcome, Training

STEPS = 8
SAMPLES = 48
CLOCK = {"seconds per 1,000 samples", "training"}
TRAINING = Training(steps=1, batch_size=16, checkpoint_every=3, log_every=4, validate_every=3, keep_best=True)


def family(network: BaselineConfig) -> Run:
    return Run(recipe=network.kind, network=network, objective=EvidenceBound(), training=TRAINING)


COPIES, PIXELS = family(TrainingImagesConfig()), family(IndependentPixelsConfig())
RUNS = {"independent-pixels": PIXELS, "training-images": COPIES, "vae": family(VAEConfig(latents=(2,), width=8))}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few samples, and as many steps as these fit into every budget."""
    monkeypatch.setattr(comparing, "SAMPLES", SAMPLES)
    monkeypatch.setattr(comparing, "affordable", lambda run, budget, progress: STEPS)


def write_images(path: Path, n: int, side: tuple[int, int] = (4, 4), seed: int = 0) -> str:
    """Grey gradients of random brightness with noise, so that neighbouring pixels are alike."""
    rng = np.random.default_rng(seed)
    middle = rng.uniform(60, 190, (n, 1, 1)) + rng.uniform(-12, 12, (n, 1, 1)) * np.arange(side[1])
    np.save(path, (middle + rng.normal(0, 9, (n, *side))).clip(0, 255).astype(np.uint8))
    return str(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_images(tmp_path_factory.mktemp("data") / "images.npy", 400)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "vectors.npy"
    np.save(path, np.random.default_rng(0).normal([1, -2, 0, 5], [2, 0.5, 1, 3], (100, 4)))
    return str(path)


def compared(source: str, folder: Path, runs: dict[str, Run] = RUNS, **options: Any) -> list[FamilyRecord]:
    return compare(source, runs, folder, **{"budget": 10.0, "likelihood_rows": 6, **options})


def no_clock(records: list[FamilyRecord]) -> list[FamilyRecord]:
    return [r for r in records if r.metric not in CLOCK]


def by_metric(records: list[FamilyRecord], name: str) -> dict[str, FamilyRecord]:
    return {r.metric: r for r in records if r.family == name}


def never(*arguments: object, **options: object) -> Any:
    raise AssertionError("computed again")


# ── going on ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def raise_interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
@pytest.mark.parametrize(
    ("name", "phase", "stop", "raised"),
    [
        ("vae", "training", interrupt, Interrupted),
        ("vae", "likelihood", raise_interrupt, KeyboardInterrupt),
        ("vae", "sampling", raise_interrupt, KeyboardInterrupt),
        ("training-images", "sampling", raise_interrupt, KeyboardInterrupt),
    ],
    ids=["training", "likelihood", "sampling", "sampling of a counted family"],
)
def test_an_interrupted_comparison_gives_the_table_of_one_that_was_not(
    images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, phase: str, stop: Callable[[], None], raised: type[BaseException],
) -> None:  # fmt: skip
    whole = compared(images, tmp_path / "whole")
    out = tmp_path / "stopped"
    out.mkdir()
    shutil.copy(tmp_path / "whole" / "plan.json", out)
    monkeypatch.setattr(comparing, "affordable", never)
    shares = []

    def watch(family: str, at: str, share: float) -> None:
        if (family, at) == (name, phase):
            shares.append(share)
            if len(shares) == (3 if phase == "training" else 1):
                stop()

    with pytest.raises(raised) as error:
        compared(images, out, watch=watch)
    if phase == "training":
        assert error.value.signal_number == signal.SIGINT  # type: ignore[attr-defined]
        assert 3 / STEPS <= shares[-1] < 1
    assert not (out / name / "compare.json").exists()
    done = {path: path.read_bytes() for path in out.glob("*/compare.json")}
    assert len(done) == [*RUNS].index(name)
    again = compared(images, out)
    assert no_clock(again) == no_clock(whole)
    assert {path: path.read_bytes() for path in done} == done
    for file in ("vae/model.safetensors", "plan.json"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    for family in RUNS:
        drawn = [np.load(folder / family / "samples.npz")["samples"] for folder in (out, tmp_path / "whole")]
        np.testing.assert_array_equal(*drawn)


def test_a_finished_comparison_computes_nothing_again(images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compared(images, tmp_path / "out")
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for name in ("train", "judge", "affordable"):
        monkeypatch.setattr(comparing, name, never)
    assert compared(images, tmp_path / "out") == first
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == files


def test_families_that_come_later_join_those_that_are_there(
    images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = compared(images, tmp_path / "out", {"vae": RUNS["vae"]})
    judge = comparing.judge
    monkeypatch.setattr(comparing, "judge", lambda name, *rest: never() if name == "vae" else judge(name, *rest))
    records = compared(images, tmp_path / "out")
    assert [*dict.fromkeys(r.family for r in records)] == [*RUNS]
    assert [r for r in records if r.family == "vae"] == some
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["steps"] == {
        "vae": STEPS, "independent-pixels": 1, "training-images": 1,
    }  # fmt: skip


# ── what is refused ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": 20.0}, "a comparison with budget 10.0"),
        ({"likelihood_rows": 7}, "a comparison with likelihood_rows 6"),
        ({"seed": 1}, "a comparison with seed 0"),
        ({"reading": Reading(size=2)}, "a comparison with images read in another way"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_settings_in_the_same_folder_are_refused_by_name(
    images: str, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    compared(images, tmp_path, {})
    before = (tmp_path / "plan.json").read_bytes()
    with pytest.raises(UserError, match=words):
        compared(images, tmp_path, {}, **options)
    assert (tmp_path / "plan.json").read_bytes() == before


def test_other_data_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    source, out = write_images(tmp_path / "x.npy", 40), tmp_path / "out"
    compared(source, out, {})
    with pytest.raises(UserError, match=f"a comparison with data {source}"):
        compared(write_images(tmp_path / "y.npy", 40), out, {})
    write_images(tmp_path / "x.npy", 40, seed=1)
    with pytest.raises(UserError, match="a comparison with other examples in the data"):
        compared(source, out, {})


def test_a_used_folder_is_refused_and_what_a_killed_writer_left_is_not(images: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".plan.json.1234.part").write_text("{")
    compared(images, out, {})
    for used in (tmp_path / "file", tmp_path / "folder" / "file"):
        used.parent.mkdir(exist_ok=True)
        used.write_text("mine")
    for place in (tmp_path / "file", tmp_path / "folder"):
        with pytest.raises(UserError, match="is already used, and not by a comparison"):
            compared(images, place, {})
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["file"]


def test_budgets_and_rows_that_say_nothing_are_refused(images: str, tmp_path: Path) -> None:
    for budget in (9.9, 0.0, -1.0, math.nan):
        with pytest.raises(UserError, match="--budget must be at least 10 s"):
            compared(images, tmp_path / "out", budget=budget)
    with pytest.raises(UserError, match="--likelihood-rows must be at least 2, got 1"):
        compared(images, tmp_path / "out", likelihood_rows=1)
    assert not (tmp_path / "out").exists()


def test_too_few_held_out_rows_to_compare_with_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="held out"):
        compared(write_images(tmp_path / "few.npy", 12), tmp_path / "out", {"pixels": PIXELS})


def test_damaged_records_are_named(images: str, tmp_path: Path) -> None:
    compared(images, tmp_path, {"pixels": PIXELS})
    for text in ("[{", '[{"family": "pixels"}]', "[1]", "7"):
        (tmp_path / "pixels" / "compare.json").write_text(text)
        with pytest.raises(UserError, match=r"pixels/compare\.json is damaged"):
            compared(images, tmp_path, {"pixels": PIXELS})


# ── the budget ─────────────────────────────────────────────────────────────────────────────────────────────────────────

AFFORDABLE = comparing.affordable
"""before `small` replaces it"""


@pytest.mark.parametrize(
    ("done", "seconds", "budget", "expected"),
    [
        (37, 2.0, 180.0, 3300),  # 3330
        (5, 2.0, 10.0, 25),
        (123, 2.0, 10.0, 620),  # 615
        (1, 7.0, 10.0, 1),  # 1.4
        (1, 100.0, 10.0, 1),  # a tenth of a step: one at least
        (1997, 2.0, 10.0, 10_000),  # 9985
        (54_321, 5.4, 180.0, 1_800_000),  # 1810700
    ],
)
def test_a_budget_pays_for_as_many_steps_as_the_trial_tells(
    monkeypatch: pytest.MonkeyPatch, done: int, seconds: float, budget: float, expected: int
) -> None:
    tried: list[tuple[Run, Path]] = []

    def trial(run: Run, folder: Path, **options: object) -> SimpleNamespace:
        assert folder.parent.is_dir()
        tried.append((run, folder))
        return SimpleNamespace(outcome=Outcome(0, done, seconds, None))

    monkeypatch.setattr(comparing, "train", trial)
    steps = AFFORDABLE(RUNS["vae"], budget, comparing.silent)
    exact = budget * done / seconds
    assert steps == expected
    assert abs(steps - exact) <= max(1, 0.05 * exact)  # two digits
    ((run, folder),) = tried
    assert (run.training.steps, run.training.minutes) == (None, pytest.approx(max(2.0, 0.03 * budget) / 60))
    assert not folder.parent.exists()


def test_a_signal_in_the_trial_stops_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = SimpleNamespace(outcome=Outcome(0, 3, 1.0, signal.SIGTERM))
    monkeypatch.setattr(comparing, "train", lambda *_, **__: stopped)
    with pytest.raises(Interrupted) as error:
        AFFORDABLE(RUNS["vae"], 10.0, comparing.silent)
    assert error.value.signal_number == signal.SIGTERM


# ── what is not for the data ───────────────────────────────────────────────────────────────────────────────────────────


def test_families_of_integers_are_not_for_vectors(vectors: str, tmp_path: Path) -> None:
    runs = {**RUNS, "patches": family(SoftmaxPatchesConfig()), "autoregressive": family(AutoregressiveConfig())}
    records = compared(vectors, tmp_path, runs)
    reason = "it models integer levels, and this data is continuous"
    assert records == [
        FamilyRecord(name, "not applicable", None, None, 0, reason, "not applicable", None) for name in runs
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_images_of_odd_sides_have_no_patches(tmp_path: Path) -> None:
    data = open_data(write_images(tmp_path / "odd.npy", 40, (4, 5)))
    assert "even sides, got events of shape (1, 4, 5)" in str(comparing.not_applicable(family(SoftmaxPatchesConfig()), data))
    for name, run in RUNS.items():
        assert comparing.not_applicable(run, data) is None, name


def test_large_images_are_too_slow_pixel_after_pixel(tmp_path: Path) -> None:
    run = family(AutoregressiveConfig(width=4, blocks=1))
    large, enough = (open_data(write_images(tmp_path / f"{h}.npy", 12, (h, 32))) for h in (33, 32))
    assert comparing.not_applicable(run, large) == (
        "a sample takes a pass for each of 1,056 numbers; more than 1,024 are too slow"
    )
    assert comparing.not_applicable(run, enough) is None
    vae = family(VAEConfig(latents=(2,), width=4))
    assert comparing.not_applicable(vae, large) == ("it counts 270,336 levels of numbers apart; more than 262,144 are too many")
    assert comparing.not_applicable(vae, enough) is None


# ── the numbers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    of_a, of_b = np.cov(a.T), np.cov(b.T)
    mixed = np.trace(scipy.linalg.sqrtm(of_a @ of_b)).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(of_a) + np.trace(of_b) - 2 * mixed)


def coverage(fake: np.ndarray, real: np.ndarray) -> float:
    reach = np.sort(cdist(real, real), 1)[:, 5]  # the row itself comes first
    return float((cdist(real, fake).min(1) <= reach).mean())


def test_independent_pixels_are_judged_as_by_hand(images: str, tmp_path: Path) -> None:
    """All sixteen principal components are kept, which turn the pixels and leave distances as they are."""
    found = by_metric(compared(images, tmp_path, {"pixels": PIXELS}, likelihood_rows=1000), "pixels")
    data = open_data(images)
    train, test = (np.array(data.splits[name].x).reshape(-1, 16) for name in ("train", "test"))
    counts = np.stack([(train == level).sum(0) for level in range(256)])
    bits = -np.log2((counts + 0.5) / (len(train) + 128))
    each = np.take_along_axis(bits, test.astype(int), 0).mean(1)
    likelihood = found["likelihood"]
    assert likelihood.value == pytest.approx(each.mean(), rel=1e-12)
    assert likelihood.se == pytest.approx(each.std(ddof=1) / len(test) ** 0.5, rel=1e-9)
    assert (likelihood.n, likelihood.kind, likelihood.unit) == (len(test), "exact", "bits/dim of 256 levels; exact")

    drawn = np.load(tmp_path / "pixels" / "samples.npz")["samples"].reshape(SAMPLES, 16)
    reference = train[random_rows(len(train), SAMPLES, 0, "reference rows")]
    fake, real, same, base = ((x - train.mean()) / train.std() for x in (drawn, test, reference, train.astype(float)))
    for ending, rows in (("", fake), (", real data", same)):
        assert found[f"Fréchet distance{ending}"].value == pytest.approx(frechet(rows, real), rel=1e-4)
        share = found[f"coverage{ending}"]
        assert share.value == pytest.approx(coverage(rows, real))
        assert share.value is not None
        assert share.se == pytest.approx((share.value * (1 - share.value) / (len(real) - 1)) ** 0.5, abs=1e-9)
        assert share.unit.endswith(f"; {SAMPLES} against {len(real)} held out")
    near = [np.median(cdist(rows, base).min(1)) for rows in (fake, real)]
    assert found["memorisation ratio"].value == pytest.approx(near[0] / near[1], rel=1e-4)
    assert found["parameters"].value == 16 * 256
    assert (found["training steps"].value, found["training steps"].unit) == (1, "steps of 16")
    assert found["training"].value == 0


def test_training_images_are_copies_and_know_no_other(images: str, tmp_path: Path) -> None:
    found = by_metric(compared(images, tmp_path, {"copies": COPIES}), "copies")
    likelihood = found["likelihood"]
    assert (likelihood.value, likelihood.se, likelihood.kind) == (None, None, "exact")
    assert "infinite: to some held-out rows it gives probability 0" in likelihood.unit
    assert found["memorisation ratio"].value == 0
    assert found["parameters"].value == open_data(images).splits["train"].x.size
    drawn = np.load(tmp_path / "copies" / "samples.npz")["samples"].reshape(SAMPLES, 16)
    train = np.array(open_data(images).splits["train"].x).reshape(-1, 16)
    assert cdist(drawn, train).min(1).max() == 0


def test_a_score_has_an_estimate_and_a_bound(vectors: str, tmp_path: Path) -> None:
    run = Run(network=MLPConfig(width=8, blocks=1, frequencies=0), sigma_range=(0.05, 20.0), training=TRAINING)
    found = by_metric(compared(vectors, tmp_path, {"mine": run}), "mine")
    lines = (tmp_path / "mine" / "likelihood.jsonl").read_text().splitlines()[1:]
    for metric, column, kind, ending in (
        ("likelihood", "log_density", "estimate", "probability flow"),
        ("likelihood, second estimate", "bound", "bound", "evidence bound"),
    ):
        values = np.array([value for line in lines for value in json.loads(line)[column]])
        record = found[metric]
        assert len(values) == record.n == 6
        assert record.value == pytest.approx(values.mean())
        assert record.se == pytest.approx(values.std(ddof=1) / 6**0.5)
        assert (record.kind, record.unit) == (kind, f"nats, at sigma 0.05; {ending}")
    assert found["training steps"].value == STEPS
    assert found["training"].value > 0  # type: ignore[operator]


def test_the_likelihood_to_quote_comes_first_and_infinities_have_no_value() -> None:
    def records(**values: float) -> list[Record]:
        named = {
            "uniform": "uniform", "pixels": "independent pixels", "half": "change by half the steps", "exact": "exact",
            "iwae": "bound of 64 importance samples", "energy": "energy less log Z", "flow": "probability flow",
            "bound": "evidence bound",
        }  # fmt: skip
        return [Record(f"bits per dimension, {named[k]}", v, 0.1, 9, "bits/dim of 17 levels", 3) for k, v in values.items()]

    def told(**values: float) -> list[tuple[str, float | None, str]]:
        return [(r.metric, r.value, r.kind) for r in likelihood_records("it", records(**values))]

    first, second = "likelihood", "likelihood, second estimate"
    assert told(uniform=4.0, exact=2.0, pixels=3.0) == [(first, 2.0, "exact")]
    assert told(pixels=3.0, iwae=2.5) == [(first, 2.5, "bound")]
    assert told(energy=1.5, uniform=4.0) == [(first, 1.5, "estimate")]
    assert told(bound=2.2, half=0.1, flow=2.1) == [(first, 2.1, "estimate"), (second, 2.2, "bound")]
    assert told(exact=math.inf) == [(first, None, "exact")]
    assert told(uniform=4.0) == []
    (record,) = likelihood_records("it", records(exact=2.0))
    assert record == FamilyRecord("it", first, 2.0, 0.1, 9, "bits/dim of 17 levels; exact", "exact", 3)


def test_samples_are_those_a_user_gets_and_their_time_is_the_clocks(
    images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared(images, tmp_path, {"pixels": PIXELS})
    model, data = comparing.load(tmp_path / "pixels"), open_data(images)
    kept = np.load(tmp_path / "pixels" / "samples.npz")["samples"]
    shares: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr(comparing, "time", SimpleNamespace(monotonic=iter([100.0, 107.5]).__next__))
        x, seconds = comparing.timed_samples(model, tmp_path / "pixels", 0, torch.device("cpu"), shares.append)
    assert seconds == 7.5
    assert shares == [1.0]  # one chunk of one state
    torch.testing.assert_close(x, data.scaling.encode(torch.from_numpy(kept)[:, None].float()))
    other, _ = comparing.timed_samples(model, tmp_path / "pixels", 1, torch.device("cpu"), shares.append)
    assert (other != x).any()


def test_features_are_a_classifiers_where_there_are_classes(images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifying, "MOST_STEPS", 2)
    digits, pixels = open_data("digits"), open_data(images)
    name = comparing.features_of(digits, 0).name
    assert re.fullmatch(r"last layer of a classifier of the 10 classes that is right on \d+\.\d% of held-out data", name)
    features = comparing.features_of(pixels, 0)
    assert features.name == "16 principal components of pixels"
    train = ScaledRows(pixels.splits["train"].x, pixels.scaling)[:]
    variances = np.linalg.eigvalsh(np.cov(train.flatten(1).double().numpy().T))[::-1]
    np.testing.assert_allclose(features(train).numpy().var(0, ddof=1), variances, rtol=1e-6)


def test_training_times_add_up_over_resumes(tmp_path: Path) -> None:
    assert comparing.trained_seconds(tmp_path) == 0
    line = {"images": 9, "loss": 1.0, "sigma": [], "loss_by_sigma": []}
    told = [{**line, "kind": "train", "step": step, "trained_seconds": t} for step, t in ((4, 3.0), (8, 9.5))]
    told.append({**line, "kind": "validation", "step": 8})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in told))
    assert comparing.trained_seconds(tmp_path) == 9.5
