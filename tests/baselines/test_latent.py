"""Bounds of latent-variable models against exact log-densities: linear Gaussian ones, and an enumerable one."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from scorefield.baselines import EvidenceBound, HierarchicalVAE, VAEConfig
from scorefield.baselines.latent import Normal, SoftmaxPixels

D, S = 3, 0.6
SIGMAS = 4.5


class NormalVectors:
    """x | z₁ ~ N(parameters, S² I)."""

    def seen(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x

    def log_density(self, parameters: Tensor, x: Tensor) -> Tensor:
        return Normal(parameters, torch.full_like(parameters, math.log(S))).log_density(x)

    def sample(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        return Normal(parameters, torch.full_like(parameters, math.log(S))).sample(generator)


class Affine(nn.Module):
    """(A x + b, log s) side by side, or A x + b alone."""

    def __init__(self, a: Tensor, b: Tensor, log_s: Tensor | None = None) -> None:
        super().__init__()
        self.a = nn.Parameter(a)
        self.b, self.log_s = b, log_s

    def forward(self, x: Tensor) -> Tensor:
        mean = x @ self.a.T + self.b
        return mean if self.log_s is None else torch.cat([mean, self.log_s.expand_as(mean)], 1)


def linear(levels: int, wrong: float = 0.0) -> tuple[HierarchicalVAE, torch.distributions.MultivariateNormal]:
    """x = w z₁ + b + S ε with one z₁, itself standard or z₁ = 0.8 z₂ + 0.6 ε, with its exact posterior (or one that is off)."""
    w, b = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64), torch.tensor([0.3, 0.0, -1.0], dtype=torch.float64)
    precision = 1 + (w @ w) / S**2
    posterior = w / S**2 / precision
    one = torch.zeros(1, dtype=torch.float64)
    spread = one - precision.log() / 2 + wrong
    encoders: list[nn.Module] = [Affine(posterior[None], -(posterior @ b) + one + wrong, spread)]
    decoders: list[nn.Module] = [Affine(w[:, None], b)]
    if levels == 2:  # z₁ has variance 0.64 + 0.36 = 1, so what it says of x is the same
        encoders.append(Affine(torch.tensor([[0.8]], dtype=torch.float64), one, one + math.log(0.6)))
        decoders.append(Affine(torch.tensor([[0.8]], dtype=torch.float64), one, one + math.log(0.6)))
    law = torch.distributions.MultivariateNormal(b, torch.outer(w, w) + S**2 * torch.eye(D, dtype=torch.float64))
    return HierarchicalVAE(encoders, decoders, [1] * levels, NormalVectors()), law


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("draws", [1, 3])
def test_with_the_exact_posterior_the_bound_is_the_log_density(levels: int, draws: int) -> None:
    model, law = linear(levels)
    x = torch.randn(20, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = model.log_density_bound(x, draws, generator=torch.Generator().manual_seed(1))
    assert (found - law.log_prob(x)).abs().max() < 1e-6
    assert torch.equal(EvidenceBound(draws)(model, x, generator=torch.Generator().manual_seed(1)).value, -found)


@pytest.mark.parametrize("levels", [1, 2])
def test_bounds_rise_with_the_number_of_samples_to_the_log_density(levels: int) -> None:
    model, law = linear(levels, wrong=0.6)
    x = torch.tensor([[1.0, 0.5, -1.0]], dtype=torch.float64)
    exact = float(law.log_prob(x))
    n, before = 4000, -math.inf
    for draws in (1, 4, 16, 64):
        values = model.log_density_bound(x.expand(n, -1), draws, generator=torch.Generator().manual_seed(2)).detach()
        mean, se = float(values.mean()), float(values.std()) / n**0.5
        assert before < mean < exact + SIGMAS * se
        before = mean
    weights = model.log_density_bound(x.expand(200_000, -1), 1, generator=torch.Generator().manual_seed(3)).detach().exp()
    left = float(weights.var()) / math.exp(2 * exact) / (2 * draws)  # Burda et al.'s theorem 1, to first order
    assert abs(exact - before - left) < 0.3 * left + SIGMAS * se
    assert abs(float(weights.mean()) - math.exp(exact)) < SIGMAS * float(weights.std()) / 200_000**0.5  # E w = p(x)


def test_the_losses_of_a_wrong_encoder_are_exact() -> None:
    """L₁ = KL(q‖N(0, 1)) and L₀, in closed form for one latent."""
    model, _ = linear(1, wrong=0.6)
    x = torch.tensor([[1.0, 0.5, -1.0]], dtype=torch.float64)
    n = 200_000
    terms = model.terms(x.expand(n, -1), generator=torch.Generator().manual_seed(4))
    mean, log_s = (float(v) for v in model.encoders[0](x)[0].detach())
    kl = (mean**2 + math.exp(2 * log_s) - 1) / 2 - log_s
    assert abs(float(terms.levels[0].mean()) - kl) < SIGMAS * float(terms.levels[0].std()) / n**0.5
    w, b = model.decoders[0].a.detach()[:, 0], model.decoders[0].b
    misfit = float(((x[0] - w * mean - b) ** 2).sum() + (w**2).sum() * math.exp(2 * log_s)) / (2 * S**2)
    exact = misfit + D * (math.log(S) + math.log(2 * math.pi) / 2)
    assert abs(float(terms.reconstruction.mean()) - exact) < SIGMAS * float(terms.reconstruction.std()) / n**0.5


@pytest.mark.parametrize("levels", [1, 2])
def test_samples_have_the_exact_law(levels: int) -> None:
    model, law = linear(levels)
    n = 20_000
    x = model.sample(n, generator=torch.Generator().manual_seed(5))
    scale = law.covariance_matrix.diagonal().sqrt()
    assert ((x.mean(0) - law.mean) / scale * n**0.5).abs().max() < SIGMAS
    centred = x - law.mean
    products = centred[:, :, None] * centred[:, None]
    assert ((products.mean(0) - law.covariance_matrix) / (products.std(0) / n**0.5)).abs().max() < SIGMAS


@pytest.mark.parametrize("shape", [(2,), (1, 1, 2)], ids=str)
def test_pixels_have_a_softmax_each(shape: tuple[int, ...]) -> None:
    likelihood = SoftmaxPixels(shape, 3)
    everything = torch.tensor(list(itertools.product(range(3), repeat=2))).unflatten(1, shape)
    logits = torch.randn(1, 6, generator=torch.Generator().manual_seed(0)).expand(9, -1)
    p = likelihood.log_density(logits, everything).exp()
    exact = torch.outer(*logits[0].reshape(2, 3).softmax(1)).flatten()
    torch.testing.assert_close(p, exact)
    n = 20_000
    drawn = likelihood.sample(logits[:1].expand(n, -1), torch.Generator().manual_seed(1)).flatten(1)
    share = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9) / n
    assert ((share - exact) / (exact * (1 - exact) / n).sqrt()).abs().max() < SIGMAS
    assert likelihood.seen(everything, torch.float64)[[0, -1]].tolist() == [[-1.0, -1.0], [1.0, 1.0]]


@pytest.mark.parametrize("latents", [(4,), (4, 2)], ids=["vae", "two levels"])
def test_a_vae_learns_two_kinds_of_events(latents: tuple[int, ...]) -> None:
    """Two equally likely events: log 2 nats are possible, and independent pixels need 3 log 2."""
    torch.manual_seed(0)
    model = VAEConfig(latents=latents, width=32).build((1, 1, 4), 3)
    x = torch.tensor([[0, 1, 2, 0], [2, 1, 0, 2]]).reshape(2, 1, 1, 4).repeat(64, 1, 1, 1)
    optimizer, g = torch.optim.Adam(model.parameters(), 3e-3), torch.Generator().manual_seed(1)
    for _ in range(600):
        optimizer.zero_grad()
        EvidenceBound()(model, x, generator=g).value.mean().backward()
        optimizer.step()
    bound = float(model.log_density_bound(x, 64, generator=g).mean())
    assert -1.2 * math.log(2) < bound < -math.log(2) + 0.02
    drawn = model.sample(1000, generator=g).flatten(1)
    kinds = (drawn[:, None] == x[:2].flatten(1)).all(2).double().mean(0)
    assert kinds.sum() > 0.8
    assert abs(float(kinds[0]) - 0.5) < 0.15


def test_what_it_refuses() -> None:
    model = VAEConfig(latents=(2,), width=8).build((2,), 3)
    with pytest.raises(ValueError, match="at least 1 draw"):
        model.log_density_bound(torch.zeros(1, 2, dtype=torch.long), 0)
    with pytest.raises(ValueError, match="integer levels"):
        model.log_density_bound(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="must be at least 1"):
        VAEConfig(latents=())
    with pytest.raises(ValueError, match="each level needs"):
        HierarchicalVAE([nn.Identity()], [], [1], SoftmaxPixels((2,), 3))
