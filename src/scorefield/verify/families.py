"""The densities and models whose two sides of every identity are known or computable.

    quadratic   s = −P(x − m): against N(μ, C) everything is a polynomial of degree two, so that the 2d points
                μ ± √d Lᵢ (C = LLᵀ), which have the moments of N(μ, C) up to the third, give expectations exactly
    scaled      s = a s₀: one parameter; the true one is a = 1 where s₀ is the score of the data
    networks    random weights everywhere, so that no layer is idle

A direct score's Jacobian need not be symmetric, and none here is. Everything is float64.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from scorefield.densities import GaussianMixture, gaussian
from scorefield.interfaces import Density, Energy, Score, check_sigma
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, ScoreModel
from scorefield.networks import MLP, UNetConfig
from scorefield.randomness import derive_seed, keyed_generator
from scorefield.tensors import expand

Kind = Literal["direct", "energy"]
KINDS: tuple[Kind, ...] = ("direct", "energy")
Shape = tuple[int, ...]
SEED = 0
RANGE = (0.01, 10.0)


def shapes(full: bool) -> list[Shape]:
    """Vectors and images."""
    return [(3,), (1, 4, 4), (8,), (2, 4, 4)] if full else [(3,), (1, 4, 4)]


def stream(row: int, *key: int) -> torch.Generator:
    """The random numbers of one check."""
    return keyed_generator(SEED, "verify", row, *key)


def size(shape: Shape) -> int:
    return torch.Size(shape).numel()


def name(shape: Shape) -> str:
    return f"{'vector' if len(shape) == 1 else 'image'} {'×'.join(map(str, shape))}"


def random_mean(shape: Shape, g: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def random_covariance(d: int, g: torch.Generator) -> Tensor:
    """A full matrix `(d, d)` with eigenvalues between ½ and a few."""
    a = torch.randn(d, d, generator=g, dtype=torch.float64)
    return a @ a.T / d + torch.eye(d, dtype=torch.float64) / 2


def random_gaussian(shape: Shape, g: torch.Generator) -> GaussianMixture:
    return gaussian(random_mean(shape, g), random_covariance(size(shape), g))


def random_mixture(shape: Shape, g: torch.Generator, components: int = 3) -> GaussianMixture:
    """A mixture of Gaussians with full covariances."""
    means = torch.stack([random_mean(shape, g) for _ in range(components)])
    covariances = torch.stack([random_covariance(size(shape), g) for _ in range(components)])
    return GaussianMixture(torch.arange(1, components + 1), means, covariances)


def cubature(mean: Tensor, covariance: Tensor) -> Tensor:
    """2d equally likely points `(2d, *event)` with the moments of N(mean, covariance) up to order three."""
    d = len(covariance)
    steps = d**0.5 * torch.linalg.cholesky(covariance).T
    return mean + torch.cat([steps, -steps]).reshape(2 * d, *mean.shape)


class Quadratic(nn.Module):
    """The score −P(x − m), with parameters m `(*event)` and P `(d, d)`, at every σ."""

    sigma_range = (0.0, float("inf"))

    def __init__(self, mean: Tensor, precision: Tensor) -> None:
        super().__init__()
        self.mean, self.precision = nn.Parameter(mean), nn.Parameter(precision)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return -nn.functional.linear((x - self.mean).flatten(1), self.precision).reshape(x.shape)

    def jacobian(self) -> Tensor:
        return -self.precision


class QuadraticEnergy(Energy):
    """The log-density −½ (x − m)ᵀ P (x − m), at every σ."""

    sigma_range = (0.0, float("inf"))

    def __init__(self, mean: Tensor, precision: Tensor) -> None:
        super().__init__()
        self.mean, self.precision = nn.Parameter(mean), nn.Parameter(precision)

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        y = (x - self.mean).flatten(1)
        return -(y * nn.functional.linear(y, self.precision)).sum(1) / 2

    def jacobian(self) -> Tensor:
        return -(self.precision + self.precision.T) / 2


def quadratic(kind: Kind, shape: Shape, g: torch.Generator) -> Quadratic | QuadraticEnergy:
    """A random one; P is not symmetric."""
    d = size(shape)
    precision = random_covariance(d, g) + torch.randn(d, d, generator=g, dtype=torch.float64) / d
    return (Quadratic if kind == "direct" else QuadraticEnergy)(random_mean(shape, g), precision)


def half_fisher(p: GaussianMixture, model: Quadratic | QuadraticEnergy, sigma: float = 0.0) -> Tensor:
    """½ F(p_σ‖q) of a Gaussian p: ½ ‖(J + A) R‖² + ½ ‖J (μ − m)‖², A = (C + σ²I)⁻¹ = (RRᵀ)⁻¹; differentiable in m and P."""
    smooth = p.covariance() + sigma**2 * torch.eye(len(p.covariance()), dtype=torch.float64)
    jacobian, root = model.jacobian(), torch.linalg.cholesky(smooth)
    spread = (jacobian + torch.linalg.inv(smooth)) @ root
    shift = jacobian @ (p.mean() - model.mean).flatten()
    return ((spread**2).sum() + shift @ shift) / 2


class Scaled:
    """The score a s₀(x, σ), `a` a number or one for each example; it answers for `sigma_range` alone."""

    def __init__(self, base: Score, a: float | Tensor, sigma_range: tuple[float, float] = RANGE) -> None:
        self.base, self.a = base, torch.as_tensor(a, dtype=torch.float64).reshape(-1)
        self.sigma_range = sigma_range

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        check_sigma(sigma, x, self.sigma_range)
        return expand(self.a, x) * self.base.score(x, sigma, cond)


class ScaledEnergy(Energy):
    """The log-density a log f₀(x, σ), whose score is a ∇ log f₀."""

    def __init__(self, base: Density, a: float | Tensor = 1.0, sigma_range: tuple[float, float] = RANGE) -> None:
        super().__init__()
        self.base, self.a = base, torch.as_tensor(a, dtype=torch.float64).reshape(-1)
        self.levels = sigma_range

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.levels

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        check_sigma(sigma, x, self.sigma_range)
        return self.a * self.base.log_density(x, sigma, cond)


def seeded(build: Callable[[], nn.Module], *key: int) -> nn.Module:
    """`build()` with initial weights that depend on `key` alone, and the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(SEED, "verify network", *key))
        return build()


class Convolutions(nn.Module):
    """Three convolutions with smooth bends between: an image network whose moments Monte Carlo finds quickly."""

    def __init__(self, channels: int, width: int = 6) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, channels, 3, padding=1)
        self.level = nn.Linear(1, width)

    def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        h = nn.functional.silu(self.enter(u) + self.level(c_noise[:, None])[:, :, None, None])
        return self.leave(nn.functional.silu(self.middle(h)))


def network(kind: Kind, shape: Shape, key: int, *, unet: bool = False) -> ScoreModel | EnergyModel:
    """A small MLP for vectors, convolutions (or a small U-Net) for images, as a direct score or an energy."""

    def build() -> nn.Module:
        if len(shape) == 1:
            return MLP(shape[0], 0 if kind == "energy" else shape[0], width=8, blocks=1, frequencies=1)
        small = UNetConfig(channels=4, multipliers=(1, 2), blocks=1, attention=True)
        field = small.build(shape) if unet else Convolutions(shape[0])
        return InnerProduct(field) if kind == "energy" else field

    net = seeded(build, key).double()
    g = keyed_generator(SEED, "verify network", key)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=g, dtype=torch.float64), alpha=0.1)
    return (EnergyModel if kind == "energy" else ScoreModel)(net, ModelSpec(shape, sigma_range=RANGE))
