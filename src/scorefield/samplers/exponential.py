"""Samplers that solve the linear part of the probability flow exactly: DDIM and DPM-Solver++, in terms of the denoiser D.

With λ = −log σ the flow is dx/dλ = D(x, σ) − x, so over a step h of λ

    x(λ + h) = e⁻ʰ x(λ) + ∫₀ʰ e^(τ−h) D dτ

and a method is what it puts for D there: a constant (DDIM, order 1), or a polynomial through the last values. In the
coordinates x₀ + σ z they are the same for every process.

Reference: Song, Meng & Ermon 2021, arXiv:2010.02502 (eq. 12, 16); Lu et al. 2022, arXiv:2211.01095 (algorithm 2).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.interfaces import Score
from scorefield.models import denoise
from scorefield.samplers.descent import Descent, Step, noise_like
from scorefield.samplers.levels import check_share


@dataclass(frozen=True)
class DDIM(Descent):
    """Deterministic for η = 0 (order 1); for η = 1 ancestral sampling, DDPM's chain of posteriors given E[x₀ given x]."""

    eta: float = 0.0
    """share of the posterior's noise"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(eta=self.eta)

    @property
    def order(self) -> int:
        """Of the deterministic method; with noise it is the weak order."""
        return 1

    def stepper(self, model: Score, levels: list[float], cond: Tensor | None, generator: torch.Generator | None) -> Step:
        def step(i: int, x: Tensor) -> Tensor:
            return ddim_step(model, x, levels[i], levels[i + 1], self.eta, cond, generator)

        return step


@dataclass(frozen=True)
class Ancestral(DDIM):
    """Ancestral sampling: DDIM with η = 1."""

    steps: int = 100
    eta: float = 1.0


def ddim_step(
    model: Score, x: Tensor, sigma: float, following: float, eta: float, cond: Tensor | None, generator: torch.Generator | None
) -> Tensor:
    """One step down, towards the model's denoiser."""
    return step_towards(denoise(model, x, sigma, cond), x, sigma, following, eta, generator)


def step_towards(
    denoised: Tensor, x: Tensor, sigma: float, following: float, eta: float, generator: torch.Generator | None
) -> Tensor:
    """One step down, towards a guess of x₀; of the noise left, variance η² σ'²(σ² − σ'²)/σ² is drawn anew."""
    fresh = eta * following * math.sqrt(1 - (following / sigma) ** 2)
    kept = math.sqrt(following**2 - fresh**2) / sigma
    x = torch.lerp(denoised, x, kept)
    return x + fresh * noise_like(x, generator) if fresh else x


@dataclass(frozen=True)
class DPMSolver(Descent):
    """DPM-Solver++ in its multistep forms: order 2 (2M) or 3 (3M), one score evaluation a step.

    The first step of 3M is a Runge–Kutta step of order 2, with one evaluation more, since a starter of order 1 would spoil
    the order.

    Raises:
        ValueError: an order that is not 2 or 3.
    """

    steps: int = 18
    order: int = 2
    """of convergence: 2 or 3"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (2, 3):
            raise ValueError(f"order must be 2 or 3, got {self.order}")

    @property
    def nfe(self) -> int:
        return self.steps - 1 + self.to_zero + (self.order == 3)

    def stepper(self, model: Score, levels: list[float], cond: Tensor | None, generator: torch.Generator | None) -> Step:
        lambdas = [-math.log(s) for s in levels]
        past: list[Tensor] = []  # divided differences of D come from these, the newest last

        def step(i: int, x: Tensor) -> Tensor:
            h = lambdas[i + 1] - lambdas[i]
            now = denoise(model, x, levels[i], cond)
            past.append(now)
            del past[: -self.order]
            constant = -math.expm1(-h)  # ∫ e^(τ−h) dτ
            linear = h - constant  # ∫ e^(τ−h) τ dτ
            first = torch.lerp(now, x, math.exp(-h))
            if i == 0:
                if self.order == 2:
                    return first
                return first + linear / h * (denoise(model, first, levels[1], cond) - now)
            back = lambdas[i] - lambdas[i - 1]
            slope = (past[-1] - past[-2]) / back
            if self.order == 2:
                return first + constant * h / 2 * slope
            if i == 1:
                return first + linear * slope
            further = lambdas[i - 1] - lambdas[i - 2]
            bend = (slope - (past[-2] - past[-3]) / further) / (back + further)
            return first + linear * slope + (h**2 - 2 * linear + back * linear) * bend

        return step
