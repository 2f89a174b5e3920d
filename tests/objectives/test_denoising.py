"""Settings of the denoising objectives; what they compute is in tests/contracts."""

import pytest
import torch

from scorefield.models import ModelSpec, ScoreModel
from scorefield.networks import MLPConfig
from scorefield.objectives import DenoisingAt, DenoisingScoreMatching, Geometric, LogNormal


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown weighting 'snr': choose edm or sigma2"):
        DenoisingScoreMatching(weighting="snr")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 2 levels, got 1"):
        Geometric(count=1)
    for value in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="denoising needs noise"):
            DenoisingAt(value)
        with pytest.raises(ValueError, match="sigma_data must be positive, got"):
            DenoisingScoreMatching(sigma_data=value)
        with pytest.raises(ValueError, match="a finite mean and a positive std, got -0.5 and"):
            LogNormal(std=value)
    with pytest.raises(ValueError, match="a finite mean and a positive std, got nan and 1.2"):
        LogNormal(mean=float("nan"))


def test_a_level_the_model_was_not_trained_on_is_refused() -> None:
    model = ScoreModel(MLPConfig(width=8, blocks=1).build((2,)), ModelSpec((2,), sigma_range=(0.1, 10.0)))
    with pytest.raises(ValueError, match=r"sigma must be in \[0.1, 10\], got 0.01"):
        DenoisingAt(0.01)(model, torch.zeros(3, 2))


@pytest.mark.parametrize("weighting", ["edm", "sigma2"])
def test_small_levels_lose_no_digits(weighting: str) -> None:
    """At σ = 0.002 float32 agrees with float64; D − x₀ formed by subtraction would not."""
    torch.manual_seed(0)
    net = MLPConfig(width=16, blocks=1).build((3,))
    torch.nn.init.normal_(net.leave.weight)
    model = ScoreModel(net, ModelSpec((3,))).requires_grad_(False)
    objective = DenoisingScoreMatching(weighting=weighting)  # type: ignore[arg-type]
    x, z, sigma = torch.randn(50, 3), torch.randn(50, 3), torch.full((50,), 0.002)
    single = objective.at(model, x, sigma, z).value
    double = objective.at(model.double(), x.double(), torch.full((50,), 0.002).double(), z.double()).value
    assert float((single / double - 1).abs().max()) < 2e-3
