"""The curl-free kernel Γ(x, y) = −∇²k(x − y), and ridge regression with it.

Γ reproduces gradients of functions f in the space of k. Of a score s = ∇f + ∇ log q₀, two things are seen at the data:
s itself there, and by parts E⟨Γ(x, ·)v, s⟩ = −E div(Γ(x, ·)v). The score-matching objective with ridge (λ/2)‖f‖² is then

    ½ ⟨f, Ĉf⟩ + ⟨f, ξ̂⟩ + (λ/2)‖f‖²,   Ĉ = (1/n) Σₐᵢ ∂ᵢk(xₐ, ·) ⊗ ∂ᵢk(xₐ, ·)
    ξ̂ = (1/n) Σₐ Δk(xₐ, ·) + ⟨∇ log q₀(xₐ), ∇k(xₐ, ·)⟩,   ζ̂ = ∇ξ̂

and (Ĉ + λ)f = −ξ̂ gives, with F = ∇f(X) as the n·d unknowns and K_Γ their matrix,

    (K_Γ/n + λI) F = −ζ̂(X),   f = −ξ̂/λ − (1/(nλ)) Σ_b ⟨F_b, ∇k(x_b, ·)⟩

which is theorem 5 of Sriperumbudur et al. 2017, JMLR 18(57), solved for F = −nλβ in place of the coefficients β.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scorefield.densities.kernel.expansion import Expansion
from scorefield.densities.kernel.kernels import Kernel, squared_distances

DIRECT = 5000
"""unknowns n·d up to which their matrix is formed: 200 MB of float64, and twice that at the peak"""
TOLERANCE = 1e-10
"""of the residual of conjugate gradients, relative to the right side"""
MAX_STEPS = 10_000
"""of conjugate gradients"""


def curl_free_matrix(kernel: Kernel, x: Tensor) -> Tensor:
    """K_Γ `(n·d, n·d)`: the blocks Γ(xₐ, x_b) = −ψ″δδᵀ − ψ′I, rows of one point next to each other."""
    n, d = x.shape
    _, first, second = kernel.derivatives(squared_distances(x, x), 2)
    offset = x[:, None] - x
    matrix = torch.einsum("ab,abi,abj->aibj", -second, offset, offset)
    matrix.diagonal(dim1=1, dim2=3).sub_(first[..., None])
    return matrix.reshape(n * d, n * d)


def curl_free_product(kernel: Kernel, x: Tensor, v: Tensor) -> Tensor:
    """Σ_b Γ(xₐ, x_b) v_b, `(n, d)`, in O(n²d) time; no matrix larger than a block is formed."""
    return Expansion(kernel, x, slopes=v).gradient(x)


def drift(kernel: Kernel, x: Tensor, base_score: Tensor | None = None) -> Expansion:
    """ξ̂, whose gradient is ζ̂; `base_score` is ∇ log q₀(X) `(n, d)`."""
    n = len(x)
    slopes = None if base_score is None else base_score / n
    return Expansion(kernel, x, slopes=slopes, curvatures=x.new_full((n,), 1 / n))


def ridge_regression(kernel: Kernel, x: Tensor, ridge: float, base_score: Tensor | None, direct: bool) -> Expansion:
    """f of the module's formula: by Cholesky in O((nd)³) time, or by conjugate gradients in O(n²d) a step and O(nd) memory.

    Raises:
        ValueError: a matrix that is singular to rounding error, or conjugate gradients that do not converge.
    """
    n = len(x)
    right = -drift(kernel, x, base_score).gradient(x)
    if direct:
        matrix = curl_free_matrix(kernel, x).div_(n)
        matrix.diagonal().add_(ridge)
        slopes = solve_positive(matrix, right.reshape(-1, 1)).reshape(x.shape)
    else:
        slopes = conjugate_gradients(lambda v: curl_free_product(kernel, x, v) / n + ridge * v, right)
    return ridge_solution(kernel, x, slopes, ridge, base_score)


def ridge_solution(kernel: Kernel, x: Tensor, slopes: Tensor, ridge: float, base_score: Tensor | None) -> Expansion:
    """f of the module's formula, given F = ∇f(X) `(n, d)`."""
    n = len(x)
    total = slopes if base_score is None else slopes + base_score
    return Expansion(kernel, x, slopes=-total / (n * ridge), curvatures=x.new_full((n,), -1 / (n * ridge)))


def solve_positive(matrix: Tensor, right: Tensor) -> Tensor:
    """The solution `(n, k)` of a symmetric positive definite system, by Cholesky.

    Raises:
        ValueError: the matrix is not positive definite, or only so by rounding error.
    """
    root, failed = torch.linalg.cholesky_ex(matrix)
    smallest = float(root.diagonal().min()) ** 2
    if failed or not smallest > len(matrix) * torch.finfo(matrix.dtype).eps * float(matrix.diagonal().max()):
        raise ValueError("the kernel's matrix is singular: raise the ridge, or leave out rows that are equal or nearly so")
    return torch.cholesky_solve(right, root)


def conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
    """The solution of a positive definite system given by its product, to a relative residual of 1e-10; like `right`.

    Raises:
        ValueError: the system is not positive definite to rounding error, or 10,000 steps are not enough.
    """
    solution, residual = torch.zeros_like(right), right
    direction, square = residual, float((residual**2).sum())
    goal = TOLERANCE**2 * square
    for _ in range(MAX_STEPS):
        if square <= goal:
            return solution
        image = product(direction)
        curvature = float((direction * image).sum())
        if not 0 < curvature < math.inf:
            break
        step = square / curvature
        solution, residual = solution + step * direction, residual - step * image
        before, square = square, float((residual**2).sum())
        direction = residual + square / before * direction
    raise ValueError("the kernel's matrix is singular: conjugate gradients do not converge, so raise the ridge")
