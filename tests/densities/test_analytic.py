"""Gaussian mixtures against torch.distributions, quadrature, autograd and the moments of their own samples.

And, for every density of the floor at once, what is refused.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from scorefield.densities import (
    Banana,
    DoubleWell,
    Funnel,
    GaussianMixture,
    Mixture,
    Product,
    Ring,
    StudentT,
    eight_gaussians,
    gaussian,
    ring_of_gaussians,
)
from scorefield.interfaces import Density, Score, grad_log_density

SHAPES = [(3,), (1, 2, 2)]
WEIGHTS = torch.tensor([1.0, 2.0, 5.0])
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_kind = pytest.mark.parametrize("isotropic", [True, False], ids=["isotropic", "full"])


def build(shape: tuple[int, ...], isotropic: bool, extra: float = 0.0) -> tuple[GaussianMixture, MixtureSameFamily]:
    """A mixture and torch's own, its covariances enlarged by `extra`."""
    g = torch.Generator().manual_seed(0)
    d = math.prod(shape)
    means = torch.randn(3, *shape, generator=g, dtype=torch.float64)
    variances = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
    root = torch.randn(3, d, d, generator=g, dtype=torch.float64) / d**0.5
    eye = torch.eye(d, dtype=torch.float64)
    full = variances[:, None, None] * eye if isotropic else root @ root.mT + 0.2 * eye
    components = MultivariateNormal(means.flatten(1), full + extra * eye)
    reference = MixtureSameFamily(Categorical(WEIGHTS.double()), components)
    return GaussianMixture(WEIGHTS, means, variances if isotropic else full), reference


def points(shape: tuple[int, ...], n: int = 7) -> Tensor:
    return 2 * torch.randn(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@each_shape
@each_kind
@pytest.mark.parametrize("sigma", [0.0, 0.3, 5.0])
def test_log_density_and_score(shape: tuple[int, ...], isotropic: bool, sigma: float) -> None:
    """Smoothing by σ is the mixture with σ²I added to every covariance: closed under smoothing."""
    p, reference = build(shape, isotropic, sigma**2)
    x = points(shape)
    expected = reference.log_prob(x.flatten(1))
    torch.testing.assert_close(p.log_density(x, sigma), expected, rtol=1e-12, atol=1e-12)
    gradient = grad_log_density(lambda y: reference.log_prob(y.flatten(1)), x)
    torch.testing.assert_close(p.score(x, sigma), gradient, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(grad_log_density(lambda y: p.log_density(y, sigma), x), gradient, rtol=1e-11, atol=1e-11)
    levels = torch.full((7,), sigma, dtype=torch.float64)
    assert torch.equal(p.log_density(x, levels), p.log_density(x, sigma))
    assert torch.equal(p.score(x, levels), p.score(x, sigma))


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_it_integrates_to_one(sigma: float) -> None:
    p, _ = build((2,), isotropic=False)
    axis = torch.linspace(-12, 12, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    mass = p.log_density(grid, sigma).exp().sum() * (axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=1e-9)  # the trapezium rule is spectrally accurate here


@each_shape
@each_kind
@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_moments_of_samples(shape: tuple[int, ...], isotropic: bool, sigma: float) -> None:
    n = 100_000
    p, reference = build(shape, isotropic)
    assert torch.allclose(p.mean().flatten(), reference.mean, rtol=1e-12)
    assert torch.allclose(p.covariance().diagonal(), reference.variance, rtol=1e-12)
    x = p.sample(n, sigma, generator=torch.Generator().manual_seed(2))
    assert x.shape == (n, *shape)
    centred = (x - p.mean()).flatten(1)
    products = centred[:, :, None] * centred[:, None, :]
    expected = p.covariance() + sigma**2 * torch.eye(centred.shape[1], dtype=torch.float64)
    assert (centred.mean(0).abs() < 4.5 * centred.std(0) / n**0.5).all()
    assert ((products.mean(0) - expected).abs() < 4.5 * products.std(0) / n**0.5).all()


def test_samples_follow_the_density() -> None:
    """E[log p] by samples equals −entropy by quadrature; a wrong rotation keeps moments but not this."""
    p, _ = build((2,), isotropic=False)
    axis = torch.linspace(-10, 10, 401, dtype=torch.float64)
    grid_log = p.log_density(torch.cartesian_prod(axis, axis))
    expected = (grid_log.exp() * grid_log).sum() * (axis[1] - axis[0]) ** 2
    values = p.log_density(p.sample(50_000, generator=torch.Generator().manual_seed(3)))
    assert (values.mean() - expected).abs() < 4.5 * values.std() / 50_000**0.5


def test_far_away_nothing_overflows() -> None:
    p, _ = build((3,), isotropic=True)
    x = torch.full((1, 3), 1e6, dtype=torch.float64)
    torch.testing.assert_close(p.score(x), -(x - p.means[2]) / 1.0, rtol=1e-9, atol=0)  # the widest component wins


def test_answers_are_in_the_dtype_of_x() -> None:
    p, _ = build((3,), isotropic=False)
    x = points((3,))
    for value, exact in ((p.score(x.float(), 0.1), p.score(x, 0.1)), (p.log_density(x.float(), 0.1), p.log_density(x, 0.1))):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-5)


def test_it_is_a_score_and_a_density_at_every_level() -> None:
    p, _ = build((3,), isotropic=True)
    assert isinstance(p, Score)
    assert isinstance(p, Density)
    assert p.sigma_range == (0, math.inf)


def test_named_densities() -> None:
    x = points((2,))
    covariance = torch.tensor([[2.0, 0.3], [0.3, 0.5]]).double()
    reference = MultivariateNormal(torch.tensor([1.0, -1.0]).double(), covariance)
    torch.testing.assert_close(gaussian(torch.tensor([1.0, -1.0]), covariance).log_density(x), reference.log_prob(x))
    narrow = gaussian(torch.tensor([1.0, -1.0]), 0.25).log_density(torch.tensor([[1.0, -1.0]]).double())
    assert float(narrow) == pytest.approx(-math.log(2 * math.pi * 0.25))
    radii = ring_of_gaussians(radius=2.0, std=0.05).sample(5000, generator=torch.Generator().manual_seed(4)).norm(dim=1)
    assert float(radii.mean()) == pytest.approx(2 + 0.05**2 / 4, abs=4.5 * 0.05 / 5000**0.5)
    assert float(radii.std()) == pytest.approx(0.05, rel=4.5 / 10_000**0.5)
    assert ring_of_gaussians(std=0.02).eigenvalues.unique().tolist() == [0.02**2]  # to the last digit of float64
    assert gaussian(torch.zeros(2), 0.1).eigenvalues.unique().tolist() == [0.1]
    eight = eight_gaussians(radius=1.4, std=0.1)
    torch.testing.assert_close(eight.means.norm(dim=1), torch.full((8,), 1.4).double())
    torch.testing.assert_close(eight.means.sum(0), torch.zeros(2).double())
    torch.testing.assert_close(eight.covariance(), (0.1**2 + 1.4**2 / 2) * torch.eye(2).double())


@pytest.mark.parametrize(
    ("weights", "covariances", "message"),
    [
        (torch.ones(2), torch.ones(3), r"covariances must be \(2,\) or \(2, 3, 3\), got \(3,\)"),
        (torch.ones(3), torch.ones(2), "2 positive weights"),
        (torch.tensor([1.0, 0.0]), torch.ones(2), "2 positive weights"),
        (torch.ones(2), torch.tensor([1.0, -1.0]), "positive definite"),
        (torch.ones(2), -torch.eye(3).expand(2, 3, 3), "positive definite"),
        (torch.tensor([-1.0, -3.0]), torch.ones(2), "2 positive weights"),
        (torch.tensor([1.0, math.inf]), torch.ones(2), "2 positive weights .* all finite"),
        (torch.tensor([1.0, math.nan]), torch.ones(2), "2 positive weights .* all finite"),
        (torch.ones(2, 1), torch.ones(2), "2 positive weights"),
        (torch.ones(2), torch.tensor([1.0, math.inf]), "positive definite covariances, all finite"),
        (torch.ones(2), torch.tensor([1.0, math.nan]), "positive definite covariances, all finite"),
        (torch.ones(2), torch.stack([torch.eye(3), torch.eye(3) + torch.ones(3, 3).triu(1)]), "finite and symmetric"),
        (torch.ones(2), 1e-9 * (torch.eye(3) + torch.ones(3, 3).triu(1)).expand(2, 3, 3), "finite and symmetric"),
        (torch.ones(2), torch.eye(3).expand(2, 3, 3) / 0, "finite and symmetric"),
        (torch.ones(2), torch.full((2, 3, 3), math.inf), "finite and symmetric"),
    ],
)
def test_ingredients_that_do_not_fit_are_refused(weights: Tensor, covariances: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianMixture(weights, torch.zeros(2, 3), covariances)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_means_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="the means of a mixture must be finite"):
        GaussianMixture(torch.ones(2), torch.tensor([[0.0, 0.0], [0.0, value]]), torch.ones(2))


def test_a_covariance_symmetric_to_float32_is_taken() -> None:
    root = torch.randn(50, 50, generator=torch.Generator().manual_seed(5))
    covariance = root @ root.T / 50 + torch.eye(50)
    covariance[0, 1] += 1e-6
    torch.testing.assert_close(gaussian(torch.zeros(50), covariance).covariance(), covariance.double(), rtol=0, atol=2e-6)


EVERY = {
    "gaussian": gaussian(torch.zeros(2), 1.0),
    "mixture of gaussians": eight_gaussians(),
    "image": gaussian(torch.zeros(1, 2, 2), 1.0),
    "ring": Ring(),
    "banana": Banana(),
    "funnel": Funnel(),
    "double well": DoubleWell(),
    "student": StudentT(3.0, torch.zeros(2)),
    "product": Product([Ring(), eight_gaussians()]),
    "mixture": Mixture([Ring(), eight_gaussians()], [1.0, 2.0]),
}
each_density = pytest.mark.parametrize("p", EVERY.values(), ids=EVERY)


@each_density
@pytest.mark.parametrize("sigma", [-0.1, -math.inf, math.inf, math.nan])
def test_impossible_levels_are_refused(p: GaussianMixture, sigma: float) -> None:
    x = torch.ones(4, *p.event_shape)
    for ask in (p.log_density, p.score):
        for level in (sigma, torch.tensor(sigma), torch.tensor([0.0, 0.0, sigma, 0.0])):
            with pytest.raises(ValueError, match=rf"sigma must be (in \[0, inf\)|0), got {sigma:g}: this model answers"):
                ask(x, level)
    if not isinstance(p, Product | Mixture):
        with pytest.raises(ValueError, match=rf"sigma must be (in \[0, inf\)|0), got {sigma:g}: this model answers"):
            p.sample(4, sigma)


@each_density
def test_events_of_another_shape_or_kind_are_refused(p: GaussianMixture) -> None:
    for ask in (p.log_density, p.score):
        for wrong in ((5,), (), (*p.event_shape, 1)):
            with pytest.raises(ValueError, match=r"events of shape \(.*\) expected, got \(.*\)"):
                ask(torch.zeros(4, *wrong))
        for dtype in (torch.int64, torch.uint8, torch.bool, torch.complex64):
            with pytest.raises(ValueError, match=f"x must hold floating-point numbers, got {dtype}: convert it first"):
                ask(torch.zeros(4, *p.event_shape, dtype=dtype))


def test_refusals_name_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"events of shape \(3,\) expected, got \(2,\)"):
        build((3,), isotropic=True)[0].score(torch.zeros(4, 2))
