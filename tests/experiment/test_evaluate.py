"""What a model is judged on: random rows of sorted data, all training rows, features of one's own, other data told as such."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scorefield import NetworkFeatures
from scorefield.data import Data, ScaledRows, open_data
from scorefield.experiment import Run, evaluate
from scorefield.interfaces import Score, State
from scorefield.metrics import Record
from scorefield.models import ModelSpec, ScoreModel
from scorefield.networks import MLPConfig

NETWORK = MLPConfig(width=8, blocks=1)


@dataclass(frozen=True)
class Given:
    """A sampler that gives rows chosen beforehand."""

    rows: Tensor
    states: int = 1

    def start(self, model: Score, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return torch.zeros(shape)

    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Iterator[State]:
        yield State(self.rows, torch.tensor(0.0), {})


def written(path: Path, n: int, seed: int = 0) -> Data:
    """Vectors `(n, 2)` in rising order of their first coordinate, as a source sorted by class would be."""
    x = np.random.default_rng(seed).normal(size=(n, 2))
    np.save(path, x[x[:, 0].argsort()])
    return open_data(str(path))


def judged(data: Data, rows: Tensor, folder: Path, scaling_of: Data | None = None, **options: object) -> dict[str, Record]:
    """Records of a model of `scaling_of` (by default the same data) whose samples are `rows`, by name."""
    folder.mkdir()
    model = ScoreModel(NETWORK.build((2,)), ModelSpec((2,), scaling=(scaling_of or data).scaling))
    records, _ = evaluate(Run(network=NETWORK), model, data, folder, Given(rows), len(rows), **options)  # type: ignore[arg-type]
    return {r.metric: r for r in records}


def test_copies_are_found_among_all_training_rows(tmp_path: Path) -> None:
    data = written(tmp_path / "x.npy", 16_000)
    train = ScaledRows(data.splits["train"].x, data.scaling)
    assert len(train) > 12_000
    copies = judged(data, train[-64:], tmp_path / "run")
    assert copies["memorisation ratio"].value == 0
    fresh = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    assert 0.3 < judged(data, fresh, tmp_path / "fresh")["memorisation ratio"].value < 3


def test_losses_and_components_are_of_rows_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(tmp_path / "x.npy", 30_000)
    seen: dict[str, Tensor] = {}
    module = import_module("scorefield.experiment.evaluate")  # the package has the function of that name
    monkeypatch.setattr(module, "PCA_ROWS", 1000)
    monkeypatch.setattr(module.PixelPCA, "fit", lambda x: (seen.update(train=x), nn.Flatten())[1])
    monkeypatch.setattr(module, "losses", lambda run, model, x, *_: (seen.update(test=x), [])[1])
    monkeypatch.setattr(module, "evaluate_samples", lambda *_, **__: [])
    judged(data, torch.zeros(64, 2), tmp_path / "run")
    for x in seen.values():
        assert len(x) == 1000
        assert abs(x[:, 0].mean()) < 5 / 1000**0.5
        assert x[:, 0].std() == pytest.approx(1, abs=5 / 2000**0.5)


def test_features_of_any_network(tmp_path: Path) -> None:
    data = written(tmp_path / "x.npy", 1000)
    rows = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    doubled = nn.Linear(2, 2, bias=False)
    nn.init.eye_(doubled.weight).data.mul_(2)
    plain, mine = (
        judged(data, rows, tmp_path / name, features=features)
        for name, features in (("plain", None), ("mine", NetworkFeatures(doubled, "twice the coordinates")))
    )
    assert "twice the coordinates" in mine["Fréchet distance"].unit
    assert mine["Fréchet distance"].value == pytest.approx(4 * plain["Fréchet distance"].value, rel=1e-4)
    assert mine["coverage"].value == plain["coverage"].value


def test_other_data_is_named_and_not_searched_for_copies(tmp_path: Path) -> None:
    own, other = written(tmp_path / "own.npy", 1000), written(tmp_path / "other.npy", 1000, seed=1)
    rows = ScaledRows(other.splits["train"].x, own.scaling)[:64]
    records = judged(other, rows, tmp_path / "other", scaling_of=own)
    assert "memorisation ratio" not in records
    assert not [name for name in records if "training" in name]
    assert all(r.unit.endswith(f"; on {tmp_path / 'other.npy'}") for r in records.values())
    assert {r["unit"] for r in json.loads((tmp_path / "other" / "evaluation.json").read_text())} == {
        r.unit for r in records.values()
    }
    moved = written(tmp_path / "moved.npy", 1000)  # the same data elsewhere is the run's own
    assert "memorisation ratio" in judged(moved, rows, tmp_path / "moved", scaling_of=own)
