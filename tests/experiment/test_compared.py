"""What is made of a comparison's records: panels in which small is good, levels that are kept, pictures of what is there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scorefield.data import Reading, open_data
from scorefield.experiment import compared
from scorefield.experiment.compare import FamilyRecord, Kind, Plan
from scorefield.experiment.compared import as_levels, level_records, levels_of, panels, pictures
from scorefield.experiment.levels import Levels
from scorefield.metrics.record import Estimate

BITS, NATS = "bits/dim of 17 levels", "nats, at sigma 0.002; probability flow"
CHAIN = Levels(
    "diffusion, T = 2", ("L_0: x given x_1", "σ from 0.1 to 1", "σ from 1 to 10", "L_T: the prior"),
    (Estimate(-1.0, 0.1), Estimate(2.0, 0.2), Estimate(1.5, 0.1), Estimate(0.1, 0.01)), Estimate(2.6, 0.3), "bits/dim",
    7, 0.1, (1.0, 10.0), (2.0, 1.5),
)  # fmt: skip
VAE = Levels(
    "VAE of 1 levels",
    ("L_0: x given z_1", "L_1: z_1"),
    (Estimate(2.0, 0.1), Estimate(0.5, None)),
    Estimate(2.5, 0.1),
    "bits/dim",
    7,
)


def record(
    family: str, metric: str, value: float | None, unit: str = "1", kind: Kind = "measured", se: float | None = 0.1
) -> FamilyRecord:
    return FamilyRecord(family, metric, value, se, 9, unit, kind, 0)


def test_panels_hold_what_was_measured_and_say_what_was_not() -> None:
    records = [
        record("a", "likelihood", 2.5, f"{BITS}; exact", "exact"),
        record("b", "likelihood", None, f"{BITS}; exact; infinite", "exact", None),
        record("c", "likelihood", 1.0, f"{BITS}; AIS, not trustworthy: few weights", "estimate"),
        record("a", "Fréchet distance", 0.4),
        record("a", "Fréchet distance, real data", 0.2),
        record("b", "Fréchet distance", 0.3),
        record("a", "seconds per 1,000 samples", 7.0, "seconds", se=None),
    ]
    likelihood, frechet, speed = panels(records, ["a", "b", "c"])
    assert likelihood == (
        "bits/dim",
        [2.5, None, None],
        [0.1, None, 0.1],
        ["exact", "infinite", "not trustworthy"],
        False,
        None,
        2.5,
    )
    kinds = ["measured", "measured", ""]
    assert frechet == ("Fréchet distance", [0.4, 0.3, None], [0.1, 0.1, None], kinds, True, 0.2, 0.3)
    assert speed[1:3] == ([7.0, None, None], [None, None, None])
    assert speed.logarithmic


def test_log_densities_are_turned_so_that_small_is_good() -> None:
    records = [record("a", "likelihood", -3.0, NATS, "estimate"), record("b", "likelihood", 4.0, NATS, "bound")]
    likelihood = panels(records, ["a", "b"])[0]
    assert likelihood.title == "minus log-density, nats"
    assert likelihood.values == [3.0, -4.0]
    assert likelihood.kinds == ["estimate", "bound"]
    assert likelihood.best == -4.0


def test_copies_are_the_best_at_nothing() -> None:
    records = [
        record("a", "Fréchet distance", 0.1),
        record("a", "memorisation ratio", 0.0),
        record("b", "Fréchet distance", 0.3),
    ]
    assert panels(records, ["a", "b"])[1].best == 0.3


def test_levels_are_lines_of_the_table() -> None:
    found = level_records([VAE, CHAIN], seed=4)
    told = [(r.family, r.metric.removeprefix("evidence bound by level, "), r.value, r.se) for r in found]
    assert told == [
        ("hierarchical-vae", "L_0: x given z_1", 2.0, 0.1), ("hierarchical-vae", "L_1: z_1", 0.5, None),
        ("hierarchical-vae", "together", 2.5, 0.1), ("score", "L_0: x given x_1", -1.0, 0.1),
        ("score", "σ from 0.1 to 1", 2.0, 0.2), ("score", "σ from 1 to 10", 1.5, 0.1), ("score", "L_T: the prior", 0.1, 0.01),
        ("score", "together", 2.6, 0.3),
    ]  # fmt: skip
    assert {(r.kind, r.seed, r.n) for r in found} == {("bound", 4, 7)}
    assert [r.unit for r in found] == ["bits/dim; VAE of 1 levels"] * 3 + ["bits/dim; diffusion, T = 2"] * 5


@pytest.fixture
def images(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 256, (60, 4, 4), dtype=np.uint8))
    return str(tmp_path / "images.npy")


def test_levels_of_the_same_weights_are_not_computed_again(
    images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data(images)
    plan = Plan(data=images, data_fingerprint=data.fingerprint, budget=10, likelihood_rows=6, seed=0, reading=Reading())
    both, chains = ["hierarchical-vae", "score"], [VAE, CHAIN]
    assert levels_of(tmp_path, both, data, plan) == []  # neither is there
    for name in both:
        (tmp_path / name).mkdir()
        (tmp_path / name / "compare.json").write_text("[]")
        (tmp_path / name / "model.safetensors").write_bytes(name.encode())
    lines = [json.loads(json.dumps(vars(chain))) for chain in chains]
    assert [as_levels(line) for line in lines] == chains
    key = compared.weights_digest(tmp_path / both[0], tmp_path / both[1])
    (tmp_path / "levels.json").write_text(json.dumps({"key": key, "chains": lines}))
    assert levels_of(tmp_path, both, data, plan) == chains
    assert levels_of(tmp_path, ["score"], data, plan) == []  # not asked for
    monkeypatch.setattr(compared, "load", lambda path: pytest.fail("computed anew"))
    (tmp_path / "score" / "model.safetensors").write_bytes(b"others")
    with pytest.raises(pytest.fail.Exception):
        levels_of(tmp_path, both, data, plan)


def test_pictures_are_of_families_that_are_for_the_data(images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, drawn = open_data(images), {}
    shown = np.random.default_rng(1).integers(0, 256, (20, 4, 4), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "a" / "samples.npz", samples=shown)
    rows = compared.sample_rows
    monkeypatch.setattr(compared, "SHOWN", 8)
    monkeypatch.setattr(compared, "sample_rows", lambda given: (drawn.update(given), rows(given))[1])
    records = [record("a", "likelihood", 2.5, BITS, "exact"), record("b", "not applicable", None, "no", "not applicable")]
    written = pictures(tmp_path, data, records, [VAE, CHAIN])
    assert [path.name for path in written] == ["leaderboard.png", "samples.png", "levels.png"]
    assert all(Image.open(path).format == "PNG" for path in written)
    assert list(drawn) == ["a", "held-out data"]
    np.testing.assert_array_equal(drawn["a"], shown[:8])
    test = {image.tobytes() for image in np.array(data.splits["test"].x)[:, 0]}
    assert {image.tobytes() for image in drawn["held-out data"]} == test  # all six of them
    (tmp_path / "empty").mkdir()
    assert pictures(tmp_path / "empty", data, [replace(records[1], family="c")], []) == []
