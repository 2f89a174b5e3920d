"""p(x) = ∏ p(xᵢ | earlier): normalised, causal, and sampled as it is written."""

import itertools
import math

import pytest
import torch

from scorefield.baselines import Autoregressive, AutoregressiveConfig
from scorefield.objectives import MaximumLikelihood

SHAPES = [(4,), (1, 2, 2)]
LEVELS = 3


def model(shape: tuple[int, ...]) -> Autoregressive:
    """With weights that make every conditional its own."""
    torch.manual_seed(0)
    found = AutoregressiveConfig(width=16, heads=2, blocks=2).build(shape, LEVELS).double()
    for p in found.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return found


def everything(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(LEVELS), repeat=math.prod(shape)))).unflatten(1, shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_probabilities_sum_to_one(shape: tuple[int, ...]) -> None:
    p = model(shape).log_density(everything(shape)).exp().detach()
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    assert float(p.std() / p.mean()) > 0.5  # and are far from equal


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_log_density_is_the_sum_of_conditionals(shape: tuple[int, ...]) -> None:
    """Each conditional from its definition, p(x₁ … xᵢ)/p(x₁ … xᵢ₋₁), by sums over everything that may follow."""
    p, x = model(shape), everything(shape)
    whole = p.log_density(x).exp().detach()
    conditionals = p.logits(x.flatten(1)).softmax(2)
    rows = x.flatten(1)
    for i in (0, 1, 3):
        for row in (0, 17, 80):
            earlier = (rows[:, :i] == rows[row, :i]).all(1)
            share = whole[earlier & (rows[:, i] == rows[row, i])].sum() / whole[earlier].sum()
            assert float(conditionals[row, i, rows[row, i]]) == pytest.approx(float(share), rel=1e-10)


def test_no_pixel_sees_itself_or_later_ones() -> None:
    p = model((1, 2, 3))
    x = torch.randint(LEVELS, (5, 6), generator=torch.Generator().manual_seed(1))
    before = p.logits(x)
    for i in range(6):
        changed = x.clone()
        changed[:, i] = (x[:, i] + 1) % LEVELS
        after = p.logits(changed)
        assert torch.equal(before[:, : i + 1], after[:, : i + 1])
        if i < 5:
            assert not torch.allclose(before[:, i + 1], after[:, i + 1])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_samples_follow_the_probabilities(shape: tuple[int, ...]) -> None:
    n, p, x = 20_000, model(shape), everything(shape)
    drawn = p.sample(n, generator=torch.Generator().manual_seed(2))
    assert drawn.shape == (n, *shape)
    numbers = (drawn.flatten(1) * LEVELS ** torch.arange(3, -1, -1)).sum(1)
    share, exact = torch.bincount(numbers, minlength=81) / n, p.log_density(x).exp().detach()
    assert ((share - exact) / (exact * (1 - exact) / n).sqrt()).abs().max() < 4.5


def test_it_is_uniform_at_first_and_learns_by_maximum_likelihood() -> None:
    """Events of two equally likely kinds: log 2 nats, which no table of single pixels reaches."""
    torch.manual_seed(1)
    p = AutoregressiveConfig(width=16, heads=2, blocks=1).build((4,), LEVELS)
    x = torch.tensor([[0, 1, 2, 0], [2, 1, 0, 1]])
    assert MaximumLikelihood()(p, x).value.tolist() == pytest.approx([4 * math.log(3)] * 2, rel=1e-5)
    optimizer = torch.optim.Adam(p.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        MaximumLikelihood()(p, x).value.mean().backward()
        optimizer.step()
    assert MaximumLikelihood()(p, x).value.mean().item() == pytest.approx(math.log(2), abs=0.02)


def test_what_it_refuses() -> None:
    p = model((4,))
    with pytest.raises(ValueError, match="row 1 has a level outside"):
        p.log_density(torch.tensor([[0, 0, 0, 0], [0, 0, 3, 0]]))
    with pytest.raises(ValueError, match="sigma must be 0"):
        p.log_density(torch.zeros(2, 4, dtype=torch.long), 1.0)
    with pytest.raises(ValueError, match="cannot be divided among 3 heads"):
        AutoregressiveConfig(width=16, heads=3)
    with pytest.raises(ValueError, match="blocks must be at least 1"):
        AutoregressiveConfig(blocks=0)
