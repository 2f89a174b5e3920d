"""A circle in the plane blurred by Gaussian noise: thin, not convex, closed under smoothing, and exact.

A point uniform on the circle of radius R plus N(0, std²I) is, smoothed by σ, the same with s² = std² + σ². Averaging the
Gaussian over the angle gives Bessel functions; with r = ‖x‖ and κ = rR/s²,

    log p_σ(x) = −log(2πs²) − (r − R)²/(2s²) + log(e⁻ᵏ I₀(κ))
    ∇ log p_σ(x) = −x/s² + R A(κ)/s² · x/r                        A = I₁/I₀, the mean of cos(angle to x) given x
                 = (x/s²) (R²/s² · A(κ)/κ − 1)                    A(κ)/κ → ½ at the centre

Reference: Mardia & Jupp 2000, Directional Statistics, section 3.5.4 (von Mises: the law of the angle given x).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.interfaces import check_event, check_sigma


@dataclass(frozen=True)
class Ring:
    """The uniform law on a circle about the origin, plus N(0, std²I); float64 inside, answers in the dtype of `x`.

    Stable from the centre to κ = rR/s² of a million and beyond.

    Raises:
        ValueError: a radius or std that is not positive and finite; in use, events of another shape or of integers, and
            σ < 0, infinite or NaN.
    """

    radius: float = 1.4
    """R, in data units"""
    std: float = 0.02
    """standard deviation of the noise on the circle"""

    sigma_range: ClassVar[tuple[float, float]] = (0.0, math.inf)
    event_shape: ClassVar[tuple[int, ...]] = (2,)

    def __post_init__(self) -> None:
        if not (0 < self.radius < math.inf and 0 < self.std < math.inf):
            raise ValueError(f"a ring needs a positive radius and std, got radius={self.radius}, std={self.std}")

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p_σ(x), normalised, nats, `(b,)`."""
        r, variance, kappa = self._polar(x, sigma)
        radial = (r - self.radius) ** 2 / (2 * variance)
        return (torch.special.i0e(kappa).log() - radial - (2 * math.pi * variance).log()).to(x.dtype)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """∇ log p_σ(x), `(b, 2)`: a formula, not a gradient."""
        _, variance, kappa = self._polar(x, sigma)
        pull = self.radius**2 / variance * _mean_cosine_ratio(kappa) - 1
        return ((pull / variance)[:, None] * x.double()).to(x.dtype)

    def posterior_mean(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x₀ given x₀ + σz = x], `(b, 2)`, from the law of the angle given x (Tweedie's formula is not used)."""
        _, variance, kappa = self._polar(x, sigma)
        on_circle = self.radius**2 / variance * _mean_cosine_ratio(kappa)  # E[point of the circle given x] = this · x
        kept = self.std**2 / variance
        return ((kept + (1 - kept) * on_circle)[:, None] * x.double()).to(x.dtype)

    def sample(self, n: int, sigma: float = 0.0, *, generator: torch.Generator | None = None) -> Tensor:
        """n exact draws of p_σ, `(n, 2)`, float64."""
        level = check_sigma(sigma, torch.zeros(1, dtype=torch.float64), self.sigma_range)
        angle = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
        z = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return self.radius * torch.stack([angle.cos(), angle.sin()], 1) + (self.std**2 + level**2).sqrt() * z

    def mean(self) -> Tensor:
        """E[x₀], `(2,)`, float64."""
        return torch.zeros(2, dtype=torch.float64)

    def covariance(self) -> Tensor:
        """Cov[x₀], `(2, 2)`, float64."""
        return (self.radius**2 / 2 + self.std**2) * torch.eye(2, dtype=torch.float64)

    def _polar(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """r, s² and κ, each `(b,)`, float64."""
        check_event(x, self.event_shape)
        x = x.double()
        variance = self.std**2 + check_sigma(sigma, x, self.sigma_range) ** 2
        r = torch.linalg.vector_norm(x, dim=1)
        return r, variance, r * self.radius / variance


def _mean_cosine_ratio(kappa: Tensor) -> Tensor:
    """I₁(κ)/(κ I₀(κ)), which is ½ at κ = 0; the inner `where` keeps 0/0 out of the derivative too."""
    positive = torch.where(kappa > 0, kappa, 1.0)
    return torch.where(kappa > 0, torch.special.i1e(positive) / (positive * torch.special.i0e(positive)), 0.5)
