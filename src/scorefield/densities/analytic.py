"""Densities with exact formulas, closed under smoothing: the oracles that learned models and samplers are tested against.

A mixture p = Σ wₖ N(μₖ, Cₖ) smoothed by noise is p_σ = Σ wₖ N(μₖ, Cₖ + σ²I). With Cₖ = Qₖ diag(λₖ) Qₖᵀ,

    log p_σ(x) = log Σ wₖ N(x; μₖ, Cₖ + σ²I)                      rₖ = wₖ N(…)/p_σ(x), the responsibilities
    ∇ log p_σ(x) = −Σ rₖ Qₖ diag(1/(λₖ + σ²)) Qₖᵀ (x − μₖ)
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.interfaces import check_event, check_sigma


class GaussianMixture:
    """Σ wₖ N(μₖ, Cₖ) on events of any shape; normalised; float64 inside, answers in the dtype of `x`.

    Args:
        weights: `(k,)`, positive; divided by their sum.
        means: `(k, *event)`.
        covariances: variances `(k,)` of isotropic components, or full symmetric matrices `(k, d, d)` over the flattened event.

    Raises:
        ValueError: shapes that do not fit, weights that are not positive, a covariance that is not symmetric and positive
            definite, or anything that is not finite; in use, events of another shape or of integers, and σ < 0, infinite
            or NaN.
    """

    sigma_range = (0.0, math.inf)

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        self.event_shape = tuple(means.shape[1:])
        self.means = means.double().flatten(1)
        k, d = self.means.shape
        weights, covariances = (values.double().to(self.means.device) for values in (weights, covariances))
        if not self.means.isfinite().all():
            raise ValueError("the means of a mixture must be finite")
        if covariances.shape == (k,):
            self.eigenvalues, self.rotations = covariances[:, None].expand(k, d), None
        elif covariances.shape == (k, d, d):
            skew, largest = (c.abs().amax((1, 2)) for c in (covariances - covariances.mT, covariances))
            if not (skew <= 1e-5 * largest).all():  # nor where an entry is infinite or NaN; eigh would read one triangle
                raise ValueError("the covariances of a mixture must be finite and symmetric")
            self.eigenvalues, self.rotations = torch.linalg.eigh(covariances)
        else:
            raise ValueError(f"covariances must be ({k},) or ({k}, {d}, {d}), got {tuple(covariances.shape)}")
        positive = [((v > 0) & (v < math.inf)).all() for v in (weights, self.eigenvalues)]
        if weights.shape != (k,) or not all(positive):
            raise ValueError(
                f"a mixture of {k} components needs {k} positive weights and positive definite covariances, all finite"
            )
        self.weights = weights / weights.sum()

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p_σ(x), normalised, nats, `(b,)`."""
        return self._components(x, sigma).log_joint.logsumexp(1).to(x.dtype)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """∇ log p_σ(x), `(b, *event)`: a formula, not a gradient."""
        c = self._components(x, sigma)
        return -self._mix(c.responsibilities, c.offset / c.variances).reshape(x.shape).to(x.dtype)

    def score_and_laplacian(self, x: Tensor, sigma: float | Tensor = 0.0) -> tuple[Tensor, Tensor]:
        """The score, and its divergence Δ log p_σ `(b,)`: Σ rₖ (‖sₖ‖² − tr (Cₖ + σ²I)⁻¹) − ‖Σ rₖ sₖ‖², sₖ the components'."""
        c = self._components(x, sigma)
        own, r = c.offset / c.variances, c.responsibilities
        score = -self._mix(r, own)
        laplacian = (r * ((own**2).sum(-1) - (1 / c.variances).sum(-1))).sum(1) - (score**2).sum(1)
        return score.reshape(x.shape).to(x.dtype), laplacian.to(x.dtype)

    def posterior_mean(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x₀ given x₀ + σz = x], `(b, *event)`, from the components' posteriors (Tweedie's formula is not used)."""
        c = self._components(x, sigma)
        within = self._unrotate(c.offset * c.eigenvalues / c.variances) + self.means
        return torch.einsum("bk,bkd->bd", c.responsibilities, within).reshape(x.shape).to(x.dtype)

    def sample(self, n: int, sigma: float = 0.0, *, generator: torch.Generator | None = None) -> Tensor:
        """n exact draws of p_σ, `(n, *event)`, float64, where the means are; a generator must be there, too."""
        s = check_sigma(sigma, self.means[:1, 0], self.sigma_range)
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64, device=self.means.device)
        offset = (self.eigenvalues[component] + s**2).sqrt() * z
        if self.rotations is not None:
            offset = torch.einsum("bij,bj->bi", self.rotations[component], offset)
        return (self.means[component] + offset).reshape(n, *self.event_shape)

    def mean(self) -> Tensor:
        """E[x₀], `(*event)`, float64."""
        return (self.weights @ self.means).reshape(self.event_shape)

    def covariance(self) -> Tensor:
        """Cov[x₀] over the flattened event, `(d, d)`, float64."""
        q = torch.eye(self.means.shape[1]).to(self.means) if self.rotations is None else self.rotations
        within = (q * self.eigenvalues[:, None, :]) @ q.transpose(-1, -2)
        centred = self.means - self.weights @ self.means
        return torch.einsum("k,kij->ij", self.weights, within + centred[:, :, None] * centred[:, None, :])

    def _components(self, x: Tensor, sigma: float | Tensor) -> "_Components":
        check_event(x, self.event_shape)
        levels = check_sigma(sigma, x, self.sigma_range)
        offset = x.double().flatten(1)[:, None] - self.means
        if self.rotations is not None:
            offset = torch.einsum("kij,bki->bkj", self.rotations, offset)
        variances = self.eigenvalues + levels.double()[:, None, None] ** 2
        log_normal = -((offset**2 / variances + variances.log()).sum(-1) + offset.shape[-1] * math.log(2 * math.pi)) / 2
        return _Components(offset, variances, self.eigenvalues, self.weights.log() + log_normal)

    def _unrotate(self, values: Tensor) -> Tensor:
        return values if self.rotations is None else torch.einsum("kij,bkj->bki", self.rotations, values)

    def _mix(self, responsibilities: Tensor, values: Tensor) -> Tensor:
        weighted = responsibilities[..., None] * values
        return weighted.sum(1) if self.rotations is None else torch.einsum("kij,bkj->bi", self.rotations, weighted)


@dataclass(frozen=True)
class _Components:
    offset: Tensor  # Qₖᵀ(x − μₖ), (b, k, d)
    variances: Tensor  # λₖ + σ², (b, k, d)
    eigenvalues: Tensor  # λₖ, (k, d)
    log_joint: Tensor  # log wₖ N(x; μₖ, Cₖ + σ²I), (b, k)

    @property
    def responsibilities(self) -> Tensor:
        return self.log_joint.softmax(1)


def gaussian(mean: Tensor, covariance: Tensor | float) -> GaussianMixture:
    """N(mean, covariance) for `mean` `(*event)` and a variance or a full matrix `(d, d)`."""
    return GaussianMixture(torch.ones(1), mean[None], torch.as_tensor(covariance, dtype=torch.float64)[None])


def ring_of_gaussians(radius: float = 1.4, std: float = 0.02, components: int = 200) -> GaussianMixture:
    """A thin ring in the plane as a mixture of equally spaced narrow Gaussians; the ring itself is `Ring`."""
    angle = torch.arange(components, dtype=torch.float64) * (2 * math.pi / components)
    means = radius * torch.stack([angle.cos(), angle.sin()], 1)
    return GaussianMixture(torch.ones(components), means, torch.full((components,), std**2, dtype=torch.float64))


def eight_gaussians(radius: float = 1.4, std: float = 0.1) -> GaussianMixture:
    """Eight Gaussians on a circle in the plane, equally likely."""
    return ring_of_gaussians(radius, std, components=8)
