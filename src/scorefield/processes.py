"""Gaussian diffusions x_t = α(t) x₀ + std(t) z as coordinates on one family of smoothed densities.

Dividing by α gives x₀ + σ z with σ = std/α, so a process is nothing but the pair (α, std); all else is derived:

    noise_level(t) = std/α        f(t) = α′/α        g²(t) = 2 std² · d log σ/dt        score of x_t = score(x/α, σ)/α

Reference: Song et al. 2021, arXiv:2011.13456; Karras et al. 2022, arXiv:2206.00364 (eq. 2–4 and appendix B).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from scorefield.interfaces import Score


class Process(Protocol):
    """α and std as differentiable functions of time, and the time interval [t_min, t_max] they are meant for."""

    @property
    def time_range(self) -> tuple[float, float]: ...

    def alpha(self, t: Tensor) -> Tensor: ...

    def std(self, t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class EDM:
    """Time *is* the noise level: α = 1, std = t (Karras et al. 2022)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

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


def noise_level(process: Process, t: Tensor) -> Tensor:
    """σ(t) = std(t)/α(t), the noise level in the coordinates of the data."""
    return process.std(t) / process.alpha(t)


def drift_diffusion(process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
    """f(t) and g²(t) of the SDE dx = f x dt + g dW whose marginals are α x₀ + std z."""
    f = _derivative(lambda u: process.alpha(u).log(), t)
    return f, 2 * process.std(t) ** 2 * _derivative(lambda u: noise_level(process, u).log(), t)


def marginal_score(model: Score, process: Process, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
    """∇ log p_t(x) of x_t = α x₀ + std z at a scalar time, from a score in the coordinates of the data."""
    alpha = process.alpha(t)
    return model.score(x / alpha, noise_level(process, t), cond) / alpha


def _derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    return torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]
