"""Settings of the denoising objectives; what they compute is in tests/contracts."""

import pytest
import torch

from scorefield.models import ModelSpec, ScoreModel
from scorefield.networks import MLPConfig
from scorefield.objectives import (
    DenoisingAt,
    DenoisingScoreMatching,
    EDMWeighting,
    Geometric,
    LogNormal,
    PowerWeighting,
)
from scorefield.objectives.denoising import Weighting


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="exponent must be finite, got inf"):
        PowerWeighting(float("inf"))
    with pytest.raises(ValueError, match="at least 2 levels, got 1"):
        Geometric(count=1)
    for value in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="denoising needs noise"):
            DenoisingAt(value)
        with pytest.raises(ValueError, match="sigma_data must be positive, got"):
            EDMWeighting(sigma_data=value)
        with pytest.raises(ValueError, match=r"a finite mean and a positive std, got -0\.5 and"):
            LogNormal(std=value)
    with pytest.raises(ValueError, match=r"a finite mean and a positive std, got nan and 1\.2"):
        LogNormal(mean=float("nan"))


def test_a_level_the_model_was_not_trained_on_is_refused() -> None:
    model = ScoreModel(MLPConfig(width=8, blocks=1).build((2,)), ModelSpec((2,), sigma_range=(0.1, 10.0)))
    with pytest.raises(ValueError, match=r"sigma must be in \[0.1, 10\], got 0.01"):
        DenoisingAt(0.01)(model, torch.zeros(3, 2))


@pytest.mark.parametrize("control_variate", [False, True])
@pytest.mark.parametrize("level", [0.002, 0.03, 1.0, 80.0])
@pytest.mark.parametrize("weighting", [EDMWeighting(), PowerWeighting()], ids=lambda w: w.kind)
def test_no_level_loses_digits(weighting: Weighting, level: float, control_variate: bool) -> None:
    """From σ = 0.002 to 80 float32 agrees with float64; D − x₀ formed by subtraction would not."""
    torch.manual_seed(0)
    net = MLPConfig(width=16, blocks=1).build((3,))
    torch.nn.init.normal_(net.leave.weight)
    model = ScoreModel(net, ModelSpec((3,))).requires_grad_(False)
    objective = DenoisingScoreMatching(weighting=weighting, control_variate=control_variate)
    x, z, sigma = torch.randn(50, 3), torch.randn(50, 3), torch.full((50,), level)
    single = objective.at(model, x, sigma, z).value
    double = objective.at(model.double(), x.double(), torch.full((50,), level).double(), z.double()).value
    assert float((single / double - 1).abs().max()) < 2e-3
