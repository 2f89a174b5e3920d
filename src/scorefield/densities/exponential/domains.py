"""Where a density lives, and how closely score matching looks at the edge of it.

On a domain M ⊆ ℝᵈ the score s = ∇ log p is measured by a matrix G(x) that is nothing across the edge of M, so that integration
by parts leaves no term there, and that maps every vector to one along M:

    J(p) = E[½ sᵀ G s + ∇·(G s)],        G = diag(w) − u uᵀ

    box        w_j = min(distance of x_j to its nearest wall, cap_j)ᵃ, 1 where there is none           u = 0
    simplex    w = xᵃ Σ xᵃ                                                                             u = xᵃ
    sphere     w = ‖x‖²                                                                                u = x

w is the boundary weight, u takes away what points out of M. On all of ℝᵈ that is G = I; on the sphere the projection I − x xᵀ,
whose divergence ∇·G = (1 − d) x is the sphere's curvature.

Reference: Hyvärinen 2007, doi:10.1016/j.csda.2006.09.003 (the orthant); Yu, Drton & Shojaie 2019, JMLR 20:76 (min(x, c)ᵃ);
Mardia, Kent & Laha 2016, arXiv:1604.08470 (spheres); Scealy & Wood 2023, arXiv:2012.12461 (the simplex, with other weights).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from scorefield.densities.exponential.charts import BoxChart, Chart, SimplexChart, SphereChart

ON = 1e-6
"""how far rows of the simplex may be from Σ x = 1, and those of the sphere from ‖x‖ = 1"""


class Metric(NamedTuple):
    """G = diag(w) − u uᵀ at each of b points, with its divergence (∇·G)_j = Σᵢ ∂ᵢGᵢⱼ; all `(b, d)`."""

    w: Tensor
    u: Tensor | None
    """None is 0"""
    divergence: Tensor


@runtime_checkable
class Domain(Protocol):
    """A subset of ℝᵈ with its metric G and coordinates."""

    solid: ClassVar[bool]
    """whether it has an inside, so that −∞ can be the log-density elsewhere"""

    def inside(self, x: Tensor) -> Tensor:
        """Which of rows `(n, d)` are in the domain, bool `(n,)`."""
        ...

    def check(self, x: Tensor) -> None:
        """Raises `ValueError` for rows `(n, d)` that are not in the domain, and names the first."""
        ...

    def scaled_to(self, x: Tensor, weights: Tensor) -> "Domain":
        """The same domain, with the lengths that its weight leaves open taken from rows `(n, d)` and their weights `(n,)`."""
        ...

    def metric(self, x: Tensor) -> Metric:
        """G at rows `(b, d)`."""
        ...

    def chart(self, d: int) -> Chart:
        """Coordinates of its points in ℝᵈ."""
        ...


@dataclass(frozen=True)
class Box:
    """lower ≤ x ≤ upper, coordinate by coordinate; without walls ℝᵈ, with lower = 0 the positive orthant.

    Args:
        lower, upper: a number for all coordinates or one for each; ∓∞ is no wall.
        power: a of the weight. With 1 the score may stay finite at the walls (truncated Gaussians); with 2 the density may
            go like x^(k−1) for any k > 0 there (Gamma).
        cap: the distance from which a wall is no longer felt, a number or one for each coordinate; None is the median distance.
        unit: the length each coordinate is measured in, a number or one for each: w is unit² · min(distance/unit, cap/unit)ᵃ.
            Of a model whose components of T share coefficients between columns, estimates depend on it.

    Raises:
        ValueError: lower ≥ upper, a power below 1, a cap or a unit that is not positive.
    """

    lower: float | Sequence[float] = -math.inf
    upper: float | Sequence[float] = math.inf
    power: float = 1.0
    cap: float | Sequence[float] | None = None
    unit: float | Sequence[float] = 1.0

    solid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        lower, upper = self.walls
        if not (lower < upper).all():
            raise ValueError(f"a box needs lower < upper, got {self.lower} and {self.upper}")
        if not (self.power >= 1 and math.isfinite(self.power)):
            raise ValueError(f"the power of a boundary weight must be at least 1, got {self.power}")
        for name, value in (("cap", self.cap), ("unit", self.unit)):
            if value is not None and not (_vector(value) > 0).all():
                raise ValueError(f"the {name} of a boundary weight must be positive, got {value}")

    @property
    def walls(self) -> tuple[Tensor, Tensor]:
        """Lower and upper, float64."""
        return _vector(self.lower), _vector(self.upper)

    def inside(self, x: Tensor) -> Tensor:
        """Between the walls, or on one."""
        lower, upper = self.walls
        return ((x >= lower) & (x <= upper)).all(1)

    def check(self, x: Tensor) -> None:
        """Raises `ValueError` for the first row beyond a wall, with its column."""
        lower, upper = self.walls
        for walls in (lower, upper):
            if walls.ndim and len(walls) != x.shape[1]:
                raise ValueError(f"the box has walls for {len(walls)} columns, the rows have {x.shape[1]}")
        outside = ~((x >= lower) & (x <= upper))
        if outside.any():
            row, column = outside.nonzero()[0].tolist()
            low, high = (walls.expand(x.shape[1])[column].item() for walls in (lower, upper))
            raise ValueError(f"row {row}: {x[row, column]:g} in column {column} is not in [{low:g}, {high:g}]")

    def scaled_to(self, x: Tensor, weights: Tensor) -> "Box":
        """With each column's median distance to its nearest wall as cap, where none was given."""
        if self.cap is not None or not any(walls.isfinite().any() for walls in self.walls):
            return self
        distance = weighted_median(self._distance(x)[0], weights)
        beyond = distance * (1 + 1e-6)  # rounding shall not decide on which side of it the median row is
        return replace(self, cap=tuple(torch.where(distance > 0, beyond, 1.0).tolist()))

    def metric(self, x: Tensor) -> Metric:
        """w as above, ∂_j w_j as divergence."""
        unit, cap = _vector(self.unit), math.inf if self.cap is None else _vector(self.cap)
        distance, direction = (part / unit for part in self._distance(x))
        near, walled = distance * unit < cap, distance < math.inf
        w = torch.where(walled, distance.minimum(torch.as_tensor(cap / unit)) ** self.power, 1.0)
        slope = torch.where(near & walled, self.power * distance ** (self.power - 1) * direction, 0.0)
        return Metric((unit**2 * w).expand_as(x).to(x), None, (unit**2 * slope).to(x))

    def chart(self, d: int) -> BoxChart:
        """Logarithms of distances to a wall, logits between two."""
        lower, upper = self.walls
        return BoxChart(lower.expand(d), upper.expand(d))

    def _distance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """To the nearest wall, ∞ without one, and 1 where that is the lower, −1 where the upper."""
        lower, upper = self.walls
        below, above = x - lower, upper - x
        return below.minimum(above), torch.where(below < above, 1.0, -1.0)


@dataclass(frozen=True)
class Simplex:
    """x ≥ 0 with Σ x = 1: shares, compositions.

    Args:
        power: a of the weight. With 2 any Dirichlet law is estimated, however much of it lies at the edge; with 1 densities
            must vanish there, and estimates are a little more precise.

    Raises:
        ValueError: a power below 1.
    """

    power: float = 2.0

    solid: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (self.power >= 1 and math.isfinite(self.power)):
            raise ValueError(f"the power of a boundary weight must be at least 1, got {self.power}")

    def inside(self, x: Tensor) -> Tensor:
        """No negative share, and a sum of 1 but for `ON`."""
        return (x >= 0).all(1) & ((x.sum(1) - 1).abs() <= ON)

    def check(self, x: Tensor) -> None:
        """Raises `ValueError` for the first row with a negative share, or whose sum is not 1."""
        wrong = ~self.inside(x)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"row {row} is not in the simplex: least share {x[row].min():g}, sum {x[row].sum():g}; "
                "divide each row by its sum"
            )

    def scaled_to(self, x: Tensor, weights: Tensor) -> "Simplex":
        """Itself."""
        return self

    def metric(self, x: Tensor) -> Metric:
        """w and u as above; (∇·G)_j = a (x_j^(a−1) Σ xᵃ − x_jᵃ Σ x^(a−1))."""
        u, slope = x**self.power, self.power * x ** (self.power - 1)
        total = u.sum(1, keepdim=True)
        return Metric(u * total, u, slope * total - u * slope.sum(1, keepdim=True))

    def chart(self, d: int) -> SimplexChart:
        """Additive log-ratios."""
        return SimplexChart(d)


@dataclass(frozen=True)
class Sphere:
    """‖x‖ = 1 in ℝᵈ: directions. Densities are by its surface measure."""

    solid: ClassVar[bool] = False

    def inside(self, x: Tensor) -> Tensor:
        """Of length 1 but for `ON`."""
        return (x.norm(dim=1) - 1).abs() <= ON

    def check(self, x: Tensor) -> None:
        """Raises `ValueError` for the first row that is not of length 1."""
        wrong = ~self.inside(x)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(f"row {row} is not on the sphere, its length is {x[row].norm():g}: divide each row by its length")

    def scaled_to(self, x: Tensor, weights: Tensor) -> "Sphere":
        """Itself."""
        return self

    def metric(self, x: Tensor) -> Metric:
        """I − x xᵀ."""
        return Metric((x**2).sum(1, keepdim=True).expand_as(x), x, (1 - x.shape[1]) * x)

    def chart(self, d: int) -> SphereChart:
        """Vectors of any length."""
        return SphereChart(d)


def reals() -> Box:
    """ℝᵈ: plain score matching."""
    return Box()


def orthant(power: float = 1.0, cap: float | Sequence[float] | None = None) -> Box:
    """x ≥ 0, coordinate by coordinate; power and cap as in `Box`."""
    return Box(0.0, math.inf, power, cap)


def weighted_median(x: Tensor, weights: Tensor) -> Tensor:
    """Of each column of rows `(n, d)`: the least value up to which lies half of the weight, `(d,)`."""
    values, order = x.sort(0)
    reached = weights[order].cumsum(0) >= (0.5 - 1e-12) * weights.sum()
    return values.gather(0, reached.int().argmax(0, keepdim=True))[0]


def _vector(value: float | Sequence[float]) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)
