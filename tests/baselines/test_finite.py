"""Frequencies: the softmax over a finite set in closed form."""

import itertools
import math
from collections import Counter

import pytest
import torch

from scorefield.baselines import IndependentPixels, TrainingImages, binary_patches, fitted_softmax
from scorefield.objectives import MaximumLikelihood

LEVELS = 3


def images(n: int, shape: tuple[int, ...] = (1, 2, 2), seed: int = 0) -> torch.Tensor:
    """Integer events whose pixels are unlike each other and not independent."""
    g = torch.Generator().manual_seed(seed)
    common = torch.randint(LEVELS, (n,), generator=g).reshape(-1, *(1 for _ in shape))
    own = torch.randint(LEVELS, (n, *shape), generator=g)
    keep = torch.rand((n, *shape), generator=g) < torch.linspace(0.2, 0.9, math.prod(shape)).reshape(shape)
    return torch.where(keep, common, own)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("pseudocount", [0.5, 2.0])
def test_independent_pixels_are_their_frequencies(shape: tuple[int, ...], pseudocount: float) -> None:
    x, new = images(200, shape), images(20, shape, seed=1)
    model = IndependentPixels(shape, LEVELS).fit(x, pseudocount)
    for row, found in zip(new.flatten(1).tolist(), model.log_density(new).tolist(), strict=True):
        exact = 0.0
        for i, value in enumerate(row):
            seen = sum(other[i] == value for other in x.flatten(1).tolist())
            exact += math.log((seen + pseudocount) / (200 + LEVELS * pseudocount))
        assert found == pytest.approx(exact, abs=1e-9)
    everything = torch.tensor(list(itertools.product(range(LEVELS), repeat=math.prod(shape)))).unflatten(1, shape)
    assert float(model.log_density(everything).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_without_a_pseudocount_what_was_never_seen_is_impossible() -> None:
    x = torch.tensor([[0, 1], [0, 2]])
    model = IndependentPixels((2,), LEVELS).fit(x, 0.0)
    assert model.log_density(torch.tensor([[0, 1], [1, 1]])).tolist() == [math.log(0.5), -math.inf]


def test_samples_of_independent_pixels_have_their_frequencies() -> None:
    n, model = 20_000, IndependentPixels((1, 2, 2), LEVELS).fit(images(300))
    drawn = model.sample(n, generator=torch.Generator().manual_seed(3))
    assert drawn.shape == (n, 1, 2, 2)
    p = model.log_p.exp()
    for i, column in enumerate(drawn.flatten(1).T):
        share = torch.bincount(column, minlength=LEVELS) / n
        assert ((share - p[i]) / (p[i] * (1 - p[i]) / n).sqrt()).abs().max() < 4.5


def test_a_class_for_each_training_image_knows_nothing_else() -> None:
    x = images(50)
    model = TrainingImages((1, 2, 2), LEVELS).fit(torch.cat([x, x[:1]]))
    counts = Counter(map(tuple, torch.cat([x, x[:1]]).flatten(1).tolist()))
    everything = torch.tensor(list(itertools.product(range(LEVELS), repeat=4))).unflatten(1, (1, 2, 2))
    found = model.log_density(everything)
    for row, value in zip(everything.flatten(1).tolist(), found.tolist(), strict=True):
        assert value == (pytest.approx(math.log(counts[tuple(row)] / 51)) if tuple(row) in counts else -math.inf)
    assert float(found.exp().sum()) == pytest.approx(1, abs=1e-12)
    drawn = model.sample(100, generator=torch.Generator().manual_seed(0))
    assert model.log_density(drawn).isfinite().all()


def test_patches_are_cut_and_binarised() -> None:
    x = torch.tensor([[0, 8, 16, 7, 1], [9, 3, 8, 16, 1], [0, 0, 16, 16, 1]])[None, None]
    assert binary_patches(x, levels=17).tolist() == [[0, 0, 1, 0], [1, 0, 0, 1]]
    assert binary_patches(x, levels=32).tolist() == [[0, 0, 0, 0], [1, 0, 0, 1]]


def test_the_softmax_over_patches_is_their_frequencies_and_the_maximum_of_the_likelihood() -> None:
    patches = binary_patches(images(400, (1, 6, 6)), LEVELS)
    model = fitted_softmax(patches)
    counts = Counter(map(tuple, patches.tolist()))
    states = torch.tensor(list(itertools.product((0, 1), repeat=4)))
    exact = torch.tensor([counts[tuple(s)] / len(patches) for s in states.tolist()], dtype=torch.float64)
    assert (model.log_density(states).exp() - exact).abs().max() < 1e-12
    gradient = torch.autograd.grad(MaximumLikelihood()(model, patches).value.mean(), model.logits)[0]
    assert gradient.abs().max() < 1e-12


def test_what_they_refuse() -> None:
    model = IndependentPixels((1, 2, 2), LEVELS)
    for x, match in (
        (torch.zeros(3, 4, dtype=torch.long), r"events of shape \(1, 2, 2\)"),
        (torch.zeros(3, 1, 2, 2), "integer levels"),
        (torch.full((3, 1, 2, 2), 3), "row 0 has a level outside 0 … 2"),
    ):
        with pytest.raises(ValueError, match=match):
            model.log_density(x)
    with pytest.raises(ValueError, match="sigma must be 0"):
        model.log_density(images(3), 0.1)
    with pytest.raises(ValueError, match="at least 2 levels"):
        IndependentPixels((2,), 1)
    with pytest.raises(ValueError, match="frequencies need rows"):
        model.fit(images(0))
    with pytest.raises(ValueError, match="no classes"):
        TrainingImages((1, 2, 2), LEVELS).fit(images(0))
    with pytest.raises(ValueError, match="need images"):
        binary_patches(torch.zeros(3, 2), 2)
    with pytest.raises(ValueError, match="at least one row"):
        fitted_softmax(torch.zeros(0, 4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"values must be in 0\.\.1"):
        fitted_softmax(torch.tensor([[0, 2], [0, 0]]))
    with pytest.raises(ValueError, match="integer levels"):
        binary_patches(torch.rand(3, 1, 4, 4), 2)
