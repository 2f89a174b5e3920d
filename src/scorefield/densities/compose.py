"""Densities made of densities: products, powers, quotients and mixtures, of formulas, of learned energies, or of both.

    product   log f = Σ log fᵢ                               ∇ log f = Σ ∇ log fᵢ           product of experts
    mixture   log f = log Σ wᵢ fᵢ/Zᵢ                         ∇ log f = Σ rᵢ ∇ log fᵢ,  rᵢ = (wᵢ fᵢ/Zᵢ)/f
    tempered  log f = β log f₁                               ∇ log f = β ∇ log f₁
    contrast  log f = log f₁ − γ log f₂                      what f₁ has and f₂ has not
    Gaussians Λ = Σ Λᵢ,  μ = Λ⁻¹ Σ Λᵢμᵢ                      Λᵢ = Cᵢ⁻¹, for the product of N(μᵢ, Cᵢ)

Noise does not commute with a product, power or quotient: at σ > 0 a `Product` is Π pᵢ,σ, not the product smoothed. That is
a good sequence for annealed MCMC, which only needs to end at σ = 0, and a wrong score for a reverse SDE or ODE. A mixture of
normalised densities is exact at every σ.

Reference: Hinton 2002, doi:10.1162/089976602760128018; Du et al. 2020, arXiv:2004.06030.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scorefield.densities.analytic import GaussianMixture
from scorefield.interfaces import Score, ScoredDensity, check_level, log_density_and_score
from scorefield.tensors import event_size


class _Composition(nn.Module):
    """Members, of which the learned ones are submodules; σ, events and the scaling of data must suit them all."""

    def __init__(self, densities: Sequence[Score]) -> None:
        super().__init__()
        self.densities = tuple(densities)
        if not self.densities:
            raise ValueError("a composition needs at least one density, got none")
        for d in self.densities:
            if not isinstance(d, Score):
                raise ValueError(f"every member needs score and sigma_range, got a {type(d).__name__}")
        self._scores_alone = [type(d).__name__ for d in self.densities if not isinstance(d, ScoredDensity)]
        self.learned = nn.ModuleList(d for d in self.densities if isinstance(d, nn.Module))
        shapes: list[tuple[int, ...] | None] = [getattr(d, "event_shape", None) for d in self.densities]
        known = {shape for shape in shapes if shape is not None}  # a learned member need not say
        if len(known) > 1:
            raise ValueError(f"all members must live on events of one shape, got {sorted(known)}")
        self.event_shape = next(iter(known), None)
        scalings = [s for s in (getattr(getattr(d, "spec", d), "scaling", None) for d in self.densities) if s is not None]
        if any(scaling != scalings[0] for scaling in scalings):
            raise ValueError(f"all members must scale data in the same way, got {scalings}: train them with one scaling")
        self.scaling = next(iter(scalings), None)
        ranges = [d.sigma_range for d in self.densities]
        self.sigma_range = max(low for low, _ in ranges), min(high for _, high in ranges)
        if self.sigma_range[0] > self.sigma_range[1]:
            raise ValueError(f"no sigma suits every member: their ranges are {ranges}")

    def _members(self) -> tuple[ScoredDensity, ...]:
        """The members, all of which must have log-densities here; raises `ValueError` if one has none."""
        if self._scores_alone:
            raise ValueError(f"this needs log-densities, and {self._scores_alone[0]} has only a score: compose energies")
        return self.densities  # type: ignore[return-value]  # as was just seen


class LogLinear(_Composition):
    """log f = Σ cᵢ log fᵢ, unnormalised. Exact at σ = 0 only, as `Product`, and a density only if it falls far out.

    Members with a score alone can be sampled without a Metropolis test.

    Args:
        densities: on events of one shape.
        coefficients: cᵢ, one for each, finite.

    Raises:
        ValueError: other coefficients; no members, members of different event shapes or scalings, or with no σ in common.
    """

    def __init__(self, densities: Sequence[Score], coefficients: Sequence[float]) -> None:
        super().__init__(densities)
        self.coefficients = tuple(coefficients)
        if len(self.coefficients) != len(self.densities) or not all(map(math.isfinite, self.coefficients)):
            raise ValueError(f"{len(self.densities)} densities need as many finite coefficients, got {self.coefficients}")

    @property
    def power(self) -> float:
        """Σ cᵢ: noise of variance σ² in every member is noise of variance σ²/Σ cᵢ in their product."""
        return sum(self.coefficients)

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """Σ cᵢ log fᵢ(x, σ), nats, `(b,)`: known up to a constant."""
        return self._sum([d.log_density(x, sigma, cond) for d in self._members()])

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """Σ cᵢ ∇ log fᵢ(x, σ), `(b, *event)`."""
        return self._sum([d.score(x, sigma, cond) for d in self.densities])

    def log_density_and_score(
        self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both at once."""
        logs, scores = zip(*(log_density_and_score(d, x, sigma, cond) for d in self._members()), strict=True)
        return self._sum(logs), self._sum(scores)

    def _sum(self, values: Sequence[Tensor]) -> Tensor:
        return torch.stack([c * v for c, v in zip(self.coefficients, values, strict=True)]).sum(0)


class Product(LogLinear):
    """Π fᵢ, unnormalised: the product of experts. Exact at σ = 0; at σ > 0 an annealing sequence, see the module.

    Args:
        densities: log-densities with scores, on events of one shape.

    Raises:
        ValueError: no members, members of different event shapes or scalings, or with no σ in common.
    """

    def __init__(self, densities: Sequence[Score]) -> None:
        super().__init__(densities, [1.0] * len(densities))


class Tempered(LogLinear):
    """f^β, unnormalised: β > 1 sharpens, β < 1 flattens. Exact at σ = 0 only, as `Product`.

    Raises:
        ValueError: an exponent that is not positive and finite.
    """

    def __init__(self, density: Score, exponent: float) -> None:
        check_positive("exponent", exponent)
        super().__init__([density], [exponent])


class Contrast(LogLinear):
    """f₁/f₂^γ, unnormalised: like the first member and unlike the second. It has a Z only if f₁ falls faster than f₂^γ.

    Exact at σ = 0 only, as `Product`.

    Raises:
        ValueError: a weight γ that is not positive and finite; members as in `Product`.
    """

    def __init__(self, density: Score, other: Score, weight: float = 1.0) -> None:
        check_positive("weight", weight)
        super().__init__([density, other], [1.0, -weight])


class AtLevel(LogLinear):
    """A density at one noise level, frozen: the law of x/scale for x ~ p_level, which answers at σ = 0 alone.

    Its Z is that of the density at that level, whatever the scale.

    Raises:
        ValueError: a level for which the density does not answer, or a scale that is not positive and finite.
    """

    def __init__(self, density: Score, level: float, scale: float = 1.0) -> None:
        check_level(level, density.sigma_range)
        check_positive("scale", scale)
        super().__init__([density], [1.0])
        self.level, self.scale, self.sigma_range = level, scale, (0.0, 0.0)

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p_level(scale x) + d log scale + const, nats, `(b,)`."""
        check_level(sigma, self.sigma_range)
        return super().log_density(self.scale * x, self.level, cond) + event_size(x) * math.log(self.scale)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """Its gradient, `(b, *event)`."""
        check_level(sigma, self.sigma_range)
        return self.scale * super().score(self.scale * x, self.level, cond)

    def log_density_and_score(
        self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both at once."""
        check_level(sigma, self.sigma_range)
        log, score = super().log_density_and_score(self.scale * x, self.level, cond)
        return log + event_size(x) * math.log(self.scale), self.scale * score


def check_positive(name: str, value: float) -> None:
    """Raises `ValueError` for a number that is not positive and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")


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
        z = torch.zeros_like(w) if log_z is None else torch.as_tensor(log_z, dtype=torch.float64).detach()
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
        logs = torch.stack([d.log_density(x, sigma, cond) for d in self._members()])
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
