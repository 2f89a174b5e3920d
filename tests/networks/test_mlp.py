"""MLPs and the embeddings of scalars."""

import math

import pytest
import torch
from torch import nn

from scorefield.networks import MLP, MLPConfig
from scorefield.networks.embedding import CoordinateEmbedding, NoiseEmbedding


def perturbed(net: nn.Module) -> nn.Module:
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=g)
    return net


@pytest.mark.parametrize("out", [3, 5, 0])
@pytest.mark.parametrize("frequencies", [0, 6])
@pytest.mark.parametrize("classes", [0, 4])
def test_zero_at_first_and_every_weight_is_reached(out: int, frequencies: int, classes: int) -> None:
    torch.manual_seed(0)
    net = MLP(3, out, width=16, blocks=2, frequencies=frequencies, classes=classes)
    x, level = torch.randn(8, 3), torch.linspace(-1.5, 1, 8)
    first = net(x, level)
    assert first.shape == ((8, out) if out else (8,))
    assert torch.equal(first - first[:1], torch.zeros_like(first))  # constant: what is left is the bias
    cond = torch.arange(8) % 4 if classes else None
    perturbed(net)(x, level, cond).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_labels() -> None:
    torch.manual_seed(0)
    net = perturbed(MLPConfig(width=16, blocks=1).build((3,), classes=3))
    x, level = torch.randn(1, 3), torch.zeros(1)
    answers = [net(x, level, torch.tensor([label])) for label in range(3)] + [net(x, level)]
    for i, a in enumerate(answers):
        for b in answers[:i]:
            assert (a - b).norm() > 1e-4 * a.norm()
    assert torch.equal(answers[3], net(x, level, torch.tensor([-1])))
    with pytest.raises(ValueError, match="this network knows no classes: leave cond out"):
        MLPConfig(width=16, blocks=1).build((3,))(x, level, torch.tensor([0]))


def test_coordinates_keep_themselves_and_gain_octaves() -> None:
    embed = CoordinateEmbedding(frequencies=3, extent=4.0)
    x = torch.tensor([[0.5, -2.0]])
    expected = []
    for v in (0.5, -2.0):
        angles = [math.pi / 4 * 2**k * v for k in range(3)]
        expected += [v, *map(math.sin, angles), *map(math.cos, angles)]
    torch.testing.assert_close(embed(x), torch.tensor([expected]))
    assert embed.features(2) == len(expected)


def test_noise_frequencies_span_an_eighth_to_eight_periods() -> None:
    embed = NoiseEmbedding(8)
    length = (math.log(80) - math.log(0.002)) / 4
    assert float(embed.frequencies[0]) * length / (2 * math.pi) == pytest.approx(1 / 8, rel=1e-3)
    assert float(embed.frequencies[-1]) * length / (2 * math.pi) == pytest.approx(8, rel=1e-3)
    assert embed(torch.zeros(5)).shape == (5, 8)
    assert not any("frequencies" in name for name in embed.state_dict())


def test_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"network mlp takes vectors of shape \(d,\), got .*\(1, 8, 8\): use unet"):
        MLPConfig().build((1, 8, 8))


def test_settings_out_of_range_are_refused() -> None:
    for name, least in (("width", 1), ("blocks", 1), ("frequencies", 0)):
        with pytest.raises(ValueError, match=f"{name} must be at least {least}, got {least - 1}"):
            MLPConfig(**{name: least - 1})
