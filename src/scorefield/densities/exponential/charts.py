"""Coordinates y ∈ ℝᵏ without walls for the points x of a domain, so that chains and log Z need to know of no domain.

The law of y has the density p(x(y)) v(y), where v is the volume that dy makes in the domain: chains of y are chains of x, and
both densities have one Z.

    box        x = lower + eʸ, upper − eʸ, or lower + (upper − lower)/(1 + e⁻ʸ), coordinate by coordinate    v = |dx/dy|
    simplex    x = softmax(y, 0)                                                                             v = Π x
    sphere     x = y/‖y‖, the length being that of d + 4 standard normal numbers      v = χ(‖y‖; d + 4)/‖y‖^(d−1)

On the simplex Z is by Lebesgue's measure of all shares but the last, as with Dirichlet's density; on the sphere by its surface.
With d + 4 in place of d the density of y is smooth at 0 too, for quadrature. Points stop short of where float64 has none
between them and a wall or infinity, while v goes on falling: no T is infinite, and what lies beyond has no mass.

Reference: Stan Reference Manual, constraint transforms (boxes, and the simplex by other coordinates).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from scorefield.interfaces import Energy, check_event, check_level

if TYPE_CHECKING:
    from scorefield.densities.exponential.fit import ExponentialFit

EXTRA = 4
"""degrees of freedom of a direction's length, beside d"""
LOGIT = 36.0
"""between two walls: 1/(1 + e⁻ʸ) is 1 from 37 on"""
LOG = (-700.0, 100.0)
"""beside one wall: the exponential is 0 below −745; so far out that polynomials of degree 7 still are finite"""


class Chart(Protocol):
    """The coordinates of one domain."""

    @property
    def dimension(self) -> int:
        """k."""
        ...

    def points(self, y: Tensor) -> Tensor:
        """x `(b, d)` of y `(b, k)`."""
        ...

    def coordinates(self, x: Tensor) -> Tensor:
        """A y `(b, k)` of x `(b, d)`."""
        ...

    def log_volume(self, y: Tensor) -> Tensor:
        """log v `(b,)`."""
        ...


@dataclass(frozen=True)
class BoxChart:
    """Of lower ≤ x ≤ upper, both `(d,)`; ∓∞ is no wall."""

    lower: Tensor
    upper: Tensor

    @property
    def dimension(self) -> int:
        return len(self.lower)

    def points(self, y: Tensor) -> Tensor:
        """x, between the walls."""
        low, high, between, above, below = self._walls
        away = torch.where(above | below, y.clamp(*LOG), 0.0).exp()
        inside = low + torch.where(between, high - low, 0.0) * y.clamp(-LOGIT, LOGIT).sigmoid()
        return torch.where(between, inside, torch.where(above, low + away, torch.where(below, high - away, y)))

    def coordinates(self, x: Tensor) -> Tensor:
        """y, infinite for x on a wall."""
        low, high, between, above, below = self._walls
        inside = ((x - low) / torch.where(between, high - low, 1.0)).clamp(0, 1).logit()
        return torch.where(between, inside, torch.where(above, (x - low).log(), torch.where(below, (high - x).log(), x)))

    def log_volume(self, y: Tensor) -> Tensor:
        """Σ log |dx/dy|."""
        low, high, between, above, below = self._walls
        inside = torch.where(between, high - low, 1.0).log() + y - 2 * torch.nn.functional.softplus(y)
        return torch.where(between, inside, torch.where(above | below, y, 0.0)).sum(1)

    @property
    def _walls(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Both walls, 0 where there is none, and which coordinates have both, only a lower, only an upper one."""
        has_low, has_high = self.lower.isfinite(), self.upper.isfinite()
        low, high = (torch.where(has, wall, 0.0) for has, wall in ((has_low, self.lower), (has_high, self.upper)))
        return low, high, has_low & has_high, has_low & ~has_high, has_high & ~has_low


@dataclass(frozen=True)
class SimplexChart:
    """Of d shares: log x_j − log x_d, the additive log-ratios."""

    shares: int

    @property
    def dimension(self) -> int:
        return self.shares - 1

    def points(self, y: Tensor) -> Tensor:
        """x, with sum 1."""
        return self._logs(y).clamp(min=LOG[0]).exp()

    def coordinates(self, x: Tensor) -> Tensor:
        """y, infinite for a share of 0."""
        return x[:, :-1].log() - x[:, -1:].log()

    def log_volume(self, y: Tensor) -> Tensor:
        """Σ log x over all shares."""
        return self._logs(y).sum(1)

    def _logs(self, y: Tensor) -> Tensor:
        return torch.cat([y, torch.zeros_like(y[:, :1])], 1).log_softmax(1)


@dataclass(frozen=True)
class SphereChart:
    """Of directions in ℝᵈ: any vector, of which the length does not matter."""

    space: int

    @property
    def dimension(self) -> int:
        return self.space

    def points(self, y: Tensor) -> Tensor:
        """x, of length 1; y = 0 has none, and gives 0."""
        return y / y.norm(dim=1, keepdim=True).clamp(min=1e-150)

    def coordinates(self, x: Tensor) -> Tensor:
        """y as long as y mostly is."""
        return x * (self.space + EXTRA) ** 0.5

    def log_volume(self, y: Tensor) -> Tensor:
        """log of χ's density at ‖y‖, over ‖y‖^(d−1): the sphere of that length is so much larger."""
        degrees = self.space + EXTRA
        squared = (y**2).sum(1)
        constant = (1 - degrees / 2) * math.log(2) - math.lgamma(degrees / 2)
        return constant + EXTRA / 2 * squared.clamp(min=1e-300).log() - squared / 2


class Unconstrained(Energy):
    """The law of y, for a fit's law of x: an Energy on all of ℝᵏ with the fit's Z."""

    def __init__(self, fit: "ExponentialFit") -> None:
        super().__init__()
        self.fit, self.chart = fit, fit.domain.chart(*fit.event_shape)
        self.event_shape = (self.chart.dimension,)

    @property
    def sigma_range(self) -> tuple[float, float]:
        return 0.0, 0.0

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """Of y `(b, k)`, nats, without −log Z, `(b,)`; raises `ValueError` for another shape, or σ ≠ 0."""
        check_event(x, self.event_shape)
        check_level(sigma, self.sigma_range)
        y = x.double()
        return (self.fit.unchecked(self.chart.points(y)) + self.chart.log_volume(y)).to(x.dtype)

    def points(self, y: Tensor) -> Tensor:
        """x `(b, d)` of y `(b, k)`."""
        check_event(y, self.event_shape)
        return self.chart.points(y)

    def coordinates(self, x: Tensor) -> Tensor:
        """y `(b, k)` of rows x `(b, d)` of the domain.

        Raises:
            ValueError: rows that are not in the domain, or at the edge of it, where y is infinite.
        """
        check_event(x, self.fit.event_shape)
        self.fit.domain.check(x)
        y = self.chart.coordinates(x)
        wrong = ~y.isfinite().all(1)
        if wrong.any():
            raise ValueError(f"row {int(wrong.nonzero()[0])} is at the edge of the domain, which has no coordinates")
        return y
