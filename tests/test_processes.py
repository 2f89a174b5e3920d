"""(α, std) to (f, g²) and to marginal scores (identity 11), also for processes that are not built in."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from scorefield.densities import GaussianMixture
from scorefield.processes import EDM, VE, Process, drift_diffusion, marginal_score, noise_level

B0, B1 = 0.1, 20.0


def beta(t: Tensor) -> Tensor:
    return B0 + t * (B1 - B0)


def integral(t: Tensor) -> Tensor:
    return B0 * t + t**2 * (B1 - B0) / 2


@dataclass(frozen=True)
class OfTwoFunctions:
    """A process as a user would write one."""

    alpha: Callable[[Tensor], Tensor]
    std: Callable[[Tensor], Tensor]
    time_range: tuple[float, float] = (1e-3, 1.0)


VP = OfTwoFunctions(lambda t: (-integral(t) / 2).exp(), lambda t: (-torch.expm1(-integral(t))).sqrt())
SUB_VP = OfTwoFunctions(lambda t: (-integral(t) / 2).exp(), lambda t: -torch.expm1(-integral(t)))
FLOW = OfTwoFunctions(lambda t: 1 - t, lambda t: t)

# Song et al. 2021, equations 9, 11, 12 and appendix C; the flow's by hand from g² = d std²/dt − 2 f std²
CASES: dict[str, tuple[Process, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "edm": (EDM(), torch.zeros_like, lambda t: 2 * t),
    "ve": (VE(0.01, 50.0), torch.zeros_like, lambda t: 0.01**2 * 5000 ** (2 * t) * 2 * math.log(5000)),
    "vp": (VP, lambda t: -beta(t) / 2, beta),
    "sub-vp": (SUB_VP, lambda t: -beta(t) / 2, lambda t: beta(t) * (1 - (-2 * integral(t)).exp())),
    "flow": (FLOW, lambda t: -1 / (1 - t), lambda t: 2 * t / (1 - t)),
}
each_process = pytest.mark.parametrize(("process", "f", "g2"), CASES.values(), ids=CASES)
TIMES = torch.tensor([0.02, 0.3, 0.5, 0.9], dtype=torch.float64)


@each_process
def test_drift_and_diffusion(process: Process, f: Callable[[Tensor], Tensor], g2: Callable[[Tensor], Tensor]) -> None:
    drift, diffusion = drift_diffusion(process, TIMES)
    torch.testing.assert_close(drift, f(TIMES), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(diffusion, g2(TIMES), rtol=1e-6, atol=0)
    for i, t in enumerate(TIMES):  # scalar times too
        torch.testing.assert_close(torch.stack(drift_diffusion(process, t)), torch.stack([drift[i], diffusion[i]]))


@each_process
def test_marginal_scores_are_those_of_the_diffused_density(
    process: Process, f: Callable[[Tensor], Tensor], g2: Callable[[Tensor], Tensor]
) -> None:
    weights, means = torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.5], [1.0, 2.0]], dtype=torch.float64)
    variances = torch.tensor([0.2, 0.6], dtype=torch.float64)
    p = GaussianMixture(weights, means, variances)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in TIMES:
        a, s = process.alpha(t), process.std(t)
        diffused = GaussianMixture(weights, a * means, a**2 * variances + s**2)  # the law of α x₀ + std z
        torch.testing.assert_close(marginal_score(p, process, x, t), diffused.score(x), rtol=1e-6, atol=1e-9)


@each_process
def test_the_marginals_solve_the_fokker_planck_equation(
    process: Process, f: Callable[[Tensor], Tensor], g2: Callable[[Tensor], Tensor]
) -> None:
    """The variance of dx = f x dt + g dW obeys dv/dt = 2 f v + g², for v = α² τ² + std²."""
    variance = lambda t: process.alpha(t) ** 2 * 0.7 + process.std(t) ** 2  # noqa: E731
    rate = torch.func.jvp(variance, (TIMES,), (torch.ones_like(TIMES),))[1]
    drift, diffusion = drift_diffusion(process, TIMES)
    torch.testing.assert_close(2 * drift * variance(TIMES) + diffusion, rate, rtol=1e-6, atol=1e-9)


def test_noise_levels_and_time_ranges() -> None:
    t = torch.tensor([0.25, 0.75], dtype=torch.float64)
    torch.testing.assert_close(noise_level(FLOW, t), t / (1 - t))
    torch.testing.assert_close(noise_level(EDM(), t), t)
    torch.testing.assert_close(noise_level(VE(0.01, 100.0), t), torch.tensor([0.1, 10.0]).double())
    assert EDM(0.01, 50.0).time_range == (0.01, 50.0)
    low, high = VE(0.01, 50.0).time_range
    assert [float(noise_level(VE(0.01, 50.0), torch.tensor(v))) for v in (low, high)] == pytest.approx([0.01, 50.0])
