"""The kernel Stein discrepancy against its other form, and its p-values against their meaning; the Fisher divergence."""

import math

import pytest
import torch

from scorefield.densities import GaussianMixture, gaussian
from scorefield.metrics import fisher_divergence, kernel_stein_discrepancy

SIGMAS = 4.5


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=str)
def test_it_is_the_kernels_mean_of_differences_of_scores(shape: tuple[int, ...]) -> None:
    """E u = E (s_p − s_q)(x)ᵀ k (s_p − s_q)(y), estimated from the same points; over 60 sets."""
    d, n, length = math.prod(shape), 100, 1.5
    root = 0.5 * torch.randn(d, d, generator=stream(0), dtype=torch.float64)
    p, q = gaussian(torch.full(shape, 0.3), root @ root.T + torch.eye(d)), gaussian(torch.zeros(shape), 0.8)
    differences = []
    for i in range(60):
        x = q.sample(n, generator=stream(i + 1))
        found = kernel_stein_discrepancy(p.score(x), x, length=length, draws=2).squared
        delta = (p.score(x) - q.score(x)).flatten(1)
        k = (1 + torch.cdist(x.flatten(1), x.flatten(1)) ** 2 / length**2) ** -0.5
        other = (delta @ delta.T * k).fill_diagonal_(0).sum() / (n * (n - 1))
        differences.append(found - float(other))
    found = torch.tensor(differences)
    assert abs(float(found.mean())) < SIGMAS * float(found.std()) / 60**0.5
    assert float(found.std()) / 60**0.5 < 0.1 * float(other)  # so that a wrong term would be seen


def test_p_values_are_uniform_under_the_law_and_small_beside_it() -> None:
    p, near = gaussian(torch.zeros(2), 1.0), gaussian(torch.tensor([0.35, 0.0]), 1.0)
    right, wrong = [], []
    for i in range(200):
        x, y = (law.sample(120, generator=stream(i)) for law in (p, near))
        right.append(kernel_stein_discrepancy(p.score(x), x, draws=200, generator=stream(1000 + i)).p_value)
        wrong.append(kernel_stein_discrepancy(p.score(y), y, draws=200, generator=stream(1000 + i)).p_value)
    for level in (0.1, 0.5):
        share = sum(value <= level for value in right) / 200
        assert abs(share - level) < SIGMAS * (level * (1 - level) / 200) ** 0.5
    assert sum(value <= 0.05 for value in wrong) > 120


def test_it_is_blind_to_the_weights_of_far_modes() -> None:
    means = torch.tensor([[-10.0, 0.0], [10.0, 0.0]])
    p, other = (GaussianMixture(torch.tensor(w), means, torch.ones(2)) for w in ([0.5, 0.5], [0.05, 0.95]))
    x = other.sample(300, generator=stream(2))
    assert kernel_stein_discrepancy(p.score(x), x, length=1.0, generator=stream(3)).p_value > 0.05


def test_the_fisher_divergence_of_gaussians() -> None:
    """E‖s_p − s_q‖² over N(0, 1): (1/v − 1)² + (m/v)² a coordinate."""
    p, q = gaussian(torch.zeros(3), 1.0), gaussian(torch.full((3,), 0.4), 1.5)
    x = p.sample(20_000, generator=stream(4))
    value, se = fisher_divergence(q.score(x), p.score(x))
    assert se is not None
    assert abs(value - 3 * ((1 / 1.5 - 1) ** 2 + (0.4 / 1.5) ** 2)) < SIGMAS * se
    assert se < 0.02


def test_what_it_refuses() -> None:
    x = torch.zeros(5, 2)
    for match, call in {
        "of one shape": lambda: kernel_stein_discrepancy(torch.zeros(5, 3), x),
        "at least 2 points": lambda: kernel_stein_discrepancy(x[:1], x[:1]),
        "are all points the same": lambda: kernel_stein_discrepancy(x, x),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()
