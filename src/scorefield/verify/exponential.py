"""Row 10: exponential families by score matching in closed form.

½ θᵀAθ + bᵀθ is the objective at every θ, θ̂ = −A⁻¹b its minimum, and of a Gaussian the maximum-likelihood estimate; on a domain
with metric G, E_p[sᵀGs + ∇·(Gs)] = 0 for p's own score s; sandwich intervals cover.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from scorefield.densities.exponential import (
    Box,
    ExponentialFamily,
    ExponentialFit,
    dirichlet,
    gamma,
    gaussian,
    moments,
    polynomial,
    von_mises_fisher,
)
from scorefield.densities.exponential.probe import components
from scorefield.models import PlainEnergy
from scorefield.objectives.matching import ImplicitScoreMatching
from scorefield.verify.families import stream
from scorefield.verify.record import Record, close, exact, sampled


def row_10(full: bool) -> Iterator[Record]:
    yield from closed_form(polynomial(2, 4), 5)
    yield from closed_form(gaussian(3), 6)
    yield from likelihood()
    yield from by_parts(200_000 if full else 20_000)
    yield from covered(2000 if full else 300)


class Combined(nn.Module):
    """θᵀT, the θ from outside."""

    def __init__(self, family: ExponentialFamily, theta: Tensor) -> None:
        super().__init__()
        self.family, self.theta = family, theta

    def forward(self, x: Tensor) -> Tensor:
        return self.family.statistic(x) @ self.theta


def numbers(key: int) -> np.random.Generator:
    """NumPy's random numbers, for laws that PyTorch draws from its global state alone."""
    return np.random.default_rng(int(torch.randint(2**31, (), generator=stream(10, key))))


def closed_form(family: ExponentialFamily, key: int) -> Iterator[Record]:
    """The product's own implicit score matching, at any θ, against the quadratic."""
    d = 2 if key == 5 else 3
    x = torch.randn(400, d, generator=stream(10, key), dtype=torch.float64)
    (quadratic,) = family.quadratics(x, family.domain, components(family.statistic, x))
    weights = torch.full((400,), 1 / 400, dtype=torch.float64)
    gram, linear = quadratic.gram(weights), quadratic.linear.mean(0)

    def loss(theta: Tensor) -> Tensor:
        return ImplicitScoreMatching()(PlainEnergy(Combined(family, theta)), x).value.mean()

    theta = torch.randn(len(linear), generator=stream(10, key, 1), dtype=torch.float64)
    label = f"{len(linear)} coefficients on ℝ^{d}"
    yield exact(10, f"E[½‖s‖² + tr ∇s] = ½θᵀAθ + bᵀθ: {label}", theta @ gram @ theta / 2 + linear @ theta, loss(theta), 1e-9)
    best = family.fit(x).coef.requires_grad_()
    (slope,) = torch.autograd.grad(loss(best), best)
    yield exact(10, f"θ̂ = −A⁻¹b has gradient 0: {label}", slope, 0.0, 1e-9)


def likelihood() -> Iterator[Record]:
    x = torch.randn(300, 4, generator=stream(10, 7), dtype=torch.float64)
    x = x @ torch.randn(4, 4, generator=stream(10, 8), dtype=torch.float64) + 1
    mean, covariance = moments(gaussian(4).fit(x).coef, 4)
    yield exact(10, "Gaussian θ̂ is the maximum-likelihood mean", mean, x.mean(0), 1e-8)
    yield exact(10, "Gaussian θ̂ is the maximum-likelihood covariance", covariance, x.T.cov(correction=0), 1e-8)


def cap(n: int, key: int) -> np.ndarray:
    """Directions with density exp(2 x₂) on the sphere in ℝ³: x₂ by inversion, the rest uniform around it."""
    rng = numbers(key)
    u, angle = rng.uniform(size=n), rng.uniform(0, 2 * math.pi, n)
    height = np.log(u * math.exp(2) + (1 - u) * math.exp(-2)) / 2
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], 1)


def by_parts(n: int) -> Iterator[Record]:
    laws: dict[str, tuple[ExponentialFamily, np.ndarray, list[float]]] = {
        "orthant, Gamma(2, rate 3)": (gamma(1), numbers(9).gamma(2.0, 1 / 3, (n, 1)), [-3.0, 1.0]),
        "box, x on [0, 1] with density 2x": (
            ExponentialFamily(torch.log, Box(0.0, 1.0)), np.sqrt(numbers(10).uniform(size=(n, 1))), [1.0]
        ),
        "simplex, Dirichlet(½, 2, 4)": (dirichlet(3), numbers(11).dirichlet([0.5, 2.0, 4.0], n), [-0.5, 1.0, 3.0]),
        "sphere, von Mises–Fisher": (von_mises_fisher(3), cap(n, 12), [0.0, 0.0, 2.0]),
    }  # fmt: skip
    for name, (family, rows, theta) in laws.items():
        x, coef = torch.from_numpy(rows), torch.tensor(theta, dtype=torch.float64)
        parts = list(family.quadratics(x, family.domain.scaled_to(x, torch.ones(len(x))), len(theta)))
        squares = torch.cat([part.times(coef) @ coef for part in parts])
        rest = torch.cat([part.linear @ coef for part in parts])
        yield sampled(10, f"E_p[∇·(Gs)] = −E_p[sᵀGs]: {name}", rest, -squares)


def covered(replicates: int) -> Iterator[Record]:
    """The share of 95 % intervals that hold the truth, all coefficients of a family together."""
    laws: dict[str, tuple[Callable[[int], ExponentialFit], list[float]]] = {
        "Gaussian on ℝ": (lambda k: gaussian(1).fit(numbers(k).normal(1.0, 0.5, (500, 1))), [4.0, -2.0]),
        "Dirichlet": (lambda k: dirichlet(3).fit(numbers(k).dirichlet([1.5, 2.0, 4.0], 1000)), [0.5, 1.0, 3.0]),
        "von Mises–Fisher": (lambda k: von_mises_fisher(3).fit(cap(500, k)), [0.0, 0.0, 2.0]),
    }
    for name, (fit, truth) in laws.items():
        value, shares = torch.tensor(truth, dtype=torch.float64), []
        for k in range(replicates):
            ends = fit(100 + k).intervals()
            shares.append(float(((ends[:, 0] <= value) & (value <= ends[:, 1])).double().mean()))
        slack = 0.015 if replicates >= 2000 else 4 * math.sqrt(0.95 * 0.05 / replicates)
        yield close(10, f"95 % intervals cover [{replicates} replicates]: {name}", float(np.mean(shares)), 0.95, slack)
