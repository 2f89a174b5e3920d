"""The kernel exponential family, log p(x) = f(x) + log q₀(x) − log Z with f in the space of a kernel, fitted by score matching.

The objective is E[½‖s‖² + tr ∇s] + (λ/2)‖f‖² with s = ∇f + ∇ log q₀, quadratic in f, so that one linear system gives its
minimum. In the full form that system has n·d unknowns (`curl_free`). In the Nyström form f = Σₘ αₘ k(zₘ, ·), the zₘ being
a random subset of the rows, and (B/n + λK)α = −b with

    Bₘₗ = Σₐ ⟨∇k(zₘ, xₐ), ∇k(zₗ, xₐ)⟩,   Kₘₗ = k(zₘ, zₗ),   bₘ = (1/n) Σₐ Δk(zₘ, xₐ) + ⟨∇ log q₀(xₐ), ∇k(zₘ, xₐ)⟩

A smooth kernel's K is singular to rounding error long before m is large, so the system is solved in the basis W = UΛ^(−1/2)
of the eigenvectors of K whose eigenvalues rounding leaves anything of; there K is the identity.

Reference: Sriperumbudur et al. 2017, JMLR 18(57), theorem 5 (the full form); Sutherland et al. 2018, arXiv:1705.08360 (the
Nyström form, and hyper-parameters by the validated loss); Wenliang et al. 2019, arXiv:1811.08357 (its gradient).
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scorefield.densities.kernel.curl_free import DIRECT, ridge_regression, solve_positive
from scorefield.densities.kernel.expansion import CLEAN, Expansion, block_rows, clean, in_short
from scorefield.densities.kernel.kernels import Kernel, check_kernel, default_kernel, squared_distances
from scorefield.densities.rows import varying_rows
from scorefield.interfaces import Energy, check_count, is_real
from scorefield.randomness import keyed_generator

CHUNK = 2**20
"""numbers in the kernel matrix of one backward pass, of which about fifteen are alive"""
LEAST_BANDWIDTH, MOST_BANDWIDTH = 0.1, 100.0
"""of the kernel's, in `tuned`; another lower bound can be given"""
AT_BOUND = 0.01
"""difference of logarithms by which a setting is at its bound"""


@dataclass(frozen=True)
class GaussianBase:
    """log q₀ = log N(mean, C), C given by its inverse `(d, d)`."""

    mean: Tensor
    precision: Tensor

    def log_density(self, x: Tensor) -> Tensor:
        """log q₀(x), normalised, nats, `(n,)`."""
        offset = x - self.mean
        log_det = 2 * torch.linalg.cholesky(self.precision).diagonal().log().sum()
        return (log_det - len(self.mean) * math.log(2 * math.pi) - (offset @ self.precision * offset).sum(1)) / 2

    def score(self, x: Tensor) -> Tensor:
        """∇ log q₀(x), `(n, d)`."""
        return (self.mean - x) @ self.precision

    def laplacian(self) -> Tensor:
        """Δ log q₀, the same everywhere."""
        return -self.precision.diagonal().sum()

    def inflated(self, factor: float | Tensor) -> "GaussianBase":
        """The Gaussian with `factor` times the covariance."""
        return GaussianBase(self.mean, self.precision / factor)


def fitted_gaussian(x: Tensor) -> GaussianBase:
    """The Gaussian with the mean and the covariance of the rows `(n, d)`.

    Raises:
        ValueError: a covariance that is singular to rounding error, as it is for n ≤ d or a constant column.
    """
    offset = x - x.mean(0)
    root, failed = torch.linalg.cholesky_ex(offset.mT @ offset / len(x))
    if failed or not (root.diagonal() > 1e-7 * offset.std(0)).all():
        raise ValueError("the covariance of the rows is singular: drop dependent columns, or use base=None")
    return GaussianBase(x.mean(0), torch.cholesky_inverse(root))


class FittedKernelFamily(Energy):
    """f(x) + log q₀(x), an unnormalised log-density of rows `(d,)` at σ = 0; float64 inside, answers in the dtype of `x`.

    Without a base f tends to 0 far away, so that only its score, and differences of it near the data, mean anything.

    Args:
        expansion: f; its centres and coefficients become buffers.
        base: q₀, or None for no base.

    Raises:
        ValueError: in use, events of another shape or of integers, and σ ≠ 0.
    """

    centres: Tensor
    values: Tensor | None
    slopes: Tensor | None
    curvatures: Tensor | None
    mean: Tensor | None
    precision: Tensor | None

    def __init__(self, expansion: Expansion, base: GaussianBase | None) -> None:
        super().__init__()
        self.kernel = expansion.kernel
        self.event_shape = tuple(expansion.centres.shape[1:])
        self.register_buffer("centres", expansion.centres)
        self.register_buffer("values", expansion.values)
        self.register_buffer("slopes", expansion.slopes)
        self.register_buffer("curvatures", expansion.curvatures)
        self.register_buffer("mean", None if base is None else base.mean)
        self.register_buffer("precision", None if base is None else base.precision)

    def extra_repr(self) -> str:
        return in_short(self.kernel, self.centres) + ("" if self.base is None else ", a Gaussian base")

    @property
    def sigma_range(self) -> tuple[float, float]:
        return CLEAN

    @property
    def expansion(self) -> Expansion:
        """f, the log-density relative to the base."""
        return Expansion(self.kernel, self.centres, self.values, self.slopes, self.curvatures)

    @property
    def base(self) -> GaussianBase | None:
        """q₀, inflated as asked for."""
        return None if self.mean is None or self.precision is None else GaussianBase(self.mean, self.precision)

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p(x) + log Z, nats, `(b,)`."""
        y = clean(x, sigma, self.event_shape)
        value = self.expansion.value(y)
        return (value if self.base is None else value + self.base.log_density(y)).to(x.dtype)

    def loss(self, x: Tensor) -> Tensor:
        """½‖s(x)‖² + tr ∇s(x) of each row, `(n,)`, by closed form: its mean over held-out rows is the score-matching loss."""
        return _matching(self.expansion, self.base, clean(x, 0.0, self.event_shape)).to(x.dtype)


@dataclass(frozen=True)
class KernelExponentialFamily:
    """Settings of a fit by score matching.

    Memory and time, for n rows of d coordinates and m inducing rows, in float64: the full form holds two matrices of
    (nd)² numbers and takes (nd)³/3 multiplications; the Nyström form holds about 6m² numbers and 4 blocks of 2²⁰,
    whatever n is, and takes 2ndm² + 10m³ multiplications. Log-density and loss take about 2d multiplications and one
    exponential a centre and a row, in blocks of a few MiB; the score, which is autograd's gradient, keeps about five
    numbers a centre and a row until it is done.

    Raises:
        ValueError: what is no kernel, a ridge that is negative, an inflation that is not positive, or inducing rows that are no
            whole number of at least 1.
    """

    kernel: Kernel | None = None
    """None is a Gaussian kernel whose bandwidth is the median distance between rows"""
    ridge: float = 1e-3
    """λ, of the term (λ/2)‖f‖², in units of 1/x², so the default suits data of variance about 1; the full form has no 0"""
    inducing: int | None = None
    """m, rows that kernels are centred on in the Nyström form (all rows where there are fewer); None is the full form"""
    base: float | None = 1.0
    """the base has the mean of the rows and this many times their covariance; None is no base"""
    seed: int = 0
    """of the choice of inducing rows, and of validation rows"""

    def __post_init__(self) -> None:
        check_kernel(self.kernel)
        if not (is_real(self.ridge) and 0 <= self.ridge < math.inf):
            raise ValueError(f"the ridge must be at least 0 and finite, got {self.ridge!r}")
        if self.base is not None and not (is_real(self.base) and 0 < self.base < math.inf):
            raise ValueError(f"the base must be None or a positive factor of the covariance, got {self.base!r}")
        if self.inducing is not None:
            check_count("inducing", self.inducing)

    def fit(self, x: Any) -> FittedKernelFamily:
        """The minimiser of the score-matching loss of the rows `(n, d)` with the ridge.

        Raises:
            ValueError: rows that are not `(n, d)`, too few, or not finite; a constant column; more than 5,000 unknowns n·d in
                the full form; a matrix that is singular, because of ridge 0 or nearly so; a base for rows of singular
                covariance.
        """
        x = varying_rows(x)
        self._check_size(x)
        kernel = self._kernel(x)
        base = None if self.base is None else fitted_gaussian(x).inflated(self.base)
        if self.inducing is not None:
            system = _Nystrom(kernel, x, self._inducing_rows(x), base)
            return FittedKernelFamily(system.expansion(system.solve(self.ridge)), base)
        if self.ridge == 0:
            raise ValueError("the kernel's matrix is singular: in the full form the loss has no minimum with ridge 0")
        return FittedKernelFamily(ridge_regression(kernel, x, self.ridge, None if base is None else base.score(x), True), base)

    def tuned(
        self,
        x: Any,
        validation: float = 0.2,
        splits: int = 5,
        starts: Sequence[float] = (0.4, 1.0, 2.5),
        steps: int = 30,
        least_ridge: float = 0.0,
        most_inflation: float = 1e3,
        least_bandwidth: float = LEAST_BANDWIDTH,
    ) -> "KernelExponentialFamily":
        """These settings with the bandwidth, the ridge and the base's inflation that minimise the validated loss.

        L-BFGS in their logarithms, with the gradient through the linear solve, from each of `starts` times the bandwidth;
        the inflation stays at 1 or above. Everything is fitted to training rows, inducing rows being some of them. The full
        form is tuned by the Nyström form with all training rows. An evaluation costs about two fits a split. The loss of a
        few dozen held-out rows is easily fooled by a small bandwidth; one split is enough for some thousands of rows.

        Args:
            x: the rows, `(n, d)`.
            validation: share of the rows that each split holds out, in (0, 1).
            splits: held-out parts, disjoint, so at most 1/validation; their losses are averaged.
            starts: factors of the kernel's bandwidth, the median distance if there is no kernel.
            steps: of L-BFGS, at most, from each start.
            least_ridge, most_inflation, least_bandwidth: bounds, the last a factor of the kernel's bandwidth. The loss looks at
                the density where rows are and nowhere else: with a wide base, hardly any ridge or narrow kernels the best one
                may have mass far outside, or a spike at each row, which only its normalisation shows. A setting at its bound is
                therefore no optimum: the loss goes on falling beyond, and the bound is what chose. `tuned` warns of that
                where the bandwidth or the ridge is at its default bound, and not where you gave another.

        Raises:
            ValueError: a share or a number of splits that does not fit the rows, no starts or such as are not positive, a ridge
                of 0, which has no logarithm, bounds that leave nothing between them, or anything that `fit` refuses.
        """
        from scipy.optimize import minimize  # a slow import

        starts = list(starts) if isinstance(starts, Iterable) else [starts]
        if self.ridge == 0 or not starts:
            raise ValueError("tuning needs a positive ridge and at least one start")
        if not all(is_real(factor) and 0 < factor < math.inf for factor in starts):
            raise ValueError(f"starts must be positive factors of the bandwidth, got {starts}")
        check_count("steps", steps)
        check_bounds(least_ridge, most_inflation, least_bandwidth)
        x = varying_rows(x)
        self._check_size(x)
        parts = folds(x, validation, splits, self.seed)
        kernel, with_base = self._kernel(x), self.base is not None
        problems = [_Validated(kernel, t, self._inducing_rows(t), h, with_base) for t, h in parts]

        def objective(theta: Sequence[float]) -> tuple[float, list[float]]:
            losses, gradients = zip(*[problem(theta) for problem in problems], strict=True)
            return sum(losses) / len(losses), [sum(g) / len(losses) for g in zip(*gradients, strict=True)]

        size = float(kernel.bandwidth)
        spans = [
            (least_bandwidth * size, MOST_BANDWIDTH * size),
            (max(least_ridge, 1e-10 / size**2), max(least_ridge, 1e4 / size**2)),
            (1.0, most_inflation),
        ][: 2 + with_base]
        bounds = [(math.log(low), math.log(high)) for low, high in spans]
        found = []
        for factor in starts:
            start = [math.log(value) for value in [factor * size, self.ridge, self.base or 1.0][: len(spans)]]
            options = {"maxiter": steps}
            found.append(minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options))
        values = [math.exp(value) for value in min(found, key=lambda result: float(result.fun)).x]
        base = values[2] if with_base else None
        given = {"bandwidth": least_bandwidth != LEAST_BANDWIDTH, "ridge": least_ridge > 0}
        for (name, own), value, (low, _) in zip(given.items(), values, spans, strict=False):
            if not own and math.log(value / low) < AT_BOUND:
                message = f"the {name}, {value:.3g}, is at its lower bound: the held-out loss would go on falling beyond"
                warnings.warn(f"{message}; least_{name} sets another bound", stacklevel=2)
        return replace(self, kernel=replace(kernel, bandwidth=values[0]), ridge=values[1], base=base)

    def _check_size(self, x: Tensor) -> None:
        unknowns = x.numel()
        if self.inducing is None and unknowns > DIRECT:
            raise ValueError(
                f"the full form has n·d = {unknowns} unknowns, more than {DIRECT}: use the Nyström form, such as inducing=500"
            )

    def _kernel(self, x: Tensor) -> Kernel:
        return self.kernel or default_kernel(x)

    def _inducing_rows(self, x: Tensor) -> Tensor:
        if self.inducing is None:
            return x
        chosen = torch.randperm(len(x), generator=keyed_generator(self.seed, "kernel inducing rows"))[: self.inducing]
        return x[chosen.to(x.device)]


def check_bounds(least_ridge: object, most_inflation: object, least_bandwidth: object) -> None:
    """Raises `ValueError` for bounds of `tuned` that are no numbers, or beyond the other end of what they bound."""
    if not (is_real(least_ridge) and 0 <= least_ridge < math.inf):
        raise ValueError(f"least_ridge must be at least 0 and finite, got {least_ridge!r}")
    if not (is_real(most_inflation) and most_inflation >= 1):
        raise ValueError(f"most_inflation must be at least 1, got {most_inflation!r}")
    if not (is_real(least_bandwidth) and 0 < least_bandwidth <= MOST_BANDWIDTH):
        raise ValueError(f"least_bandwidth must be in (0, {MOST_BANDWIDTH:g}], got {least_bandwidth!r}")


def folds(x: Any, validation: float, splits: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Training and held-out rows of each split; a random `validation` share of the rows `(n, d)` is held out, disjointly.

    Raises:
        ValueError: bad rows, a share outside (0, 1) or that leaves fewer than two training rows or no held-out one, or
            splits that are no whole number, or more than there are disjoint held-out parts.
    """
    x = varying_rows(x)
    check_count("splits", splits)
    count = int(validation * len(x) + 1e-9) if is_real(validation) and 0 < validation < 1 else 0
    if not (1 <= count <= len(x) - 2 and splits <= len(x) // count):
        raise ValueError(f"{len(x)} rows cannot be split {splits} times with disjoint held-out shares of {validation}")
    order = torch.randperm(len(x), generator=keyed_generator(seed, "kernel validation rows")).to(x.device)
    starts = range(0, splits * count, count)
    return [(x[torch.cat([order[:i], order[i + count :]])], x[order[i : i + count]]) for i in starts]


def _matching(f: Expansion, base: GaussianBase | None, x: Tensor) -> Tensor:
    """½‖s‖² + tr ∇s of each row, `(n,)`, for s = ∇f + ∇ log q₀."""
    score, trace = f.gradient(x), f.laplacian(x)
    if base is not None:
        score, trace = score + base.score(x), trace + base.laplacian()
    return (score**2).sum(1) / 2 + trace


class _Nystrom:
    """The Nyström system in the basis W `(m, r)`, where it is (H + λI)w = −h and α = Ww."""

    def __init__(self, kernel: Kernel, x: Tensor, centres: Tensor, base: GaussianBase | None) -> None:
        self.kernel, self.centres, m = kernel, centres, len(centres)
        eigenvalues, vectors = torch.linalg.eigh(kernel(centres, centres))
        kept = eigenvalues > 10 * m * torch.finfo(x.dtype).eps * eigenvalues[-1]
        self.basis = vectors[:, kept] * eigenvalues[kept].rsqrt()
        self.hessian = x.new_zeros(self.basis.shape[1], self.basis.shape[1])
        self.linear = x.new_zeros(self.basis.shape[1])
        for rows in x.split(block_rows(m * x.shape[1] // 4 + 1)):
            squared, d = squared_distances(rows, centres), x.shape[1]
            p = kernel.derivatives(squared, 2)
            slopes = ((rows[:, :, None] - centres.mT) * p[1][:, None]).reshape(-1, m) @ self.basis  # ∇ of the basis
            self.hessian.addmm_(slopes.mT, slopes, alpha=1 / len(x))
            self.linear += (p[2] * squared + d * p[1]).sum(0) @ self.basis / len(x)
            if base is not None:
                self.linear += base.score(rows).reshape(-1) @ slopes / len(x)

    def solve(self, ridge: float, right: Tensor | None = None) -> Tensor:
        """α `(m,)`, or the solution for another right side `(m,)` in place of −b.

        Raises:
            ValueError: a ridge of 0 where the rows do not determine α, or a matrix that is singular to rounding error.
        """
        if ridge == 0 and self.basis.shape[1] < len(self.centres):
            raise ValueError("the kernel's matrix is singular: inducing rows are equal or nearly so, so use a positive ridge")
        matrix = self.hessian.clone()
        matrix.diagonal().add_(ridge)
        target = -self.linear if right is None else right @ self.basis
        return self.basis @ solve_positive(matrix, target[:, None])[:, 0]

    def expansion(self, alpha: Tensor) -> Expansion:
        """f = Σₘ αₘ k(zₘ, ·)."""
        return Expansion(self.kernel, self.centres, alpha)


@dataclass(frozen=True)
class _Validated:
    """The held-out loss L(θ, α) at the α(θ) of the training rows, and its gradient; θ logarithms as in `tuned`.

    With J the training objective, ∇_α J = Aα + b = 0 defines α, so dL/dθ = ∂_θ [L − ⟨v, ∇_α J⟩] with Av = ∇_α L, in
    which α and v are constants. ⟨v, ∇_α J⟩ needs the two functions of α and v only, no matrix: memory and time of the
    gradient are those of evaluating them.
    """

    kernel: Kernel
    train: Tensor
    centres: Tensor
    held_out: Tensor
    with_base: bool

    def __call__(self, theta: Sequence[float]) -> tuple[float, list[float]]:
        settings = torch.tensor([float(t) for t in theta], dtype=torch.float64, requires_grad=True)
        kernel, ridge, base = self._at(settings.detach())
        system = _Nystrom(kernel, self.train, self.centres, base)
        alpha = system.solve(float(ridge)).requires_grad_()
        loss, slope = self._sum(lambda x: _matching(system.expansion(alpha), base, x).sum(), self.held_out, alpha)
        adjoint = system.solve(float(ridge), slope / len(self.held_out))
        alpha = alpha.detach()

        def held_out(x: Tensor) -> Tensor:
            kernel, _, base = self._at(settings)
            return _matching(Expansion(kernel, self.centres, alpha), base, x).sum()

        def stationary(x: Tensor) -> Tensor:
            kernel, _, base = self._at(settings)
            f, g = Expansion(kernel, self.centres, alpha), Expansion(kernel, self.centres, adjoint)
            score = f.gradient(x) if base is None else f.gradient(x) + base.score(x)
            return (g.gradient(x) * score).sum() + g.laplacian(x).sum()

        kernel, ridge, _ = self._at(settings)
        penalty = ridge * (adjoint @ kernel(self.centres, self.centres) @ alpha)
        (of_penalty,) = torch.autograd.grad(penalty, settings)
        of_loss = self._sum(held_out, self.held_out, settings)[1]
        of_train = self._sum(stationary, self.train, settings)[1]
        gradient = of_loss / len(self.held_out) - of_train / len(self.train) - of_penalty
        return loss / len(self.held_out), gradient.tolist()

    def _at(self, settings: Tensor) -> tuple[Kernel, Tensor, GaussianBase | None]:
        values = settings.exp()
        base = fitted_gaussian(self.train).inflated(values[2]) if self.with_base else None
        return replace(self.kernel, bandwidth=values[0]), values[1], base

    def _sum(self, term: Callable[[Tensor], Tensor], x: Tensor, of: Tensor) -> tuple[float, Tensor]:
        """The sum of `term` over chunks of rows, and its gradient; the graph of one chunk is alive at a time."""
        total, gradient = 0.0, torch.zeros_like(of)
        for rows in x.split(max(1, CHUNK // len(self.centres))):
            value = term(rows)
            total += float(value.detach())
            gradient += torch.autograd.grad(value, of)[0]
        return total, gradient
