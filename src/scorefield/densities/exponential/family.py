"""Exponential families log p(x) = θᵀT(x) + log q₀(x) − log Z(θ), fitted by score matching: one linear solve, Z never appears.

With G of the domain (`domains`), D = ∇T and s₀ = ∇ log q₀ the objective is a quadratic of θ, for each row

    ½ θᵀAθ + bᵀθ,     A = D G Dᵀ,     b = tr(G ∇²T) + (∇·G) Dᵀ + D G s₀

    θ̂ = −Ā⁻¹ b̄              Ā, b̄ means over rows
    ψ = Aθ̂ + b              what a row says about θ̂; its mean is 0
    Cov θ̂ = Ā⁻¹ (Σ ψψᵀ/n²) Ā⁻¹     the sandwich, true whether or not the model is

Derivatives of T are taken along one direction after another by forward mode over forward mode, all components of T at once, in
blocks of rows: time O(n d p²) and the cost of d + 1 evaluations of T, memory O(p²) beside a block.

Reference: Hyvärinen 2005, JMLR 6 (score matching), 2007, doi:10.1016/j.csda.2006.09.003; Forbes & Lauritzen 2015,
arXiv:1406.0238 (exponential families, sandwich); Matsuda, Uehara & Hyvärinen 2021, arXiv:1905.09436 (information criterion).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield.densities.exponential.domains import Domain, reals
from scorefield.densities.exponential.fit import ExponentialFit

Statistic = Callable[[Tensor], Tensor]
"""T, rows `(b, d)` to `(b, p)`, each row by itself"""
BLOCK = 2**21
"""numbers in a block of derivatives"""
KEPT = 2**25
"""numbers of derivatives that are kept between the solve and the sandwich; more are computed again"""
COLLINEAR = 1e-13
"""eigenvalue of the scaled Ā below which components of T are collinear"""


class Quadratic(NamedTuple):
    """½ θᵀAθ + bᵀθ of each of b rows, A as its factor: A = RᵀR − r rᵀ with R `(b, d, p)`, r `(b, p)`."""

    root: Tensor
    """√w D"""
    across: Tensor | None
    """uᵀ D"""
    linear: Tensor
    """b `(b, p)`"""

    def gram(self, weights: Tensor) -> Tensor:
        """Σ weight · A, `(p, p)`."""
        flat = (self.root * weights.sqrt()[:, None, None]).flatten(0, 1)
        found = flat.T @ flat
        if self.across is not None:
            found -= (self.across * weights[:, None]).T @ self.across
        return found

    def times(self, coef: Tensor) -> Tensor:
        """A θ, `(b, p)`."""
        found = torch.einsum("bdp,bd->bp", self.root, self.root @ coef)
        return found if self.across is None else found - self.across * (self.across @ coef)[:, None]


class ExponentialFamily:
    """All densities proportional to exp(θᵀT(x)) q₀(x) on a domain.

    Args:
        statistic: T, any PyTorch function of rows `(b, d)`, float64, to `(b, p)`, each row by itself.
        domain: where the rows live: `reals()`, `orthant()`, a `Box`, `Simplex` or `Sphere`.
        names: of the components of T; "T0", "T1", … without.
        base: log q₀ `(b,)` of rows, up to a constant; 0 without.
    """

    def __init__(
        self,
        statistic: Statistic,
        domain: Domain | None = None,
        names: Sequence[str] | None = None,
        base: Statistic | None = None,
    ) -> None:
        self.statistic, self.domain, self.base = statistic, domain or reals(), base
        self.names = None if names is None else tuple(names)

    def fit(self, X: Any, sample_weight: Any = None, ridge: float = 0.0) -> ExponentialFit:
        """Minimise the mean over rows of `X` `(n, d)`; an Energy with what it knows of its coefficients.

        Args:
            sample_weight: `(n,)`, how much each row counts; only ratios matter.
            ridge: adds ridge/2 · Σ Ā_kk θ_k², which has no unit; then fewer rows than components will do, and estimates are
                drawn to 0.

        Raises:
            ValueError: rows that are not in the domain, not finite or fewer than components without a ridge; weights that
                are negative or all zero; T of another shape, constant, collinear or without derivatives at a row.
        """
        x = rows(X)
        self.domain.check(x)
        weights = normalised(sample_weight, len(x))
        if not (ridge >= 0 and math.isfinite(ridge)):
            raise ValueError(f"ridge must be at least 0, got {ridge}")
        p = self._components(x)
        names = tuple(f"T{k}" for k in range(p)) if self.names is None else self.names
        if len(names) != p:
            raise ValueError(f"T has {p} components, and there are {len(names)} names")
        if len(x) < p and not ridge:
            raise ValueError(f"{len(x)} rows are too few for {p} coefficients: give more, or a ridge")
        domain = self.domain.scaled_to(x)
        shares = weights.split(self._block(x, p))
        kept = list(self.quadratics(x, domain)) if x.numel() * p <= KEPT else None
        gram, linear = x.new_zeros(p, p), x.new_zeros(p)
        for part, share in zip(kept or self.quadratics(x, domain), shares, strict=True):
            gram += part.gram(share)
            linear += share @ part.linear
        inverse = inverted(gram, ridge, names)
        coef = -inverse @ linear
        outer = x.new_zeros(p, p)
        for part, share in zip(kept or self.quadratics(x, domain), shares, strict=True):
            psi = (part.times(coef) + part.linear) * share[:, None]
            outer += psi.T @ psi
        loss = float(coef @ gram @ coef / 2 + linear @ coef)
        return ExponentialFit(self.statistic, self.base, domain, names, coef, inverse, outer, loss, len(x), x.shape[1])

    def quadratics(self, x: Tensor, domain: Domain) -> Iterator[Quadratic]:
        """The objective of each row, in blocks; raises `ValueError` for a row where it is not finite."""
        p, start = self._components(x), 0
        for part in x.split(self._block(x, p)):
            found = self._quadratic(part, domain)
            wrong = ~(found.linear.isfinite().all(1) & found.root.isfinite().flatten(1).all(1))
            if wrong.any():
                raise ValueError(f"row {start + int(wrong.nonzero()[0])}: T has no finite derivative there")
            start += len(part)
            yield found

    def _quadratic(self, x: Tensor, domain: Domain) -> Quadratic:
        metric, d = domain.metric(x), x.shape[1]
        ahead = torch.eye(d, dtype=x.dtype)[:, None].expand(d, *x.shape)
        directions = ahead if metric.u is None else torch.cat([ahead, metric.u[None]])
        first, second = derivatives(self._with_base, x, directions)
        root, across = first[:, :d] * metric.w.sqrt()[:, :, None], None
        linear = torch.einsum("bd,bdp->bp", metric.w, second[:, :d])
        linear += torch.einsum("bd,bdp->bp", metric.divergence, first[:, :d])
        if metric.u is not None:
            across = first[:, d]
            linear -= second[:, d]
        found = Quadratic(root, across, linear)
        if self.base is None:
            return found
        last = torch.zeros(root.shape[-1], dtype=x.dtype)
        last[-1] = 1
        return Quadratic(
            root[..., :-1], None if across is None else across[:, :-1], (linear + found.times(last))[:, :-1]
        )  # the base is a last component of T, whose coefficient is 1

    def _with_base(self, x: Tensor) -> Tensor:
        found = self.statistic(x)
        return found if self.base is None else torch.cat([found, self.base(x)[:, None]], 1)

    def _components(self, x: Tensor) -> int:
        """p, after a look at two rows; raises `ValueError` where T is not `(b, p)`, or not of each row by itself."""
        two = x[:2]
        found = self.statistic(two)
        if found.ndim != 2 or len(found) != len(two) or not found.shape[1]:
            raise ValueError(f"T of rows ({len(two)}, {x.shape[1]}) must be ({len(two)}, p), got {tuple(found.shape)}")
        if not torch.allclose(self.statistic(two[:1])[0], found[0], rtol=1e-9, atol=0, equal_nan=True):
            raise ValueError("T of a row depends on the other rows: it must be a function of each row by itself")
        return found.shape[1]

    def _block(self, x: Tensor, p: int) -> int:
        return max(1, BLOCK // ((x.shape[1] + 1) * p))


def derivatives(statistic: Statistic, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivatives of T at rows `(b, d)` along k directions `(k, b, d)`: both `(b, k, p)`."""
    k, b = directions.shape[:2]
    v = directions.flatten(0, 1)

    def slope(y: Tensor) -> Tensor:
        return torch.func.jvp(statistic, (y,), (v,))[1]

    first, second = torch.func.jvp(slope, (x.repeat(k, 1),), (v,))  # type: ignore[misc]  # its type allows for has_aux
    return first.unflatten(0, (k, b)).transpose(0, 1), second.unflatten(0, (k, b)).transpose(0, 1)


def inverted(gram: Tensor, ridge: float, names: Sequence[str]) -> Tensor:
    """(Ā + ridge · diag Ā)⁻¹; raises `ValueError` that names the components without derivative, or that are collinear."""
    scale = gram.diagonal().clamp(min=0).sqrt()
    still = scale <= 1e-14 * scale.max()
    if still.any():
        raise ValueError(f"T's {listed(names, still)} zero derivative at every row: a constant has no coefficient")
    scaled = gram / scale / scale[:, None]
    eigenvalues, vectors = torch.linalg.eigh(scaled + ridge * torch.eye(len(gram), dtype=gram.dtype))
    if eigenvalues[0] < COLLINEAR:
        weights = vectors[:, 0].abs()
        among = [name for name, weight in zip(names, weights.tolist(), strict=True) if weight > 0.05 * float(weights.max())]
        raise ValueError(f"T's components {', '.join(among)} are collinear on these rows: leave one out, or give a ridge")
    return (vectors / eigenvalues) @ vectors.T / scale / scale[:, None]


def listed(names: Sequence[str], chosen: Tensor) -> str:
    """Those chosen, with a verb: component x0 has, components x0, x1 have."""
    found = [name for name, is_so in zip(names, chosen.tolist(), strict=True) if is_so]
    return f"component {found[0]} has" if len(found) == 1 else f"components {', '.join(found)} have"


def rows(X: Any) -> Tensor:
    """Rows `(n, d)`, float64; a vector is one column. Raises `ValueError` for none, or one that is not finite."""
    x = X.detach().double() if isinstance(X, Tensor) else torch.from_numpy(np.array(X, dtype=np.float64))
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or not x.numel():
        raise ValueError(f"rows (n, d) expected, got {tuple(x.shape)}")
    wrong = ~x.isfinite().all(1)
    if wrong.any():
        raise ValueError(f"row {int(wrong.nonzero()[0])} is not finite")
    return x


def normalised(sample_weight: Any, n: int) -> Tensor:
    """Weights `(n,)` with sum 1; raises `ValueError` for others than n, or negative, all zero or not finite."""
    if sample_weight is None:
        return torch.full((n,), 1 / n, dtype=torch.float64)
    weights = torch.as_tensor(np.asarray(sample_weight, dtype=np.float64))
    if weights.shape != (n,):
        raise ValueError(f"sample_weight must be ({n},), got {tuple(weights.shape)}")
    wrong = ~(weights.isfinite() & (weights >= 0))
    if wrong.any():
        raise ValueError(
            f"sample_weight must be at least 0 and finite, got {weights[wrong][0]:g} in row {int(wrong.nonzero()[0])}"
        )
    if not weights.any():
        raise ValueError("sample_weight is zero in every row")
    return weights / weights.sum()
