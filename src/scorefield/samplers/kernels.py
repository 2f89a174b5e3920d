"""One step of a Markov chain whose law is p_σ^{1/τ}, for many chains at once.

All are made of the leapfrog step, in which a velocity v ~ N(0, τI) carries x along,

    v ← v + ½ε s(x),   x ← x + ε v,   v ← v + ½ε s(x),      s = ∇log p_σ,  ε = √(2h)

From a fresh velocity one of them is x + h s + √(2hτ) z, a Langevin step of size h; so h means the same in every kernel.

    ULA     one leapfrog step, always taken: a law that is wrong by order h
    MALA    one, taken with probability min(1, e^{−ΔH/τ}), H = ½‖v‖² − log p_σ(x): exact
    HMC     several, then taken or not: exact, and goes far in one move
    BAOAB   velocities that are kept and only partly refreshed (underdamped Langevin dynamics), always taken

A temperature τ changes the law and never the step. In a box, x is reflected at its walls and v with it, which keeps volume
and reversibility, so that the exact kernels stay exact.

Reference: Roberts & Tweedie 1996, doi:10.2307/3318418 (MALA); Neal 2011, arXiv:1206.1901 (HMC; section 5.1 for walls);
Leimkuhler & Matthews 2013, doi:10.1093/amrx/abs010 (BAOAB).
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from scorefield.interfaces import Score, ScoredDensity, check_score, log_density_and_score
from scorefield.samplers.descent import noise_like
from scorefield.samplers.levels import check_counts, check_positive
from scorefield.tensors import expand, sum_event

Bound = float | Tensor
"""one number, or one for each coordinate `(*event)`"""


class Point(NamedTuple):
    """Where the chains are."""

    x: Tensor
    """`(b, *event)`"""
    log_density: Tensor
    """log p_σ(x) + const, nats, `(b,)`"""
    score: Tensor
    """its gradient, `(b, *event)`"""
    velocity: Tensor
    """`(b, *event)`; kernels that do not keep it draw it afresh"""


@dataclass(frozen=True)
class Target:
    """The law p_σ^{1/τ}, on a box if one is given.

    Raises:
        ValueError: a model of discrete data or without what is needed, a temperature that is not positive, an empty box.
    """

    model: Score
    sigma: float = 0.0
    cond: Tensor | None = None
    temperature: float = 1.0
    box: tuple[Bound, Bound] | None = None
    tested: bool = True
    """whether moves are tested, for which the model needs a log-density; else points have 0 in its place"""

    def __post_init__(self) -> None:
        check_continuous(self.model, self.tested)
        check_positive(temperature=self.temperature)
        if self.box is not None and not bool((torch.as_tensor(self.box[0]) < torch.as_tensor(self.box[1])).all()):
            raise ValueError(f"the lower end of a box must be below the upper, got {self.box}")

    def at(self, x: Tensor, velocity: Tensor | None = None) -> Point:
        """The point at `x`, by default at rest."""
        if self.tested:
            value, score = log_density_and_score(self.model, x, self.sigma, self.cond)  # type: ignore[arg-type]  # as checked
        else:
            value, score = x.new_zeros(len(x)), check_score(self.model.score(x, self.sigma, self.cond), x)
        return Point(x, value, score, torch.zeros_like(x) if velocity is None else velocity)

    def start(self, x: Tensor) -> Point:
        """The point where chains begin; raises `ValueError` where the density is zero or not a number, or outside the box."""
        low, high = (torch.as_tensor(end).to(x) for end in self.box or (-math.inf, math.inf))
        if x.isnan().any():
            raise ValueError(f"chain {int(x.flatten(1).isnan().any(1).nonzero()[0])} begins at NaN")
        if not ((x >= low) & (x <= high)).all():
            raise ValueError("a chain begins outside the box")
        point = self.at(x)
        good = point.log_density.isfinite() & point.score.flatten(1).isfinite().all(1)
        if not good.all():
            row = int((~good).nonzero()[0])
            raise ValueError(f"chain {row} begins where log-density or score is not finite ({point.log_density[row]:g})")
        return point

    def reflect(self, x: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """Both mirrored at the walls as often as it takes to be inside."""
        if self.box is None:
            return x, velocity
        low, high = (torch.as_tensor(end, dtype=x.dtype, device=x.device).expand(x.shape) for end in self.box)
        bounded = low.isfinite() & high.isfinite()
        width = torch.where(bounded, high - low, 1.0)
        along = (torch.where(bounded, x - low, 0.0) / width).remainder(2)  # one period: there and back
        folded, back = low + width * torch.minimum(along, 2 - along), along > 1
        below, above = ~bounded & (x < low), ~bounded & (x > high)
        mirrored = torch.where(below, 2 * low - x, torch.where(above, 2 * high - x, x))
        inside = torch.where(bounded, folded.clamp(low, high), mirrored)
        return inside, torch.where((bounded & back) | below | above, -velocity, velocity)


def check_continuous(model: object, density: bool = True) -> None:
    """Raises `ValueError` for a model of discrete data, or without score, `sigma_range` and, if needed, log-density."""
    if hasattr(model, "states"):
        raise ValueError("this needs a gradient in x, and the model is of discrete data: use Gibbs")
    if not isinstance(model, ScoredDensity if density else Score):
        missing = [name for name in (["log_density"] if density else []) + ["score", "sigma_range"] if not hasattr(model, name)]
        raise ValueError(f"{type(model).__name__} lacks {' and '.join(missing)}, which chains need")


class Kernel(Protocol):
    """A step of every chain. Returns the new point and the probability with which each move was taken `(b,)`.

    A proposal whose density is not a number is refused, with probability 0.
    """

    @property
    def aim(self) -> float | None:
        """The mean acceptance at which it explores best; None for a kernel that takes every move."""
        ...

    @property
    def evaluations(self) -> int:
        """Evaluations of log-density and score in each step."""
        ...

    def __call__(self, target: Target, point: Point, h: float, generator: torch.Generator | None) -> tuple[Point, Tensor]: ...


def leapfrog(target: Target, point: Point, eps: float, steps: int) -> Point:
    """`steps` leapfrog steps of ε."""
    velocity = torch.add(point.velocity, point.score, alpha=eps / 2)
    for i in range(steps):
        x, velocity = target.reflect(torch.add(point.x, velocity, alpha=eps), velocity)
        point = target.at(x, velocity)
        velocity = torch.add(velocity, point.score, alpha=eps if i + 1 < steps else eps / 2)
    return point._replace(velocity=velocity)


@dataclass(frozen=True)
class HMC:
    """Hamiltonian Monte Carlo.

    Raises:
        ValueError: fewer than 1 leapfrog step, or a jitter that is not in [0, 1).
    """

    leapfrog_steps: int = 10
    """in each move; with 1 it is MALA"""
    jitter: float = 0.2
    """ε is drawn from (1 ± jitter) √(2h) at each move, lest chains go round in a circle"""

    aim: ClassVar[float] = 0.8

    def __post_init__(self) -> None:
        check_counts(leapfrog_steps=self.leapfrog_steps)
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must be in [0, 1), got {self.jitter}")

    @property
    def evaluations(self) -> int:
        return self.leapfrog_steps

    def __call__(self, target: Target, point: Point, h: float, generator: torch.Generator | None) -> tuple[Point, Tensor]:
        eps = math.sqrt(2 * h)
        if self.jitter:
            eps *= 1 + self.jitter * (2 * float(torch.rand((), generator=generator, device=point.x.device)) - 1)
        begin = point._replace(velocity=math.sqrt(target.temperature) * noise_like(point.x, generator))
        end = leapfrog(target, begin, eps, self.leapfrog_steps)
        return metropolis(target, begin, end, generator)


@dataclass(frozen=True)
class MALA:
    """The Metropolis-adjusted Langevin algorithm."""

    aim: ClassVar[float] = 0.574
    evaluations: ClassVar[int] = 1

    def __call__(self, target: Target, point: Point, h: float, generator: torch.Generator | None) -> tuple[Point, Tensor]:
        return HMC(1, jitter=0.0)(target, point, h, generator)


@dataclass(frozen=True)
class ULA:
    """The unadjusted Langevin algorithm, x + h s + √(2hτ) z."""

    aim: ClassVar[None] = None
    evaluations: ClassVar[int] = 1

    def __call__(self, target: Target, point: Point, h: float, generator: torch.Generator | None) -> tuple[Point, Tensor]:
        begin = point._replace(velocity=math.sqrt(target.temperature) * noise_like(point.x, generator))
        end = leapfrog(target, begin, math.sqrt(2 * h), 1)
        return end, torch.ones_like(end.log_density)


@dataclass(frozen=True)
class BAOAB:
    """Underdamped Langevin dynamics by the BAOAB splitting; exact for the position's law if that is Gaussian.

    Raises:
        ValueError: a friction that is not positive.
    """

    friction: float = 1.0
    """γ: velocities forget themselves in a time 1/γ, which is 1/(γε) steps"""

    aim: ClassVar[None] = None
    evaluations: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_positive(friction=self.friction)

    def __call__(self, target: Target, point: Point, h: float, generator: torch.Generator | None) -> tuple[Point, Tensor]:
        eps = math.sqrt(2 * h)
        kept = math.exp(-self.friction * eps)
        velocity = point.velocity + eps / 2 * point.score
        x, velocity = target.reflect(point.x + eps / 2 * velocity, velocity)
        velocity = kept * velocity + math.sqrt((1 - kept**2) * target.temperature) * noise_like(x, generator)
        x, velocity = target.reflect(x + eps / 2 * velocity, velocity)
        end = target.at(x)
        return end._replace(velocity=velocity + eps / 2 * end.score), torch.ones_like(end.log_density)


def metropolis(target: Target, begin: Point, end: Point, generator: torch.Generator | None) -> tuple[Point, Tensor]:
    """Each chain at its end with probability min(1, e^{−ΔH/τ}), else where it began; and that probability `(b,)`."""
    gain = (hamiltonian(begin) - hamiltonian(end)) / target.temperature
    probability = torch.where(gain < math.inf, gain.clamp(max=0).exp(), 0.0)  # 0 for NaN, too
    u = torch.rand(probability.shape, generator=generator, device=gain.device, dtype=gain.dtype)
    taken = u < probability
    wide = expand(taken, end.x)
    x, score = torch.where(wide, end.x, begin.x), torch.where(wide, end.score, begin.score)
    log_density = torch.where(taken, end.log_density, begin.log_density)
    return Point(x, log_density, score, begin.velocity), probability  # the velocity is drawn afresh at the next step


def hamiltonian(point: Point) -> Tensor:
    """½‖v‖² − log p_σ(x), nats, `(b,)`."""
    return sum_event(point.velocity**2) / 2 - point.log_density
