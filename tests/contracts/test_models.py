"""Every network in every model: the Score protocol, its range of levels, and one answer for each example."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from scorefield.interfaces import Density, Score
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, Parameterisation, ScoreModel
from scorefield.networks import MLP, MLPConfig, UNetConfig
from scorefield.persistence import Model

RANGE = (0.01, 50.0)
VECTOR, IMAGE = ModelSpec((3,), sigma_range=RANGE), ModelSpec((2, 6, 5), sigma_range=RANGE)
UNET = UNetConfig(channels=8, blocks=1, attention=True)


class Own(nn.Module):
    """A user's network, without the package's types."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.layer(torch.cat([u, c_noise[:, None]], 1)).tanh()


MODELS: dict[str, Callable[[], Model]] = {
    "mlp": lambda: ScoreModel(MLPConfig(width=16, blocks=2).build((3,), classes=4), VECTOR),
    "mlp-v": lambda: ScoreModel(MLPConfig(width=16).build((3,)), ModelSpec((3,), Parameterisation("v"), RANGE)),
    "unet": lambda: ScoreModel(UNET.build((2, 6, 5), classes=4), IMAGE),
    "unet-fold": lambda: ScoreModel(UNetConfig(channels=8, blocks=1, fold=2).build((2, 6, 5)), IMAGE),
    "own": lambda: ScoreModel(Own(), VECTOR),
    "mlp-energy": lambda: EnergyModel(InnerProduct(MLPConfig(width=16).build((3,), classes=4)), VECTOR),
    "mlp-scalar-energy": lambda: EnergyModel(MLP(3, out=0, width=16), VECTOR),
    "unet-energy": lambda: EnergyModel(InnerProduct(UNET.build((2, 6, 5), classes=4)), IMAGE),
    "own-energy": lambda: EnergyModel(InnerProduct(Own()), ModelSpec((3,), Parameterisation("flow"), RANGE)),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    """Each model in float64, moved away from its initial zeros."""
    torch.manual_seed(0)
    built = MODELS[request.param]().double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return built


def points(model: Model, n: int = 4) -> Tensor:
    return torch.randn(n, *model.spec.event_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_it_is_a_score(model: Model) -> None:
    x = points(model)
    assert isinstance(model, Score)
    assert isinstance(model, Density) == isinstance(model, EnergyModel)
    assert model.sigma_range == RANGE
    score = model.score(x, 0.7)
    assert score.shape == x.shape
    assert score.dtype == x.dtype
    assert score.flatten(1).norm(dim=1).min() > 0


def test_float32_agrees_with_float64(model: Model) -> None:
    x = points(model)
    expected = model.score(x, 0.7)
    single = model.float().score(x.float(), 0.7)
    assert single.dtype == torch.float32
    assert (single - expected).norm() < 1e-4 * expected.norm()


def test_levels_outside_the_range_are_refused(model: Model) -> None:
    x = points(model)
    for sigma in (0.0, 0.0099, 50.1, float("nan"), torch.tensor([1.0, 1.0, 60.0, 1.0])):
        with pytest.raises(ValueError, match=r"sigma must be in \[0.01, 50\]"):
            model.score(x, sigma)
    with pytest.raises(ValueError, match=r"sigma must be in \[0.01, 50\], got 0"):
        model.score(x)
    for sigma in (0.01, 50.0):
        assert model.score(x, sigma).isfinite().all()


def test_a_scalar_level_equals_a_vector_of_it(model: Model) -> None:
    x = points(model)
    for sigma in (0.01, 0.3, 50.0):
        close(model.score(x, sigma), model.score(x, torch.full((4,), sigma, dtype=torch.float64)))
        close(model.score(x, sigma), model.score(x, torch.tensor(sigma, dtype=torch.float64)))


def test_examples_do_not_see_each_other(model: Model) -> None:
    x, sigma = points(model), torch.tensor([0.02, 0.4, 3.0, 40.0], dtype=torch.float64)
    whole = model.score(x, sigma)
    for i in range(len(x)):
        close(model.score(x[i : i + 1], sigma[i : i + 1]), whole[i : i + 1])


@pytest.mark.parametrize("model", ["mlp", "unet", "mlp-energy", "unet-energy"], indirect=True)
def test_labels_select_the_density(model: Model) -> None:
    x = points(model, 1).expand(5, *model.spec.event_shape)
    answers = [*model.score(x[:4], 0.7, torch.arange(4)), model.score(x[4:], 0.7)[0]]
    for i, a in enumerate(answers):
        for b in answers[:i]:
            assert (a - b).norm() > 1e-4 * a.norm()
    close(model.score(x[:1], 0.7, torch.tensor([4])), answers[4][None])  # "no class" is the row after the last


@pytest.mark.parametrize("model", [name for name in MODELS if "energy" in name], indirect=True)
def test_an_energys_score_is_the_gradient_of_its_log_density(model: EnergyModel) -> None:
    x, h = points(model), 1e-5
    assert model.log_density(x, 0.7).shape == (4,)
    close(model.energy(x, 0.7), -model.log_density(x, 0.7))
    v = points(model, 9)[5:]
    difference = (model.log_density(x + h * v, 0.7) - model.log_density(x - h * v, 0.7)) / (2 * h)
    torch.testing.assert_close((model.score(x, 0.7) * v).flatten(1).sum(1), difference, rtol=1e-6, atol=1e-6)
