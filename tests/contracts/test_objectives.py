"""Every objective × energies and direct scores × event shapes: gradients reach every parameter, and the truth is the minimiser.

Data N(0, τ²I); the model is a·∇log N(·; 0, (τ² + σ²)I), whose truth is a = 1. All objectives are quadratic in a, so an
example's derivative is half the difference of its values at a + 1 and a − 1, with the same noise on both sides.
"""

import math

import pytest
import torch
from scipy.stats import t
from torch import Tensor, nn

from scorefield.densities import gaussian
from scorefield.interfaces import Energy, Field, Objective
from scorefield.jacobian_trace import (
    Exact,
    FiniteDifference,
    Hutchinson,
    Probe,
    difference_slices,
    draw_probes,
    score_and_curvature,
    slices,
)
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, PlainEnergy, PlainScore, ScoreModel
from scorefield.networks import UNetConfig
from scorefield.objectives import (
    DenoisingAt,
    DenoisingScoreMatching,
    ExplicitScoreMatching,
    FiniteDifferenceScoreMatching,
    GeneralisedScoreMatching,
    Gradient,
    ImplicitScoreMatching,
    LogUniform,
    SlicedScoreMatching,
)
from scorefield.objectives.matching import sliced_value
from scorefield.tensors import expand, noise_levels, sum_event
from scorefield.training import Step

TAU = 0.8
SHAPES = [(1,), (2,), (8,), (1, 4, 4), (3, 4, 4)]
PROBES: list[Probe] = ["rademacher", "gaussian", "sphere"]
STOCHASTIC: dict[str, Objective] = {
    **{f"sliced {p}": SlicedScoreMatching(1, p) for p in PROBES},
    **{f"variance reduced {p}": SlicedScoreMatching(2, p, variance_reduced=True) for p in PROBES},
    "difference": FiniteDifferenceScoreMatching(2),
    "implicit by differences": ImplicitScoreMatching(FiniteDifference(2)),
    "generalised by probes": GeneralisedScoreMatching(Gradient(Hutchinson(2))),
}
CLEAN: dict[str, Objective] = {
    "implicit": ImplicitScoreMatching(),
    "generalised": GeneralisedScoreMatching(Gradient(Exact())),
    **STOCHASTIC,
}
NOISED: dict[str, Objective] = {
    "denoising": DenoisingAt(0.5),
    "denoising with control": DenoisingAt(0.5, control_variate=True),
    "denoising at many levels": DenoisingScoreMatching(LogUniform()),
    "denoising at many levels with control": DenoisingScoreMatching(LogUniform(), control_variate=True),
    "implicit with noise": ImplicitScoreMatching(sigma=0.5),
    "sliced with noise": SlicedScoreMatching(sigma=0.5),
    "difference with noise": FiniteDifferenceScoreMatching(sigma=0.5),
}
OBJECTIVES = {**CLEAN, **NOISED, "explicit": None, "explicit with noise": None}
each_objective = pytest.mark.parametrize("name", OBJECTIVES)
each_kind = pytest.mark.parametrize("energy", [False, True], ids=["direct", "energy"])
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def objective_named(name: str, shape: tuple[int, ...]) -> Objective:
    if name.startswith("explicit"):
        truth = gaussian(torch.zeros(shape, dtype=torch.float64), TAU**2)
        return ExplicitScoreMatching(truth, 0.5 if "noise" in name else 0.0)
    found = OBJECTIVES[name]
    assert found is not None
    return found


class Direct(nn.Module):
    """a·∇log N(x; 0, (τ² + σ²)I)."""

    def __init__(self, a: float, sigma_range: tuple[float, float]) -> None:
        super().__init__()
        self.a, self.sigma_range = a, sigma_range

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return x * expand(-self.a / (TAU**2 + noise_levels(sigma, x) ** 2), x)


class Potential(Energy):
    """The same family as a log-density."""

    sigma_range = (0.0, math.inf)

    def __init__(self, a: float, sigma_range: tuple[float, float]) -> None:
        super().__init__()
        self.a, self.sigma_range = a, sigma_range

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return sum_event(x**2) * (-self.a / (TAU**2 + noise_levels(sigma, x) ** 2) / 2)


@each_shape
@each_kind
@each_objective
def test_the_truth_is_the_minimiser(name: str, energy: bool, shape: tuple[int, ...]) -> None:
    """The derivative in a vanishes at 1, within 4 standard errors, and has the right sign far from it."""
    kind, objective = (Potential if energy else Direct), objective_named(name, shape)
    x = TAU * torch.randn(3000, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def derivative(a: float) -> Tensor:
        ends = [
            objective(kind(end, (0.05, 10.0)), x, generator=torch.Generator().manual_seed(2)).value  # type: ignore[arg-type]
            for end in (a + 1, a - 1)
        ]
        return (ends[0] - ends[1]) / 2

    for a, sign in ((1.0, 0), (0.5, -1), (1.5, 1), (-1.0, -1)):
        values = derivative(a)
        score = float(values.mean() / (values.std() / len(values) ** 0.5 + 1e-9))
        assert abs(score) < 4 if sign == 0 else sign * score > 4


def plain(energy: bool, shape: tuple[int, ...]) -> PlainEnergy | PlainScore:
    """A small random network of events of any shape; the scalar one without bias, which no gradient could reach."""
    d = math.prod(shape)
    last = [nn.Linear(6, 1, bias=False)] if energy else [nn.Linear(6, d), nn.Unflatten(1, shape)]
    layers = nn.Sequential(nn.Flatten(), nn.Linear(d, 6), nn.SiLU(), *last).double()
    generator = torch.Generator().manual_seed(3)
    for p in layers.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=p.dtype) / 2
    return PlainEnergy(layers) if energy else PlainScore(layers)


@each_shape
@each_kind
@each_objective
def test_every_parameter_is_trained(name: str, energy: bool, shape: tuple[int, ...]) -> None:
    """After one optimiser step every parameter of the model has moved along a gradient that is not zero."""
    objective = objective_named(name, shape)
    model: nn.Module = plain(energy, shape)
    if name in NOISED or "noise" in name:
        spec = ModelSpec(shape)
        inner = model.network
        model = EnergyModel(Flat(inner), spec) if energy else ScoreModel(Level(inner), spec)
    train_one_step(name, objective, model, shape)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4)], ids=str)
@each_kind
@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name in NOISED or "noise" in name])
def test_every_parameter_of_a_unet_is_trained(name: str, energy: bool, shape: tuple[int, ...]) -> None:
    """An image model as users have it: a U-Net, as a direct score and, through an inner product, as an energy."""
    torch.manual_seed(8)
    network = UNetConfig(channels=4, multipliers=(1, 2), blocks=1).build(shape)
    for p in network.parameters():
        nn.init.normal_(p, std=0.3)
    model = (EnergyModel(InnerProduct(network), ModelSpec(shape)) if energy else ScoreModel(network, ModelSpec(shape))).double()
    train_one_step(name, objective_named(name, shape), model, shape)


def train_one_step(name: str, objective: Objective, model: nn.Module, shape: tuple[int, ...]) -> None:
    step = Step(objective, model)  # type: ignore[arg-type]
    before = {k: p.detach().clone() for k, p in step.named_parameters()}
    optimizer = torch.optim.Adam(step.parameters(), 1e-2)
    x = torch.randn(16, *shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    step(x, None, torch.Generator().manual_seed(5)).value.mean().backward()
    optimizer.step()
    assert before
    for k, p in step.named_parameters():
        assert p.grad is not None, k
        assert p.grad.abs().max() > 0, k
        assert not torch.equal(p, before[k]), k


class Level(nn.Module):
    """A bare network called as scorefield's own are, with a weight on c_noise."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.level = inner, nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.inner(u) * (1 + self.level * expand(c_noise, u))


class Flat(Level):
    """The same for a scalar network."""

    def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.inner(u).squeeze(1) * (1 + self.level * c_noise)


@each_shape
@each_kind
@pytest.mark.parametrize("name", STOCHASTIC)
def test_estimators_are_unbiased_in_value_and_gradient(name: str, energy: bool, shape: tuple[int, ...]) -> None:
    """Against the exact trace, for a random network: the worst z-score of all gradients within its Bonferroni bound of 1e-4."""
    model, repeats, copies = plain(energy, shape), 60, 50
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    exact = (GeneralisedScoreMatching(Gradient(Exact())) if "generalised" in name else ImplicitScoreMatching())(
        model, x
    ).value.mean()
    parameters = list(model.parameters())
    expected = torch.cat([exact[None], *[g.flatten() for g in torch.autograd.grad(exact, parameters)]])
    found, many = [], x.repeat(copies, *[1] * len(shape))
    for i in range(repeats):
        value = STOCHASTIC[name](model, many, generator=torch.Generator().manual_seed(100 + i)).value.mean()
        found.append(torch.cat([value[None], *[g.flatten() for g in torch.autograd.grad(value, parameters)]]))
    samples = torch.stack(found)
    z = (samples.mean(0) - expected) / (samples.std(0) / repeats**0.5 + 1e-7 * (1 + expected.abs()))
    assert z.abs().max().item() < t.ppf(1 - 1e-4 / (2 * len(z)), repeats - 1)


@each_kind
@each_shape
def test_values_differ_from_the_fisher_divergence_by_a_constant(energy: bool, shape: tuple[int, ...]) -> None:
    """½F(p‖q) = implicit + ½E‖∇log p‖² for F = (1 − a)² d/τ², within 4 standard errors; generalised is twice that."""
    d, a = math.prod(shape), 0.6
    kind = Potential if energy else Direct
    x = TAU * torch.randn(4000, *shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    value = ImplicitScoreMatching()(kind(a, (0.0, 10.0)), x).value + sum_event((x / TAU**2) ** 2) / 2
    half_fisher = (1 - a) ** 2 * d / TAU**2 / 2
    assert abs(float((value.mean() - half_fisher) / (value.std() / len(x) ** 0.5))) < 4
    explicit = ExplicitScoreMatching(gaussian(torch.zeros(shape), TAU**2))(kind(a, (0.0, 10.0)), x).value
    assert abs(float((explicit.mean() - half_fisher) / (explicit.std() / len(x) ** 0.5))) < 4


BAD = pytest.mark.parametrize(
    "name", ["implicit", "sliced gaussian", "difference", "denoising", "denoising at many levels", "explicit"]
)


@BAD
@each_kind
def test_bad_batches_are_refused(name: str, energy: bool) -> None:
    objective = objective_named(name, (2,))
    model = (Potential if energy else Direct)(1.0, (0.05, 10.0))
    with pytest.raises(ValueError, match=r"a batch must hold floating-point numbers, got torch\.int64: scale the data first"):
        objective(model, torch.ones(4, 2, dtype=torch.int64))  # type: ignore[arg-type]
    holed = torch.zeros(4, 2)
    holed[2, 1] = math.nan
    with pytest.raises(ValueError, match="the batch holds NaN or infinity, first in row 2: mend the data"):
        objective(model, holed)  # type: ignore[arg-type]
    for shape in ((4,), (0, 2)):
        with pytest.raises(ValueError, match=r"a batch must have shape \(b, \*event\) and hold something"):
            objective(model, torch.zeros(shape))  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [ImplicitScoreMatching, SlicedScoreMatching, FiniteDifferenceScoreMatching])
def test_bad_settings_are_refused(make: type) -> None:
    for sigma in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="sigma must be at least 0 and finite, got"):
            make(sigma=sigma)
    with pytest.raises(ValueError, match="sigma must be at least 0 and finite, got -1"):
        ExplicitScoreMatching(gaussian(torch.zeros(2), 1.0), -1)
    for sliced in (SlicedScoreMatching, FiniteDifferenceScoreMatching):
        with pytest.raises(ValueError, match="probes must be a whole number of at least 1, got 0"):
            sliced(0)


def test_models_refuse_what_they_cannot_answer() -> None:
    x = torch.zeros(3, 2)
    scalar = PlainEnergy(nn.Linear(2, 1))
    with pytest.raises(ValueError, match=r"sigma must be 0, got 0\.5: this model answers for no other level"):
        ImplicitScoreMatching(sigma=0.5)(scalar, x)
    with pytest.raises(ValueError, match=r"a log-density must have shape \(3,\), one number per example, got \(3, 2\)"):
        ImplicitScoreMatching()(PlainEnergy(nn.Linear(2, 2)), x)
    with pytest.raises(ValueError, match=r"a score must be like x, of shape \(3, 2\), got \(3, 1\)"):
        ImplicitScoreMatching()(PlainScore(nn.Linear(2, 1)), x)
    with pytest.raises(ValueError, match="confinement must be at least 0 and finite, got -1"):
        PlainEnergy(nn.Linear(2, 1), -1)
    model = ScoreModel(nn.Linear(2, 2), ModelSpec((2,), sigma_range=(0.1, 1.0)))
    with pytest.raises(ValueError, match=r"sigma must be in \[0.1, 1\], got 0"):
        Exact()(Field(model), x)


@each_kind
def test_single_precision_agrees_with_double(energy: bool) -> None:
    """The same probes and points in float32 and float64; differences lose half of the digits, as their docstring says."""
    model, shape = plain(energy, (1, 4, 4)), (1, 4, 4)
    x = torch.randn(20, *shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    v = draw_probes(x, 2, "gaussian", torch.Generator().manual_seed(10))
    found = []
    for dtype in (torch.float64, torch.float32):
        field, y, u = Field(model.to(dtype)), x.to(dtype), v.to(dtype)
        explicit = ExplicitScoreMatching(gaussian(torch.zeros(shape), 1.0))
        values = [
            ImplicitScoreMatching()(model, y).value,
            GeneralisedScoreMatching(Gradient(Exact()))(model, y).value,
            explicit(model, y).value,
            sliced_value(slices(field, y, u)),
            score_and_curvature(field, y, u)[1].mean(0),
            sliced_value(difference_slices(field, y, u, 0.02)),
        ]
        found.append([value.double() for value in values])
    for i, (double, single) in enumerate(zip(*found, strict=True)):
        scale = float(double.abs().max())
        torch.testing.assert_close(single, double, rtol=0, atol=scale * (1e-5 if i < 5 else 2e-2))


@pytest.mark.parametrize("name", ["denoising", "difference with noise", "sliced with noise", "explicit with noise"])
@each_kind
def test_models_of_the_wrong_kind_are_refused(name: str, energy: bool) -> None:
    """A network that gives (b, 2) where (b,) is due, or the other way round, never broadcasts."""
    spec = ModelSpec((3,))
    wrong = nn.Linear(3, 2)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = wrong

        def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
            return self.layer(u)

    model = EnergyModel(Net(), spec) if energy else ScoreModel(Net(), spec)
    with pytest.raises(ValueError, match=r"a log-density must have shape|a score must be like x"):
        objective_named(name, (3,))(model, torch.zeros(4, 3))


def test_many_levels_need_a_range() -> None:
    with pytest.raises(ValueError, match=r"many noise levels need a sigma_range with 0 < low <= high < inf, got \(0, inf\)"):
        DenoisingScoreMatching()(gaussian(torch.zeros(2), 1.0), torch.zeros(3, 2))


def test_explicit_matching_leaves_its_teacher_alone() -> None:
    teacher, pupil = PlainScore(nn.Linear(2, 2)), PlainScore(nn.Linear(2, 2))
    ExplicitScoreMatching(teacher)(pupil, torch.ones(3, 2)).value.sum().backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in pupil.parameters())
