"""Kernel estimators of the score of a sample that need no density: regularised regression with a vector-valued kernel 𝒦.

With L̂g = (1/n) Σₐ 𝒦(·, xₐ) g(xₐ) and ζ̂ = (1/n) Σₐ div_xₐ 𝒦(xₐ, ·), integration by parts says that L s = −ζ for the score s
of the data, and an estimator is ŝ = −g_λ(L̂)ζ̂ with some g_λ(τ) ≈ 1/τ:

    Stein             𝒦 = k I          g(τ) = 1/(τ + λ)
    spectral Stein    𝒦 = k I          g(τ) = 1/τ on the largest eigenvalues, 0 on the others
    Tikhonov          𝒦 = Γ = −∇²k     g(τ) = 1/(τ + λ)
    ν-method          𝒦 = Γ = −∇²k     a polynomial in τ, close to 1/τ for τ > λ ~ 1/t² after t steps

L̂g only looks at g(X), so (L̂ + λ)ŝ = −ζ̂ is a linear system for ŝ(X), and then ŝ = −(ζ̂ + (1/n) Σₐ 𝒦(·, xₐ) ŝ(xₐ))/λ
everywhere else. With Γ, ŝ is a gradient, and Tikhonov's is the score of the full kernel exponential family with no base.

Reference: Zhou, Shi & Zhu 2020, arXiv:2005.10099 (the framework); Li & Turner 2018, arXiv:1705.07107; Shi, Sun & Zhu 2018,
arXiv:1806.02925; Engl, Hanke & Neubauer 1996, Regularization of Inverse Problems, section 6.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from scorefield.densities.kernel.curl_free import DIRECT, curl_free_product, drift, ridge_regression, solve_positive
from scorefield.densities.kernel.expansion import CLEAN, Expansion, clean, in_blocks, in_short
from scorefield.densities.kernel.exponential import folds
from scorefield.densities.kernel.kernels import Kernel, check_kernel, default_kernel
from scorefield.densities.rows import varying_rows
from scorefield.interfaces import Score, check_count, is_real


class FittedScore(Score, Protocol):
    """A score that tells its score-matching loss ½‖s(x)‖² + tr ∇s(x) of each row, `(n,)`."""

    def loss(self, x: Tensor) -> Tensor: ...


class ScoreEstimator(Protocol):
    """Settings that make a score of rows `(n, d)`; a `KernelExponentialFamily` is one too."""

    def fit(self, x: Any) -> FittedScore: ...


@dataclass(frozen=True)
class CurlFreeScore:
    """The gradient of a function in the span of a kernel's derivatives; float64 inside, answers in the dtype of `x`.

    Raises:
        ValueError: in use, events of another shape or of integers, and σ ≠ 0.
    """

    expansion: Expansion
    """the log-density up to a constant, near the data"""

    sigma_range: ClassVar[tuple[float, float]] = CLEAN

    def __repr__(self) -> str:
        return f"CurlFreeScore({in_short(self.expansion.kernel, self.expansion.centres)})"

    @property
    def event_shape(self) -> tuple[int, ...]:
        return tuple(self.expansion.centres.shape[1:])

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """ŝ(x), `(b, d)`: a formula, not a gradient."""
        return self.expansion.gradient(clean(x, sigma, self.event_shape)).to(x.dtype)

    def loss(self, x: Tensor) -> Tensor:
        """½‖ŝ(x)‖² + tr ∇ŝ(x) of each row, `(n,)`, by closed form."""
        y = clean(x, 0.0, self.event_shape)
        return ((self.expansion.gradient(y) ** 2).sum(1) / 2 + self.expansion.laplacian(y)).to(x.dtype)


@dataclass(frozen=True)
class DiagonalScore:
    """ŝ(x) = Σₐ k(x, xₐ) wₐ + c ζ̂(x), coordinates apart, so that ŝ need not be a gradient; dtypes and errors as above."""

    kernel: Kernel
    centres: Tensor
    """X, `(n, d)`"""
    weights: Tensor
    """wₐ, `(n, d)`"""
    factor: float = 0.0
    """c"""

    sigma_range: ClassVar[tuple[float, float]] = CLEAN

    def __repr__(self) -> str:
        return f"DiagonalScore({in_short(self.kernel, self.centres)})"

    @property
    def event_shape(self) -> tuple[int, ...]:
        return tuple(self.centres.shape[1:])

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """ŝ(x), `(b, d)`: a formula, not a gradient."""
        y = clean(x, sigma, self.event_shape)
        smooth = in_blocks(lambda rows: self.kernel(rows, self.centres) @ self.weights, y, len(self.centres))
        return (smooth + self._drift.gradient(y)).to(x.dtype)

    def loss(self, x: Tensor) -> Tensor:
        """½‖ŝ(x)‖² + tr ∇ŝ(x) of each row, `(n,)`, by closed form."""
        y = clean(x, 0.0, self.event_shape)
        trace = self._drift.laplacian(y) - Expansion(self.kernel, self.centres, slopes=self.weights).value(y)
        return ((self.score(y) ** 2).sum(1) / 2 + trace).to(x.dtype)

    @property
    def _drift(self) -> Expansion:
        """The function whose gradient is c ζ̂."""
        n = len(self.centres)
        return Expansion(self.kernel, self.centres, values=self.centres.new_full((n,), -self.factor / n))


def diagonal_drift(kernel: Kernel, x: Tensor) -> Tensor:
    """ζ̂(X) of the kernel k I, `(n, d)`: (1/n) Σ_b ∇k(x_b, xₐ), derivatives with respect to x_b."""
    return Expansion(kernel, x, values=x.new_full((len(x),), -1 / len(x))).gradient(x)


@dataclass(frozen=True)
class SteinEstimator:
    """Li & Turner's: ŝ(X) = −(K + ηI)⁻¹⟨∇, K⟩ with η = nλ, and Tikhonov's extension to other points; O(n³) time, O(n²) memory.

    Raises:
        ValueError: what is no kernel, a ridge that is not positive; in `fit`, rows that are not `(n, d)`, too few, or not
            finite, a constant column, and a matrix that is singular to rounding error.
    """

    kernel: Kernel | None = None
    """None is a Gaussian kernel whose bandwidth is the median distance between rows"""
    ridge: float = 1e-3
    """λ; k(x, x) = 1 is its unit"""

    def __post_init__(self) -> None:
        check_kernel(self.kernel)
        _check_ridge(self.ridge)

    def fit(self, x: Any) -> DiagonalScore:
        x = varying_rows(x)
        kernel = self.kernel or default_kernel(x)
        matrix = kernel(x, x) / len(x)
        matrix.diagonal().add_(self.ridge)
        at_data = -solve_positive(matrix, diagonal_drift(kernel, x))
        return DiagonalScore(kernel, x, at_data / (-len(x) * self.ridge), -1 / self.ridge)


@dataclass(frozen=True)
class SpectralSteinEstimator:
    """Shi, Sun & Zhu's: the score's coefficients on the leading eigenfunctions of the kernel; O(n³) time, O(n²) memory.

    Raises:
        ValueError: what is no kernel, a share outside (0, 1]; in `fit`, rows that are not `(n, d)`, too few, or not finite,
            and a constant column.
    """

    kernel: Kernel | None = None
    """None is a Gaussian kernel whose bandwidth is the median distance between rows"""
    share: float = 0.99
    """as many eigenvalues are kept, from the largest down, as make up this share of their sum"""

    def __post_init__(self) -> None:
        check_kernel(self.kernel)
        if not (is_real(self.share) and 0 < self.share <= 1):
            raise ValueError(f"the share of the spectrum must be in (0, 1], got {self.share!r}")

    def fit(self, x: Any) -> DiagonalScore:
        x = varying_rows(x)
        kernel = self.kernel or default_kernel(x)
        functions = eigenfunctions(kernel, x, self.share)
        return DiagonalScore(kernel, x, -functions @ (functions.mT @ diagonal_drift(kernel, x)))


def eigenfunctions(kernel: Kernel, x: Tensor, share: float) -> Tensor:
    """Q `(n, j)`, so that ψⱼ = Σₐ k(·, xₐ) Qₐⱼ are the j leading eigenfunctions, orthonormal under the empirical measure.

    Nyström's extension: with eigenvalues τⱼ and unit vectors uⱼ of K/n, Qⱼ = uⱼ/(√n τⱼ), and ψⱼ(X) = √n uⱼ. Eigenvalues
    that rounding leaves nothing of are never among them.
    """
    n = len(x)
    values, vectors = torch.linalg.eigh(kernel(x, x) / n)
    values, vectors = values.flip(0), vectors.flip(1)
    count = 1 + int((values.cumsum(0) < share * values.sum() * (1 - 1e-12)).sum())
    count = min(count, int((values > 10 * n * torch.finfo(x.dtype).eps * values[0]).sum()))
    return vectors[:, :count] / (math.sqrt(n) * values[:count])


@dataclass(frozen=True)
class CurlFreeTikhonov:
    """Ridge regression with Γ, the score of the full kernel exponential family with no base.

    Up to n·d = 5,000 unknowns by Cholesky, O((nd)³) time and 400 MB; beyond by conjugate gradients, O(n²d) time a step and
    O(nd) memory, with steps that grow like 1/(ℓ√λ).

    Raises:
        ValueError: what is no kernel, a ridge that is not positive; in `fit`, rows that are not `(n, d)`, too few, or not
            finite, a constant column, and a matrix that is singular to rounding error.
    """

    kernel: Kernel | None = None
    """None is a Gaussian kernel whose bandwidth is the median distance between rows"""
    ridge: float = 1e-3
    """λ, in units of 1/x², so the default suits data of variance about 1"""

    def __post_init__(self) -> None:
        check_kernel(self.kernel)
        _check_ridge(self.ridge)

    def fit(self, x: Any) -> CurlFreeScore:
        x = varying_rows(x)
        return CurlFreeScore(ridge_regression(self.kernel or default_kernel(x), x, self.ridge, None, x.numel() <= DIRECT))


@dataclass(frozen=True)
class NuMethod:
    """Accelerated gradient steps on L s = −ζ with Γ, stopped early; O(n²d) time a step and O(nd) memory.

    Raises:
        ValueError: what is no kernel, steps that are no whole number of at least 1, ν that is not positive; in `fit`, rows that
            are not `(n, d)`, too few, or not finite, and a constant column.
    """

    kernel: Kernel | None = None
    """None is a Gaussian kernel whose bandwidth is the median distance between rows"""
    iterations: int = 20
    """t, which acts like a ridge of λ = 1/(ℓt)²"""
    nu: float = 1.0
    """ν: scores that are L^ν of something are estimated without saturation"""

    def __post_init__(self) -> None:
        check_kernel(self.kernel)
        check_count("iterations", self.iterations)
        if not (is_real(self.nu) and 0 < self.nu < math.inf):
            raise ValueError(f"nu must be positive and finite, got {self.nu!r}")

    def fit(self, x: Any) -> CurlFreeScore:
        """After each step ŝ = ∇(c ξ̂ + Σₐ ⟨wₐ, ∇k(xₐ, ·)⟩), of which c and w `(n, d)` are kept, now and one step before."""
        x = varying_rows(x)
        n, kernel = len(x), self.kernel or default_kernel(x)
        scale = 1 / -float(kernel.derivatives(x.new_zeros(1), 1)[1])  # ‖L̂‖ ≤ ‖Γ(x, x)‖ = −ψ′(0), so scale · L̂ ≤ I
        at_data = drift(kernel, x).gradient(x)
        c, w = 0.0, torch.zeros_like(x)
        c_before, w_before = c, w
        for step in range(1, self.iterations + 1):
            momentum, rate = nu_coefficients(step, self.nu)
            score = c * at_data + curl_free_product(kernel, x, w)
            c, c_before = c + momentum * (c - c_before) - rate * scale, c
            w, w_before = w + momentum * (w - w_before) - (rate * scale / n) * score, w
        return CurlFreeScore(Expansion(kernel, x, slopes=w, curvatures=x.new_full((n,), c / n)))


def nu_coefficients(step: int, nu: float) -> tuple[float, float]:
    """μ and ω of step k = 1, 2, … of the ν-method, uₖ = uₖ₋₁ + μ(uₖ₋₁ − uₖ₋₂) + ω(y − Auₖ₋₁), for 0 ≤ A ≤ I."""
    k = step
    if k == 1:
        return 0.0, (4 * nu + 2) / (4 * nu + 1)
    shared = (k + 2 * nu - 1) * (2 * k + 4 * nu - 1)
    momentum = (k - 1) * (2 * k - 3) * (2 * k + 2 * nu - 1) / (shared * (2 * k + 2 * nu - 3))
    return momentum, 4 * (2 * k + 2 * nu - 1) * (k + nu - 1) / shared


Estimator = TypeVar("Estimator", bound=ScoreEstimator)


def select(candidates: Sequence[Estimator], x: Any, validation: float = 0.2, splits: int = 5, seed: int = 0) -> Estimator:
    """The candidate of the smallest mean loss on held-out rows, over `splits` disjoint held-out shares of the rows `(n, d)`.

    A candidate that cannot be fitted, `ValueError`, or whose loss is not finite counts as none.

    Raises:
        ValueError: no candidates, rows that no candidate takes, a share or a number of splits that does not fit the rows; or
            no candidate is left, with the reason of the last.
    """
    if not candidates:
        raise ValueError("there are no candidates to select from")
    parts = folds(x, validation, splits, seed)
    losses, reason = [math.inf] * len(candidates), ""
    for i, candidate in enumerate(candidates):
        try:
            loss = sum(float(candidate.fit(train).loss(held_out).mean()) for train, held_out in parts)
        except ValueError as error:
            reason = f"; the last error: {error}"
        else:
            losses[i] = loss if math.isfinite(loss) else math.inf
    if min(losses) == math.inf:
        raise ValueError(f"none of the {len(candidates)} candidates has a finite loss{reason}")
    return candidates[losses.index(min(losses))]


def _check_ridge(ridge: object) -> None:
    if not (is_real(ridge) and 0 < ridge < math.inf):
        raise ValueError(f"the ridge must be positive and finite, got {ridge!r}")
