"""Settings of the denoising objectives; what they compute is in tests/contracts."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from scorefield.interfaces import Objective
from scorefield.models import EnergyModel, ModelSpec, ScoreModel
from scorefield.networks import MLP, MLPConfig
from scorefield.objectives import (
    DenoisingAt,
    DenoisingScoreMatching,
    EDMWeighting,
    Geometric,
    LogNormal,
    PowerWeighting,
)


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


OBJECTIVES: dict[str, Callable[[float, bool], Objective]] = {
    "edm": lambda level, tamed: DenoisingScoreMatching(Only(level), EDMWeighting(), tamed),  # type: ignore[arg-type]
    "power": lambda level, tamed: DenoisingScoreMatching(Only(level), PowerWeighting(), tamed),  # type: ignore[arg-type]
    "one level": DenoisingAt,
}


@dataclass(frozen=True)
class Only:
    """A law of noise levels that knows one."""

    level: float

    def quantile(self, u: Tensor, sigma_range: tuple[float, float]) -> Tensor:
        return torch.full_like(u, self.level)


def model_of(kind: str) -> nn.Module:
    """A network whose last layer is not idle, as a score or an energy of three coordinates."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = MLPConfig(width=16, blocks=1).build((3,)) if kind == "direct" else MLP(3, 0, 16, 1)
        nn.init.normal_(net.leave.weight)
    return (ScoreModel if kind == "direct" else EnergyModel)(net, ModelSpec((3,)))


def value_and_gradient(objective: Objective, model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Each example's loss, and the gradient of their mean by all parameters, in float64."""
    value = objective(model, x).value  # type: ignore[arg-type]
    gradients = torch.autograd.grad(value.mean(), list(model.parameters()), allow_unused=True)
    return value.detach().double(), torch.cat([g.double().flatten() for g in gradients if g is not None])


@pytest.mark.parametrize("kind", ["direct", "energy"])
@pytest.mark.parametrize("control_variate", [False, True])
@pytest.mark.parametrize("level", [0.002, 0.03, 1.0, 80.0])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_level_loses_digits(
    objective: str, level: float, control_variate: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From σ = 0.002 to 80 float32 agrees with float64; D − x₀ formed by subtraction would not."""
    g = torch.Generator().manual_seed(0)
    x, z = torch.randn(50, 3, generator=g), torch.randn(50, 3, generator=g)
    monkeypatch.setattr(torch, "randn", lambda shape, *, dtype, **_: z.to(dtype))  # the same noise in both
    computed = OBJECTIVES[objective](level, control_variate)
    single, single_gradient = value_and_gradient(computed, model_of(kind), x)
    double, double_gradient = value_and_gradient(computed, model_of(kind).double(), x.double())
    assert float((single / double - 1).abs().max()) < 5e-4
    assert float((single_gradient - double_gradient).norm() / double_gradient.norm()) < 1e-5
