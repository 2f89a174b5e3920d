"""Smooth radial kernels k(x, y) = φ(‖x − y‖²/ℓ²) on rows, and the derivatives that score matching needs.

    Gaussian               φ(u) = exp(−u/2)
    rational quadratic     φ(u) = (1 + u/(2a))^(−a)
    inverse multiquadric   φ(u) = (1 + u)^(−1/2), the rational quadratic with a = 1/2

All derivatives are taken of ψ(t) = φ(2t/ℓ²), a function of half the squared distance t = ‖δ‖²/2, δ = x − y, because then
no factor of two is left: ∇ₓk = ψ′δ, ∇ₓ²k = ψ″δδᵀ + ψ′I, Δₓk = ψ″‖δ‖² + dψ′ and ∇ₓΔₓk = (ψ‴‖δ‖² + (d + 2)ψ″)δ; for
derivatives in y, one sign changes for each of them. For all three kernels k(x, x) = 1 and ψ′(0) = −1/ℓ².
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.interfaces import is_real

MEDIAN_ROWS = 2000
"""rows that the median heuristic looks at, at most"""


@dataclass(frozen=True)
class Kernel(ABC):
    """A radial kernel with k(x, x) = 1.

    Raises:
        ValueError: a bandwidth that is not a positive and finite number, or a tensor without dimensions that holds one.
    """

    bandwidth: float | Tensor = 1.0
    """ℓ, in units of x; a scalar tensor where its gradient is wanted"""

    def __post_init__(self) -> None:
        value: object = self.bandwidth
        if isinstance(value, Tensor):
            value = value.item() if value.ndim == 0 else f"a tensor of shape {tuple(value.shape)}"
        if not (is_real(value) and 0 < value < math.inf):
            raise ValueError(f"the bandwidth of a kernel must be positive and finite, got {value}")

    @abstractmethod
    def derivatives(self, squared: Tensor, order: int) -> list[Tensor]:
        """ψ, ψ′, … up to the derivative `order`, in half the squared distance; each of the shape of `squared` = ‖δ‖²."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """k(xᵢ, yⱼ), `(n, m)`, for rows `(n, d)` and `(m, d)`."""
        return self.derivatives(squared_distances(x, y), 0)[0]


@dataclass(frozen=True)
class Gaussian(Kernel):
    """exp(−‖x − y‖²/(2ℓ²)); ψ⁽ᵏ⁾ = (−1/ℓ²)ᵏ ψ."""

    def derivatives(self, squared: Tensor, order: int) -> list[Tensor]:
        rate = -1 / self.bandwidth**2
        value = (squared * (rate / 2)).exp()
        return [value * rate**k for k in range(order + 1)]


@dataclass(frozen=True)
class RationalQuadratic(Kernel):
    """(1 + ‖x − y‖²/(2aℓ²))^(−a); ψ⁽ᵏ⁾ = (−1/ℓ²)ᵏ (a + 1)…(a + k − 1)/a^(k−1) · (1 + ‖x − y‖²/(2aℓ²))^(−a−k).

    Raises:
        ValueError: a bandwidth or an exponent that is not positive and finite.
    """

    exponent: float = 1.0
    """a: the kernel falls like ‖x − y‖^(−2a), and is the Gaussian one in the limit a → ∞"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_real(self.exponent) and 0 < self.exponent < math.inf):
            raise ValueError(f"the exponent of a kernel must be positive and finite, got {self.exponent}")

    def derivatives(self, squared: Tensor, order: int) -> list[Tensor]:
        a, rate = self.exponent, -1 / self.bandwidth**2
        base = 1 - squared * (rate / (2 * a))
        values = [base**-a]
        for k in range(order):
            values.append(values[-1] / base * (rate * (a + k) / a))
        return values


@dataclass(frozen=True)
class InverseMultiquadric(RationalQuadratic):
    """(1 + ‖x − y‖²/ℓ²)^(−1/2): the rational quadratic kernel with exponent 1/2."""

    exponent: float = 0.5


def check_kernel(kernel: object) -> None:
    """Raises `ValueError` for what is neither a kernel nor None, which stands for `default_kernel`."""
    if not (kernel is None or isinstance(kernel, Kernel)):
        raise ValueError(f"the kernel must be None or a kernel such as Gaussian(1.0), got {kernel!r}")


def default_kernel(x: Tensor) -> Kernel:
    """The Gaussian one whose bandwidth is the median distance between the rows `(n, d)`; errors as in `median_bandwidth`."""
    return Gaussian(median_bandwidth(x))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """‖xᵢ − yⱼ‖², `(n, m)`, for rows `(n, d)` and `(m, d)`, by one matrix product about the mean of `y`.

    It is not clamped at 0, although rounding may make it negative by about 1e-16 of the squared spread: where a clamp
    acts, the second derivative is lost, and kernels are smooth on both sides of 0.
    """
    centre = y.mean(0)
    x, y = x - centre, y - centre
    return (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.mT


def median_bandwidth(x: Tensor) -> float:
    """The median distance between two of the rows `(n, d)`, of at most 2,000 evenly spread ones; the usual first guess of ℓ.

    Raises:
        ValueError: fewer than two rows, or at least half of the distances are 0.
    """
    if len(x) < 2:
        raise ValueError(f"a median distance needs at least two rows, got {len(x)}")
    few = x.detach().double()[:: -(-len(x) // MEDIAN_ROWS)]
    median = float(torch.pdist(few).median())
    if not median > 0:
        raise ValueError("the median distance between rows is 0: most rows are equal, so give the kernel a bandwidth")
    return median
