"""The kernel exponential family against its variational equation, brute force, and differences of its own validated loss."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from scorefield.densities import GaussianMixture
from scorefield.densities.kernel import (
    FittedKernelFamily,
    Gaussian,
    InverseMultiquadric,
    KernelExponentialFamily,
    median_bandwidth,
)
from scorefield.densities.kernel import expansion as expansion_module
from scorefield.densities.kernel.exponential import _Validated, folds
from scorefield.interfaces import Score, ScoredDensity

MIXTURE = GaussianMixture(torch.ones(2), torch.tensor([[-1.5, 0.0], [1.5, 0.5]]), torch.tensor([0.6, 0.4]))
SETTINGS = {
    "full": KernelExponentialFamily(Gaussian(1.1), 0.03, base=None),
    "full, base": KernelExponentialFamily(InverseMultiquadric(1.4), 0.02, base=1.7),
    "inducing": KernelExponentialFamily(InverseMultiquadric(0.9), 0.04, inducing=12, base=None),
    "inducing, base": KernelExponentialFamily(Gaussian(0.7), 0.02, inducing=12, base=1.3),
}
each = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def draws(n: int = 40, seed: int = 0) -> Tensor:
    return MIXTURE.sample(n, generator=torch.Generator().manual_seed(seed))


def base_of(settings: KernelExponentialFamily, x: Tensor) -> Callable[[Tensor], Tensor]:
    """log q₀ by another library."""
    if settings.base is None:
        return lambda y: y.new_zeros(len(y))
    return MultivariateNormal(x.mean(0), settings.base * torch.cov(x.mT, correction=0)).log_prob


def kernel_of(settings: KernelExponentialFamily, x: Tensor, z: Tensor) -> Tensor:
    """k of two points from the formula."""
    u = ((x - z) ** 2).sum() / settings.kernel.bandwidth**2
    return (-u / 2).exp() if isinstance(settings.kernel, Gaussian) else (1 + u) ** -0.5


def score_and_trace(log_density: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    def one(row: Tensor) -> Tensor:
        return log_density(row[None])[0]

    score, hessian = torch.func.vmap(torch.func.grad(one))(x), torch.func.vmap(torch.func.hessian(one))(x)
    return score, hessian.diagonal(dim1=1, dim2=2).sum(1)


def directional(settings: KernelExponentialFamily, fitted: FittedKernelFamily, x: Tensor, z: Tensor) -> Tensor:
    """d/dε of E[½‖s‖² + tr ∇s] + (λ/2)‖f‖² at f + ε k(z, ·), where ⟨f, k(z, ·)⟩ = f(z)."""
    slope, curvature = score_and_trace(lambda y: torch.stack([kernel_of(settings, row, z) for row in y]), x)
    f = fitted.log_density(z[None])[0] - base_of(settings, x)(z[None])[0]
    return ((fitted.score(x) * slope).sum(1) + curvature).mean() + settings.ridge * f


@each
def test_the_fit_is_the_minimum_of_the_penalised_loss(settings: KernelExponentialFamily) -> None:
    """No direction lowers it: with the full form not even k(z, ·) elsewhere, in the Nyström form none of the inducing rows."""
    x = draws()
    fitted = settings.fit(x)
    away = 1.5 * torch.randn(12, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for z in away if settings.inducing is None else fitted.centres:
        assert abs(float(directional(settings, fitted, x, z))) < 1e-10


@pytest.mark.parametrize(("inducing", "ridge"), [(12, 0.0), (12, 0.02), (40, 0.02)])
def test_the_nystrom_solve_is_that_of_the_quadratic_built_by_autograd(inducing: int, ridge: float) -> None:
    """The penalised loss as a function of α, its Hessian and gradient at 0 by autograd, and a dense solve."""
    settings = replace(SETTINGS["inducing, base"], kernel=Gaussian(0.2), ridge=ridge, inducing=inducing)
    x = draws()
    fitted = settings.fit(x)
    z, n = fitted.centres, len(x)
    assert {tuple(row) for row in z.tolist()} <= {tuple(row) for row in x.tolist()}
    assert len(z) == inducing
    pairs = torch.func.vmap(torch.func.vmap(lambda a, b: kernel_of(settings, a, b), (None, 0)), (0, None))

    def loss(alpha: Tensor) -> Tensor:
        score, trace = score_and_trace(lambda y: pairs(y, z) @ alpha + base_of(settings, x)(y), x)
        return (score**2).sum() / (2 * n) + trace.mean() + ridge / 2 * alpha @ pairs(z, z) @ alpha

    zero = torch.zeros(inducing, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(loss, zero)
    alpha = torch.linalg.solve(hessian, -torch.func.grad(loss)(zero))
    accuracy = 1e-14 * float(torch.linalg.cond(hessian))
    torch.testing.assert_close(fitted.values, alpha, rtol=accuracy, atol=accuracy * float(alpha.abs().max()))


@each
def test_the_loss_is_that_by_autograd(settings: KernelExponentialFamily) -> None:
    x, y = draws(), draws(25, seed=1)
    fitted = settings.fit(x)
    score, trace = score_and_trace(lambda rows: fitted.log_density(rows), y)
    torch.testing.assert_close(fitted.loss(y), (score**2).sum(1) / 2 + trace, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(fitted.score(y), score, rtol=1e-10, atol=1e-10)
    base_score, base_trace = score_and_trace(base_of(settings, x), y)
    torch.testing.assert_close(fitted.score(y) - base_score, fitted.expansion.gradient(y), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(trace - base_trace, fitted.expansion.laplacian(y), rtol=1e-8, atol=1e-8)


@each
def test_blocks_do_not_matter(settings: KernelExponentialFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draws(), draws(25, seed=1)
    one = settings.fit(x)
    expected = one.log_density(y), one.score(y), one.loss(y)
    monkeypatch.setattr(expansion_module, "BLOCK", 90)
    many = settings.fit(x)
    for actual, value in zip((many.log_density(y), many.score(y), many.loss(y)), expected, strict=True):
        torch.testing.assert_close(actual, value, rtol=1e-9, atol=1e-9)


def test_equal_inducing_rows_change_nothing_with_a_ridge() -> None:
    """f is then still unique, whichever the coefficients; and a kernel wide enough to be singular in float64 does no harm.

    Directions below rounding error are left out, eigenvalues of K under 10mε of the largest: of the score that may be
    √(10mε)/λ = 4e-5, differently with and without the copies.
    """
    x = draws(30)
    twice = torch.cat([x, x])
    for kernel in (Gaussian(0.7), Gaussian(6.0)):
        settings = KernelExponentialFamily(kernel, 1e-2, inducing=60)
        torch.testing.assert_close(settings.fit(twice).score(x), settings.fit(x).score(x), rtol=0, atol=4e-5)
        one = settings.fit(twice)
        assert all(abs(float(directional(settings, one, twice, z))) < 1e-8 for z in x[:10])


@pytest.mark.parametrize("with_base", [True, False])
def test_the_gradient_of_the_validated_loss(with_base: bool) -> None:
    """Its value is the loss of a fit to the training rows; its gradient that by central differences, error about h²."""
    ((train, held_out),) = folds(draws(100), 0.3, 1, 5)
    theta, h = [-0.3, -4.0, 0.4][: 2 + with_base], 1e-4

    def fitted(theta: list[float]) -> FittedKernelFamily:
        bandwidth, ridge, inflation = [*torch.tensor(theta, dtype=torch.float64).exp().tolist(), None][:3]
        return KernelExponentialFamily(Gaussian(bandwidth), ridge, inducing=20, base=inflation).fit(train)

    def by_fit(theta: list[float]) -> float:
        return float(fitted(theta).loss(held_out).mean())

    problem = _Validated(Gaussian(1.0), train, fitted(theta).centres, held_out, with_base)
    value, gradient = problem(theta)
    assert value == pytest.approx(by_fit(theta), rel=1e-9)
    for i, slope in enumerate(gradient):
        up, down = ([t + sign * h * (i == j) for j, t in enumerate(theta)] for sign in (1, -1))
        assert slope == pytest.approx((by_fit(up) - by_fit(down)) / (2 * h), rel=1e-5, abs=1e-7)


def test_tuning_finds_settings_as_good_as_the_best_of_a_grid() -> None:
    x = draws(200, seed=2)
    start = KernelExponentialFamily(Gaussian(1.0), inducing=30)

    def validated(settings: KernelExponentialFamily) -> float:
        def loss(train: Tensor, held_out: Tensor) -> float:
            return float(settings.fit(train).loss(held_out).mean())

        return sum(loss(*part) for part in folds(x, 0.25, 2, 0)) / 2

    tuned = start.tuned(x, validation=0.25, splits=2)
    assert (tuned.inducing, tuned.seed) == (30, 0)
    grid = [replace(start, kernel=Gaussian(w), ridge=r, base=b) for w in (0.5, 1, 2) for r in (1e-3, 1e-2) for b in (1, 2)]
    assert validated(tuned) <= min(validated(settings) for settings in grid) + 1e-9
    without = replace(start, base=None).tuned(x, validation=0.25, splits=2)
    assert without.base is None
    assert validated(without) < validated(replace(start, base=None))


def tuned(x: Tensor | None = None, **settings: Any) -> KernelExponentialFamily:
    return KernelExponentialFamily(inducing=20).tuned(draws() if x is None else x, **settings)


QUANTILES = (torch.arange(100, dtype=torch.float64)[:, None] + 0.5) / 100
SPIKED = torch.special.ndtri(QUANTILES) ** 3
"""of a density with a pole at 0, for which no kernel is narrow enough; a uniform density wants no ridge"""
ONCE: dict[str, Any] = {"splits": 2, "starts": (1.0,)}


def test_bounds_of_settings_hold_to_which_they_would_go() -> None:
    at = tuned(QUANTILES, least_ridge=0.5, **ONCE)
    assert at.ridge == pytest.approx(0.5, rel=1e-12)
    assert tuned(QUANTILES, least_ridge=1e-3, **ONCE).ridge < 0.1
    for most in (1.2, 1.5):
        assert tuned(draws(100), most_inflation=most, **ONCE).base == pytest.approx(most, rel=1e-12)
    size = median_bandwidth(SPIKED)
    for least in (0.3, 0.2):
        assert tuned(SPIKED, least_bandwidth=least, **ONCE).kernel.bandwidth == pytest.approx(least * size, rel=1e-12)
    kernel = Gaussian(2 * size)  # the bound is a factor of the bandwidth that is given
    of_kernel = KernelExponentialFamily(kernel, inducing=20).tuned(SPIKED, least_bandwidth=0.15, **ONCE)
    assert of_kernel.kernel.bandwidth == pytest.approx(0.3 * size, rel=1e-12)


def test_settings_at_their_default_bounds_are_told_and_no_others() -> None:
    with pytest.warns(UserWarning, match="^the ridge, 1.11e-09, is at its lower bound: the held-out loss would go on falling"):
        tuned(QUANTILES, **ONCE)
    with pytest.warns(
        UserWarning, match="^the bandwidth, 0.112, is at its lower bound: .*; least_bandwidth sets another bound$"
    ):
        tuned(SPIKED, **ONCE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuned(QUANTILES, least_ridge=1e-6, **ONCE)
        tuned(SPIKED, least_bandwidth=0.2, **ONCE)
        tuned(draws(100), most_inflation=1.2, **ONCE)


def test_splits_are_disjoint_and_use_every_row_once() -> None:
    x = torch.arange(20, dtype=torch.float64)[:, None]
    parts = folds(x, 0.25, 4, 7)
    assert torch.equal(torch.cat([h for _, h in parts]).flatten().sort().values, x.flatten())
    for train, held_out in parts:
        assert len(held_out) == 5
        assert torch.equal(torch.cat([train, held_out]).flatten().sort().values, x.flatten())


@each
def test_it_is_an_energy_of_the_data_only(settings: KernelExponentialFamily) -> None:
    fitted = settings.fit(draws())
    assert isinstance(fitted, Score)
    assert isinstance(fitted, ScoredDensity)
    assert (fitted.event_shape, fitted.sigma_range) == ((2,), (0, 0))
    single = draws(5).float()
    assert fitted.score(single).dtype == fitted.log_density(single).dtype == torch.float32
    torch.testing.assert_close(fitted.log_density(single), fitted.log_density(single.double()).float(), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match=r"sigma must be 0, got 0\.1"):
        fitted.score(single, 0.1)
    with pytest.raises(ValueError, match=r"events of shape \(2,\) expected"):
        fitted.loss(torch.zeros(3, 1))


def test_the_seed_alone_chooses_the_inducing_rows() -> None:
    x = draws()
    first, again, other = (KernelExponentialFamily(inducing=5, seed=seed).fit(x).centres for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("settings", "x", "message"),
    [
        (SETTINGS["full"], torch.zeros(1, 3), r"at least 2 of them, got shape \(1, 3\)"),
        (SETTINGS["inducing"], torch.tensor([[0.0], [1.0], [float("nan")]]), "row 2, column 0: nan is not a finite number"),
        (SETTINGS["full"], torch.eye(3)[:2], "column 2 is constant: leave it out"),
        (SETTINGS["full, base"], torch.ones(9, 2), "column 0 is constant: leave it out"),
        (SETTINGS["inducing"], torch.ones(9, 1), "column 0 is constant: leave it out"),
        (SETTINGS["full"], draws(2501), r"n·d = 5002 unknowns, more than 5000: use the Nyström form"),
        (replace(SETTINGS["full"], ridge=0.0), draws(), "the kernel's matrix is singular: in the full form"),
        (replace(SETTINGS["inducing"], ridge=0.0), draws(6).repeat(2, 1), "the kernel's matrix is singular: inducing rows"),
        (replace(SETTINGS["inducing"], ridge=0.0, kernel=Gaussian(50.0)), draws(), "the kernel's matrix is singular"),
        (SETTINGS["full, base"], torch.eye(3).double(), "the covariance of the rows is singular"),
    ],
)
def test_data_that_cannot_be_fitted_are_refused(settings: KernelExponentialFamily, x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings.fit(x)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: KernelExponentialFamily("rbf"), r"the kernel must be None or a kernel such as Gaussian\(1\.0\), got 'rbf'"),
        (lambda: KernelExponentialFamily(Gaussian), "the kernel must be None or a kernel such as .* got <class"),
        (lambda: KernelExponentialFamily(ridge=-1.0), "the ridge must be at least 0 and finite, got -1"),
        (lambda: KernelExponentialFamily(ridge="x"), "the ridge must be at least 0 and finite, got 'x'"),
        (lambda: KernelExponentialFamily(base=0.0), "the base must be None or a positive factor of the covariance, got 0"),
        (lambda: KernelExponentialFamily(base="x"), "the base must be None or a positive factor of the covariance, got 'x'"),
        (lambda: KernelExponentialFamily(inducing=0), "inducing must be a whole number of at least 1, got 0"),
        (lambda: KernelExponentialFamily(inducing=10.5), r"inducing must be a whole number of at least 1, got 10\.5"),
        (lambda: KernelExponentialFamily(inducing=True), "inducing must be a whole number of at least 1, got True"),
        (lambda: KernelExponentialFamily(ridge=0.0).tuned(draws()), "tuning needs a positive ridge and at least one start"),
        (lambda: tuned(starts=()), "tuning needs a positive ridge and at least one start"),
        (lambda: tuned(starts=(1.0, -1)), r"starts must be positive factors of the bandwidth, got \[1\.0, -1\]"),
        (lambda: tuned(starts=0), r"starts must be positive factors of the bandwidth, got \[0\]"),
        (lambda: tuned(starts="x"), r"starts must be positive factors of the bandwidth, got \['x'\]"),
        (lambda: tuned(steps=2.5), r"steps must be a whole number of at least 1, got 2\.5"),
        (lambda: tuned(splits=2.5), r"splits must be a whole number of at least 1, got 2\.5"),
        (lambda: tuned(validation="x"), "40 rows cannot be split 5 times with disjoint held-out shares of x"),
        (lambda: tuned(least_ridge=-1), "least_ridge must be at least 0 and finite, got -1"),
        (lambda: tuned(most_inflation=0.5), r"most_inflation must be at least 1, got 0\.5"),
        (lambda: tuned(least_bandwidth=0), r"least_bandwidth must be in \(0, 100\], got 0"),
        (lambda: tuned(least_bandwidth=101.0), r"least_bandwidth must be in \(0, 100\], got 101"),
        (lambda: KernelExponentialFamily().tuned(torch.ones(9, 2)), "column 0 is constant: leave it out"),
        (lambda: KernelExponentialFamily().tuned(draws(2501)), "n·d = 5002 unknowns, more than 5000"),
        (lambda: KernelExponentialFamily().tuned(draws(), 1.0), "40 rows cannot be split 5 times"),
        (lambda: KernelExponentialFamily().tuned(draws(), 0.2, 6), r"split 6 times with disjoint held-out shares of 0\.2"),
    ],
)
def test_settings_that_make_no_fit_are_refused(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask()


def test_a_fit_is_one_line() -> None:
    for name, words in {
        "full, base": "40 rows, 2 columns, InverseMultiquadric(bandwidth=1.4, exponent=0.5), a Gaussian base",
        "inducing": "12 rows, 2 columns, InverseMultiquadric(bandwidth=0.9, exponent=0.5)",
    }.items():
        assert repr(SETTINGS[name].fit(draws())) == f"FittedKernelFamily({words})"
    assert repr(SETTINGS["full"].fit(draws()).expansion) == "Expansion(40 rows, 2 columns, Gaussian(bandwidth=1.1))"


def test_arrays_and_frames_are_rows_like_tensors() -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    family = KernelExponentialFamily(inducing=10)
    expected = family.fit(torch.from_numpy(x)).log_density(torch.from_numpy(x[:5]))
    for rows in (x, pd.DataFrame(x, columns=["a", "b"])):
        torch.testing.assert_close(family.fit(rows).log_density(torch.from_numpy(x[:5])), expected, rtol=1e-11, atol=1e-11)
    assert family.tuned(x, splits=1, starts=(1.0,), steps=1) == family.tuned(
        torch.from_numpy(x), splits=1, starts=(1.0,), steps=1
    )
