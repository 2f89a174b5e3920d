"""A training that a signal ends goes on from its file, as if nothing had been."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.base import clone

from scorefield.errors import UserError
from scorefield.estimators import ScoreDensity
from scorefield.estimators.training import Learning

STEPS = 130


def rows(n: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, n)
    return (2 + 0.1 * rng.normal(size=(n, 1))) * np.stack([np.cos(angle), np.sin(angle)], 1)


def density(checkpoint: Path | None) -> ScoreDensity:
    return ScoreDensity(
        components=1, steps=STEPS, width=32, blocks=1, batch_size=128, learning_rate=1e-2, flow_steps=5, checkpoint=checkpoint
    )


def stop_at(monkeypatch: pytest.MonkeyPatch, advances: int) -> list[int]:
    """A signal in that training step; counts steps."""
    advance, done = Learning.advance, [0]

    def counted(self: Learning) -> None:
        done[0] += 1
        if done[0] == advances:
            signal.raise_signal(signal.SIGINT)
        advance(self)

    monkeypatch.setattr(Learning, "advance", counted)
    return done


def torn() -> np.ndarray:
    x = rows()
    x[::30, 1] = np.nan
    return x


@pytest.mark.parametrize("stop", [1, 90])
@pytest.mark.parametrize("rows", [rows, torn])
def test_it_goes_on_bit_for_bit(
    rows: Callable[[], np.ndarray], stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, file = density(None).fit(rows()), tmp_path / "training.safetensors"
    assert not whole.model_.untouched
    done = stop_at(monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        density(file).fit(rows())
    assert done[0] == stop
    monkeypatch.setattr(ScoreDensity, "_bases", lambda *_: pytest.fail("the mixtures are kept, too"))
    resumed = density(file).fit(rows())
    assert done[0] == STEPS
    assert file.exists()
    resumed.save(tmp_path / "density")
    assert not file.exists()
    for name, value in whole.model_.state_dict().items():
        assert torch.equal(value, resumed.model_.state_dict()[name]), name
    assert np.array_equal(whole.calibration_scores_, resumed.calibration_scores_)


def test_it_ends_early_when_held_out_rows_see_no_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, file = stop_at(monkeypatch, 0), tmp_path / "training.safetensors"
    noise = np.random.default_rng(0).normal(size=(40, 3))
    judge, since_best = Learning.judge, []

    def judged(self: Learning) -> None:
        judge(self)
        since_best.append(self.state.step - self.state.best_step)

    monkeypatch.setattr(Learning, "judge", judged)
    model = density(None).set_params(steps=1000).fit(noise)
    assert len(since_best) == 1 + done[0] / 40  # looked at every 40 steps
    assert max(since_best[:-1]) < since_best[-1] == 6 * 40  # ended after six looks without a better
    assert model.model_.untouched
    whole, stopped = done[0], done[0] - 30
    stop_at(monkeypatch, stopped)
    with pytest.raises(KeyboardInterrupt):
        density(file).set_params(steps=1000).fit(noise)
    again = stop_at(monkeypatch, 0)
    density(file).set_params(steps=1000).fit(noise)
    assert stopped + again[0] == whole  # it remembers when the best was


def test_another_training_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "training.safetensors"
    stop_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        density(file).fit(rows())
    kept = file.read_bytes()
    for other, x in (
        (density(file), rows() + 1e-9),
        (density(file), rows(199)),
        (clone(density(file)).set_params(learning_rate=1e-3), rows()),
        (clone(density(file)).set_params(random_state=1), rows()),
    ):
        with pytest.raises(UserError, match="belongs to other rows or settings"):
            other.fit(x)
        assert file.read_bytes() == kept


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "training.safetensors"
    file.write_bytes(b"no")
    with pytest.raises(UserError, match="no checkpoint of a table's training"):
        density(file).fit(rows())
    save_file({"x": torch.zeros(1)}, file)
    with pytest.raises(UserError, match="no checkpoint of a table's training"):
        density(file).fit(rows())
