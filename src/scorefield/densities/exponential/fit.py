"""What a fit of an exponential family knows: its log-density, and how sure its coefficients are."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor

from scorefield.densities.exponential.domains import Box, Domain
from scorefield.interfaces import Energy, check_event, check_level


class Wald(NamedTuple):
    """A test of R θ = r: the statistic, its degrees of freedom, and the probability of a larger one if that is true."""

    statistic: float
    degrees: int
    p_value: float


class ExponentialFit(Energy):
    """log p(x) = θᵀT(x) + log q₀(x) up to a constant, an Energy on the slice σ = 0, with the covariance of θ̂.

    Attributes:
        coef: θ̂ `(p,)`.
        names: of its components.
        covariance: the sandwich `(p, p)`; of the mean of rows that need not follow the model.
        effective: tr(V A⁻¹), V the covariance of ψ: how many parameters the fit has for the
            criterion; p where V = A, and many more where a few rows have steep slopes.
        loss: the score-matching objective at θ̂, less what does not depend on θ, and without the ridge.
        n: rows.
    """

    coef: Tensor
    covariance: Tensor

    def __init__(
        self,
        statistic: Callable[[Tensor], Tensor],
        base: Callable[[Tensor], Tensor] | None,
        domain: Domain,
        names: Sequence[str],
        coef: Tensor,
        inverse: Tensor,
        outer: Tensor,
        loss: float,
        n: int,
        dimension: int,
    ) -> None:
        super().__init__()
        self.statistic, self.base, self.domain, self.names = statistic, base, domain, tuple(names)
        self.register_buffer("coef", coef)
        self.register_buffer("covariance", inverse @ outer @ inverse)
        self.loss, self.n, self.event_shape = loss, n, (dimension,)
        self.effective = n * float((inverse * outer).sum())

    @property
    def sigma_range(self) -> tuple[float, float]:
        return 0.0, 0.0

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """θ̂ᵀT(x) + log q₀(x), nats, without −log Z, `(b,)`; −∞ beyond the walls of a box.

        Raises:
            ValueError: events of another shape, or σ ≠ 0.
        """
        check_event(x, self.event_shape)
        check_level(sigma, self.sigma_range)
        y = x.double()
        value = self.statistic(y) @ self.coef
        if self.base is not None:
            value = value + self.base(y)
        if isinstance(self.domain, Box):
            lower, upper = self.domain.walls
            value = torch.where(((y >= lower) & (y <= upper)).all(1), value, -math.inf)
        return value.to(x.dtype)

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

    def wald_test(self, restriction: Sequence[str] | Tensor, value: float | Tensor = 0.0) -> Wald:
        """Are these coefficients, or combinations of them, equal to `value`?

        Args:
            restriction: names of coefficients, or R `(q, p)`.

        Raises:
            ValueError: a name that is none, an R of another shape, or rows of it that follow from others.
        """
        if isinstance(restriction, Tensor):
            r = torch.atleast_2d(restriction).to(self.coef)
        else:
            unknown = [name for name in restriction if name not in self.names]
            if unknown or not restriction:
                raise ValueError(
                    f"no coefficient is called {', '.join(unknown) or '(nothing)'}: there are {', '.join(self.names)}"
                )
            r = torch.eye(len(self.coef), dtype=self.coef.dtype)[[self.names.index(name) for name in restriction]]
        if r.ndim != 2 or r.shape[1] != len(self.coef):
            raise ValueError(f"a restriction must be (q, {len(self.coef)}), got {tuple(r.shape)}")
        apart, spread = r @ self.coef - value, r @ self.covariance @ r.T
        if int(torch.linalg.matrix_rank(r)) < len(r):
            raise ValueError("a row of the restriction follows from the others: leave it out")
        statistic = float(apart @ torch.linalg.solve(spread, apart))
        return Wald(statistic, len(r), float(stats.chi2.sf(statistic, len(r))))

    @property
    def information_criterion(self) -> float:
        """2n · loss + 2 tr(V A⁻¹), SMIC, the lower the better: unbiased for 2n times the loss on new rows (Matsuda et al.).

        Compares families on one domain with one boundary weight and one base, fitted to the same rows, by their scores: a
        family may have the better slopes everywhere and give a part of the rows the wrong share of its mass.
        """
        return 2 * self.n * self.loss + 2 * self.effective

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
            f"rows {self.n:<12} coefficients {len(self.coef):<8} loss {self.loss:<12.6g} SMIC {self.information_criterion:.6g}",
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
        return "\n".join([*lines, rule, "standard errors: sandwich (Godambe)"])

    def __repr__(self) -> str:
        return f"ExponentialFit({len(self.coef)} coefficients, {self.n} rows)"
