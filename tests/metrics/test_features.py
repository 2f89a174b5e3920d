"""Features: principal components are NumPy's, networks run in eval mode."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scorefield.metrics import NetworkFeatures, PixelPCA


def test_components_are_those_of_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    train = torch.randn(40, 1, 3, 4, generator=generator) * torch.linspace(1, 5, 12).reshape(3, 4)
    features = PixelPCA.fit(train, components=5)
    x = train.flatten(1).double().numpy()
    _, _, axes = np.linalg.svd(x - x.mean(0))
    expected = (x - x.mean(0)) @ axes[:5].T
    found = features(train).numpy()
    assert found.dtype == np.float64
    np.testing.assert_allclose(found * np.sign(found[0] * expected[0]), expected, atol=1e-9)
    assert features.name == "5 principal components of pixels"


def test_new_data_is_centred_by_the_training_mean() -> None:
    train = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [1.0, -1.0]])
    assert PixelPCA.fit(train)(torch.tensor([[1.0, 0.0]])).tolist() == [[0, 0]]


def test_all_coordinates_of_vectors_keep_distances() -> None:
    train = torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
    features = PixelPCA.fit(train)
    assert features.name == "coordinates"
    torch.testing.assert_close(torch.pdist(features(train)), torch.pdist(train.double()), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("shape", "name"), [((5, 9), "4 principal components"), ((4, 1, 2, 2), "4 principal components of pixels")]
)
def test_no_more_components_than_asked_rows_or_coordinates(shape: tuple[int, ...], name: str) -> None:
    train = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    assert PixelPCA.fit(train, components=4).name == name


def test_network_features_are_the_network_in_eval_mode() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Dropout(0.5)).train()
    x = torch.randn(10, 1, 3, 3, generator=torch.Generator().manual_seed(3))
    found = NetworkFeatures(network, "mine", batch_size=4)(x)
    assert network.training
    expected: Tensor = network[0](x).flatten(1).detach()
    assert found.dtype == torch.float64
    assert not found.requires_grad
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(NetworkFeatures(nn.Flatten(), "none")(x), x.flatten(1).double())
