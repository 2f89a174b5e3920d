"""Identity 6: E[x₀|x] = x + σ²∇log p_σ(x) and Cov[x₀|x] = σ²(I + σ²∇²log p_σ(x)), against exact posteriors."""

import math

import pytest
import torch
from torch import Tensor

from scorefield.densities import GaussianMixture
from scorefield.models import denoise, predict_noise

WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
each_shape = pytest.mark.parametrize("shape", [(3,), (1, 2, 2)], ids=str)
each_kind = pytest.mark.parametrize("isotropic", [True, False], ids=["isotropic", "full"])
each_level = pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 20.0])


def ingredients(shape: tuple[int, ...], isotropic: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Means `(k, *shape)`, covariances as the mixture takes them, and as matrices `(k, d, d)`."""
    g = torch.Generator().manual_seed(0)
    d = math.prod(shape)
    means = 1.5 * torch.randn(3, *shape, generator=g, dtype=torch.float64)
    if isotropic:
        variances = torch.tensor([0.1, 0.4, 1.0], dtype=torch.float64)
        return means, variances, variances[:, None, None] * torch.eye(d, dtype=torch.float64)
    root = torch.randn(3, d, d, generator=g, dtype=torch.float64) / d**0.5
    covariances = root @ root.mT + 0.1 * torch.eye(d, dtype=torch.float64)
    return means, covariances, covariances


def exact_posterior(means: Tensor, matrices: Tensor, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
    """Mean `(d,)` and covariance `(d, d)` of x₀ given one x, by conditioning each component as textbooks do."""
    means, x = means.flatten(1), x.flatten()
    eye = torch.eye(len(x), dtype=torch.float64)
    marginal = torch.distributions.MultivariateNormal(means, matrices + sigma**2 * eye)
    r = (WEIGHTS.log() + marginal.log_prob(x)).softmax(0)
    gain = matrices @ torch.linalg.inv(matrices + sigma**2 * eye)
    centres = means + torch.einsum("kij,kj->ki", gain, x - means)
    mean = r @ centres
    second = matrices - gain @ matrices + centres[:, :, None] * centres[:, None, :]
    return mean, torch.einsum("k,kij->ij", r, second) - mean[:, None] * mean[None, :]


@each_shape
@each_kind
@each_level
def test_the_denoiser_is_the_posterior_mean(shape: tuple[int, ...], isotropic: bool, sigma: float) -> None:
    means, covariances, matrices = ingredients(shape, isotropic)
    p = GaussianMixture(WEIGHTS, means, covariances)
    x = p.sample(6, sigma, generator=torch.Generator().manual_seed(1))
    denoised = denoise(p, x, sigma)
    expected = torch.stack([exact_posterior(means, matrices, row, sigma)[0] for row in x]).reshape(x.shape)
    torch.testing.assert_close(denoised, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(p.posterior_mean(x, sigma), expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(predict_noise(p, x, sigma), (x - expected) / sigma, rtol=1e-9, atol=1e-9)


@each_shape
def test_each_example_has_its_own_level(shape: tuple[int, ...]) -> None:
    means, covariances, matrices = ingredients(shape, isotropic=False)
    p = GaussianMixture(WEIGHTS, means, covariances)
    x = p.sample(4, 1.0, generator=torch.Generator().manual_seed(2))
    sigma = torch.tensor([0.1, 0.5, 2.0, 10.0], dtype=torch.float64)
    expected = torch.stack([exact_posterior(means, matrices, a, s)[0] for a, s in zip(x, sigma, strict=True)])
    torch.testing.assert_close(denoise(p, x, sigma), expected.reshape(x.shape), rtol=1e-11, atol=1e-11)
    noise = (x - expected.reshape(x.shape)) / sigma.reshape(-1, *[1] * len(shape))
    torch.testing.assert_close(predict_noise(p, x, sigma), noise, rtol=1e-10, atol=1e-10)


@each_shape
@each_kind
@pytest.mark.parametrize("sigma", [0.3, 1.0, 20.0])
def test_the_posterior_covariance_is_the_denoisers_jacobian(shape: tuple[int, ...], isotropic: bool, sigma: float) -> None:
    means, covariances, matrices = ingredients(shape, isotropic)
    p = GaussianMixture(WEIGHTS, means, covariances)
    d = math.prod(shape)
    eye = torch.eye(d, dtype=torch.float64)
    for x in p.sample(3, sigma, generator=torch.Generator().manual_seed(3)):
        expected = exact_posterior(means, matrices, x, sigma)[1]
        hessian = torch.func.hessian(lambda y: p.log_density(y[None], sigma)[0])(x).reshape(d, d)
        torch.testing.assert_close(sigma**2 * (eye + sigma**2 * hessian), expected, rtol=1e-9, atol=1e-9)
        jacobian = torch.func.jacrev(lambda y: denoise(p, y[None], sigma)[0])(x).reshape(d, d)
        torch.testing.assert_close(sigma**2 * jacobian, expected, rtol=1e-9, atol=1e-9)
