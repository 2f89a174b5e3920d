"""Weak orders of stochastic samplers, without chance (identity 12).

The score of a Gaussian is linear, so each step is x ↦ a x + b + Σ cₖ zₖ, and mean and variance after n steps follow exactly.
The numbers a, b, cₖ are read off a step taken with x = 0 and no noise, with x = 1, and with x = 0 and one zₖ = 1 at a time.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from scorefield.densities import gaussian
from scorefield.processes import PROCESSES
from scorefield.samplers import (
    DDIM,
    Ancestral,
    Churn,
    Descent,
    EulerMaruyama,
    Geometric,
    Heun,
    PredictorCorrector,
    exponential,
    langevin,
    reverse,
)

V, M, HIGH, LOW = 0.64, 0.5, 2.0, 0.05
P = gaussian(torch.tensor([M]), V)
DRAWS = 3
"""most zₖ in a step"""


class Affine(NamedTuple):
    """x ↦ a x + b + noise of this variance."""

    a: float
    b: float
    variance: float


Read = Callable[[Descent, list[float]], list[Affine]]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """The steps of a sampler between levels."""
    draws = iter(range(0))

    def one_at_a_time(x: Tensor, generator: torch.Generator | None) -> Tensor:
        z = torch.zeros_like(x)
        z[2 + next(draws)] = 1
        return z

    for module in (exponential, langevin, reverse):
        monkeypatch.setattr(module, "noise_like", one_at_a_time)

    def steps(sampler: Descent, levels: list[float]) -> list[Affine]:
        nonlocal draws
        step, found = sampler.stepper(P, levels, None, None), []
        for i in range(len(levels) - 1):
            draws = iter(range(DRAWS))
            x = torch.zeros(2 + DRAWS, 1, dtype=torch.float64)
            x[1] = 1
            at_zero, at_one, *noisy = step(i, x)[:, 0].tolist()
            found.append(Affine(at_one - at_zero, at_zero, sum((y - at_zero) ** 2 for y in noisy)))
        return found

    return steps


SAMPLERS: dict[str, tuple[Callable[[int], Descent], float]] = {
    **{
        f"EulerMaruyama in {name}": (lambda n, p=process: EulerMaruyama(n, process=p), 1.0)
        for name, process in PROCESSES.items()
    },
    "Ancestral": (Ancestral, 1.0),
    "DDIM, η = 0.6": (lambda n: DDIM(n, eta=0.6), 0.6),
}  # fmt: skip


@pytest.mark.parametrize(("make", "eta"), SAMPLERS.values(), ids=SAMPLERS)
def test_weak_order(make: Callable[[int], Descent], eta: float, read: Read) -> None:
    """From a point at σ = 2 to σ = 0.05: mean and variance of the reverse SDE whose noise has η² of Anderson's variance.

    With r = ((v + 0.05²)/(v + 4))^((1 + η²)/2) the distance to the mean shrinks by r, and since the marginals are kept, the
    variance is (v + 0.05²) − r² (v + 4).
    """
    r = ((V + LOW**2) / (V + HIGH**2)) ** ((1 + eta**2) / 2)
    expected = np.array([M + r * (3.0 - M), V + LOW**2 - r**2 * (V + HIGH**2)])
    intervals, errors = [64, 128, 256, 512], []
    for n in intervals:
        mean, variance = 3.0, 0.0
        for step in read(make(n + 1), Geometric()(n + 1, (LOW, HIGH))):
            mean, variance = step.a * mean + step.b, step.a**2 * variance + step.variance
        errors.append(np.abs(np.array([mean, variance]) - expected))
    for error in np.transpose(errors):
        if error.max() > 1e-12:  # the mean of ancestral sampling is exact
            assert -np.polyfit(np.log(intervals), np.log(error), 1)[0] == pytest.approx(make(2).order, abs=0.1)  # type: ignore[attr-defined]


def test_ancestral_sampling_keeps_the_mean_exactly(read: Read) -> None:
    """The mean of x given x at a higher level is linear between x and E[x₀ given x], as the step is."""
    (step,) = read(Ancestral(), [2.0, 0.7])
    assert step.a == pytest.approx((V + 0.7**2) / (V + 4), rel=1e-12)
    assert step.variance == pytest.approx(0.7**2 * (1 - 0.7**2 / 4), rel=1e-12)


@pytest.mark.parametrize("corrections", [0, 1, 2])
def test_a_corrector_is_langevin_dynamics_at_the_level_reached(corrections: int, read: Read) -> None:
    sigma, ratio = 0.7, 0.3
    h, mean, variance = ratio * sigma**2, 3.0, 0.0
    (step,) = read(Ancestral(), [2.0, sigma])
    mean, variance = step.a * mean + step.b, step.variance
    for _ in range(corrections):
        shrink = 1 - h / (V + sigma**2)
        mean, variance = M + shrink * (mean - M), shrink**2 * variance + 2 * h
    (found,) = read(PredictorCorrector(corrections=corrections, step_ratio=ratio), [2.0, sigma])
    assert found.a * 3.0 + found.b == pytest.approx(mean, rel=1e-12)
    assert found.variance == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize(("churn", "gamma"), [(3.0, 0.3), (40.0, math.sqrt(2) - 1)], ids=["rate", "most"])  # of 10 steps
def test_churn_raises_the_noise_and_solves_from_there(churn: float, gamma: float, read: Read) -> None:
    """Karras et al. 2022, algorithm 2, on the third of four levels."""
    levels, noise = [8.0, 5.0, 2.0, 0.7], 1.1
    raised = 2.0 * (1 + gamma)
    (heun,) = read(Heun(), [raised, 0.7])
    found = read(Churn(10, churn=churn, noise=noise), levels)[2]
    assert found.a == pytest.approx(heun.a, rel=1e-10)
    assert found.b == pytest.approx(heun.b, rel=1e-10)
    assert found.variance == pytest.approx((heun.a * noise) ** 2 * (raised**2 - 4), rel=1e-10)


def test_churn_stays_in_its_range_and_below_the_first_level(read: Read) -> None:
    levels = [8.0, 7.5, 2.0, 0.7, 0.3]
    steps = read(Churn(10, churn=40.0, churn_range=(0.7, 7.5), noise=1.0), levels)
    assert [step.variance > 0 for step in steps] == [False, True, True, True]
    (heun,) = read(Heun(), [8.0, 2.0])  # 7.5 (1 + γ) would be above the first level
    assert steps[1].variance == pytest.approx(heun.a**2 * (8.0**2 - 7.5**2), rel=1e-10)
    narrow = read(Churn(10, churn_range=(1.0, 7.0)), levels)
    assert [step.variance > 0 for step in narrow] == [False, False, True, False]


def test_without_their_noise_they_are_what_they_are_made_of() -> None:
    x = 80 * torch.randn(5, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def path(sampler: Descent) -> Tensor:
        return torch.stack([state.x for state in sampler(P, x, generator=torch.Generator().manual_seed(1))])

    ends = (0.02, 80.0)
    assert torch.equal(path(PredictorCorrector(20, corrections=0, sigma_range=ends)), path(Ancestral(20, sigma_range=ends)))
    assert torch.equal(path(DDIM(20, eta=1.0, sigma_range=ends)), path(Ancestral(20, sigma_range=ends)))
    still, heun = path(Churn(20, churn=0.0, sigma_range=ends)), path(Heun(20, sigma_range=ends))
    torch.testing.assert_close(still, heun, rtol=1e-12, atol=1e-12)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="corrections must be at least 0, got -1"):
        PredictorCorrector(corrections=-1)
    with pytest.raises(ValueError, match="step_ratio must be positive, got 0"):
        PredictorCorrector(step_ratio=0.0)
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="churn must be at least 0, got"):
            Churn(churn=value)
        with pytest.raises(ValueError, match="noise must be positive, got"):
            Churn(noise=value)
    for pair in ((2.0, 1.0), (-1.0, 1.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="churn_range must be 0 ≤ low ≤ high, got"):
            Churn(churn_range=pair)


def test_defaults_are_the_papers() -> None:
    """Song et al. 2021: signal-to-noise ratio 0.16, h = 2 r² σ²; Karras et al. 2022, table 5, ImageNet."""
    assert PredictorCorrector().step_ratio == pytest.approx(2 * 0.16**2)
    assert (Churn().churn, Churn().churn_range, Churn().noise) == (40.0, (0.05, 50.0), 1.003)
