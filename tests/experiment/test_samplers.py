"""The arithmetic a sampler gets."""

import pytest
import torch

from scorefield.experiment import in_precision, samplers
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
