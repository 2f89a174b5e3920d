"""DDIM and DPM-Solver++ against the papers' formulas, written in the coordinates of a variance-preserving process."""

import math
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from scorefield.densities import GaussianMixture
from scorefield.processes import VP, noise_level
from scorefield.samplers import DDIM, Ancestral, Descent, DPMSolver

P = GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.5], [1.0, 2.0]]), torch.tensor([0.2, 0.6]))
X = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class At(NamedTuple):
    """The process at one time."""

    alpha: float
    std: float

    @property
    def sigma(self) -> float:
        return self.std / self.alpha

    @property
    def half_log_snr(self) -> float:
        """λ = log(α/std)."""
        return math.log(self.alpha / self.std)

    def denoised(self, x: Tensor) -> Tensor:
        """E[x₀ given x_t], from the mixture's posteriors."""
        return P.posterior_mean(x / self.alpha, self.sigma)


TIMES = torch.tensor([0.7, 0.5, 0.42, 0.3], dtype=torch.float64)
POINTS = [At(a, s) for a, s in zip(VP().alpha(TIMES).tolist(), VP().std(TIMES).tolist(), strict=True)]


def walk(sampler: Descent, count: int, g: torch.Generator | None = None) -> list[Tensor]:
    """The states at the first `count` points in the coordinates of the process, the first being X."""
    levels = noise_level(VP(), TIMES).tolist()[:count]
    step = sampler.stepper(P, levels, None, g)
    states = [X]
    for i, (at, then) in enumerate(pairwise(POINTS[:count])):
        states.append(then.alpha * step(i, states[-1] / at.alpha))
    return states


def test_ancestral_sampling_is_ddpms_posterior() -> None:
    """Ho et al. 2020, eq. 7: q(x_{t−1} given x_t, x₀) at x₀ = E[x₀ given x_t]."""
    at, then = POINTS[:2]
    cumulative, before = at.alpha**2, then.alpha**2  # ᾱ_t, ᾱ_{t−1}
    beta = 1 - cumulative / before
    mean = (
        before**0.5 * beta / (1 - cumulative) * at.denoised(X)
        + (1 - beta) ** 0.5 * (1 - before) / (1 - cumulative) * X
    )  # fmt: skip
    variance = (1 - before) / (1 - cumulative) * beta
    z = torch.randn(X.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _, x = walk(Ancestral(), 2, torch.Generator().manual_seed(1))
    torch.testing.assert_close(x, mean + variance**0.5 * z, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_is_equation_12(eta: float) -> None:
    """Song, Meng & Ermon 2021, eq. 12 and 16."""
    at, then = POINTS[:2]
    cumulative, before = at.alpha**2, then.alpha**2
    fresh = eta * ((1 - before) / (1 - cumulative)) ** 0.5 * (1 - cumulative / before) ** 0.5
    clean = at.denoised(X)
    noise = (X - cumulative**0.5 * clean) / (1 - cumulative) ** 0.5
    z = torch.randn(X.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = before**0.5 * clean + (1 - before - fresh**2) ** 0.5 * noise + fresh * z
    _, x = walk(DDIM(eta=eta), 2, torch.Generator().manual_seed(1))
    torch.testing.assert_close(x, expected, rtol=1e-10, atol=1e-12)


def test_ddim_draws_nothing_without_noise() -> None:
    g = torch.Generator().manual_seed(1)
    before = g.get_state()
    walk(DDIM(), 4, g)
    assert torch.equal(g.get_state(), before)


def test_the_second_order_solver_is_algorithm_2() -> None:
    """Lu et al. 2022, DPM-Solver++(2M): D = (1 + 1/2r) x̂ᵢ − 1/2r x̂ᵢ₋₁, x' = (σ'/σ) x − α' (e⁻ʰ − 1) D; first D = x̂₀."""
    x, denoised, step = X, list[Tensor](), list[float]()
    states = walk(DPMSolver(), 4)
    for at, then, found in zip(POINTS, POINTS[1:], states[1:], strict=False):
        denoised.append(at.denoised(x))
        step.append(then.half_log_snr - at.half_log_snr)
        d = denoised[-1]
        if len(step) > 1:
            r = step[-2] / step[-1]
            d = (1 + 1 / (2 * r)) * denoised[-1] - 1 / (2 * r) * denoised[-2]
        x = then.std / at.std * x - then.alpha * math.expm1(-step[-1]) * d
        torch.testing.assert_close(found, x, rtol=1e-10, atol=1e-12)


def test_the_third_order_solver_integrates_the_polynomial_through_the_last_three() -> None:
    """x(λ + h) = e⁻ʰ x + ∫₀ʰ e^(τ−h) D dτ in the coordinates of the data, by a fine trapezoidal rule."""
    states = [x / at.alpha for x, at in zip(walk(DPMSolver(order=3), 4), POINTS, strict=True)]
    levels = [at.half_log_snr for at in POINTS]
    denoised = [P.posterior_mean(x, at.sigma) for x, at in zip(states, POINTS, strict=True)]

    def step(i: int, nodes: list[float], values: list[Tensor]) -> Tensor:
        tau = torch.linspace(levels[i], levels[i + 1], 20_001, dtype=torch.float64)
        bases = [math.prod((tau - b) / (a - b) for b in nodes if b != a) * torch.ones_like(tau) for a in nodes]
        decay = (tau - levels[i + 1]).exp()
        integral = sum(torch.trapezoid(decay * basis, tau) * value for basis, value in zip(bases, values, strict=True))
        return math.exp(levels[i] - levels[i + 1]) * states[i] + integral

    euler = step(0, levels[:1], denoised[:1])
    there = P.posterior_mean(euler, POINTS[1].sigma)
    torch.testing.assert_close(states[1], step(0, levels[:2], [denoised[0], there]), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(states[2], step(1, levels[:2], denoised[:2]), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(states[3], step(2, levels[:3], denoised[:3]), rtol=1e-8, atol=1e-9)


def test_settings_out_of_range_are_refused() -> None:
    for eta in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"eta must be in \[0, 1\], got"):
            DDIM(eta=eta)
    for order in (1, 4, 2.5):
        with pytest.raises(ValueError, match=f"order must be 2 or 3, got {order}"):
            DPMSolver(order=order)  # type: ignore[arg-type]
