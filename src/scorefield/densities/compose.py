"""Densities made of densities: products and mixtures, of formulas, of learned energies, or of both.

    product   log f = Σ log fᵢ                               ∇ log f = Σ ∇ log fᵢ           product of experts
    mixture   log f = log Σ wᵢ fᵢ/Zᵢ                         ∇ log f = Σ rᵢ ∇ log fᵢ,  rᵢ = (wᵢ fᵢ/Zᵢ)/f
    Gaussians Λ = Σ Λᵢ,  μ = Λ⁻¹ Σ Λᵢμᵢ                      Λᵢ = Cᵢ⁻¹, for the product of N(μᵢ, Cᵢ)

Noise does not commute with a product: at σ > 0 a `Product` is Π pᵢ,σ, not the product smoothed. That is a good sequence
for annealed MCMC, which only needs to end at σ = 0, and a wrong score for a reverse SDE or ODE. A mixture of normalised
densities is exact at every σ.

Reference: Hinton 2002, doi:10.1162/089976602760128018; Du et al. 2020, arXiv:2004.06030.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scorefield.densities.analytic import GaussianMixture
from scorefield.interfaces import ScoredDensity, log_density_and_score


class _Composition(nn.Module):
    """Members, of which the learned ones are submodules; σ must suit them all."""

    def __init__(self, densities: Sequence[ScoredDensity]) -> None:
        super().__init__()
        self.densities = tuple(densities)
        if not self.densities:
            raise ValueError("a composition needs at least one density, got none")
        for d in self.densities:
            if not isinstance(d, ScoredDensity):
                raise ValueError(f"every member needs log_density, score and sigma_range, got a {type(d).__name__}")
        self.learned = nn.ModuleList(d for d in self.densities if isinstance(d, nn.Module))
        shapes: list[tuple[int, ...] | None] = [getattr(d, "event_shape", None) for d in self.densities]
        known = {shape for shape in shapes if shape is not None}  # a learned member need not say
        if len(known) > 1:
            raise ValueError(f"all members must live on events of one shape, got {sorted(known)}")
        self.event_shape = next(iter(known), None)
        ranges = [d.sigma_range for d in self.densities]
        self.sigma_range = max(low for low, _ in ranges), min(high for _, high in ranges)
        if self.sigma_range[0] > self.sigma_range[1]:
            raise ValueError(f"no sigma suits every member: their ranges are {ranges}")


class Product(_Composition):
    """Π fᵢ, unnormalised: the product of experts. Exact at σ = 0; at σ > 0 an annealing sequence, see the module.

    Args:
        densities: log-densities with scores, on events of one shape.

    Raises:
        ValueError: no members, members of different event shapes, or with no σ in common.
    """

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """Σ log fᵢ(x, σ), nats, `(b,)`: the product's log-density up to a constant."""
        return torch.stack([d.log_density(x, sigma, cond) for d in self.densities]).sum(0)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """Σ ∇ log fᵢ(x, σ), `(b, *event)`."""
        return torch.stack([d.score(x, sigma, cond) for d in self.densities]).sum(0)

    def log_density_and_score(
        self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both at once."""
        logs, scores = zip(*(log_density_and_score(d, x, sigma, cond) for d in self.densities), strict=True)
        return torch.stack(logs).sum(0), torch.stack(scores).sum(0)


class Mixture(_Composition):
    """Σ wᵢ fᵢ/Zᵢ, or without `log_z` Σ wᵢ fᵢ, in which the share of member i is proportional to wᵢ Zᵢ.

    A learned energy knows its fᵢ only up to Zᵢ, so that `weights` are its shares only once `log_z` divides Zᵢ out.
    Normalised members need none, and their mixture is normalised and exact at every σ.

    Args:
        densities: log-densities with scores, on events of one shape.
        weights: `(k,)`, positive; divided by their sum.
        log_z: `(k,)`, log ∫ fᵢ in nats, at the noise level that will be asked for; None for zeros.

    Raises:
        ValueError: no members, members of different event shapes or with no σ in common, weights that are not `(k,)`
            positive numbers, or `log_z` that is not `(k,)` finite numbers.
    """

    log_weights: Tensor

    def __init__(
        self,
        densities: Sequence[ScoredDensity],
        weights: Tensor | Sequence[float],
        log_z: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__(densities)
        k = len(self.densities)
        w = torch.as_tensor(weights, dtype=torch.float64).detach()
        if w.shape != (k,) or not ((w > 0) & (w < math.inf)).all():
            raise ValueError(f"a mixture of {k} densities needs {k} positive weights, got {w.tolist()}")
        z = torch.zeros(k) if log_z is None else torch.as_tensor(log_z, dtype=torch.float64).detach()
        if z.shape != (k,) or not z.isfinite().all():
            raise ValueError(f"a mixture of {k} densities needs {k} finite values of log Z, got {z.tolist()}")
        self.register_buffer("log_weights", (w / w.sum()).log() - z)

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log Σ wᵢ fᵢ(x, σ)/Zᵢ, nats, `(b,)`; normalised if every Zᵢ is divided out."""
        return self._log_joint(x, sigma, cond).logsumexp(0)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """Σ rᵢ ∇ log fᵢ(x, σ), `(b, *event)`."""
        responsibilities = self._log_joint(x, sigma, cond).softmax(0)
        scores = torch.stack([d.score(x, sigma, cond) for d in self.densities])
        return torch.einsum("kb,kb...->b...", responsibilities, scores)

    def _log_joint(self, x: Tensor, sigma: float | Tensor, cond: Tensor | None) -> Tensor:
        """log wᵢ fᵢ(x, σ)/Zᵢ, `(k, b)`."""
        logs = torch.stack([d.log_density(x, sigma, cond) for d in self.densities])
        return logs + self.log_weights.to(logs)[:, None]


def product_of_gaussians(*gaussians: GaussianMixture) -> GaussianMixture:
    """The normalised product of Gaussians, itself a Gaussian: precisions add, means are averaged by precision.

    Raises:
        ValueError: none given, a mixture of several components, or events of different shapes.
    """
    if not gaussians:
        raise ValueError("a product needs at least one Gaussian, got none")
    for g in gaussians:
        if len(g.weights) != 1:
            raise ValueError(f"a product of Gaussians takes mixtures of one component, got one of {len(g.weights)}")
        if g.event_shape != gaussians[0].event_shape:
            raise ValueError(f"all Gaussians must have one event shape, got {gaussians[0].event_shape} and {g.event_shape}")
    if all(g.rotations is None for g in gaussians):  # isotropic: numbers, however large the event
        precisions = [1 / g.eigenvalues[0, :1] for g in gaussians]
        covariance = 1 / torch.stack(precisions).sum(0)
        mean = covariance * torch.stack([p * g.means[0] for p, g in zip(precisions, gaussians, strict=True)]).sum(0)
    else:
        matrices = [torch.linalg.inv(g.covariance()) for g in gaussians]
        covariance = torch.linalg.inv(torch.stack(matrices).sum(0))[None]
        mean = covariance[0] @ torch.stack([p @ g.means[0] for p, g in zip(matrices, gaussians, strict=True)]).sum(0)
    return GaussianMixture(torch.ones(1), mean.reshape(1, *gaussians[0].event_shape), covariance)
