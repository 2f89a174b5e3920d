"""Gaussian diffusions x_t = α(t) x₀ + std(t) z as coordinates on one family of smoothed densities.

Dividing by α gives x₀ + σ z with σ = std/α, so a process is nothing but the pair (α, std); all else is derived:

    noise level    σ(t) = std/α, and its inverse t(σ)          signal-to-noise ratio  1/σ²
    drift          f(t) = α′/α                                 score of x_t           score(x/α, σ)/α
    diffusion      g²(t) = 2 std² · d log σ/dt                 prior                  N(0, (α² + std²) I) at t_max

Reference: Song et al. 2021, arXiv:2011.13456; Karras et al. 2022, arXiv:2206.00364 (eq. 2–4 and appendix B);
Nichol & Dhariwal 2021, arXiv:2102.09672 (cosine); Liu et al. 2022, arXiv:2209.03003 (rectified flow).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from scorefield.interfaces import Score


class Process(Protocol):
    """α and std as differentiable functions of time t ≥ 0, and the interval [t_min, t_max] they are meant for.

    The noise level std/α must rise with t.
    """

    @property
    def time_range(self) -> tuple[float, float]: ...

    def alpha(self, t: Tensor) -> Tensor: ...

    def std(self, t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class EDM:
    """Time *is* the noise level: α = 1, std = t (Karras et al. 2022)."""

    sigma_min: float = 0.0
    sigma_max: float = math.inf

    @property
    def time_range(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def std(self, t: Tensor) -> Tensor:
        return t


@dataclass(frozen=True)
class VE:
    """Variance exploding: α = 1, std = σ_min (σ_max/σ_min)^t on t ∈ [0, 1] (Song et al. 2021, appendix C)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    @property
    def time_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def std(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t


@dataclass(frozen=True)
class VP:
    """Variance preserving: α = exp(−B/2), std² = 1 − α², B = ∫β, β linear in t ∈ [0, 1] (Song et al. 2021, eq. 32–33)."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    @property
    def time_range(self) -> tuple[float, float]:
        return 1e-5, 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return (-self.integral(t) / 2).exp()

    def std(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-self.integral(t))).sqrt()

    def integral(self, t: Tensor) -> Tensor:
        """B(t)."""
        return self.beta_min * t + (self.beta_max - self.beta_min) / 2 * t**2


@dataclass(frozen=True)
class SubVP(VP):
    """The same α with std = 1 − α²: less noise than VP at every time (Song et al. 2021, eq. 12)."""

    def std(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.integral(t))


@dataclass(frozen=True)
class Cosine:
    """Variance preserving with α = cos u/cos u₀, u = (t + s)/(1 + s) · π/2 on t ∈ [0, 1] (Nichol & Dhariwal 2021, eq. 17)."""

    offset: float = 0.008
    """s, which keeps the first steps from being too small"""

    @property
    def time_range(self) -> tuple[float, float]:
        return 1e-5, 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return self.angle(t).cos() / math.cos(self.start)

    def std(self, t: Tensor) -> Tensor:
        # 1 − cos²u/cos²u₀ = sin(u − u₀) sin(u + u₀)/cos²u₀, which does not cancel at small t
        u = self.angle(t)
        return ((u - self.start).sin() * (u + self.start).sin()).sqrt() / math.cos(self.start)

    @property
    def start(self) -> float:
        """u₀, the angle at t = 0."""
        return self.offset / (1 + self.offset) * math.pi / 2

    def angle(self, t: Tensor) -> Tensor:
        """u(t)."""
        return self.start + t / (1 + self.offset) * math.pi / 2


@dataclass(frozen=True)
class RectifiedFlow:
    """A straight line from data to noise: α = 1 − t, std = t on t ∈ [0, 1); σ has no end (Liu et al. 2022)."""

    @property
    def time_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def std(self, t: Tensor) -> Tensor:
        return t


ProcessName = Literal["edm", "ve", "vp", "cosine", "sub-vp", "flow"]
PROCESSES: dict[str, Process] = {
    "edm": EDM(), "ve": VE(), "vp": VP(), "cosine": Cosine(), "sub-vp": SubVP(), "flow": RectifiedFlow(),
}  # fmt: skip


class Node(NamedTuple):
    """A process at one time, as numbers: what a solver needs there."""

    t: float
    sigma: float
    """noise level"""
    alpha: float
    drift: float
    """f"""
    diffusion: float
    """g²"""


def noise_level(process: Process, t: Tensor) -> Tensor:
    """σ(t) = std(t)/α(t), the noise level in the coordinates of the data."""
    return process.std(t) / process.alpha(t)


def level_range(process: Process) -> tuple[float, float]:
    """Smallest and largest noise level of the process's time interval."""
    low, high = noise_level(process, torch.tensor(process.time_range, dtype=torch.float64)).tolist()
    return low, high


def snr(process: Process, t: Tensor) -> Tensor:
    """Signal-to-noise ratio α²/std² = 1/σ²."""
    return noise_level(process, t) ** -2


def time_at(process: Process, sigma: Sequence[float] | Tensor) -> Tensor:
    """The times `(n,)` at which the noise levels are `sigma` `(n,)`, float64, to the last digit.

    Raises:
        ValueError: a level that the process does not reach.
    """
    levels = torch.as_tensor(sigma, dtype=torch.float64)
    low, high = level_range(process)
    if not ((levels >= low * (1 - 1e-9)) & (levels <= high * (1 + 1e-9))).all():
        raise ValueError(f"{type(process).__name__} has noise levels from {low:g} to {high:g}, not {levels.tolist()}")
    # non-negative floating-point numbers are ordered like the integers with the same bits, which are found seven at a time
    start, end = torch.tensor(process.time_range, dtype=torch.float64).view(torch.int64)
    levels, digits = levels[:, None], torch.arange(128)
    found = start.expand_as(levels)
    for shift in range(56, -1, -7):
        ahead = found + torch.minimum(digits << shift, end - found)
        below = noise_level(process, ahead.view(torch.float64)) < levels
        found = ahead.gather(1, (below.sum(1, keepdim=True) - 1).clamp(min=0))  # the last that is below the level
    below = noise_level(process, found.view(torch.float64)) < levels
    return torch.minimum(found + below, end).view(torch.float64)[:, 0]


def nodes(process: Process, times: Tensor) -> list[Node]:
    """The process at `times` `(n,)`."""
    t = times.double()
    drift, diffusion = drift_diffusion(process, t)
    columns = (t, noise_level(process, t), process.alpha(t), drift, diffusion)
    return [Node(*row) for row in torch.stack(columns, 1).tolist()]


def drift_diffusion(process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
    """f(t) and g²(t) of the SDE dx = f x dt + g dW whose marginals are α x₀ + std z."""
    f = _derivative(lambda u: process.alpha(u).log(), t)
    return f, 2 * process.std(t) ** 2 * _derivative(lambda u: noise_level(process, u).log(), t)


def marginal_score(model: Score, process: Process, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
    """∇ log p_t(x) of x_t = α x₀ + std z at a scalar time, from a score in the coordinates of the data."""
    alpha = process.alpha(t)
    return model.score(x / alpha, noise_level(process, t), cond) / alpha


def velocity(model: Score, at: Node, x: Tensor, cond: Tensor | None = None) -> Tensor:
    """dx/dt of the probability-flow ODE, f x − ½ g² ∇ log p_t(x), in the coordinates of the process."""
    return velocity_along(model.score(x / at.alpha, at.sigma, cond), at, x)


def velocity_along(score: Tensor, at: Node, x: Tensor) -> Tensor:
    """The same where the score of the data's coordinates, x/α at the level of `at`, is known already."""
    pulled = -at.diffusion / (2 * at.alpha) * score
    return torch.add(pulled, x, alpha=at.drift) if at.drift else pulled


def _derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """Of each entry; backwards, which is several times faster than forwards (`torch.func.jvp` goes through Python)."""
    value, pullback = torch.func.vjp(function, t)  # type: ignore[misc]  # its type allows for has_aux
    return pullback(torch.ones_like(value))[0]
