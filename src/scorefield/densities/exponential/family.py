"""Exponential families log p(x) = θᵀT(x) + log q₀(x) − log Z(θ), fitted by score matching: one linear solve, Z never appears.

With G of the domain (`domains`), D = ∇T and s₀ = ∇ log q₀ the objective is a quadratic of θ, for each row

    ½ θᵀAθ + bᵀθ,     A = D G Dᵀ,     b = tr(G ∇²T) + (∇·G) Dᵀ + D G s₀

    θ̂ = −Ā⁻¹ b̄              Ā, b̄ means over rows
    ψ = Aθ̂ + b              what a row says about θ̂; its mean is 0, with a ridge that of ψ + ridge · diag(A) θ̂
    Cov θ̂ = Ā⁻¹ (Σ ψψᵀ/n²) Ā⁻¹     the sandwich, true whether or not the model is, given G

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
from scorefield.densities.exponential.fit import ExponentialFit, Solution
from scorefield.densities.exponential.probe import FEW, Statistic, check_base, check_statistic, components, derivatives
from scorefield.densities.rows import checked_rows, column_names
from scorefield.interfaces import is_real

BLOCK = 2**21
"""numbers in a block of derivatives"""
KEPT = 2**25
"""numbers of derivatives that are kept between the solve and the sandwich; more are computed again"""
CONSTANT = 1e-13
"""times the slope that a component of this size might have: what rounding leaves of a constant's"""
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

    def diagonal(self) -> Tensor:
        """That of A, `(b, p)`."""
        found = (self.root**2).sum(1)
        return found if self.across is None else found - self.across**2

    def times(self, coef: Tensor) -> Tensor:
        """A θ, `(b, p)`."""
        found = torch.einsum("bdp,bd->bp", self.root, self.root @ coef)
        return found if self.across is None else found - self.across * (self.across @ coef)[:, None]


class ExponentialFamily:
    """All densities proportional to exp(θᵀT(x)) q₀(x) on a domain.

    Args:
        statistic: T, any PyTorch function of rows `(b, d)`, float64, to `(b, p)`, each row by itself, with a continuous ∇T:
            |x| and relu(x) are refused where the rows show the kink. T with an attribute `smooth = True` is not looked at.
        domain: where the rows live: `reals()`, `orthant()`, a `Box`, `Simplex` or `Sphere`.
        names: of the components of T; "T0", "T1", … without.
        base: log q₀ `(b,)` of rows, up to a constant, as smooth as T; 0 without.
        columns: d, where T is for rows of so many columns and no others.
        naming: names of the components from those of d columns, in place of `names` where the rows are a data frame.

    Raises:
        ValueError: two components of one name, or a domain that is none.
    """

    def __init__(
        self,
        statistic: Statistic,
        domain: Domain | None = None,
        names: Sequence[str] | None = None,
        base: Statistic | None = None,
        columns: int | None = None,
        naming: Callable[[Sequence[str]], Sequence[str]] | None = None,
    ) -> None:
        self.statistic, self.domain, self.base, self.columns = statistic, checked_domain(domain), base, columns
        self.naming = naming
        self.names = None if names is None else tuple(map(str, names))
        twice = [name for name in self.names or () if self.names and self.names.count(name) > 1]
        if twice:
            raise ValueError(f"two components of T are called {twice[0]}")

    def __repr__(self) -> str:
        return f"ExponentialFamily({len(self.names) if self.names else 'its'} components on {self.domain})"

    def fit(self, X: Any, sample_weight: Any = None, ridge: float = 0.0) -> ExponentialFit:
        """Minimise the mean over rows of `X` `(n, d)`; an Energy with what it knows of its coefficients.

        Args:
            sample_weight: `(n,)`, how much each row counts; only ratios matter, and standard errors are those of as many rows
                as have a weight.
            ridge: adds ridge/2 · Σ Ā_kk θ_k², which has no unit; then fewer rows than components will do, and estimates are
                drawn to 0, which intervals do not know of.

        Raises:
            ValueError: rows that are not in the domain, not finite or no more than components without a ridge; weights that
                are negative or all zero; T of another shape, with a kink, constant, collinear, without derivatives at a row,
                or without second derivatives at any.
        """
        x = checked_rows(X)
        if self.columns is not None and x.shape[1] != self.columns:
            raise ValueError(f"the family is for {self.columns} columns, the rows have {x.shape[1]}")
        self.domain.check(x)
        weights = normalised(sample_weight, len(x))
        if not (is_real(ridge) and 0 <= ridge < math.inf):
            raise ValueError(f"ridge must be a number and at least 0, got {ridge!r}")
        names, n = self._looked_at(x, column_names(X)), int((weights > 0).sum())
        p = len(names)
        if n <= p and not ridge:
            raise ValueError(f"{n} rows are too few for {p} coefficients: give more, or a ridge")
        domain = self.domain.scaled_to(x, weights)
        return ExponentialFit(self, domain, names, x.shape[1], self._solved(x, weights, domain, names, float(ridge)))

    def _solved(self, x: Tensor, weights: Tensor, domain: Domain, names: Sequence[str], ridge: float) -> Solution:
        """The solve and what it says of itself; weights have sum 1."""
        p, n = len(names), int((weights > 0).sum())
        shares = weights.split(self._block(x, p))
        kept = list(self.quadratics(x, domain, p)) if x.numel() * p <= KEPT else None
        gram, linear = x.new_zeros(p, p), x.new_zeros(p)
        for part, share in zip(kept or self.quadratics(x, domain, p), shares, strict=True):
            gram += part.gram(share)
            linear += share @ part.linear
        inverse = inverted(gram, ridge, names, self._size(x, domain))
        if not linear.any():
            raise ValueError("T has no second derivative at any row: of a linear T score matching sees nothing here")
        coef = -inverse @ linear
        outer, cross = x.new_zeros(p, p), x.new_zeros(p, p)
        for part, share in zip(kept or self.quadratics(x, domain, p), shares, strict=True):
            psi = (part.times(coef) + part.linear) * share[:, None]
            drawn = psi + ridge * part.diagonal() * coef * share[:, None]
            outer += drawn.T @ drawn
            cross += drawn.T @ psi
        loss = float(coef @ gram @ coef / 2 + linear @ coef)
        return Solution(coef, inverse @ outer @ inverse, n * float((inverse * cross).sum()), loss, n, ridge)

    def quadratics(self, x: Tensor, domain: Domain, p: int) -> Iterator[Quadratic]:
        """The objective of each row, in blocks; raises `ValueError` for a row where it is not finite."""
        start = 0
        for part in x.split(self._block(x, p)):
            found = self._quadratic(part, domain)
            sound = found.linear.isfinite().all(1) & found.root.isfinite().flatten(1).all(1)
            wrong = ~(sound & self._with_base(part).isfinite().all(1))
            if wrong.any():
                row = int(wrong.nonzero()[0])
                place = ", ".join(f"{value:.4g}" for value in part[row].tolist())
                raise ValueError(f"row {start + row}, at ({place}): T is not finite there, or its derivatives are not")
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

    def _looked_at(self, x: Tensor, columns: Sequence[str] | None) -> tuple[str, ...]:
        """The names of T's components; raises `ValueError` where score matching cannot be used with T or with log q₀."""
        p = components(self.statistic, x)
        names = self.names or tuple(f"T{k}" for k in range(p))
        if self.naming is not None and columns is not None:
            names = tuple(self.naming(columns))
        if len(names) != p:
            raise ValueError(f"T has {p} components, and there are {len(names)} names")
        if self.base is not None:
            check_base(self.base, x)
        if self.base is not None or not getattr(self.statistic, "smooth", False):
            check_statistic(self._with_base, x, (*names, "log q₀"))
        return names

    def _block(self, x: Tensor, p: int) -> int:
        return max(1, BLOCK // ((x.shape[1] + 1) * max(p, x.shape[1])))

    def _size(self, x: Tensor, domain: Domain) -> Tensor:
        """√A_kk of components that grow from 0 to what they are over the rows' size, `(p,)`, a guess from few rows."""
        few = x[:FEW]
        return self.statistic(few).abs().amax(0) / x.abs().max().clamp(min=1e-300) * domain.metric(few).w.max().sqrt()


def inverted(gram: Tensor, ridge: float, names: Sequence[str], size: Tensor) -> Tensor:
    """(Ā + ridge · diag Ā)⁻¹; raises `ValueError` that names the components without derivative, or that are collinear."""
    scale = gram.diagonal().clamp(min=0).sqrt()
    if (still := scale <= CONSTANT * size).any():
        raise ValueError(f"T's {listed(names, still)} zero derivative at every row: a constant has no coefficient")
    scaled = gram / scale / scale[:, None]
    eigenvalues, vectors = torch.linalg.eigh(scaled + ridge * torch.eye(len(gram), dtype=gram.dtype))
    if eigenvalues[0] < COLLINEAR:
        raise ValueError(
            f"T's components {', '.join(involved(names, vectors[:, 0]))} are collinear on these rows: leave one out, or give a "
            "ridge; of powers of columns far from 0, subtract the mean first"
        )
    return (vectors / eigenvalues) @ vectors.T / scale / scale[:, None]


def involved(names: Sequence[str], direction: Tensor) -> list[str]:
    """Those with a share in a direction `(p,)` along which nothing varies: more than a twentieth of the largest."""
    part = direction.abs()
    return [name for name, own in zip(names, part.tolist(), strict=True) if own > 0.05 * float(part.max())]


def listed(names: Sequence[str], chosen: Tensor) -> str:
    """Those chosen, with a verb: component x0 has, components x0, x1 have."""
    found = [name for name, is_so in zip(names, chosen.tolist(), strict=True) if is_so]
    return f"component {found[0]} has" if len(found) == 1 else f"components {', '.join(found)} have"


def normalised(sample_weight: Any, n: int) -> Tensor:
    """Weights `(n,)` with sum 1; raises `ValueError` for others than n, or negative, all zero or not finite."""
    if sample_weight is None:
        return torch.full((n,), 1 / n, dtype=torch.float64)
    if isinstance(sample_weight, Tensor):
        weights = sample_weight.detach().double()
    else:
        try:
            weights = torch.from_numpy(np.array(sample_weight, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise ValueError(f"sample_weight must be numbers: {error}") from error
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


def checked_domain(domain: Domain | None) -> Domain:
    """The reals without one; raises `ValueError` for what is no domain."""
    if domain is None:
        return reals()
    if isinstance(domain, type) or not isinstance(domain, Domain):
        raise ValueError(f"a domain is reals(), orthant(), a Box(…), Simplex() or Sphere(), got {domain!r}")
    return domain
