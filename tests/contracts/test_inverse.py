"""Inverse problems whose posterior is known: a Gaussian given some coordinates, or given means over blocks.

Samplers are affine in their noise where the score is a Gaussian's, so a run without noise gives the mean of all runs exactly.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from scorefield.densities import GaussianMixture, gaussian
from scorefield.interfaces import Score, State
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, ScoreModel
from scorefield.networks import UNetConfig
from scorefield.samplers import DPS, Autocast, BlockAverage, InverseSampler, LinearOperator, Mask, RePaint, exponential, inverse

LEVELS = (0.02, 80.0)
KNOWN = torch.tensor([[[True, True], [False, False]]])
CORNER = torch.zeros(4, 4, dtype=torch.bool)
CORNER[:2, :3] = True
OPERATORS: dict[str, tuple[LinearOperator, tuple[int, ...]]] = {
    "mask": (Mask(KNOWN), (1, 2, 2)),
    "mask of vectors": (Mask(KNOWN.flatten()), (4,)),
    "mask of all channels": (Mask(CORNER), (2, 4, 4)),
    "blocks": (BlockAverage(2), (2, 4, 6)),
}
each_operator = pytest.mark.parametrize(("a", "shape"), OPERATORS.values(), ids=OPERATORS)
Kind = Callable[..., InverseSampler]


def matrix(a: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """The matrix of a linear map of events."""
    basis = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return a(basis).flatten(1).T


@each_operator
def test_operators_are_linear_with_their_pseudo_inverses(a: LinearOperator, shape: tuple[int, ...]) -> None:
    whole = matrix(a, shape)
    g = torch.Generator().manual_seed(0)
    x, other = (torch.randn(3, *shape, generator=g, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(a(x).flatten(1), x.flatten(1) @ whole.T)
    back = matrix(a.pseudo_inverse, a(x).shape[1:])
    torch.testing.assert_close(back, torch.linalg.pinv(whole))
    y = a(other)
    projected = a.project(x, y)
    torch.testing.assert_close(a(projected), y)
    torch.testing.assert_close((projected - x).flatten(1), (y - a(x)).flatten(1) @ torch.linalg.pinv(whole).T)


def correlated() -> GaussianMixture:
    g = torch.Generator().manual_seed(7)
    root = 0.6 * torch.randn(4, 4, generator=g, dtype=torch.float64)
    mean = torch.linspace(-1, 1, 4, dtype=torch.float64).reshape(1, 2, 2)
    return gaussian(mean, root @ root.mT + 0.1 * torch.eye(4, dtype=torch.float64))


Y = torch.tensor([[[1.0, -1.5], [0.0, 0.0]]], dtype=torch.float64)


def posterior(p: GaussianMixture, known: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the unknown coordinates given the known ones."""
    k = known.flatten()
    c, m = p.covariance(), p.mean().flatten()
    gain = c[~k][:, k] @ torch.linalg.inv(c[k][:, k])
    return m[~k] + gain @ (y.flatten()[k] - m[k]), c[~k][:, ~k] - gain @ c[k][:, ~k]


def last(states: Iterator[State]) -> Tensor:
    *_, state = states
    return state.x


def draw(sampler: InverseSampler, model: Score, shape: tuple[int, ...], n: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return last(sampler(model, sampler.start(model, (n, *shape), g).double(), generator=g))


def mean_bias(sampler: InverseSampler, monkeypatch: pytest.MonkeyPatch) -> float:
    """Largest error of the posterior's mean, in posterior standard deviations."""
    p = correlated()
    mean, covariance = posterior(p, KNOWN, Y)
    with monkeypatch.context() as patch:
        for module in (inverse, exponential):
            patch.setattr(module, "noise_like", lambda x, generator: torch.zeros_like(x))
        x = last(sampler(p, torch.zeros(1, 1, 2, 2, dtype=torch.float64)))
    return ((x[:, ~KNOWN][0] - mean) / covariance.diag().sqrt()).abs().max().item()


def test_repaint_tends_to_the_posterior_as_it_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replacement alone misses the mean by more than a standard deviation; the bias falls about as 1/resample."""
    make = partial(RePaint, 60, sigma_range=LEVELS, operator=Mask(KNOWN), measurement=Y)
    biases = [mean_bias(make(resample=r), monkeypatch) for r in (1, 4, 16, 64)]
    assert biases[0] > 1
    for worse, better in pairwise(biases):
        assert better < worse / 2.5
    assert biases[-1] < 0.04
    assert mean_bias(make(resample=16, jump=3), monkeypatch) < 0.15


def test_dps_has_the_posteriors_mean_nearly(monkeypatch: pytest.MonkeyPatch) -> None:
    """As nearly as r² I is the covariance of x₀ given x: to 0.06 standard deviations here."""
    make = partial(DPS, 100, sigma_range=LEVELS, operator=Mask(KNOWN), measurement=Y)
    assert mean_bias(make(), monkeypatch) < 0.1
    assert mean_bias(make(strength=0.2), monkeypatch) > 0.2


SAMPLERS: dict[str, Kind] = {"RePaint": partial(RePaint, 100, resample=16), "DPS": partial(DPS, 400)}
each_sampler = pytest.mark.parametrize("kind", SAMPLERS.values(), ids=SAMPLERS)


@each_sampler
def test_covariances_are_the_posteriors(kind: Kind) -> None:
    """5 standard errors, and 12 % for what ancestral steps and each method's approximation cost."""
    n, p = 2000, correlated()
    x = draw(kind(sigma_range=LEVELS, operator=Mask(KNOWN), measurement=Y), p, (1, 2, 2), n)
    assert torch.equal(x[:, KNOWN], Y[KNOWN].expand(n, 2))  # to the last bit
    _, covariance = posterior(p, KNOWN, Y)
    spread = covariance.diag().sqrt()
    found = torch.cov(x[:, ~KNOWN].T)
    scale = spread[:, None] * spread
    assert ((found - covariance) / scale).abs().max() < 5 * (2 / n) ** 0.5 + 0.12
    prior = p.covariance().reshape(1, 2, 2, 1, 2, 2)[:, ~KNOWN[0]][..., ~KNOWN].diagonal(dim1=-2, dim2=-1)
    assert (prior / covariance.diag() > 1.3).all()  # the measurement tells something


@pytest.mark.parametrize("a", [BlockAverage(2), Mask(CORNER[:4, :4])], ids=["blocks", "mask"])
def test_dps_is_exact_for_white_data(a: LinearOperator) -> None:
    """x₀ ~ N(0, I) given y is N(A⁺y, I − A⁺A); ancestral steps lose a few per cent of the variance."""
    n, shape = 2000, (1, 4, 4)
    y = a(torch.linspace(-2, 2, 16, dtype=torch.float64).reshape(1, *shape))[0]
    sampler = DPS(200, sigma_range=LEVELS, operator=a, measurement=y)
    x = draw(sampler, gaussian(torch.zeros(shape), 1.0), shape, n)
    torch.testing.assert_close(a(x), y.expand(n, *y.shape))
    known = matrix(a.pseudo_inverse, y.shape) @ matrix(a, shape)
    centre = a.pseudo_inverse(y[None])
    assert (x.mean(0) - centre[0]).abs().max() < 5 / n**0.5
    covariance = torch.cov(x.flatten(1).T)
    assert (covariance - (torch.eye(16) - known)).abs().max() < 5 * (2 / n) ** 0.5 + 0.05


@each_sampler
def test_the_measurement_is_met_to_the_level_of_noise_before_the_end(kind: Kind) -> None:
    """At level σ what is measured is y + σ A z."""
    sampler = replace(kind(operator=Mask(KNOWN), measurement=Y), steps=40, sigma_range=LEVELS)
    g = torch.Generator().manual_seed(0)
    p, n = correlated(), 1000
    for state in sampler(p, sampler.start(p, (n, 1, 2, 2), g).double(), generator=g):
        if 0 < state.sigma < 0.1:
            error = (state.x - Y)[:, KNOWN].square().mean().sqrt() / state.sigma
            assert error == pytest.approx(1.0, abs=0.25)


def unet() -> ScoreModel:
    torch.manual_seed(0)
    model = ScoreModel(UNetConfig(channels=8, multipliers=(1,), blocks=1).build((2, 4, 6)), ModelSpec((2, 4, 6)))
    nn.init.normal_(model.network.leave.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    return model


def energy() -> EnergyModel:
    torch.manual_seed(0)
    network = InnerProduct(UNetConfig(channels=8, multipliers=(1,), blocks=1).build((2, 4, 6)))
    nn.init.normal_(network.network.leave.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    return EnergyModel(network, ModelSpec((2, 4, 6)))


MODELS: dict[str, Callable[[], Score]] = {"unet": unet, "energy": energy, "bf16": lambda: Autocast(unet(), torch.device("cpu"))}


@each_sampler
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("enabled", [True, False], ids=["grad", "no_grad"])
def test_learned_models_and_the_callers_modes(kind: Kind, make: Callable[[], Score], enabled: bool) -> None:
    model, x = make(), torch.randn(3, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    a = BlockAverage(2)
    sampler = replace(kind(operator=a, measurement=a(x)), steps=3)
    with torch.set_grad_enabled(enabled):
        for state in sampler(model, 80 * x, generator=torch.Generator().manual_seed(0)):
            assert torch.is_grad_enabled() == enabled
            assert not torch.is_autocast_enabled("cpu")
            assert not state.x.requires_grad
    torch.testing.assert_close(a(state.x), a(x), rtol=1e-4, atol=1e-4)


class Counted:
    def __init__(self, base: Score) -> None:
        self.base, self.calls, self.sigma_range = base, 0, base.sigma_range

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        self.calls += 1
        return self.base.score(x, sigma, cond)


@pytest.mark.parametrize("steps", [2, 7, 10])
@pytest.mark.parametrize("options", [{"resample": 1}, {"resample": 5}, {"resample": 3, "jump": 3}, {"resample": 2, "jump": 20}])
@pytest.mark.parametrize("to_zero", [True, False])
def test_nfe_is_the_number_of_evaluations(steps: int, options: dict[str, int], to_zero: bool) -> None:
    common = {"steps": steps, "sigma_range": LEVELS, "to_zero": to_zero, "operator": Mask(KNOWN), "measurement": Y}
    for sampler in (RePaint(**common, **options), DPS(**common)):  # type: ignore[arg-type]
        model = Counted(correlated())
        states = list(sampler(model, torch.zeros(1, 1, 2, 2, dtype=torch.float64)))
        assert model.calls == sampler.nfe
        assert len(states) == sampler.states


def test_one_measurement_for_all_or_one_for_each() -> None:
    p, x = correlated(), torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    each = torch.stack([Y, -Y, 2 * Y])
    for y in (Y, Y[None], each):
        sampler = DPS(5, sigma_range=LEVELS, operator=Mask(KNOWN), measurement=y)
        assert torch.equal(last(sampler(p, x))[:, KNOWN], y.expand(3, 1, 2, 2)[:, KNOWN])
    for y in (each[:2], Y[0, 0], torch.zeros(1, 3, 3)):
        with pytest.raises(ValueError, match=r"shape \(1, 2, 2\), or one for each example, \(3, 1, 2, 2\); got"):
            next(DPS(5, sigma_range=LEVELS, operator=Mask(KNOWN), measurement=y)(p, x))


def test_what_does_not_fit_is_refused() -> None:
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"a mask is boolean, true where a value is known, got torch.float32"):
        Mask(torch.ones(4, 4))
    for shape in ((3, 4), (2, 1, 4, 4), (1, 4, 5)):
        with pytest.raises(ValueError, match=r"a mask of shape .* does not fit events of shape \(1, 4, 4\)"):
            Mask(torch.ones(shape, dtype=torch.bool))(x)
    with pytest.raises(ValueError, match="blocks of 3×3 do not divide images of 4×4"):
        BlockAverage(3)(x)
    with pytest.raises(ValueError, match="factor must be at least 1, got 0"):
        BlockAverage(0)
    for name in ("resample", "jump"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            RePaint(operator=Mask(KNOWN), measurement=Y, **{name: 0})
    with pytest.raises(ValueError, match="strength must be positive, got -1"):
        DPS(operator=Mask(KNOWN), measurement=Y, strength=-1.0)
