"""The arithmetic a sampler gets."""

import pytest
import torch

from scorefield.errors import RunError
from scorefield.experiment import in_precision, samplers
from scorefield.experiment.sample import arrays
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, ScoreModel
from scorefield.networks import MLPConfig
from scorefield.samplers import Autocast, DormandPrince, Heun


def test_bf16_is_for_direct_scores_and_fixed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """An adaptive solver would take ever smaller steps to get below the rounding of bf16."""
    monkeypatch.setattr(samplers, "computes_in_bf16", lambda device: True)
    network, spec, cpu = MLPConfig(width=8, blocks=1).build((2,)), ModelSpec((2,)), torch.device("cpu")
    direct, energy = ScoreModel(network, spec), EnergyModel(InnerProduct(network), spec)
    assert isinstance(in_precision(direct, "auto", cpu, Heun()), Autocast)
    assert in_precision(direct, "auto", cpu, DormandPrince()) is direct
    assert isinstance(in_precision(direct, "bf16", cpu, DormandPrince()), Autocast)
    assert in_precision(direct, "float32", cpu, Heun()) is direct
    assert in_precision(energy, "auto", cpu, Heun()) is energy


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_samples_that_are_no_numbers_are_never_written(value: float) -> None:
    x = torch.zeros(3, 1, 4, 4)
    x[1, 0, 2, 2] = value
    with pytest.raises(RunError, match="the sampler left the range of numbers"):
        arrays(x, ModelSpec((1, 4, 4)))
