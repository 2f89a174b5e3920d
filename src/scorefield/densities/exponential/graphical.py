"""Sparse graphs of pairwise interactions: log p(x) = ηᵀx − ½ xᵀK x on ℝᵈ or a box, K_ij = 0 where i and j are not joined.

For symmetric K the score is s_j = η_j − K_j·x, and the objective of `family` falls into the columns of K. With η minimised away

    ½ Σ_j K_jᵀ A_j K_j − Σ_j c_jᵀ K_j + λ Σ_{i≠j} |K_ij|        A_j = E[w_j x xᵀ] − a_j a_jᵀ/E[w_j],  a_j = E[w_j x]
                                                              c_j = E[w_j] e_j + E[w′_j x] − a_j E[w′_j]/E[w_j]

is convex. Its minimisers for a falling row of λ are found by accelerated proximal gradient, each beginning where the last
ended, and each set of edges on the way is fitted again without λ. The criterion chooses between those fits:

    2n · loss + tr(V A⁻¹) (log n + 4γ log d)

an extended Bayesian one, with tr(V A⁻¹) for the number of parameters (`ExponentialFit.effective`).

Reference: Lin, Drton & Shojaie 2016, doi:10.1214/16-EJS1126; Yu, Drton & Shojaie 2019, JMLR 20:76; Foygel & Drton 2010,
arXiv:1011.6640 (extended BIC); Gao & Song 2010, doi:10.1198/jasa.2010.tm09414 (its parameters); Beck & Teboulle 2009,
doi:10.1137/080716542 (the accelerated steps).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from sklearn.model_selection import KFold
from torch import Tensor

from scorefield.densities.exponential.domains import Box, reals
from scorefield.densities.exponential.family import ExponentialFamily, involved, normalised
from scorefield.densities.exponential.fit import ExponentialFit
from scorefield.densities.exponential.statistics import Monomials, variables
from scorefield.densities.rows import checked_rows, column_names

TOLERANCE = 1e-7
"""relative change of K at which a minimiser is reached"""
ITERATIONS = 5000
DEPENDENT = 1e-10
"""eigenvalue of the correlation below which columns follow from one another"""
WORSE = 8
"""values of λ after the best, after which smaller ones are not tried"""


class Columns(NamedTuple):
    """The quadratic above: A `(d, d, d)`, one matrix for each column of K, and c `(d, d)`."""

    quadratic: Tensor
    linear: Tensor

    @property
    def alone(self) -> Tensor:
        """The minimiser without edges, a diagonal."""
        return torch.diag(self.linear.diagonal() / self.quadratic.diagonal(dim1=1, dim2=2).diagonal())

    def value(self, k: Tensor) -> Tensor:
        """The objective without λ."""
        return (k * (self._times(k) / 2 - self.linear)).sum()

    def gradient(self, k: Tensor) -> Tensor:
        """Its gradient among symmetric matrices."""
        slope = self._times(k) - self.linear
        return (slope + slope.T) / 2

    def _times(self, k: Tensor) -> Tensor:
        return torch.einsum("jik,jk->ji", self.quadratic, k)


class Step(NamedTuple):
    """One λ of the path."""

    penalty: float
    precision: Tensor
    """K `(d, d)` under the penalty, of scaled columns"""
    edges: int
    criterion: float
    """the lower the better; infinite where the edges cannot be fitted"""


@dataclass(frozen=True)
class Graph:
    """A chosen graph with the model that was fitted on it, without a penalty.

    Its standard errors and intervals take the edges as given; chosen from the same rows, they are somewhat too sure.
    """

    precision: Tensor
    """K `(d, d)`, of the columns as they are"""
    edges: tuple[tuple[int, int], ...]
    names: tuple[str, ...]
    """of the columns"""
    penalty: float
    """λ, of scaled columns"""
    path: tuple[Step, ...]
    density: ExponentialFit

    def __repr__(self) -> str:
        return f"Graph({len(self.edges)} edges between {len(self.names)} columns)"

    def summary(self, level: float = 0.95) -> str:
        """A table of the edges as text: columns, partial correlation, K_ij and its interval, the strongest first."""
        wide = max([len(name) for name in self.names] + [6])
        partial = self.partial_correlations
        low, high = f"[{(1 - level) / 2:.4g}", f"{(1 + level) / 2:.4g}]"
        lines = [repr(self), f"{'column':{wide}} {'column':{wide}} {'partial':>9} {'K':>11} {low:>11} {high:>11}"]
        ends = dict(zip(self.edges, self.intervals(level).tolist(), strict=True))
        for i, j in sorted(self.edges, key=lambda edge: -abs(float(partial[edge]))):
            a, b = ends[i, j]
            strength = f"{float(partial[i, j]):>9.3f} {float(self.precision[i, j]):>11.4g} {a:>11.4g} {b:>11.4g}"
            lines.append(f"{self.names[i]:{wide}} {self.names[j]:{wide}} {strength}")
        return "\n".join([*lines, "intervals take the edges as given: those of refit() with other rows do not"])

    @property
    def adjacency(self) -> Tensor:
        """Which columns are joined, bool `(d, d)`."""
        found = torch.zeros_like(self.precision, dtype=torch.bool)
        for i, j in self.edges:
            found[i, j] = found[j, i] = True
        return found

    def refit(self, X: Any, sample_weight: Any = None) -> ExponentialFit:
        """The model on these edges, fitted to other rows `(n, d)`, whose intervals then are honest.

        Raises:
            ValueError: as `ExponentialFamily.fit`, and for other columns, or named ones in another order.
        """
        x, own = checked_rows(X), column_names(X)
        if own and sorted(own) == sorted(self.names) and own != [*self.names]:
            raise ValueError(
                f"the columns are {', '.join(own)}, those of the graph {', '.join(self.names)}: put them in its order"
            )
        if x.shape[1] != len(self.names):
            raise ValueError(f"the graph is of {len(self.names)} columns, the rows have {x.shape[1]}")
        return family(len(self.names), self.edges, cast(Box, self.density.domain), self.names).fit(x, sample_weight)

    def intervals(self, level: float = 0.95) -> Tensor:
        """Lower and upper end of K_ij for each edge, in their order, `(e, 2)`; take those of `refit` for honest ones."""
        return -self.density.intervals(level)[2 * len(self.names) :].flip(1)

    @property
    def partial_correlations(self) -> Tensor:
        """−K_ij/√(K_ii K_jj), 1 on the diagonal; of a Gaussian on all of ℝᵈ they are correlations given all others.

        Raises:
            ValueError: a column with K_jj ≤ 0, as between two walls that most rows are near to; there is no correlation then.
        """
        scale = self.precision.diagonal().sqrt()
        if scale.isnan().any():
            column = self.names[int(scale.isnan().nonzero()[0])]
            raise ValueError(f"column {column} is not concave given the others (K ≤ 0): there are no partial correlations")
        return (-self.precision / scale / scale[:, None]).fill_diagonal_(1.0)


@dataclass(frozen=True)
class GraphicalModel:
    """Finds the graph and fits a pairwise model on it.

    Raises:
        ValueError: a setting out of range.
    """

    domain: Box = reals()
    """`reals()`: Gaussian graphical models; `orthant()` or another box: truncated Gaussian ones"""
    selection: Literal["ebic", "cv"] = "ebic"
    """how λ is chosen: by the criterion above, or by the loss on left-out fifths of the rows, which takes more edges"""
    gamma: float = 0.5
    """γ of the criterion: 0 is plain BIC"""
    penalties: int = 40
    """values of λ"""
    smallest: float = 0.01
    """of them, as a share of that which leaves no edge"""

    def __post_init__(self) -> None:
        if not isinstance(self.domain, Box):
            raise ValueError(f"a graphical model lives on reals(), orthant() or another Box, got {self.domain!r}")
        if self.selection not in ("ebic", "cv"):
            raise ValueError(f"selection must be ebic or cv, got {self.selection!r}")
        if not (self.gamma >= 0 and self.penalties >= 2 and 0 < self.smallest < 1):
            raise ValueError(f"gamma must be at least 0, penalties at least 2, smallest between 0 and 1, got {self}")

    def fit(self, X: Any, sample_weight: Any = None, names: Sequence[str] | None = None) -> Graph:
        """From rows `(n, d)`; names are of the columns, a data frame's own by default.

        Raises:
            ValueError: rows that are not in the domain, not finite, or no more than twice the columns; a constant column;
                bad weights.
        """
        own = names if names is not None else column_names(X)
        x = checked_rows(X)
        self.domain.check(x)
        weights, d = normalised(sample_weight, len(x)), x.shape[1]
        x, weights, labels = x[weights > 0], weights[weights > 0], tuple(variables(d, own))
        n = len(x)
        if d < 2:
            raise ValueError("a graph needs at least two columns")
        if n <= 2 * d:
            raise ValueError(f"{n} rows are too few for a graph of {d} columns: more than twice as many rows are needed")
        z, domain, own_domain = self._scaled(x, weights, labels)
        steps, best, data = [], math.inf, weighted(z, weights, domain)
        known: dict[tuple[tuple[int, int], ...], float] = {}
        held_out = self._held_out(z, weights, domain, data.columns) if self.selection == "cv" else None
        for k, (penalty, precision) in enumerate(path(data.columns, self.penalties, self.smallest)):
            joined = edges(precision)
            if held_out is None and joined not in known:
                known[joined] = self._criterion(data, joined)
            criterion = known[joined] if held_out is None else held_out[k]
            steps.append(Step(penalty, precision, len(joined), criterion))
            best = min(best, criterion)
            if all(step.criterion > best for step in steps[-WORSE:]) and len(steps) > WORSE:
                break
        chosen = min(steps, key=lambda step: step.criterion)
        joined = edges(chosen.precision)
        density = family(d, joined, own_domain, labels).fit(x, weights)
        return Graph(precision_of(density.coef, d, joined), joined, labels, chosen.penalty, tuple(steps), density)

    def _scaled(self, x: Tensor, weights: Tensor, labels: Sequence[str]) -> tuple[Tensor, Box, Box]:
        """Columns of standard deviation 1, about 0 where there is no wall, and the box they live in; the box of the rows."""
        mean = weights @ x
        scale = (weights @ (x - mean) ** 2).sqrt()
        constant = x.amax(0) == x.amin(0)
        if constant.any():
            raise ValueError(f"column {labels[int(constant.nonzero()[0])]} is constant: leave it out")
        z = (x - mean) / scale
        eigenvalues, vectors = torch.linalg.eigh(z.T @ (z * weights[:, None]))
        if eigenvalues[0] < DEPENDENT:
            raise ValueError(f"columns {', '.join(involved(labels, vectors[:, 0]))} follow from one another: leave one out")
        lower, upper = (walls.expand(x.shape[1]) for walls in self.domain.walls)
        free = lower.isinf() & upper.isinf()
        centre = torch.where(free, mean, 0.0)
        domain = self.domain.scaled_to(x, weights)
        cap = None if domain.cap is None else (torch.as_tensor(domain.cap, dtype=x.dtype) / scale).tolist()
        box = Box(tuple((lower / scale).tolist()), tuple((upper / scale).tolist()), domain.power, cap)
        return (x - centre) / scale, box, replace(domain, unit=tuple(scale.tolist()))

    def _criterion(self, data: "Weighted", joined: tuple[tuple[int, int], ...]) -> float:
        """Of the fit on these edges."""
        n, d = data.z.shape
        if n < 2 * d + len(joined):
            return math.inf
        loss, effective = data.refitted(joined)
        return 2 * n * loss + effective * (math.log(n) + 4 * self.gamma * math.log(d))

    def _held_out(self, z: Tensor, weights: Tensor, domain: Box, whole: Columns) -> list[float]:
        """The mean loss of left-out rows for each λ of the path on all rows."""
        total, largest = [0.0] * self.penalties, largest_penalty(whole)
        for kept, left in KFold(5, shuffle=True, random_state=0).split(z):
            fitted = weighted(z[kept], weights[kept] / weights[kept].sum(), domain).columns
            judge = weighted(z[left], weights[left] / weights[left].sum(), domain).columns
            for k, (_, precision) in enumerate(path(fitted, self.penalties, self.smallest, largest)):
                total[k] += float(judge.value(precision)) / 5
        return total


class Weighted(NamedTuple):
    """Rows z `(n, d)`, and what the objective needs of them: w and ∇·G, both times the rows' weights; y is (z, 1)."""

    z: Tensor
    w: Tensor
    divergence: Tensor
    second: Tensor
    """E[w_m y yᵀ] `(d, d + 1, d + 1)`"""
    pull: Tensor
    """E[(∇·G)_m y] `(d, d + 1)`"""

    @property
    def columns(self) -> Columns:
        """A and c above."""
        moment, total, pull = self.second[:, :-1, -1], self.second[:, -1, -1], self.pull[:, -1]
        quadratic = self.second[:, :-1, :-1] - moment[:, :, None] * moment[:, None] / total[:, None, None]
        return Columns(quadratic, torch.diag(total) + self.pull[:, :-1] - moment * (pull / total)[:, None])

    def refitted(self, joined: tuple[tuple[int, int], ...]) -> tuple[float, float]:
        """The least loss on these edges, without a penalty, and tr(V A⁻¹).

        With y_i y_j as components of T, j = d for x_i alone, ∂_m T = δ_mi y_j + δ_mj y_i, so that A is gathered from `second`.
        """
        d = self.z.shape[1]
        i, j = torch.tensor([*((k, d) for k in range(d)), *((k, k) for k in range(d)), *joined]).T
        m = torch.cat([self.second, torch.zeros_like(self.second[:1])])  # nothing moves the 1 of y
        gram = sum(
            (a[:, None] == b) * m[a[:, None], other_a[:, None], other_b]
            for a, other_a in ((i, j), (j, i))
            for b, other_b in ((i, j), (j, i))
        )
        pull = torch.cat([self.pull, torch.zeros_like(self.pull[:1])])
        linear = pull[i, j] + pull[j, i] + 2 * (i == j) * m[i, d, d]
        coef = -torch.linalg.solve(gram, linear)
        k = torch.zeros(d + 1, d + 1, dtype=coef.dtype)
        k[i, j] += coef
        k[j, i] += coef
        y = torch.cat([self.z, torch.ones_like(self.z[:, :1])], 1)
        flux = torch.cat([self.w * (y @ k)[:, :d] + self.divergence, torch.zeros_like(self.z[:, :1])], 1)  # w s + ∇·G
        w = torch.cat([self.w, torch.zeros_like(self.z[:, :1])], 1)
        psi = flux[:, i] * y[:, j] + flux[:, j] * y[:, i] + 2 * (i == j) * w[:, i]
        effective = len(y) * float(torch.linalg.solve(gram, psi.T @ psi).trace())
        return float(linear @ coef) / 2, effective


def weighted(z: Tensor, weights: Tensor, domain: Box) -> Weighted:
    """Of rows `(n, d)` whose weights have sum 1."""
    metric, y = domain.metric(z), torch.cat([z, torch.ones_like(z[:, :1])], 1)
    w, divergence = metric.w * weights[:, None], metric.divergence * weights[:, None]
    return Weighted(z, w, divergence, torch.stack([y.T @ (y * own[:, None]) for own in w.T]), divergence.T @ y)


def largest_penalty(of: Columns) -> float:
    """The least λ that leaves no edge."""
    slope = of.gradient(of.alone)
    return float((slope - torch.diag(slope.diagonal())).abs().max())


def path(of: Columns, penalties: int, smallest: float, largest: float | None = None) -> Iterator[tuple[float, Tensor]]:
    """λ and the minimiser K `(d, d)`, from the largest λ to `smallest` times it."""
    begin = largest_penalty(of) if largest is None else largest
    lipschitz = float(torch.linalg.eigvalsh(of.quadratic)[:, -1].max())
    k = of.alone
    for penalty in np.geomspace(begin, smallest * begin, penalties).tolist():
        k = minimised(of, penalty, k, lipschitz)
        yield penalty, k


def minimised(of: Columns, penalty: float, start: Tensor, lipschitz: float) -> Tensor:
    """The minimiser for one λ: proximal gradient steps with momentum that begins anew when a step turns back."""
    k, ahead, momentum = start, start, 1.0
    threshold = penalty / lipschitz * (1 - torch.eye(len(start), dtype=start.dtype))
    for _ in range(ITERATIONS):
        moved = ahead - of.gradient(ahead) / lipschitz
        new = moved.sign() * (moved.abs() - threshold).clamp(min=0)
        change = new - k
        if ((ahead - new) * change).sum() > 0:
            momentum = 1.0
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead, k, momentum = new + (momentum - 1) / following * change, new, following
        if change.norm() <= TOLERANCE * k.norm():
            break
    return k


def edges(precision: Tensor) -> tuple[tuple[int, int], ...]:
    """Pairs i < j with K_ij ≠ 0."""
    return tuple((int(i), int(j)) for i, j in precision.triu(1).nonzero().tolist())


def family(d: int, joined: tuple[tuple[int, int], ...], domain: Box, names: Sequence[str] | None = None) -> ExponentialFamily:
    """θᵀT = Σ η_i x_i − ½ Σ K_ij x_i x_j over the edges and the diagonal."""
    found = Monomials(tuple((i,) for i in range(d)) + tuple((i, i) for i in range(d)) + joined)
    return ExponentialFamily(found, domain, found.names(variables(d, names)), columns=d)


def precision_of(coef: Tensor, d: int, joined: tuple[tuple[int, int], ...]) -> Tensor:
    """K of the coefficients of `family`."""
    k = torch.diag(-2 * coef[d : 2 * d])
    for (i, j), value in zip(joined, coef[2 * d :], strict=True):
        k[i, j] = k[j, i] = -value
    return k
