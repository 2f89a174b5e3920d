"""Row 20, the closed-form part: products and mixtures.

product    Π N(μᵢ, Cᵢ) ∝ N(μ, C),  C⁻¹ = Σ Cᵢ⁻¹,  C⁻¹μ = Σ Cᵢ⁻¹μᵢ
mixture    Σ wᵢ fᵢ has shares wᵢZᵢ/Σ wⱼZⱼ, and Σ wᵢ fᵢ/Zᵢ the shares wᵢ:  fᵢ = Zᵢ N(μᵢ, Cᵢ)
"""

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from scorefield.densities import GaussianMixture, Mixture, Product, product_of_gaussians
from scorefield.interfaces import Energy
from scorefield.verify.families import Shape, name, random_gaussian, random_mixture, shapes, stream
from scorefield.verify.record import Record, exact

WEIGHTS = (0.25, 0.75)
LOG_Z = (1.5, -0.7)


def row_20(full: bool) -> Iterator[Record]:
    for shape in shapes(full):
        yield from products(shape)
    for shape, with_z in product([*shapes(full)[:2], (2,), (1, 1, 2)], (True, False)):
        yield from mixtures(shape, with_z)


def products(shape: Shape) -> Iterator[Record]:
    which = f"{name(shape)}, three Gaussians"
    experts = [random_gaussian(shape, stream(20, key)) for key in range(3)]
    precisions = [torch.linalg.inv(e.covariance()) for e in experts]
    covariance = torch.linalg.inv(torch.stack(precisions).sum(0))
    pull = torch.stack([p @ e.mean().flatten() for p, e in zip(precisions, experts, strict=True)]).sum(0)
    closed = product_of_gaussians(*experts)
    mean = (covariance @ pull).reshape(shape)
    yield exact(20, f"product: mean = C Σ Cᵢ⁻¹μᵢ: {which}", closed.mean(), mean)
    yield exact(20, f"product: covariance = (Σ Cᵢ⁻¹)⁻¹: {which}", closed.covariance(), covariance)
    x = random_mixture(shape, stream(20, 3)).sample(50, generator=stream(20, 4))
    both = Product(experts)
    offset = both.log_density(x) - closed.log_density(x)
    yield exact(20, f"product: Σ log fᵢ = log N(μ, C) + const: {which}", offset, offset.mean())
    yield exact(20, f"product: Σ ∇log fᵢ = −C⁻¹(x − μ): {which}", both.score(x).flatten(1), mean_pull(x - mean, covariance))


def mean_pull(offset: Tensor, covariance: Tensor) -> Tensor:
    return -torch.linalg.solve(covariance, offset.flatten(1).T).T


class Unnormalised(Energy):
    """Z p for a normalised p: an energy that knows its density only up to a factor."""

    sigma_range = (0.0, float("inf"))

    def __init__(self, density: GaussianMixture, log_z: float) -> None:
        super().__init__()
        self.density, self.log_z = density, log_z
        self.event_shape = density.event_shape

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return self.density.log_density(x, sigma) + self.log_z


def mixtures(shape: Shape, with_z: bool) -> Iterator[Record]:
    """Against the Gaussian mixture of the shares that theory gives; in two dimensions also its moments by quadrature."""
    which = f"{'wᵢfᵢ/Zᵢ' if with_z else 'wᵢfᵢ'}, {name(shape)}"
    members = [random_gaussian(shape, stream(20, key)) for key in range(2)]
    weights, log_z = (torch.tensor(v, dtype=torch.float64) for v in (WEIGHTS, LOG_Z))
    energies = [Unnormalised(m, z) for m, z in zip(members, LOG_Z, strict=True)]
    ours = Mixture(energies, WEIGHTS, log_z if with_z else None)
    shares = (weights.log() + (0 if with_z else log_z)).softmax(0)
    means, covariances = (torch.stack([getattr(m, what)() for m in members]) for what in ("mean", "covariance"))
    theirs = GaussianMixture(shares, means, covariances)
    x = theirs.sample(50, generator=stream(20, 5))
    total = 0.0 if with_z else float((weights.log() + log_z).logsumexp(0))
    log_ratio = ours.log_density(x) - theirs.log_density(x)
    yield exact(20, f"mixture: log-density = that of its shares + log Σ: {which}", log_ratio, total)
    yield exact(20, f"mixture: score = that of its shares: {which}", ours.score(x), theirs.score(x))
    if len(x[0].flatten()) == 2:
        axis = torch.linspace(-14, 14, 401, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis).reshape(-1, *shape)
        density = ours.log_density(grid).exp() * (axis[1] - axis[0]) ** 2
        mass = density.sum()
        yield exact(20, f"mixture: its integral, log: {which}", mass.log(), total, 1e-8)
        mean = density @ grid.flatten(1) / mass
        yield exact(20, f"mixture: its mean is that of the shares: {which}", mean, shares @ means.flatten(1), 1e-8)
