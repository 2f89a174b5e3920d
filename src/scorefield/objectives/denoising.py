"""Denoising score matching: the score of noised data is what removes the noise.

    DSM(σ) = ½ E‖s(x₀ + σz, σ) + z/σ‖² = ½ F(p_σ‖q) + const        one level, Vincent 2011, eq. 11
    E_σ [ w(σ) ‖D(x, σ) − x₀‖² ],  D = x + σ² s                    many levels

With D − x₀ = σ (σ s + z) the second is computed without the cancellation that D − x₀ would suffer at small σ.

Reference: Vincent 2011, Neural Computation 23(7); Song & Ermon 2019, arXiv:1907.05600 (eq. 5–6);
Karras et al. 2022, arXiv:2206.00364 (eq. 8, table 1).
"""

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from scorefield.interfaces import Loss, Score
from scorefield.tensors import expand, sum_event


class NoiseDistribution(Protocol):
    """How noise levels are drawn in training."""

    def quantile(self, u: Tensor, sigma_range: tuple[float, float]) -> Tensor:
        """σ at the quantiles `u` in [0, 1], inside `sigma_range`."""
        ...


@dataclass(frozen=True)
class LogNormal:
    """log σ ~ N(mean, std²), cut to the range (Karras et al. 2022, table 1; σ in units of standard deviation 1).

    Raises:
        ValueError: `mean` is not finite, or `std` not positive and finite.
    """

    kind: Literal["lognormal"] = field(default="lognormal", kw_only=True)
    mean: float = -0.5
    """mean of log σ"""
    std: float = 1.2
    """standard deviation of log σ"""

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean) or not 0 < self.std < math.inf:
            raise ValueError(f"a log-normal needs a finite mean and a positive std, got {self.mean} and {self.std}")

    def quantile(self, u: Tensor, sigma_range: tuple[float, float]) -> Tensor:
        low, high = (0.5 * math.erfc((self.mean - math.log(s)) / self.std / math.sqrt(2)) for s in sigma_range)
        z = torch.special.ndtri(low + (high - low) * u.double())
        return (self.mean + self.std * z).exp().clamp(*sigma_range).to(u.dtype)


@dataclass(frozen=True)
class LogUniform:
    """log σ uniform over the range."""

    kind: Literal["loguniform"] = field(default="loguniform", kw_only=True)

    def quantile(self, u: Tensor, sigma_range: tuple[float, float]) -> Tensor:
        low, high = sigma_range
        return (low * (high / low) ** u).clamp(low, high)


@dataclass(frozen=True)
class Geometric:
    """NCSN's ladder: `count` levels in geometric progression from one end of the range to the other, equally likely."""

    kind: Literal["geometric"] = field(default="geometric", kw_only=True)
    count: int = 10
    """number of levels"""

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ValueError(f"a geometric ladder needs at least 2 levels, got {self.count}")

    def quantile(self, u: Tensor, sigma_range: tuple[float, float]) -> Tensor:
        low, high = sigma_range
        rung = (u * self.count).floor().clamp(max=self.count - 1) / (self.count - 1)
        return (low * (high / low) ** rung).clamp(low, high)


Noise = LogNormal | LogUniform | Geometric
Weighting = Literal["edm", "sigma2"]


@dataclass(frozen=True)
class DenoisingScoreMatching:
    """w(σ)‖D(x₀ + σz, σ) − x₀‖² per example, summed over coordinates.

    Weightings: `edm` w = (σ² + σ_d²)/(σ σ_d)², `sigma2` w = 1/σ² (NCSN's λ = σ² on ‖s + z/σ‖²).
    """

    noise: Noise = field(default_factory=LogNormal)
    weighting: Weighting = "edm"
    """edm: (σ² + σ_d²)/(σ σ_d)²; sigma2: NCSN's λ(σ) = σ²"""
    sigma_data: float = 1.0
    """standard deviation of the scaled data (edm weighting only)"""

    def __post_init__(self) -> None:
        if self.weighting not in ("edm", "sigma2"):
            raise ValueError(f"unknown weighting {self.weighting!r}: choose edm or sigma2")
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(f"sigma_data must be positive, got {self.sigma_data}")

    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Loss:
        sigma, z = self.draw(x, model.sigma_range, generator)
        return self.at(model, x, sigma, z, cond)

    def draw(
        self, x: Tensor, sigma_range: tuple[float, float], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Noise levels `(b,)`, one uniform draw in each of b equal strata (less variance), and noise z like `x`."""
        b = len(x)
        jitter = torch.rand(b, generator=generator, device=x.device, dtype=x.dtype)
        strata = torch.randperm(b, generator=generator, device=x.device)
        sigma = self.noise.quantile((strata + jitter) / b, sigma_range)
        return sigma, torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)

    def at(self, model: Score, x: Tensor, sigma: Tensor, z: Tensor, cond: Tensor | None = None) -> Loss:
        """The loss at given noise levels `(b,)` and noise z like `x`: a deterministic function."""
        s = expand(sigma, x)
        residual = s * model.score(x + s * z, sigma, cond) + z
        squared = sum_event(residual**2)
        if self.weighting == "edm":
            squared = squared * (sigma**2 + self.sigma_data**2) / self.sigma_data**2
        return Loss(squared, sigma, {})


@dataclass(frozen=True)
class DenoisingAt:
    """½‖s(x₀ + σz, σ) + z/σ‖² per example at one level σ, so that its mean is ½F(p_σ‖q) + const."""

    sigma: float

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma must be positive, got {self.sigma}: denoising needs noise")

    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Loss:
        z = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        score = model.score(x + self.sigma * z, self.sigma, cond)
        value = sum_event((score + z / self.sigma) ** 2) / 2
        return Loss(value, x.new_full((len(x),), self.sigma), {})
