"""What a fit of an exponential family knows: its log-density, and how sure its coefficients are."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from scipy import stats
from torch import Tensor

from scorefield.densities.exponential.charts import Unconstrained
from scorefield.densities.exponential.domains import Domain
from scorefield.densities.rows import checked_rows
from scorefield.interfaces import Energy, check_event, check_level

if TYPE_CHECKING:
    from scorefield.densities.exponential.family import ExponentialFamily


class Wald(NamedTuple):
    """A test of R θ = r: the statistic, its degrees of freedom, and the probability of a larger one if that is true."""

    statistic: float
    degrees: int
    p_value: float


class Solution(NamedTuple):
    """Of the linear system."""

    coef: Tensor
    """θ̂ `(p,)`"""
    covariance: Tensor
    """the sandwich `(p, p)`"""
    effective: float
    loss: float
    n: int
    ridge: float


class ExponentialFit(Energy):
    """log p(x) = θᵀT(x) + log q₀(x) up to a constant, an Energy on the slice σ = 0, with the covariance of θ̂.

    Attributes:
        coef: θ̂ `(p,)`.
        names: of its components.
        family, domain: what was fitted; the domain with the lengths that the rows gave it.
        covariance: the sandwich `(p, p)`; of the mean of rows that need not follow the model. With a ridge, of what the drawn
            estimate tends to. Of a box whose cap came from the rows, given that cap: for a model that is wrong give `cap`.
        effective: how many parameters the fit has for the criterion, tr(A⁻¹V) with V the covariance of ψ; p where V = A, many
            more where a few rows have steep slopes, fewer with a ridge.
        training_loss: the mean of `loss` over the rows of the fit.
        n: rows of a weight above 0.
        ridge: as in `ExponentialFamily.fit`.
    """

    coef: Tensor
    covariance: Tensor

    def __init__(
        self, family: "ExponentialFamily", domain: Domain, names: Sequence[str], columns: int, found: Solution
    ) -> None:
        super().__init__()
        self.family, self.domain, self.names, self.event_shape = family, domain, tuple(names), (columns,)
        self.register_buffer("coef", found.coef)
        self.register_buffer("covariance", found.covariance)
        self.effective, self.training_loss, self.n, self.ridge = found.effective, found.loss, found.n, found.ridge

    @property
    def sigma_range(self) -> tuple[float, float]:
        return 0.0, 0.0

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """θ̂ᵀT(x) + log q₀(x), nats, without −log Z, `(b,)`; −∞ beyond the walls of a box.

        Raises:
            ValueError: events of another shape, or that are not on the simplex or the sphere; σ ≠ 0.
        """
        check_event(x, self.event_shape)
        check_level(sigma, self.sigma_range)
        y = x.double()
        inside = self.domain.inside(y)
        if not (self.domain.solid or inside.all()):
            self._refuse(y)
        return torch.where(inside, self.unchecked(y), -math.inf).to(x.dtype)

    def unchecked(self, x: Tensor) -> Tensor:
        """θ̂ᵀT(x) + log q₀(x) `(b,)` of rows of the domain, float64."""
        value = self.family.statistic(x) @ self.coef
        return value if self.family.base is None else value + self.family.base(x)

    def _refuse(self, x: Tensor) -> None:
        """`x` is not in a domain without an inside, where a chain soon leaves it."""
        try:
            self.domain.check(x)
        except ValueError as error:
            raise ValueError(f"{error} (chains and log Z: unconstrained())") from None

    def unconstrained(self) -> Unconstrained:
        """The same law in coordinates without walls, for chains and log Z; see `charts`."""
        return Unconstrained(self)

    def loss(self, X: Any) -> Tensor:
        """The score-matching objective of each of other rows `(n, d)`, less what does not depend on θ, `(n,)`: low is good.

        Raises:
            ValueError: rows that are not in the domain or not finite.
        """
        x = checked_rows(X)
        check_event(x, self.event_shape)
        self.domain.check(x)
        parts = self.family.quadratics(x, self.domain, len(self.coef))
        return torch.cat([(part.times(self.coef) / 2 + part.linear) @ self.coef for part in parts])

    # ── how sure ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def standard_errors(self) -> Tensor:
        """Of the coefficients `(p,)`."""
        return self.covariance.diagonal().sqrt()

    def intervals(self, level: float = 0.95) -> Tensor:
        """Lower and upper end for each coefficient `(p, 2)`, by the normal law of θ̂.

        Raises:
            ValueError: a level that is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        half = float(stats.norm.ppf((1 + level) / 2)) * self.standard_errors
        return torch.stack([self.coef - half, self.coef + half], 1)

    def wald_test(self, restriction: str | Sequence[str] | Any, value: Any = 0.0) -> Wald:
        """Are these coefficients, or combinations of them, equal to `value`?

        Args:
            restriction: names of coefficients, or R `(q, p)`, a tensor or an array.
            value: r, a number or `(q,)`.

        Raises:
            ValueError: a name that is none, R or r of another shape, rows of R that follow from others, or combinations that
                the fit knows exactly.
        """
        if isinstance(restriction, str):
            restriction = [restriction]
        if isinstance(restriction, Sequence) and all(isinstance(name, str) for name in restriction):
            unknown = [name for name in restriction if name not in self.names]
            if unknown or not restriction:
                raise ValueError(
                    f"no coefficient is called {', '.join(unknown) or '(nothing)'}: there are {', '.join(self.names)}"
                )
            r = torch.eye(len(self.coef), dtype=self.coef.dtype)[[self.names.index(name) for name in restriction]]
        else:
            r = torch.atleast_2d(torch.as_tensor(restriction, dtype=self.coef.dtype))
        if r.ndim != 2 or r.shape[1] != len(self.coef):
            raise ValueError(f"a restriction must be (q, {len(self.coef)}), got {tuple(r.shape)}")
        against = torch.as_tensor(value, dtype=self.coef.dtype)
        if against.shape not in ((), (1,), (len(r),)):
            raise ValueError(f"{len(r)} restrictions need a value or {len(r)} of them, got shape {tuple(against.shape)}")
        if not (r.isfinite().all() and against.isfinite().all()):
            raise ValueError("a restriction and its value must be finite")
        if int(torch.linalg.matrix_rank(r)) < len(r):
            raise ValueError("a row of the restriction follows from the others: leave it out")
        apart, root = r @ self.coef - against, torch.linalg.cholesky_ex(r @ self.covariance @ r.T)
        if root.info:
            raise ValueError("the covariance of these combinations is singular: more rows are needed")
        statistic = float((torch.linalg.solve_triangular(root.L, apart[:, None], upper=False) ** 2).sum())
        return Wald(statistic, len(r), float(stats.chi2.sf(statistic, len(r))))

    @property
    def information_criterion(self) -> float:
        """2n · training loss + 2 · effective, SMIC, the lower the better: unbiased for 2n times the loss of new rows.

        Compares families on one domain with one boundary weight and one base, fitted to the same rows, by their scores: a
        family may have the better slopes everywhere and give a part of the rows the wrong share of its mass.
        """
        return 2 * self.n * self.training_loss + 2 * self.effective

    def summary(self, level: float = 0.95) -> str:
        """A table of the coefficients as text: estimate, standard error, z, P>|z|, interval."""
        z = self.coef / self.standard_errors
        p_values = 2 * stats.norm.sf(z.abs().numpy())
        low, high = f"[{(1 - level) / 2:.4g}", f"{(1 + level) / 2:.4g}]"
        wide = max(12, *(len(name) for name in self.names))
        rule = "=" * (wide + 66)
        lines = [
            "Score matching".center(len(rule)).rstrip(),
            rule,
            f"rows {self.n:<12} coefficients {len(self.coef):<8} loss {self.training_loss:<12.6g} "
            f"SMIC {self.information_criterion:.6g}",
            rule,
            f"{'':{wide}} {'coef':>11} {'std err':>10} {'z':>9} {'P>|z|':>8} {low:>11} {high:>11}",
            "-" * len(rule),
        ]
        ends = self.intervals(level).tolist()
        table = zip(self.names, self.coef.tolist(), self.standard_errors.tolist(), z.tolist(), p_values, ends, strict=True)
        lines += [
            f"{name:{wide}} {coef:>11.4g} {se:>10.3g} {ratio:>9.3f} {p:>8.3f} {a:>11.4g} {b:>11.4g}"
            for name, coef, se, ratio, p, (a, b) in table
        ]
        lines += [rule, "standard errors: sandwich (Godambe)"]
        if self.ridge:
            lines.append(f"ridge {self.ridge:g}: estimates are drawn to 0, which intervals do not know of")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"ExponentialFit({len(self.coef)} coefficients, {self.n} rows)"
