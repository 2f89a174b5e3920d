"""Classic test densities: normalised, with the score as a formula and exact samples, on the slice σ = 0 only.

    banana       x₁ ~ N(0, w²), x₂ given x₁ ~ N(b(x₁² − w²), s²)
    funnel       v = x₁ ~ N(0, std²), the other coordinates given v ~ N(0, eᵛ), independent
    double well  Π exp(−B((xᵢ/a)² − 1)²)/Z,   Z = (πa/2) e^(−B/2) (I₋¼(B/2) + I¼(B/2)) a coordinate
    Student      Γ((ν+d)/2) / (Γ(ν/2) √det(νπΣ)) · (1 + δ/ν)^(−(ν+d)/2),   δ = (x − μ)ᵀ Σ⁻¹ (x − μ)

None of them stays in its family when smoothed, so any other σ is refused.

Reference: Haario et al. 1999, doi:10.1007/s001800050022 (banana); Neal 2003, doi:10.1214/aos/1056562461, section 8 (funnel);
Kotz & Nadarajah 2004, Multivariate t Distributions, chapter 1.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.interfaces import check_event, check_sigma
from scorefield.tensors import sum_event

LOG_2PI = math.log(2 * math.pi)
CLEAN = (0.0, 0.0)


def _clean(x: Tensor, sigma: float | Tensor, event_shape: tuple[int, ...]) -> Tensor:
    """`x` in float64, once its shape and dtype are right and σ is 0."""
    check_event(x, event_shape)
    check_sigma(sigma, x, CLEAN)
    return x.double()


def _normal(shape: tuple[int, ...], sigma: float, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers, float64, once σ is 0."""
    check_sigma(sigma, torch.zeros(1), CLEAN)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Banana:
    """A Gaussian in the plane bent along a parabola; mean 0.

    Raises:
        ValueError: a width or std that is not positive, or a bend that is not finite; in use, events of another shape or
            of integers, and σ ≠ 0.
    """

    width: float = 1.0
    """w, standard deviation of x₁"""
    bend: float = 0.5
    """b, curvature of the parabola"""
    std: float = 0.5
    """s, standard deviation of x₂ about the parabola"""

    sigma_range: ClassVar[tuple[float, float]] = CLEAN
    event_shape: ClassVar[tuple[int, ...]] = (2,)

    def __post_init__(self) -> None:
        if not (self.width > 0 and self.std > 0 and math.isfinite(self.bend)):
            raise ValueError(f"a banana needs a positive width and std and a finite bend, got {self}")

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p(x), normalised, nats, `(b,)`."""
        along, across = self._straighten(x, sigma)
        return (-(along**2 + across**2) / 2 - LOG_2PI - math.log(self.width * self.std)).to(x.dtype)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """∇ log p(x), `(b, 2)`: a formula, not a gradient."""
        along, across = self._straighten(x, sigma)
        slope = 2 * self.bend * self.width * along  # of the parabola, at x₁
        return torch.stack([-along / self.width + slope * across / self.std, -across / self.std], 1).to(x.dtype)

    def sample(self, n: int, sigma: float = 0.0, *, generator: torch.Generator | None = None) -> Tensor:
        """n exact draws, `(n, 2)`, float64."""
        along, across = _normal((n, 2), sigma, generator).unbind(1)
        return torch.stack([self.width * along, self._parabola(along) + self.std * across], 1)

    def _parabola(self, along: Tensor) -> Tensor:
        return self.bend * self.width**2 * (along**2 - 1)

    def _straighten(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """The two independent standard normal variables that `x` was made of, `(b,)` each."""
        first, second = _clean(x, sigma, self.event_shape).unbind(1)
        along = first / self.width
        return along, (second - self._parabola(along)) / self.std


@dataclass(frozen=True)
class Funnel:
    """Neal's funnel: the first coordinate is the log-variance of all others, so scales differ by factors of e^std.

    Raises:
        ValueError: a dimension below 2, or a std that is not positive; in use, events of another shape or of integers,
            and σ ≠ 0.
    """

    dimension: int = 2
    std: float = 3.0
    """standard deviation of the log-variance v"""

    sigma_range: ClassVar[tuple[float, float]] = CLEAN

    def __post_init__(self) -> None:
        if not (self.dimension >= 2 and self.std > 0):
            raise ValueError(f"a funnel needs dimension >= 2 and a positive std, got {self.dimension} and {self.std}")

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.dimension,)

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p(x), normalised, nats, `(b,)`."""
        v, scaled = self._split(x, sigma)
        quadratic = (v / self.std) ** 2 + (self.dimension - 1) * v + (scaled**2).sum(1)
        return (-(quadratic + self.dimension * LOG_2PI) / 2 - math.log(self.std)).to(x.dtype)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """∇ log p(x), `(b, d)`: a formula, not a gradient."""
        v, scaled = self._split(x, sigma)
        first = -v / self.std**2 + ((scaled**2).sum(1) - (self.dimension - 1)) / 2
        return torch.cat([first[:, None], -scaled * (-v / 2).exp()[:, None]], 1).to(x.dtype)

    def sample(self, n: int, sigma: float = 0.0, *, generator: torch.Generator | None = None) -> Tensor:
        """n exact draws, `(n, d)`, float64."""
        z = _normal((n, self.dimension), sigma, generator)
        v = self.std * z[:, :1]
        return torch.cat([v, (v / 2).exp() * z[:, 1:]], 1)

    def _split(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """v `(b,)`, and the other coordinates divided by their standard deviation e^(v/2), `(b, d − 1)`."""
        x = _clean(x, sigma, self.event_shape)
        return x[:, 0], x[:, 1:] * (-x[:, :1] / 2).exp()


@dataclass(frozen=True)
class DoubleWell:
    """Independent coordinates, each with two equally likely modes at ±a: 2ᵈ modes, with a barrier of B nats between two.

    Raises:
        ValueError: a dimension below 1, or a location or barrier that is not positive; in use, events of another shape or
            of integers, and σ ≠ 0.
    """

    dimension: int = 2
    location: float = 1.0
    """a: the modes of a coordinate are at ±a"""
    barrier: float = 4.0
    """B: log-density at a mode minus log-density at 0, nats a coordinate"""

    sigma_range: ClassVar[tuple[float, float]] = CLEAN

    def __post_init__(self) -> None:
        if not (self.dimension >= 1 and self.location > 0 and self.barrier > 0):
            raise ValueError(
                "a double well needs dimension >= 1, a positive location and a positive barrier, "
                f"got {self.dimension}, {self.location} and {self.barrier}"
            )

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.dimension,)

    @cached_property
    def log_z(self) -> float:
        """log Z of one coordinate, nats."""
        from scipy.special import ive  # e⁻ᶻ I(z), comes with scikit-learn; a slow import

        half = self.barrier / 2
        return math.log(math.pi * self.location / 2 * (ive(-0.25, half) + ive(0.25, half)))

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p(x), normalised, nats, `(b,)`."""
        y = _clean(x, sigma, self.event_shape) / self.location
        return (-self.barrier * sum_event((y**2 - 1) ** 2) - self.dimension * self.log_z).to(x.dtype)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """∇ log p(x), `(b, d)`: a formula, not a gradient."""
        y = _clean(x, sigma, self.event_shape) / self.location
        return (-4 * self.barrier / self.location * y * (y**2 - 1)).to(x.dtype)

    def sample(self, n: int, sigma: float = 0.0, *, generator: torch.Generator | None = None) -> Tensor:
        """n exact draws, `(n, d)`, float64, by rejection.

        For y ≥ 0, (y² − 1)² = (y − 1)²(y + 1)² ≥ (y − 1)²: a Gaussian about 1 proposes |x|/a, a fair coin the sign.
        """
        wanted = n * self.dimension
        found = _normal((0,), sigma, generator)
        while len(found) < wanted:
            y = 1 + _normal((2 * wanted,), sigma, generator) / math.sqrt(2 * self.barrier)
            coin, u = torch.rand(2, 2 * wanted, generator=generator, dtype=torch.float64)
            kept = (y > 0) & (u.log() < -self.barrier * ((y**2 - 1) ** 2 - (y - 1) ** 2))
            found = torch.cat([found, torch.where(coin < 0.5, -y, y)[kept]])
        return self.location * found[:wanted].reshape(n, self.dimension)


class StudentT:
    """Student's t on events of any shape, tails like ‖x‖^(−ν−d); moments of order ν and above do not exist.

    Args:
        df: ν, degrees of freedom; ν = 1 is Cauchy, ν → ∞ Gaussian.
        centre: μ, `(*event)`, the mode, and the mean where one exists, ν > 1.
        scale: Σ, a number (times the identity) or a symmetric positive definite matrix `(d, d)` over the flattened event;
            the covariance is Σ ν/(ν − 2) for ν > 2.

    Raises:
        ValueError: ν not positive, or a `scale` that does not fit or is not symmetric positive definite; in use, events of
            another shape or of integers, and σ ≠ 0.
    """

    sigma_range = CLEAN

    def __init__(self, df: float, centre: Tensor, scale: Tensor | float = 1.0) -> None:
        if not 0 < df < math.inf:
            raise ValueError(f"degrees of freedom must be positive and finite, got {df}")
        self.df, self.event_shape, self.centre = df, tuple(centre.shape), centre.double().flatten()
        d = len(self.centre)
        matrix = torch.as_tensor(scale, dtype=torch.float64)
        if matrix.ndim == 0:
            matrix = matrix * torch.eye(d, dtype=torch.float64)
        if matrix.shape != (d, d):
            raise ValueError(f"scale must be a number or ({d}, {d}), got {tuple(matrix.shape)}")
        self.root, failed = torch.linalg.cholesky_ex(matrix)
        if failed or not torch.allclose(matrix, matrix.mT):
            raise ValueError("scale must be a positive number or a symmetric positive definite matrix")

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p(x), normalised, nats, `(b,)`."""
        nu, d = self.df, len(self.centre)
        delta = (self._whiten(x, sigma) ** 2).sum(0)
        log_z = math.lgamma(nu / 2) - math.lgamma((nu + d) / 2) + d / 2 * math.log(nu * math.pi)
        log_z = log_z + self.root.diagonal().log().sum()
        return (-(nu + d) / 2 * torch.log1p(delta / nu) - log_z).to(x.dtype)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """∇ log p(x), `(b, *event)`: a formula, not a gradient."""
        white = self._whiten(x, sigma)
        weight = (self.df + len(self.centre)) / (self.df + (white**2).sum(0))
        return -(weight * torch.linalg.solve_triangular(self.root.mT, white, upper=True)).mT.reshape(x.shape).to(x.dtype)

    def sample(self, n: int, sigma: float = 0.0, *, generator: torch.Generator | None = None) -> Tensor:
        """n exact draws, `(n, *event)`, float64: a Gaussian divided by √(χ²/ν)."""
        z = _normal((n, len(self.centre)), sigma, generator)
        half_chi2 = torch._standard_gamma(torch.full((n, 1), self.df / 2, dtype=torch.float64), generator=generator)
        offset = z @ self.root.mT * (self.df / (2 * half_chi2)).sqrt()
        return (self.centre + offset).reshape(n, *self.event_shape)

    def _whiten(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """L⁻¹(x − μ) with Σ = LLᵀ, one column an example, `(d, b)`."""
        offset = _clean(x, sigma, self.event_shape).flatten(1) - self.centre
        return torch.linalg.solve_triangular(self.root, offset.mT, upper=False)
