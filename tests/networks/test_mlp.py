"""MLPs, of vectors and of images, and the embeddings of scalars."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from scorefield.models import EnergyModel, InnerProduct, ModelSpec
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


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 2, 5), (4, 3)], ids=str)
@pytest.mark.parametrize("frequencies", [0, 2])
def test_images_are_taken_as_vectors_in_raster_order(shape: tuple[int, ...], frequencies: int) -> None:
    torch.manual_seed(0)
    d = math.prod(shape)
    of_images = perturbed(MLPConfig(width=16, blocks=2, frequencies=frequencies).build(shape, classes=3))
    of_vectors = MLPConfig(width=16, blocks=2, frequencies=frequencies).build((d,), classes=3)
    of_vectors.load_state_dict(of_images.state_dict())  # the same weights in the same places
    x, level, cond = torch.randn(4, *shape), torch.linspace(-1, 1, 4), torch.tensor([0, 2, -1, 1])
    assert of_images(x, level, cond).shape == x.shape
    assert torch.equal(of_images(x, level, cond).flatten(1), of_vectors(x.flatten(1), level, cond))


def test_an_energy_of_images_is_that_of_their_vectors() -> None:
    """As a scalar network, and by the inner product that makes one of any; the score too, in the shape of the image."""
    torch.manual_seed(0)
    spec = ModelSpec((1, 4, 4), sigma_range=(0.4, 0.4))
    x = torch.randn(3, 1, 4, 4)
    scalar = perturbed(MLP(16, 0, width=16, blocks=1))
    vector = perturbed(MLPConfig(width=16, blocks=1).build((1, 4, 4)))
    for network in (scalar, InnerProduct(vector)):
        image, flat = EnergyModel(network, spec), EnergyModel(network, replace(spec, event_shape=(16,)))
        torch.testing.assert_close(image.log_density(x, 0.4), flat.log_density(x.flatten(1), 0.4))
        torch.testing.assert_close(image.score(x, 0.4).flatten(1), flat.score(x.flatten(1), 0.4))


def test_settings_out_of_range_are_refused() -> None:
    for name, least in (("width", 1), ("blocks", 1), ("frequencies", 0)):
        with pytest.raises(ValueError, match=f"{name} must be at least {least}, got {least - 1}"):
            MLPConfig(**{name: least - 1})
