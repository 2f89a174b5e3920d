"""Settings of training: the schedule, what is refused, what `auto` becomes."""

import math
from dataclasses import replace

import pytest
import torch

from scorefield.errors import UserError
from scorefield.training import config
from scorefield.training.config import Training

CPU = torch.device("cpu")


def test_learning_rate() -> None:
    training = Training(learning_rate=0.4, warmup=3, decay_after=100)
    assert [training.learning_rate_at(k) for k in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert training.learning_rate_at(100) == pytest.approx(0.4)
    assert training.learning_rate_at(400) == pytest.approx(0.2)
    assert training.learning_rate_at(10_000) == pytest.approx(0.04)
    steep = Training(learning_rate=0.4, warmup=0, decay_after=100, decay_power=1.0)
    assert steep.learning_rate_at(400) == pytest.approx(0.1)
    constant = Training(learning_rate=0.4, warmup=0)
    assert [constant.learning_rate_at(k) for k in (0, 1, 10**6)] == [0.4, 0.4, 0.4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"checkpoint_every": 0}, "--checkpoint-every must be at least 1"),
        ({"keep": 0}, "--keep must be at least 1"),
        ({"log_every": -1}, "--log-every must be at least 1"),
        ({"validate_every": 0}, "--validate-every must be at least 1"),
        ({"learning_rate": 0.0}, "--learning-rate must be positive, got 0.0"),
        ({"learning_rate": float("nan")}, "--learning-rate must be positive"),
        ({"minutes": -1.0}, "--minutes must be positive"),
        ({"clip": 0.0}, "--clip must be positive"),
        ({"threads": 0}, "--threads must be positive"),
        ({"threads": 999999999999}, "--threads must be at most 1024, got 999999999999"),
        ({"batch_size": 10000000000000}, "--batch-size must be at most 1048576, got 10000000000000"),
        ({"minutes": 1e308}, "--minutes must be at most 10000000"),
        ({"steps": None}, "--steps must be at least 1, got None"),
        ({"decay_after": 0}, "--decay-after must be positive"),
        ({"decay_power": 0.0}, "--decay-power must be positive"),
        ({"warmup": -1}, "--warmup must be in"),
        ({"beta2": 1.0}, r"--beta2 must be in \[0, 1\), got 1.0"),
        ({"ema": 0.29}, r"--ema must be in \[0.005, 0.28\), got 0.29"),
        ({"ema": 0.0}, "--ema must be in"),
    ],
)
def test_settings_out_of_range_are_refused_by_flag(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Training(**settings)  # type: ignore[arg-type]


def test_minutes_take_the_place_of_steps() -> None:
    assert Training(steps=5).limits == (5, math.inf)
    timed = Training(steps=5, minutes=2.0)
    assert timed.limits == (math.inf, 120)
    assert timed.steps is None
    assert replace(timed, steps=7, minutes=None).limits == (7, math.inf)


@pytest.mark.parametrize("capable", [True, False])
def test_auto_is_settled_by_capability(capable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "computes_in_bf16", lambda device: capable)
    monkeypatch.setattr(config, "has_compiler", lambda device: capable)
    settled = Training().resolved(CPU, energy=False)
    assert settled.precision == ("bf16" if capable else "float32")
    assert settled.compile == "off"  # compiling on CPUs is for those who ask
    assert settled.threads == torch.get_num_threads()
    assert settled.resolved(CPU, energy=False) == settled
    on_gpu = Training().resolved(torch.device("cuda"), energy=False)
    assert on_gpu.compile == ("on" if capable else "off")
    energy = Training().resolved(torch.device("cuda"), energy=True)
    assert (energy.precision, energy.compile) == ("float32", "off")


def test_explicit_choices_stand_or_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    explicit = Training(precision="bf16", compile="off", threads=3)
    assert explicit.resolved(CPU, energy=False) == explicit
    with pytest.raises(UserError, match="--precision bf16 is for direct scores only"):
        explicit.resolved(CPU, energy=True)
    monkeypatch.setattr(config, "has_compiler", lambda device: False)
    with pytest.raises(UserError, match="--compile on needs a C"):
        Training(compile="on").resolved(CPU, energy=False)
