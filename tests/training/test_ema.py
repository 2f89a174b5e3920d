"""The average of the weights, against closed-form weights and widths."""

import numpy as np
import pytest
import torch

from scorefield.training.ema import power_exponent, update_average

WIDTHS = [0.02, 0.05, 0.1, 0.25]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_average_has_power_weights(width: float) -> None:
    """β_t = (1 − 1/t)^(γ+1) unrolls to θ̂_T = Σ_t (t^(γ+1) − (t − 1)^(γ+1)) / T^(γ+1) θ_t."""
    steps = 60
    values = torch.randn(steps, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    average = [torch.full((4,), 7.0, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)]  # the start drops out
    for t, value in enumerate(values, 1):
        update_average(average, [value, value.reshape(2, 2)], t, width)
    t = torch.arange(steps + 1, dtype=torch.float64)
    weights = ((t / steps) ** (power_exponent(width) + 1)).diff()
    assert float(weights.sum()) == pytest.approx(1)
    expected = weights @ values
    torch.testing.assert_close(average[0], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(average[1], expected.reshape(2, 2), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_width_is_the_standard_deviation_relative_to_the_run(width: float) -> None:
    steps = 100_000
    t = np.arange(steps + 1.0)
    weights = np.diff((t / steps) ** (power_exponent(width) + 1))
    middle = (t[1:] - 0.5) / steps
    mean = weights @ middle
    assert np.sqrt(weights @ (middle - mean) ** 2) == pytest.approx(width, rel=1e-4)


def test_published_exponents() -> None:
    """Karras et al. 2024: γ = 16.97 for 5 %, 6.94 for 10 %."""
    assert power_exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert power_exponent(0.10) == pytest.approx(6.94, abs=0.005)
