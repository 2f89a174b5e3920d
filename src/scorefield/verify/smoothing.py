"""Rows 5–7: what noise does to scores, means and divergences. p_σ = p ∗ N(0, σ²I).

5   ½ E‖s(x₀ + σz) + z/σ‖² = ½ F(p_σ‖q) + ½ d/σ² − ½ E‖∇log p_σ‖²
    along a·s, s the true score, this is a parabola in a; from its values at −1, 0, 1 its least point is
    a = (L(−1) − L(1)) / (2 (L(1) + L(−1) − 2 L(0))) = 1
6   E[x₀ given x] = x + σ² ∇log p_σ(x),   Cov[x₀ given x] = σ² (I + σ² ∇²log p_σ(x))
7   with t = σ²:  d KL(p_σ‖q_σ)/dt = −½ F(p_σ‖q_σ),   KL(p‖q) = ½ ∫₀^∞ F dt
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield.densities import GaussianMixture
from scorefield.interfaces import Field, Objective, Score
from scorefield.metrics.score import jacobian
from scorefield.models import denoise
from scorefield.objectives import DenoisingAt, DenoisingScoreMatching, EDMWeighting, LogUniform, PowerWeighting
from scorefield.objectives.denoising import Weighting
from scorefield.objectives.matching import ExplicitScoreMatching
from scorefield.verify.families import (
    KINDS,
    RANGE,
    Kind,
    Scaled,
    ScaledEnergy,
    Shape,
    cubature,
    half_fisher,
    name,
    network,
    quadratic,
    random_covariance,
    random_gaussian,
    random_mean,
    random_mixture,
    shapes,
    size,
    stream,
)
from scorefield.verify.fisher import SIGMA, steepest_slopes, with_noise
from scorefield.verify.record import STANDARD_ERRORS, Record, close, exact, sampled

WEIGHTINGS: tuple[tuple[str, Weighting], ...] = (("edm", EDMWeighting()), ("σ⁻²", PowerWeighting()))


def row_5(full: bool) -> Iterator[Record]:
    n = 100_000 if full else 10_000
    for kind, shape in product(KINDS, shapes(full)):
        which = f"{kind}, {name(shape)}"
        p, q = random_gaussian(shape, stream(5)), quadratic(kind, shape, stream(5, 1))
        smooth = torch.linalg.inv(p.covariance() + SIGMA**2 * torch.eye(size(shape), dtype=torch.float64))
        constant = (size(shape) / SIGMA**2 - smooth.trace()) / 2
        with torch.no_grad():
            x = p.sample(n, generator=stream(5, 2))
            values = [DenoisingAt(SIGMA, tamed)(q, x, generator=stream(5, 3)).value for tamed in (False, True)]
        both = torch.stack(values, 1)
        statement = f"½E‖s + z/σ‖² = ½F + const, worst of plain and control variate: {which}, Gaussians"
        yield sampled(5, statement, both, half_fisher(p, q, SIGMA) + constant)

        mixture, model = random_mixture(shape, stream(5, 4)), network(kind, shape, 5)
        x = mixture.sample(n // 2, generator=stream(5, 5))
        objectives = DenoisingAt(SIGMA), ExplicitScoreMatching(mixture, SIGMA)
        with torch.no_grad():
            left, right = (o(model, x, generator=stream(5, 6)).value for o in objectives)
            size_of_score = (mixture.score(with_noise(x, stream(5, 6)), SIGMA) ** 2).flatten(1).sum(1)
        right = right + (size(shape) / SIGMA**2 - size_of_score) / 2
        yield sampled(5, f"½E‖s + z/σ‖² = ½F + const: {which}, network on mixture", left, right)
        slopes = steepest_slopes(model, objectives, x, 5)
        yield sampled(5, f"… its gradient in θ, in the steepest direction: {which}, network on mixture", *slopes)
        yield from minimisers(kind, which, mixture, x)
    for label, weighting in WEIGHTINGS:
        yield least_value(label, weighting, n)


def minimisers(kind: Kind, which: str, p: GaussianMixture, x: Tensor) -> Iterator[Record]:
    """a = 1 at one level and at many."""
    objectives: dict[str, Objective] = {
        "one level": DenoisingAt(SIGMA),
        **{f"many levels, weight {w}": DenoisingScoreMatching(LogUniform(), weighting) for w, weighting in WEIGHTINGS},
    }
    for what, objective in objectives.items():
        behind, at, ahead = (objective(member(kind, p, a), x, generator=stream(5, 7)).value.detach() for a in (-1.0, 0.0, 1.0))
        slope, curvature = (behind - ahead) / 2, ahead + behind - 2 * at
        best = float(slope.mean() / curvature.mean())
        se = float((slope - best * curvature).std() / (curvature.mean().abs() * len(x) ** 0.5))
        statement = f"least a of a·s, {what}: {which}, mixture [n = {len(x)}]"
        yield close(5, statement, best, 1.0, STANDARD_ERRORS * se + 1e-9)


def member(kind: Kind, p: GaussianMixture, a: float, sigma_range: tuple[float, float] = RANGE) -> Score:
    return (ScaledEnergy if kind == "energy" else Scaled)(p, a, sigma_range)


def least_value(label: str, weighting: Weighting, n: int) -> Record:
    """w(σ) E‖D − x₀‖² at the true score of a Gaussian is w(σ) tr Cov[x₀ given x]."""
    p = random_gaussian((3,), stream(5, 8))
    covariance, eye = p.covariance(), torch.eye(3, dtype=torch.float64)
    left = torch.linalg.inv(torch.linalg.inv(covariance) + eye / SIGMA**2).trace()
    weight = {"edm": (SIGMA**2 + 1) / SIGMA**2, "σ⁻²": 1 / SIGMA**2}[label]
    x = p.sample(n, generator=stream(5, 9))
    z = torch.randn(x.shape, generator=stream(5, 10), dtype=torch.float64)
    value = DenoisingScoreMatching(LogUniform(), weighting).at(p, x, x.new_full((n,), SIGMA), z).value
    return sampled(5, f"w(σ)E‖D − x₀‖² = w(σ) tr Cov[x₀ given x], weight {label}: vector 3, Gaussian", value, weight * left)


def row_6(full: bool) -> Iterator[Record]:
    levels = (0.002, 0.5, 80.0)
    for kind, shape, isotropic in product(KINDS, shapes(full), (False, True)):
        which = f"{kind}, {name(shape)}, {'isotropic' if isotropic else 'full'} mixture, σ = 0.002, 0.5, 80"
        components = random_components(shape, isotropic)
        p = GaussianMixture(components.weights, components.means, components.given)
        means, covariances = [], []
        for sigma in levels:
            x = p.sample(20, sigma, generator=stream(6, 1))
            field = Field(member(kind, p, 1.0, (levels[0], levels[-1])), sigma)
            mean, covariance = posterior(components, x, sigma)
            means.append((denoise(field.model, x, sigma), mean))
            eye = torch.eye(size(shape), dtype=torch.float64)
            covariances.append((eye + sigma**2 * jacobian(field, x), covariance / sigma**2))
        for what, pairs in (("E[x₀ given x] = x + σ²s", means), ("Cov[x₀ given x]/σ² = I + σ²∇s", covariances)):
            left, right = (torch.stack(side) for side in zip(*pairs, strict=True))
            yield exact(6, f"{what}: {which}", left, right)


class Components(NamedTuple):
    """A mixture as plain matrices, from which its posterior is written down anew."""

    weights: Tensor  # (k,)
    means: Tensor  # (k, *event)
    covariances: Tensor  # (k, d, d)
    given: Tensor  # the same, or variances (k,)


def random_components(shape: Shape, isotropic: bool, k: int = 3) -> Components:
    g = stream(6)
    means = torch.stack([random_mean(shape, g) for _ in range(k)])
    full = torch.stack([random_covariance(size(shape), g) for _ in range(k)])
    variances = full[:, 0, 0]
    if isotropic:
        full = variances[:, None, None] * torch.eye(size(shape), dtype=torch.float64)
    return Components(torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64), means, full, variances if isotropic else full)


def posterior(p: Components, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Mean `(b, *event)` and covariance `(b, d, d)` of x₀ given x = x₀ + σz, by Bayes' rule, component by component.

    Within component k x₀ is Gaussian with covariance Vₖ = C(C + σ²I)⁻¹σ² and mean μ + C(C + σ²I)⁻¹(x − μ).
    """
    eye = torch.eye(p.covariances.shape[-1], dtype=torch.float64)
    smooth = p.covariances + sigma**2 * eye
    offset = x.flatten(1)[:, None] - p.means.flatten(1)  # (b, k, d)
    whitened = torch.linalg.solve(smooth, offset[..., None])[..., 0]
    log_joint = p.weights.log() - ((offset * whitened).sum(-1) + torch.linalg.slogdet(smooth).logabsdet) / 2
    responsibilities = log_joint.softmax(1)
    means = p.means.flatten(1) + torch.einsum("kij,bkj->bki", p.covariances, whitened)
    mean = torch.einsum("bk,bki->bi", responsibilities, means)
    within = torch.einsum("bk,kij->bij", responsibilities, sigma**2 * torch.linalg.solve(smooth, p.covariances))
    centred = means - mean[:, None]
    between = torch.einsum("bk,bki,bkj->bij", responsibilities, centred, centred)
    return mean.reshape(x.shape), within + between


def row_7(full: bool) -> Iterator[Record]:
    nodes = 96 if full else 48
    for shape in shapes(full):
        pair = random_gaussian(shape, stream(7)), random_gaussian(shape, stream(7, 1))
        yield from kl_and_fisher(f"{name(shape)}, Gaussians", Pair(*pair, on_cubature), nodes)
    for shape in ((1,), (2,), (1, 1, 2)):
        mixtures = random_mixture(shape, stream(7, 2)), random_mixture(shape, stream(7, 3), 2)
        yield from kl_and_fisher(f"{name(shape)}, mixtures by quadrature", Pair(*mixtures, on_grid), nodes)


class AtLevel:
    """p_σ at one σ, as a density in its own right."""

    sigma_range = (0.0, 0.0)

    def __init__(self, density: GaussianMixture, t: float) -> None:
        self.density, self.sigma = density, t**0.5

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return self.density.score(x, self.sigma)

    def log_density(self, x: Tensor) -> Tensor:
        return self.density.log_density(x, self.sigma)


class Pair(NamedTuple):
    """Two densities, and points with weights that give expectations under the first at t = σ²."""

    p: GaussianMixture
    q: GaussianMixture
    rule: Callable[[GaussianMixture, float], tuple[Tensor, Tensor]]

    def kl(self, t: float) -> float:
        """KL(p_σ‖q_σ), nats."""
        x, weight = self.rule(self.p, t)
        return float(weight @ (AtLevel(self.p, t).log_density(x) - AtLevel(self.q, t).log_density(x)))

    def half_fisher(self, t: float) -> float:
        """½ F(p_σ‖q_σ), as explicit score matching has it."""
        x, weight = self.rule(self.p, t)
        return float(weight @ ExplicitScoreMatching(AtLevel(self.p, t))(AtLevel(self.q, t), x).value)


def on_cubature(p: GaussianMixture, t: float) -> tuple[Tensor, Tensor]:
    """Exact for polynomials of degree three under a Gaussian."""
    x = cubature(p.mean(), p.covariance() + t * torch.eye(size(p.event_shape), dtype=torch.float64))
    return x, torch.full((len(x),), 1 / len(x), dtype=torch.float64)


def on_grid(p: GaussianMixture, t: float, count: int = 161) -> tuple[Tensor, Tensor]:
    """The trapezoidal rule, which converges faster than any power for such densities; d = 1 or 2."""
    d = size(p.event_shape)
    reach = float(p.means.abs().max()) + 9 * (float(p.eigenvalues.max()) + t) ** 0.5
    axis = torch.linspace(-reach, reach, count, dtype=torch.float64)
    x = torch.cartesian_prod(*[axis] * d).reshape(count**d, *p.event_shape)
    return x, AtLevel(p, t).log_density(x).exp() * (axis[1] - axis[0]) ** d


def kl_and_fisher(which: str, pair: Pair, nodes: int) -> Iterator[Record]:
    """The derivative at t = ½ by differences of order four, and the integral by Gauss and Legendre in u = t/(1 + t)."""
    t, h = 0.5, 2e-3
    near, far = (pair.kl(t + k * h) - pair.kl(t - k * h) for k in (1, 2))
    slope = (8 * near - far) / (12 * h)
    yield equal(f"d KL(p_σ‖q_σ)/dσ² = −½F: {which}", slope, -pair.half_fisher(t))
    roots, weights = np.polynomial.legendre.leggauss(nodes)
    area = sum(w / 2 * pair.half_fisher(u / (1 - u)) / (1 - u) ** 2 for u, w in zip((roots + 1) / 2, weights, strict=True))
    yield equal(f"KL(p‖q) = ½∫F dσ²: {which}", pair.kl(0.0), float(area))


def equal(statement: str, left: float, right: float) -> Record:
    return exact(7, statement, torch.tensor(left, dtype=torch.float64), right, 1e-8)
