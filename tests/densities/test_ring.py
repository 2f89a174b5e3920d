"""The ring against quadrature, many Gaussians, autograd, and the law of its own samples."""

import math

import pytest
import torch
from scipy.stats import kstest, ncx2
from torch import Tensor

from scorefield.densities import Ring, gaussian, ring_of_gaussians
from scorefield.interfaces import Density, Score, grad_log_density

WIDE = Ring(radius=1.3, std=0.3)
each_level = pytest.mark.parametrize("sigma", [0.0, 0.4, 3.0])


def points(n: int = 50, scale: float = 1.5) -> Tensor:
    return scale * torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def grid(half: float, n: int) -> tuple[Tensor, float]:
    axis = torch.linspace(-half, half, n, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


@each_level
def test_it_integrates_to_one_with_the_moments_it_states(sigma: float) -> None:
    x, area = grid(2 + 9 * math.hypot(0.3, sigma), 601)
    mass = WIDE.log_density(x, sigma).exp() * area
    assert float(mass.sum()) == pytest.approx(1, abs=1e-10)  # the trapezium rule is spectrally accurate here
    torch.testing.assert_close(mass @ x, WIDE.mean(), rtol=0, atol=1e-10)
    expected = WIDE.covariance() + sigma**2 * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(x.mT @ (mass[:, None] * x), expected, rtol=1e-9, atol=1e-9)


@each_level
def test_it_is_the_limit_of_many_gaussians(sigma: float) -> None:
    """Equally spaced angles are a trapezium rule of a periodic function: 200 are exact to rounding."""
    many, x = ring_of_gaussians(1.3, 0.3, components=200), points()
    torch.testing.assert_close(WIDE.log_density(x, sigma), many.log_density(x, sigma), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(WIDE.score(x, sigma), many.score(x, sigma), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(WIDE.posterior_mean(x, sigma), many.posterior_mean(x, sigma), rtol=1e-11, atol=1e-11)


def test_smoothing_is_convolution() -> None:
    """p_σ(x) = E[p(x − σz)], the expectation by quadrature; σ enters nowhere but in the noise."""
    sigma, x = 0.4, points(6, 1.0)
    z, area = grid(9, 361)
    weight = (-(z**2).sum(1) / 2).exp() * area / (2 * math.pi)
    smoothed = torch.stack([weight @ WIDE.log_density(row - sigma * z).exp() for row in x])
    torch.testing.assert_close(WIDE.log_density(x, sigma), smoothed.log(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("ring", [WIDE, Ring(), Ring(radius=1.0, std=1e-3)], ids=str)
@pytest.mark.parametrize("sigma", [0.0, 0.05, 3.0])
def test_the_score_is_the_gradient(ring: Ring, sigma: float) -> None:
    """Up to κ = 10⁶ (the last ring at σ = 0), at points where the density lives and at points where it does not."""
    near = ring.sample(50, sigma, generator=torch.Generator().manual_seed(2))
    for x in (near, points()):
        gradient = grad_log_density(lambda y: ring.log_density(y, sigma), x)
        torch.testing.assert_close(ring.score(x, sigma), gradient, rtol=1e-10, atol=1e-10 * float(gradient.abs().max()))
        levels = torch.full((50,), sigma, dtype=torch.float64)
        assert torch.equal(ring.score(x, levels), ring.score(x, sigma))
        assert torch.equal(ring.log_density(x, levels), ring.log_density(x, sigma))


def test_the_centre() -> None:
    """log p(0) = −log 2πs² − R²/2s², the score vanishes, and its Jacobian is (R²/2s⁴ − 1/s²) I."""
    zero = torch.zeros(1, 2, dtype=torch.float64)
    expected = -math.log(2 * math.pi * 0.09) - 1.69 / 0.18
    assert float(WIDE.log_density(zero)) == pytest.approx(expected, rel=1e-14)
    assert torch.equal(WIDE.score(zero), zero)
    close = torch.tensor([[1e-9, 0.0]], dtype=torch.float64)
    slope = 1.69 / (2 * 0.09**2) - 1 / 0.09
    torch.testing.assert_close(WIDE.score(close)[0, 0] / 1e-9, torch.tensor(slope, dtype=torch.float64), rtol=1e-12, atol=0)
    jacobian = torch.func.jacrev(lambda y: WIDE.score(y[None])[0])(zero[0])
    torch.testing.assert_close(jacobian, slope * torch.eye(2, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_a_very_thin_ring_is_a_gaussian_across_itself() -> None:
    """At κ = 10⁶ the Bessel function is its asymptote: log p ≈ log N(r; R, s²) − log 2π − ½ log rR + 1/8κ."""
    ring = Ring(radius=1.0, std=1e-3)
    r = 1 + 1e-3 * torch.linspace(-4, 4, 9, dtype=torch.float64)
    across = -(((r - 1) / 1e-3) ** 2) / 2 - math.log(math.sqrt(2 * math.pi) * 1e-3)
    expected = across - math.log(2 * math.pi) - r.log() / 2 + 1e-6 / (8 * r)
    x = torch.stack([r * math.cos(1), r * math.sin(1)], 1)
    torch.testing.assert_close(ring.log_density(x), expected, rtol=0, atol=1e-9)


def test_far_noise_makes_it_gaussian() -> None:
    """At σ = 1000 R the ring's own shape is gone: relative errors are of order (R/σ)²."""
    x = points(50, 1300.0)
    plain = gaussian(torch.zeros(2), WIDE.covariance())
    torch.testing.assert_close(WIDE.score(x, 1300.0), plain.score(x, 1300.0), rtol=1e-8, atol=0)


@pytest.mark.parametrize("sigma", [0.0, 0.4])
def test_samples_follow_the_law(sigma: float) -> None:
    """r²/s² is noncentral χ² with 2 degrees of freedom, the angle uniform; Kolmogorov–Smirnov at level 10⁻⁴."""
    n = 50_000
    x = WIDE.sample(n, sigma, generator=torch.Generator().manual_seed(3))
    variance = 0.3**2 + sigma**2
    limit = 2.23 / math.sqrt(n)
    assert kstest((x**2).sum(1) / variance, ncx2(2, 1.3**2 / variance).cdf).statistic < limit
    assert kstest(torch.atan2(x[:, 1], x[:, 0]) / (2 * math.pi) + 0.5, "uniform").statistic < limit
    again = WIDE.sample(n, sigma, generator=torch.Generator().manual_seed(3))
    assert torch.equal(x, again)


def test_answers_are_in_the_dtype_of_x() -> None:
    ring, x = Ring(), points()
    single = x.float()
    for method in (ring.log_density, ring.score):
        assert method(single, 0.1).dtype == torch.float32
        torch.testing.assert_close(method(single, 0.1), method(single.double(), 0.1).float(), rtol=1e-6, atol=0)


def test_it_is_a_score_and_a_density_at_every_level() -> None:
    assert isinstance(WIDE, Score)
    assert isinstance(WIDE, Density)
    assert WIDE.sigma_range == (0, math.inf)


@pytest.mark.parametrize(("radius", "std"), [(0.0, 0.1), (1.0, 0.0), (1.0, -0.1), (math.inf, 0.1), (1.0, math.nan)])
def test_impossible_rings_are_refused(radius: float, std: float) -> None:
    with pytest.raises(ValueError, match=f"a ring needs a positive radius and std, got radius={radius}, std={std}"):
        Ring(radius, std)
