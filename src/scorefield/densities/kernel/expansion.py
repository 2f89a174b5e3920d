"""Functions in the span of a kernel and its derivatives at given centres, evaluated in blocks of rows.

    f(x) = Σₘ aₘ k(zₘ, x) + ⟨bₘ, ∇k(zₘ, x)⟩ + cₘ Δk(zₘ, x),   derivatives with respect to zₘ

Every kernel exponential family has such an f as its log-density, and every curl-free score estimator is ∇f of one. With
δ = x − zₘ, e = ⟨bₘ, δ⟩ and ψ as in `kernels`,

    f  = Σₘ aₘ ψ − e ψ′ + cₘ (ψ″‖δ‖² + dψ′)
    ∇f = Σₘ (aₘ ψ′ − e ψ″ + cₘ (ψ‴‖δ‖² + (d + 2)ψ″)) δ − ψ′ bₘ
    Δf = Σₘ aₘ (ψ″‖δ‖² + dψ′) − e (ψ‴‖δ‖² + (d + 2)ψ″) + cₘ (ψ⁗‖δ‖⁴ + (2d + 4)ψ‴‖δ‖² + d(d + 2)ψ″)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.densities.kernel.kernels import Kernel, squared_distances
from scorefield.interfaces import check_event, check_sigma

CLEAN = (0.0, 0.0)
BLOCK = 2**18
"""numbers in one block's kernel matrix, at most: 2 MiB, and a handful of such matrices are alive at a time"""


@dataclass(frozen=True)
class Expansion:
    """f of the module's formula; coefficients that are None count as 0. Everything is float64."""

    kernel: Kernel
    centres: Tensor
    """zₘ, `(m, d)`"""
    values: Tensor | None = None
    """aₘ, `(m,)`"""
    slopes: Tensor | None = None
    """bₘ, `(m, d)`"""
    curvatures: Tensor | None = None
    """cₘ, `(m,)`"""

    def __repr__(self) -> str:
        return f"Expansion({in_short(self.kernel, self.centres)})"

    def value(self, x: Tensor) -> Tensor:
        """f(x), `(n,)`, for rows `(n, d)`; differentiable, to any order."""
        return in_blocks(self._value, x, len(self.centres))

    def gradient(self, x: Tensor) -> Tensor:
        """∇f(x), `(n, d)`, as a formula."""
        return in_blocks(self._gradient, x, len(self.centres))

    def laplacian(self, x: Tensor) -> Tensor:
        """Δf(x), `(n,)`, as a formula."""
        return in_blocks(self._laplacian, x, len(self.centres))

    def _value(self, x: Tensor) -> Tensor:
        squared, p, d = *self._kernel(x, 0), x.shape[1]
        total = x.new_zeros(len(x))
        if self.values is not None:
            total = total + p[0] @ self.values
        if self.slopes is not None:
            total = total - (self._along(x) * p[1]).sum(1)
        if self.curvatures is not None:
            total = total + (p[2] * squared + d * p[1]) @ self.curvatures
        return total

    def _gradient(self, x: Tensor) -> Tensor:
        squared, p, d = *self._kernel(x, 1), x.shape[1]
        weight, direct = torch.zeros_like(squared), torch.zeros_like(x)
        if self.values is not None:
            weight = weight + p[1] * self.values
        if self.slopes is not None:
            weight = weight - self._along(x) * p[2]
            direct = p[1] @ self.slopes
        if self.curvatures is not None:
            weight = weight + (p[3] * squared + (d + 2) * p[2]) * self.curvatures
        return weighted_offsets(weight, x, self.centres) - direct

    def _laplacian(self, x: Tensor) -> Tensor:
        squared, p, d = *self._kernel(x, 2), x.shape[1]
        total = x.new_zeros(len(x))
        if self.values is not None:
            total = total + (p[2] * squared + d * p[1]) @ self.values
        if self.slopes is not None:
            total = total - (self._along(x) * (p[3] * squared + (d + 2) * p[2])).sum(1)
        if self.curvatures is not None:
            total = total + ((p[4] * squared + (2 * d + 4) * p[3]) * squared + d * (d + 2) * p[2]) @ self.curvatures
        return total

    def _kernel(self, x: Tensor, order: int) -> tuple[Tensor, list[Tensor]]:
        """‖δ‖² `(n, m)`, and ψ with as many derivatives as the coefficients need for `order` more of them."""
        extra = 2 if self.curvatures is not None else 1 if self.slopes is not None else 0
        squared = squared_distances(x, self.centres)
        return squared, self.kernel.derivatives(squared, order + extra)

    def _along(self, x: Tensor) -> Tensor:
        """e = ⟨bₘ, x − zₘ⟩, `(n, m)`."""
        assert self.slopes is not None
        centre = self.centres.mean(0)
        return (x - centre) @ self.slopes.mT - ((self.centres - centre) * self.slopes).sum(1)


def in_short(kernel: Kernel, centres: Tensor) -> str:
    """What a fit is made of, in words for its `repr`; `centres` are its rows `(m, d)`."""
    return "{} rows, {} columns, {}".format(*centres.shape, kernel)


def weighted_offsets(weight: Tensor, x: Tensor, centres: Tensor) -> Tensor:
    """Σₘ wₐₘ (xₐ − zₘ), `(n, d)`, for weights `(n, m)`."""
    centre = centres.mean(0)
    return weight.sum(1, keepdim=True) * (x - centre) - weight @ (centres - centre)


def in_blocks(function: Callable[[Tensor], Tensor], x: Tensor, columns: int) -> Tensor:
    """`function` of the rows of `x`, a block at a time, so that a block times `columns` is no more than `BLOCK` numbers."""
    return torch.cat([function(rows) for rows in x.split(block_rows(columns))])


def block_rows(columns: int) -> int:
    """Rows of a block of which each makes `columns` numbers."""
    return max(1, BLOCK // columns)


def clean(x: Tensor, sigma: float | Tensor, event_shape: tuple[int, ...]) -> Tensor:
    """`x` in float64, once its shape and dtype are right and σ is 0; errors as in `check_event` and `check_sigma`."""
    check_event(x, event_shape)
    check_sigma(sigma, x, CLEAN)
    return x.double()
