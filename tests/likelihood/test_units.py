"""Nats, bits and dequantisation, against laws of integers that are known."""

import math

import pytest
import torch

from scorefield.data.scaling import Scaling
from scorefield.likelihood import bits_per_dim, dequantise, raw_log_density


def test_the_uniform_law_of_seventeen_levels_takes_log2_17_bits() -> None:
    scaling = Scaling((8.0,), (5.0,), 17)
    shape = (1, 8, 8)
    log_density = torch.tensor([-64 * math.log(17 / 5.0)])  # uniform over a width of 17/5 in scaled units
    assert float(bits_per_dim(raw_log_density(log_density, scaling, shape), shape)) == pytest.approx(math.log2(17), rel=1e-6)


def test_densities_of_columns_in_their_own_units() -> None:
    scaling = Scaling((1.0, -2.0), (3.0, 0.5))
    raw = torch.tensor([[2.0, -1.8], [0.0, -3.0]])
    scaled = scaling.encode(raw)
    normal = torch.distributions.Normal
    expected = normal(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5])).log_prob(raw).sum(1)
    torch.testing.assert_close(raw_log_density(normal(0, 1).log_prob(scaled).sum(1), scaling, (2,)), expected)


def test_dequantisation_is_uniform_and_keeps_the_mean() -> None:
    raw = torch.tensor([0, 3, 16]).repeat(30_000, 1).to(torch.uint8)
    y = dequantise(raw, torch.Generator().manual_seed(0))
    noise = y - raw
    assert y.dtype == torch.float32
    assert torch.equal(y.round().clamp(0, 16)[noise.abs() < 0.5], raw.float()[noise.abs() < 0.5])
    assert noise.min() >= -0.5
    assert noise.max() < 0.5
    error = noise.mean(0) / math.sqrt(1 / 12 / len(raw))
    assert error.abs().max() < 4.5
    spread = (noise.square().mean(0) - 1 / 12) / math.sqrt(1 / 180 / len(raw))
    assert spread.abs().max() < 4.5
    assert dequantise(raw[:1].double()).dtype == torch.float64
