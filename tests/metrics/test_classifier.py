"""The classifier that distances are taken by: right on easy classes, and a function of its arguments alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from scorefield.data.scaling import ScaledRows, Scaling
from scorefield.metrics import classifier, frechet_distance
from scorefield.metrics.classifier import FEATURES, Classifier, fit_classifier

SHAPES = [(2,), (1, 6, 6)]


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps, for time's sake."""
    monkeypatch.setattr(classifier, "MOST_STEPS", 60)


def three_classes(n: int, shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Normal rows `(n, *event)` of deviation ½ round three means that are 3 apart, six deviations."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    centres = torch.zeros(3, *shape)
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [1.5, 3 * 0.75**0.5]]) - torch.tensor([1.5, 0.87])
    centres.flatten(1)[:, [0, -1]] = corners
    return centres[labels] + 0.5 * torch.randn(n, *shape, generator=generator), labels.numpy()


def fitted(shape: tuple[int, ...], seed: int = 0) -> Classifier:
    train, test = three_classes(300, shape), three_classes(200, shape, seed=1)
    return fit_classifier(*train, *test, 3, seed=seed)


def weights(found: Classifier) -> list[Tensor]:
    return list(found.features.network.state_dict().values())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_easy_classes_are_told_apart(shape: tuple[int, ...]) -> None:
    """Half of 3 is three deviations from either mean: the best rule is wrong in 0.3 % of 200, a guess in two of three."""
    found = fitted(shape)
    assert found.accuracy > 0.9
    assert found.features.name == "last layer of a classifier of the 3 classes"
    x = three_classes(50, shape, seed=2)[0]
    features = found.features(x)
    assert features.shape == (50, FEATURES)
    assert features.abs().max() <= 1
    torch.testing.assert_close(features, found.features(x))  # no noise where it is used
    assert not any(module.training for module in found.features.network.modules())


def test_labels_that_say_nothing_are_guessed() -> None:
    """One in three right; 5 standard deviations of 200 guesses are 17 %."""
    (x, _), (test, _) = three_classes(300, (2,)), three_classes(200, (2,), seed=1)
    labels = np.random.default_rng(0).integers(3, size=500)
    accuracy = fit_classifier(x, labels[:300], test, labels[300:], 3).accuracy
    assert accuracy == pytest.approx(1 / 3, abs=0.17)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_a_function_of_its_arguments_bit_for_bit(shape: tuple[int, ...]) -> None:
    """Of no global random state, which it leaves as it was."""
    torch.manual_seed(1)
    first = fitted(shape)
    torch.manual_seed(2)
    expected = torch.rand(3)
    torch.manual_seed(2)
    again = fitted(shape)
    assert torch.equal(torch.rand(3), expected)
    assert again.accuracy == first.accuracy
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(again), strict=True))
    other = fitted(shape, seed=1)
    assert not any(torch.equal(a, b) for a, b in zip(weights(first), weights(other), strict=True))


def test_rows_on_disk_do_as_well_as_tensors() -> None:
    """Scaled as they are read; in float64, which keeps every bit of them, so that the classifier is the same."""
    (x, labels), (test, test_labels) = three_classes(300, (2,)), three_classes(200, (2,), seed=1)
    scaling = Scaling((1.0, -2.0), (2.0, 0.5))
    on_disk = [ScaledRows(scaling.decode(rows.double()).numpy(), scaling) for rows in (x, test)]
    found, expected = fit_classifier(on_disk[0], labels, on_disk[1], test_labels, 3), fitted((2,))
    assert found.accuracy == expected.accuracy
    assert all(torch.equal(a, b) for a, b in zip(weights(found), weights(expected), strict=True))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_features_keep_classes_further_apart_than_rows_of_one(shape: tuple[int, ...]) -> None:
    """The distance of rows of one class from rows of another is many times that of two halves of one."""
    found, (x, labels) = fitted(shape), three_classes(300, shape, seed=2)
    first, other = (found.features(x[torch.from_numpy(labels == k)]) for k in (0, 1))
    assert frechet_distance(first, other) > 10 * frechet_distance(first[::2], first[1::2])
