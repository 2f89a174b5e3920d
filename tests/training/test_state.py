"""Checkpoints: what goes on after one equals what would have gone on without it, bit for bit."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from scorefield.errors import RunError
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, ScoreModel
from scorefield.networks import MLPConfig, UNetConfig
from scorefield.objectives import DenoisingScoreMatching
from scorefield.persistence import Model
from scorefield.randomness import keyed_generator
from scorefield.training.config import OptimizerName, Training
from scorefield.training.ema import update_average
from scorefield.training.state import TrainState, checkpoints, restore_newest, save_checkpoint

TRAINING = Training(precision="float32", compile="off", threads=1)


def unet() -> Model:
    return ScoreModel(UNetConfig(channels=8, blocks=1, attention=True).build((2, 8, 8)), ModelSpec((2, 8, 8)))


def energy() -> Model:
    return EnergyModel(InnerProduct(MLPConfig(width=16, blocks=1).build((3,))), ModelSpec((3,)))


each_model = pytest.mark.parametrize("build", [unet, energy])


def wide() -> Model:
    """Large enough that Muon has matrices to work on."""
    return ScoreModel(UNetConfig(channels=64, multipliers=(1,), blocks=1).build((1, 4, 4)), ModelSpec((1, 4, 4)))


def begin(build: object, seed: int, optimizer: OptimizerName = "adam") -> TrainState:
    torch.manual_seed(seed)
    return TrainState.begin(DenoisingScoreMatching(), build(), replace(TRAINING, optimizer=optimizer))  # type: ignore[operator]


def advance(state: TrainState, steps: int) -> None:
    model = state.train_step.model
    for _ in range(steps):
        g = keyed_generator(0, "test", state.step)
        x = torch.randn(8, *model.spec.event_shape, generator=g)  # type: ignore[union-attr, misc]
        state.train_step(x, None, g).value.mean().backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.step += 1
        update_average(state.average.parameters(), model.parameters(), state.step, 0.1)


def assert_same_bits(a: TrainState, b: TrainState) -> None:
    first, second = a.tensors(), b.tensors()
    assert sorted(first) == sorted(second)
    assert [k for k in first if not torch.equal(first[k], second[k])] == []
    assert a.step == b.step


@each_model
def test_going_on_from_a_checkpoint_equals_going_on(build: object, tmp_path: Path) -> None:
    whole = begin(build, seed=0)
    advance(whole, 3)
    whole.seconds = 4.5
    save_checkpoint(whole, tmp_path, log_bytes=123, keep=2)
    resumed = begin(build, seed=1)
    assert restore_newest(resumed, tmp_path) == 123
    assert resumed.seconds == 4.5
    assert_same_bits(whole, resumed)
    moments = {k: v for k, v in resumed.tensors().items() if k.endswith(("exp_avg", "exp_avg_sq"))}
    assert len(moments) == 2 * len(list(resumed.train_step.parameters()))
    assert any(v.abs().max() > 0 for v in moments.values())
    advance(whole, 3)
    advance(resumed, 3)
    assert_same_bits(whole, resumed)
    x = torch.randn(2, *whole.train_step.model.spec.event_shape)  # type: ignore[union-attr, misc]
    assert torch.equal(whole.average.score(x, 0.5), resumed.average.score(x, 0.5))  # type: ignore[operator]


def test_muon_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    whole = begin(wide, 0, "muon")
    advance(whole, 2)
    save_checkpoint(whole, tmp_path, log_bytes=0, keep=2)
    resumed = begin(wide, 1, "muon")
    restore_newest(resumed, tmp_path)
    assert_same_bits(whole, resumed)
    assert any(name.endswith("momentum") for name in whole.tensors())
    advance(whole, 2)
    advance(resumed, 2)
    assert_same_bits(whole, resumed)


def test_moments_keep_the_memory_layout_of_their_parameters(tmp_path: Path) -> None:
    state = begin(unet, seed=0)
    advance(state, 1)
    save_checkpoint(state, tmp_path, log_bytes=0, keep=1)
    resumed = begin(unet, seed=1)
    restore_newest(resumed, tmp_path)
    for parameter in resumed.train_step.parameters():
        assert resumed.optimizer.state[parameter]["exp_avg"].stride() == parameter.stride()
    assert resumed.train_step.model.network.enter.weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr, operator]


def test_the_average_is_apart_from_the_model() -> None:
    state = begin(energy, seed=0)
    advance(state, 2)
    model, average = (dict(m.named_parameters()) for m in (state.train_step.model, state.average))
    assert any(not torch.equal(model[k], average[k]) for k in model)
    assert not any(p.requires_grad for p in average.values())
    assert state.train_step.training
    assert not state.average.training


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    state = begin(energy, seed=0)
    for step in (5, 90, 100, 1000):
        state.step = step
        save_checkpoint(state, tmp_path, log_bytes=step, keep=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000100.safetensors", "step-00001000.safetensors"]
    assert restore_newest(begin(energy, seed=1), tmp_path) == 1000
    with safe_open(checkpoints(tmp_path)[-1], "pt") as file:
        assert json.loads(file.metadata()["scorefield"]) == {"step": 1000, "seconds": 0.0, "log_bytes": 1000}


def test_the_smallest_loss_wins_and_its_weights_stay_what_they_were() -> None:
    """An equal one comes too late, and one that is not a number is none."""
    state = begin(energy, seed=0)
    kept: list[dict[str, torch.Tensor]] = []
    for loss in (float("nan"), 3.0, 2.0, 2.0, float("inf"), 2.5, float("nan")):
        state.judge(loss)
        kept.append({k: v.clone() for k, v in state.chosen.state_dict().items()})
        state.judge(loss)
        advance(state, 1)
    assert state.best_loss == 2.0
    assert state.best is not None
    same = [all(torch.equal(a[k], b[k]) for k in a) for a, b in itertools.pairwise(kept)]
    assert same == [False, False, True, True, True, True]  # the last weights at first, the first of 2.0 from then on
    assert all(torch.equal(v, kept[2][k]) for k, v in state.chosen.state_dict().items())
    assert any(not torch.equal(v, kept[2][k]) for k, v in state.average.state_dict().items())
    assert not any(p.requires_grad for p in state.best.parameters())


@each_model
def test_the_best_weights_are_part_of_a_checkpoint(build: object, tmp_path: Path) -> None:
    whole = begin(build, seed=0)
    advance(whole, 2)
    whole.judge(0.1 + 0.2)
    advance(whole, 2)
    path = save_checkpoint(whole, tmp_path, log_bytes=0, keep=2)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["scorefield"])["best_loss"] == 0.1 + 0.2
    resumed = begin(build, seed=1)
    restore_newest(resumed, tmp_path)
    assert_same_bits(whole, resumed)
    assert resumed.best_loss == 0.1 + 0.2
    assert resumed.best is not None
    x = torch.randn(2, *whole.train_step.model.spec.event_shape)  # type: ignore[union-attr, misc]
    assert torch.equal(whole.chosen.score(x, 0.5), resumed.chosen.score(x, 0.5))  # type: ignore[operator]
    for state in (whole, resumed):
        advance(state, 1)
        state.judge(0.4)  # worse
        advance(state, 1)
        state.judge(0.2)
    assert_same_bits(whole, resumed)
    assert whole.best_loss == resumed.best_loss == 0.2


def test_a_checkpoint_from_before_anything_was_judged_has_no_best_weights(tmp_path: Path) -> None:
    save_checkpoint(begin(energy, seed=0), tmp_path, log_bytes=0, keep=1)
    resumed = begin(energy, seed=1)
    restore_newest(resumed, tmp_path)
    assert resumed.best is None
    assert resumed.best_loss == float("inf")
    assert resumed.chosen is resumed.average


def test_without_a_checkpoint_nothing_changes(tmp_path: Path) -> None:
    state, same = begin(energy, seed=0), begin(energy, seed=0)
    assert restore_newest(state, tmp_path) == 0
    assert_same_bits(state, same)


def test_a_damaged_or_foreign_checkpoint_is_named(tmp_path: Path) -> None:
    state = begin(energy, seed=0)
    path = save_checkpoint(state, tmp_path, log_bytes=0, keep=1)
    good = path.read_bytes()
    for bad in (good[:-1], good[:20], b"", b"\x80\x04K\x01."):
        path.write_bytes(bad)
        with pytest.raises(RunError, match="remove it to resume from the one before") as caught:
            restore_newest(begin(energy, seed=1), tmp_path)
        assert str(path) in str(caught.value)
    path.write_bytes(good)
    with pytest.raises(RunError, match="cannot be read"):  # another model's
        restore_newest(begin(unet, seed=1), tmp_path)


def test_a_full_disk_leaves_earlier_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = begin(energy, seed=0)
    save_checkpoint(state, tmp_path, log_bytes=7, keep=1)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    state.step = 5
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(RunError, match="the disk is full"):
            save_checkpoint(state, tmp_path, log_bytes=9, keep=1)
    assert restore_newest(begin(energy, seed=1), tmp_path) == 7
    assert len(list(tmp_path.iterdir())) == 1
