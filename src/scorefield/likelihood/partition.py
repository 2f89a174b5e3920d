"""log Z = log ∫ f, of a density known up to Z: four ways that know their own error, in one record.

    quadrature   a grid over ℝᵈ, d ≤ 3, whose box and spacing are refined until nothing changes
    importance   E_q[f/q] over draws of a proposal q that can be sampled and has a density of its own
    noise        the constant c that best tells rows of f/Z from draws of q; −c is log Z (Bennett's ratio)
    annealing    see `annealing`

What an estimate is worth is part of it. Importance weights are judged by their effective number (Σw)²/Σw² and by the shape k̂
of their tail: with k̂ > 0.7 the mean of so many weights is not to be believed, whatever its standard error says.

Reference: Vehtari et al. 2024, arXiv:1507.02646 (k̂); Bennett 1976, doi:10.1016/0021-9991(76)90078-4; Gutmann & Hyvärinen 2010,
PMLR 9:297 (noise-contrastive estimation).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield.densities.confinement import check_confined
from scorefield.interfaces import Density, Proposal, ScoredDensity, check_scalar, home
from scorefield.jacobian_trace import Exact
from scorefield.likelihood.flow import FlowLikelihood, coarser
from scorefield.samplers import HMC, MarkovChains, collect
from scorefield.samplers.levels import levels_of

FEWEST_EFFECTIVE = 50.0
LARGEST_SE = 0.5
LARGEST_K = 0.7
FEWEST_FOR_A_TAIL = 25


class Mean(NamedTuple):
    """An average and its standard error."""

    value: float
    se: float


@dataclass(frozen=True)
class Partition:
    """An estimate of log Z, nats."""

    method: str
    log_z: float
    se: float
    """standard error; of quadrature the change by its last refinement"""
    ess: float | None = None
    """effective number of weights, if there are any"""
    lower: Mean | None = None
    """a quantity whose expectation is at most log Z"""
    upper: Mean | None = None
    """a quantity whose expectation is at least log Z; needs exact samples"""
    problems: tuple[str, ...] = ()
    """why it is not to be trusted, one line each; none if it is"""
    sigma: float = 0.0
    """the noise level of the density that was integrated"""
    evaluations: int = 0
    """of the density, with or without its gradient"""

    @property
    def trustworthy(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """In words."""
        return "trustworthy" if self.trustworthy else f"not trustworthy: {'; '.join(self.problems)}"

    @property
    def bounds(self) -> str:
        """In words: what it bounds."""
        if self.lower is None:
            return "no bound"
        lower = f"≥ {self.lower.value:.2f} ± {self.lower.se:.2f}"
        return f"{lower}, no upper bound" if self.upper is None else f"{lower}, ≤ {self.upper.value:.2f} ± {self.upper.se:.2f}"


@dataclass(frozen=True)
class Normalised:
    """A density with log Z known, at one level: a density whose log is known up to `se`."""

    density: Density
    partition: Partition

    @property
    def se(self) -> float:
        """Standard error that all log-densities have in common, nats."""
        return self.partition.se

    def log_density(self, x: Tensor, sigma: float | Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """log p(x), nats, `(b,)`.

        Raises:
            ValueError: a level other than that of log Z, or conditions, each of which would have a Z of its own.
        """
        if cond is not None:
            raise ValueError("log Z is known of the density of all classes together, and a condition was given")
        level = self.partition.sigma
        if sigma is not None and not bool((torch.as_tensor(sigma) == level).all()):
            raise ValueError(f"log Z is known at level {level:g} alone, got {sigma}")
        return self.density.log_density(x, level) - self.partition.log_z


@torch.no_grad()
def quadrature(
    density: Density,
    event_shape: tuple[int, ...],
    sigma: float = 0.0,
    *,
    tolerance: float = 1e-5,
    most: int = 2**25,
    watch: Callable[[int], None] = lambda points: None,
) -> Partition:
    """By the trapezoidal rule, which converges faster than any power for smooth densities; float64.

    The box, centred at 0, grows until what lies at its walls is less than e^−30 of the largest value, then the spacing is
    halved until log Z changes by less than `tolerance`. A peak that two such grids miss is not seen.

    Args:
        most: points of the finest grid, of which more are refused.
        watch: called with every number of points that is done.

    Raises:
        ValueError: more than 3 dimensions, a density that is not confined or not finite, or a spacing that would need too many
            points.
    """
    d = math.prod(event_shape)
    if d > 3:
        raise ValueError(f"quadrature is for at most 3 dimensions, got {d}: use annealed importance sampling")
    check_confined(density, event_shape, sigma)
    at_home = home(density)
    spent = 0

    def log_values(radius: float, n: int) -> Tensor:
        nonlocal spent
        axis = torch.linspace(-radius, radius, n, dtype=torch.float64)
        grid = torch.cartesian_prod(*[axis] * d).reshape(-1, *event_shape)
        spent += len(grid)
        parts = []
        for part in grid.split(2**16):
            x = part.to(at_home)
            parts.append(check_scalar(density.log_density(x, sigma), x).double().cpu())
            watch(len(x))
        return torch.cat(parts).reshape([n] * d)

    coarse = {1: 513, 2: 65, 3: 33}[d]
    radius = 4.0 * max(1.0, sigma)
    while True:
        values = log_values(radius, coarse)
        walls = torch.cat([values.select(axis, end).flatten() for axis in range(d) for end in (0, -1)])
        if not values.max().isfinite() or values.isnan().any():
            raise ValueError("the log-density is nowhere finite, infinite, or not a number at a point of the grid")
        if walls.max() < values.max() - 30:
            break
        radius *= 1.25
    before, n = math.inf, coarse
    while True:
        log_z = float(values.logsumexp(tuple(range(d)))) + d * math.log(2 * radius / (n - 1))
        if abs(log_z - before) < tolerance:
            return Partition("quadrature", log_z, abs(log_z - before), sigma=sigma, evaluations=spent)
        before, n = log_z, 2 * n - 1
        if n**d > most:
            raise ValueError(f"quadrature on {n}^{d} points would not be enough for details so fine: use annealed sampling")
        values = log_values(radius, n)


@torch.no_grad()
def importance(
    density: ScoredDensity,
    proposal: Proposal,
    n: int,
    sigma: float = 0.0,
    *,
    generator: torch.Generator | None = None,
    check_support: bool = True,
) -> Partition:
    """E_q[f/q] over n draws of the proposal.

    Raises:
        ValueError: n < 2, a density that is not confined, or a proposal that is zero where the density is not, which is looked
            for by short chains from its draws (left out with `check_support=False`).
    """
    check_budget(n)
    x = proposal.sample(n, generator=generator).to(home(density))
    check_confined(density, tuple(x.shape[1:]), sigma)
    if check_support:
        check_covers(density, proposal, x[:256], sigma, generator)
    log_weights = check_scalar(density.log_density(x, sigma), x).double() - proposal.log_density(x).double()
    return weighted("importance sampling", log_weights, sigma, n)


@torch.no_grad()
def flow_importance(
    density: ScoredDensity,
    event_shape: tuple[int, ...],
    n: int,
    flow: FlowLikelihood,
    *,
    generator: torch.Generator | None = None,
    watch: Callable[[int], None] = lambda draws: None,
    chunk: int = 64,
) -> Partition:
    """E_q[f/q] over n draws of the probability flow of the density's own scores, at the flow's smallest level.

    Raises:
        ValueError: n < 2, a density that is not confined at that level, or an estimated trace, whose error would count as mass.
    """
    check_budget(n)
    if not isinstance(flow.trace, Exact):
        raise ValueError("importance weights need exact log-densities: FlowLikelihood(trace=Exact())")
    sigma = levels_of(flow.solver, density, flow.solver.process)[0]
    check_confined(density, event_shape, sigma)
    generator = generator or torch.Generator(home(density).device).manual_seed(torch.seed() % 2**63)

    def log_weights(solved: FlowLikelihood, size: int) -> Tensor:
        x, log_q = solved.sample(density, size, event_shape, generator=generator)
        return check_scalar(density.log_density(x, sigma), x).double() - log_q.double()

    before = generator.get_state()
    parts = []
    for first in range(0, n, chunk):
        parts.append(log_weights(flow, min(chunk, n - first)))
        watch(len(parts[-1]))
    after = generator.get_state()
    generator.set_state(before)  # the first draws again at half the resolution: what that changes is an error of the solver's
    half = log_weights(replace(flow, solver=coarser(flow.solver)), len(parts[0]))
    generator.set_state(after)
    found = weighted("flow", torch.cat(parts), sigma, n * flow.solver.evaluations * (flow.solver.steps - 1))
    change = abs(log_mean(half)[0] - log_mean(parts[0])[0])
    problems = [f"half the solver's steps change it by {change:.2g} nats: take more"] if not change <= LARGEST_SE else []
    return replace(found, se=math.hypot(found.se, change), problems=(*found.problems, *problems))


def check_budget(n: int, least: int = 2) -> None:
    """Raises `ValueError` for fewer draws than an estimate with an error can be made of."""
    if n < least:
        raise ValueError(f"a budget of {n} draws is too small for one step: {least} is the least")


def check_covers(density: ScoredDensity, proposal: Density, x: Tensor, sigma: float, generator: torch.Generator | None) -> None:
    """Raises `ValueError` where a proposal is zero although chains of the density go there from its own draws."""
    allowed = density.log_density(x, sigma).isfinite()
    if not allowed.any():
        raise ValueError("the density is zero at every draw of the proposal: give one that overlaps it")
    chains = MarkovChains(HMC(5), steps=10, warmup=40, step_size=1e-2, sigma=sigma)
    for moved in collect(chains(density, x[allowed], generator=generator)).x:
        if (proposal.log_density(moved) == -math.inf).any():
            raise ValueError("the proposal is zero in places where the density is not: give one with a wider support")


def weighted(method: str, log_weights: Tensor, sigma: float, evaluations: int, upper: Mean | None = None) -> Partition:
    """log of the mean of weights `(n,)`, which are unbiased for Z; what speaks against it is noted."""
    log_z, se, ess = log_mean(log_weights)
    n = len(log_weights)
    k = tail_shape(log_weights)
    problems = []
    if not ess >= min(FEWEST_EFFECTIVE, n / 2):
        problems.append(f"only {ess:.1f} of {n} weights count")
    if math.isnan(k):
        problems.append(f"{n} weights are too few to judge their tail")
    elif k > LARGEST_K:
        problems.append(f"the weights' tail is too heavy (k̂ = {k:.2f})")
    if not se <= LARGEST_SE:
        problems.append(f"a standard error of {se:.2g} nats, which so uneven weights understate" if problems else wide(se))
    lower = None
    if log_weights.isfinite().all():
        lower = Mean(float(log_weights.mean()), float(log_weights.std()) / n**0.5)
    if lower and upper and upper.value - lower.value > 1 and abs(upper.value - log_z) > 1 + 3 * (upper.se + se):
        problems.append(f"exact samples put the upper bound {upper.value - log_z:.2g} nats above it")
    return Partition(method, log_z, se, ess, lower, upper, tuple(problems), sigma, evaluations)


def wide(se: float) -> str:
    """What speaks against a large standard error."""
    return f"a standard error of {se:.2g} nats, more than {LARGEST_SE:g}"


def log_mean(log_weights: Tensor) -> tuple[float, float, float]:
    """log of the mean weight, its standard error (to first order), and the effective number of weights `(n,)`."""
    top = float(log_weights.max())
    if not math.isfinite(top):
        return top, math.inf, 0.0
    w = (log_weights.double() - top).exp()
    mean, n = float(w.mean()), len(w)
    return top + math.log(mean), float(w.std()) / (mean * n**0.5), float(w.sum() ** 2 / (w**2).sum())


def tail_shape(log_weights: Tensor) -> float:
    """k̂, the shape of the generalised Pareto law that fits the largest weights `(n,)`.

    −∞ where all are about equal, NaN where they are too few to tell, ∞ where they are not finite.
    """
    from arviz_stats.base import array_stats  # brings SciPy's statistics along, a second that few need

    values = log_weights.double().cpu().numpy()
    if not np.isfinite(values.max()):
        return math.inf
    if np.ptp(values) < 1e-6:
        return -math.inf
    if len(values) < FEWEST_FOR_A_TAIL:
        return math.nan
    return float(array_stats.psislw(-values)[1])  # it takes minus the log-weights


@torch.no_grad()
def noise_constant(
    density: Density, rows: Tensor, proposal: Proposal, n: int, sigma: float = 0.0, *, generator: torch.Generator | None = None
) -> Partition:
    """log Z from the best logistic rule between `rows` `(m, *event)`, which must come from f/Z, and n draws of a proposal.

    Raises:
        ValueError: n or m < 2.
    """
    check_budget(min(n, len(rows)))
    noise = proposal.sample(n, generator=generator).to(rows)
    ratio = math.log(len(rows) / n)

    def logits(x: Tensor) -> Tensor:
        return check_scalar(density.log_density(x, sigma), x).double() - proposal.log_density(x).double() + ratio

    at_rows, at_noise = logits(rows), logits(noise)
    c = root(lambda c: float((-(at_rows + c)).sigmoid().sum() - (at_noise + c).sigmoid().sum()))
    missed, taken = (-(at_rows + c)).sigmoid(), (at_noise + c).sigmoid()
    slope = float((missed * (1 - missed)).sum() + (taken * (1 - taken)).sum())
    spread = float(len(rows) * missed.var() + n * taken.var())
    se = math.sqrt(spread) / slope if slope else math.inf
    problems = [] if se <= LARGEST_SE else [f"a standard error of {se:.2g} nats: rows and noise hardly overlap"]
    return Partition("noise-contrastive", -c, se, problems=tuple(problems), sigma=sigma, evaluations=n + len(rows))


def root(falling: Callable[[float], float]) -> float:
    """Where a falling function is zero."""
    from scipy.optimize import brentq

    low, high = -1.0, 1.0
    while falling(low) < 0:
        low *= 2
    while falling(high) > 0:
        high *= 2
    return float(brentq(falling, low, high, xtol=1e-10))
