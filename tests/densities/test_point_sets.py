"""Each point set lies where its law says, as often as its law says; mean 0, average variance 1."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import chisquare, kstest
from torch import Tensor

from scorefield.densities import checkerboard, eight_gaussian_points, eight_gaussians, pinwheel, swiss_roll, two_moons

N = 20_000
LIMIT = 2.23 / math.sqrt(N)  # Kolmogorov–Smirnov at level 10⁻⁴
SETS = [two_moons, swiss_roll, checkerboard, pinwheel, eight_gaussian_points]


@pytest.mark.parametrize("points", SETS)
def test_standardised_and_repeatable(points: Callable[..., Tensor]) -> None:
    state = torch.random.get_rng_state()
    x = points(N, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (x.mean(0).abs() < 4.5 * x.std(0) / N**0.5).all()
    squares = (x**2).sum(1) / 2
    expected = 0.99 if points is eight_gaussian_points else 1.0  # 1.4²/2 + 0.1²
    assert float(squares.mean()) == pytest.approx(expected, abs=4.5 * float(squares.std()) / N**0.5)
    assert torch.equal(points(N, seed=0), x)
    assert (points(N, seed=1) != x).all(1).float().mean() > 0.99


def test_two_moons() -> None:
    """Undone, every point is on one of two half circles that open against each other, half of them on each."""
    x = two_moons(N, seed=0, noise=0.0) * math.sqrt((3 / 4 + 9 / 16 - 1 / math.pi) / 2) + torch.tensor([0.5, 0.25]).double()
    upper = (x.norm(dim=1) - 1).abs().lt(1e-9) & (x[:, 1] > -1e-9)
    lower = ((x - torch.tensor([1.0, 0.5]).double()).norm(dim=1) - 1).abs().lt(1e-9) & (x[:, 1] < 0.5 + 1e-9)
    assert (upper ^ lower).all()
    assert int(upper.sum()) == N // 2
    blurred = two_moons(N, seed=0, noise=0.1) * math.sqrt((3 / 4 + 9 / 16 - 1 / math.pi) / 2 + 0.1**2)
    noise = blurred + torch.tensor([0.5, 0.25]).double() - x
    assert kstest(noise.flatten() / 0.1, "norm").statistic < LIMIT


def test_swiss_roll() -> None:
    """Undone, a point at distance t from the origin is at angle t, and t is uniform on [3π/2, 9π/2]."""
    mean = torch.tensor([2.0, 2 / (3 * math.pi)], dtype=torch.float64)
    spread = math.sqrt((39 / 4 * math.pi**2 - float((mean**2).sum())) / 2)
    x = swiss_roll(N, seed=0, noise=0.0) * spread + mean
    t = x.norm(dim=1)
    torch.testing.assert_close(torch.stack([t * t.cos(), t * t.sin()], 1), x, rtol=0, atol=1e-9)
    assert kstest(t / (3 * math.pi) - 0.5, "uniform").statistic < LIMIT


def test_checkerboard() -> None:
    """Only squares with an even sum of indices, equally many points in each, uniform within."""
    x = checkerboard(N, seed=0) * math.sqrt(4 / 3) + 2
    square = x.floor().long()
    assert (square.sum(1) % 2 == 0).all()
    counts = torch.bincount(4 * square[:, 0] + square[:, 1], minlength=16)
    assert int((counts > 0).sum()) == 8
    assert chisquare(counts[counts > 0]).pvalue > 1e-4
    for within in (x - square).unbind(1):
        assert kstest(within, "uniform").statistic < LIMIT


def test_pinwheel() -> None:
    """Without tangential noise a point at distance r is on one of five curves; its arm is uniform, and r is Gaussian."""
    radial, rate = 0.1, 0.25
    x = pinwheel(N, seed=0, radial=radial, tangential=0.0, rate=rate) * math.sqrt((1 + radial**2) / 2)
    r = x.norm(dim=1)
    assert kstest((r - 1) / radial, "norm").statistic < LIMIT
    arm = (torch.atan2(x[:, 1], x[:, 0]) - rate * r.exp()) * 5 / (2 * math.pi)
    torch.testing.assert_close(arm, arm.round(), rtol=0, atol=1e-9)
    assert chisquare(torch.bincount(arm.round().long() % 5)).pvalue > 1e-4
    blurred = pinwheel(N, seed=0, radial=0.0, tangential=0.2, rate=0.0, arms=4) * math.sqrt(1.04 / 2)
    across = torch.where(blurred[:, 0].abs() > 0.999999, blurred[:, 1], blurred[:, 0])
    along = torch.where(blurred[:, 0].abs() > 0.999999, blurred[:, 0], blurred[:, 1])
    torch.testing.assert_close(along.abs(), torch.ones(N).double(), rtol=0, atol=1e-9)
    assert kstest(across / 0.2, "norm").statistic < LIMIT


def test_eight_gaussian_points() -> None:
    """Entropy: E[−log p] of the points is that of the density's own exact draws; all eight are equally frequent."""
    p, x = eight_gaussians(), eight_gaussian_points(N, seed=0)
    nearest = torch.cdist(x, p.means).argmin(1)
    assert chisquare(torch.bincount(nearest)).pvalue > 1e-4
    assert kstest((x - p.means[nearest])[:, 0] / 0.1, "norm").statistic < LIMIT
