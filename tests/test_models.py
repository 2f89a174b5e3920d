"""Configuration of models; what they compute is in tests/contracts."""

import pytest
import torch
from torch import Tensor, nn

from scorefield.models import (
    EnergyModel,
    InnerProduct,
    ModelSpec,
    Parameterisation,
    PlainEnergy,
    PlainScore,
    ScoreModel,
    WithoutNoise,
)
from scorefield.networks import MLP


def test_unknown_names_and_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown parameterisation 'x0': choose one of edm, noise, data, v, flow, ncsn"):
        Parameterisation("x0")  # type: ignore[arg-type]
    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="sigma_data must be positive"):
            Parameterisation("edm", value)
    infinity, nan = float("inf"), float("nan")
    for pair in (
        (0.0, 1.0), (2.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (-1.0, -1.0), (0.1, infinity), (infinity, infinity),
        (nan, 1.0), (1.0, nan), (nan, nan),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="sigma_range must satisfy 0 < low <= high < inf, or be 0 0, got"):
            ModelSpec((2,), sigma_range=pair)


@pytest.mark.parametrize("energy", [False, True], ids=["direct", "energy"])
def test_a_model_of_one_level_answers_for_no_other(energy: bool) -> None:
    """At its level it is the one that answers for all of them."""
    torch.manual_seed(0)
    network = MLP(2, 0 if energy else 2, width=8, blocks=1)
    nn.init.normal_(network.leave.weight)
    kind = EnergyModel if energy else ScoreModel
    one, many = (kind(network, ModelSpec((2,), sigma_range=pair)) for pair in ((0.4, 0.4), (0.1, 2.0)))
    x = torch.randn(5, 2)
    assert one.sigma_range == (0.4, 0.4)
    assert torch.equal(one.score(x, 0.4), many.score(x, 0.4))
    assert torch.equal(one.score(x, torch.full((5,), 0.4)), many.score(x, torch.full((5,), 0.4)))
    for sigma in (0.39, 0.41, 0.0):
        with pytest.raises(ValueError, match=rf"sigma must be 0.4, got {sigma:g}: this model answers for no other level"):
            one.score(x, sigma)


@pytest.mark.parametrize("kind", [ScoreModel, EnergyModel])
def test_level_zero_is_not_for_parameterised_models(kind: type) -> None:
    """Their four numbers are not finite there; a specification of a family that is no score may have it."""
    spec = ModelSpec((2,), sigma_range=(0.0, 0.0))
    assert spec.sigma_range == (0, 0)
    with pytest.raises(ValueError, match="a parameterised model needs noise levels above 0: sigma_range must not be 0 0"):
        kind(MLP(2, 2, width=8, blocks=1), spec)


def test_the_inner_product_is_the_mean_over_root_d() -> None:
    class Cube(nn.Module):
        def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
            return u**3

    u = torch.tensor([[[1.0, 2.0], [3.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert InnerProduct(Cube())(u, torch.zeros(2)).tolist() == [98 / 2, 4 / 2]


def test_the_network_sees_the_condition() -> None:
    class Echo(nn.Module):
        def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
            assert cond is not None
            return cond[:, None] * u

    x, cond = torch.ones(2, 3), torch.tensor([1.0, 5.0])
    spec = ModelSpec((3,), Parameterisation("ncsn"))
    assert ScoreModel(Echo(), spec).score(x, 0.5, cond).tolist() == [[2.0] * 3, [10.0] * 3]
    energy = EnergyModel(InnerProduct(Echo()), spec)
    torch.testing.assert_close(energy.log_density(x, 0.5, cond), cond * 3 / 3**0.5 / 0.5)


@pytest.mark.parametrize("energy", [False, True], ids=["direct", "energy"])
def test_classes_that_are_none_are_refused(energy: bool) -> None:
    network = MLP(2, 0 if energy else 2, width=8, blocks=1, classes=3)
    spec = ModelSpec((2,), classes=("a", "b", "c"))
    model = EnergyModel(network, spec) if energy else ScoreModel(network, spec)
    x = torch.zeros(4, 2)
    for label in (3, -2):
        with pytest.raises(ValueError, match=f"classes are numbers from 0 to 2, or -1 for none, got {label}"):
            model.score(x, 0.5, torch.tensor([0, 1, label, 2]))
    for cond in (torch.tensor(1), torch.tensor([1, 2]), torch.ones(4)):
        with pytest.raises(ValueError, match=r"classes must be integers of shape \(4,\), got torch"):
            model.score(x, 0.5, cond)
    assert model.score(x[:0], 0.5, torch.zeros(0, dtype=torch.long)).shape == (0, 2)
    by_hand = torch.cat([model.score(x[i : i + 1], 0.5, torch.tensor([k])) for i, k in enumerate((0, 1, -1, 2))])
    torch.testing.assert_close(model.score(x, 0.5, torch.tensor([0, 1, -1, 2])), by_hand)


def test_weights_are_reached_through_an_energys_score() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 3)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
            return self.layer(u)

    model = EnergyModel(InnerProduct(Net()), ModelSpec((3,)))
    model.score(torch.randn(4, 3), 1.0).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    with torch.no_grad():
        assert not model.score(torch.randn(4, 3), 1.0).requires_grad


def test_plain_models_are_their_networks() -> None:
    """A confined energy is the network less ½c‖x‖², its score the gradient; scorefield's own networks see c_noise = 0."""
    torch.manual_seed(0)
    x, cond = torch.randn(4, 3), torch.arange(4)
    layer = nn.Linear(3, 1)
    energy = PlainEnergy(layer, confinement=0.6)
    torch.testing.assert_close(energy.log_density(x), layer(x)[:, 0] - 0.3 * x.square().sum(1))
    torch.testing.assert_close(energy.score(x), layer.weight - 0.6 * x)
    torch.testing.assert_close(PlainEnergy(lambda y: layer(y)[:, 0]).log_density(x), layer(x)[:, 0])  # type: ignore[arg-type]
    network = MLP(3, 3, width=8, blocks=1, classes=4)
    nn.init.normal_(network.leave.weight)
    model = PlainScore(WithoutNoise(network))
    torch.testing.assert_close(model.score(x, cond=cond), network(x, torch.zeros(4), cond))
    torch.testing.assert_close(model.score(x), network(x, torch.zeros(4)))
