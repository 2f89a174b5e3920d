"""Traces against whole Jacobians, in float64: values, gradients in the parameters, chunks, estimators' laws (identity 2)."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from scorefield import jacobian_trace
from scorefield.densities import gaussian
from scorefield.interfaces import Energy, Field, JacobianTrace, Score
from scorefield.jacobian_trace import Exact, FiniteDifference, Hutchinson, Probe, difference_slices, draw_probes, passes, slices
from scorefield.jets import AllDerivatives
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, PlainEnergy, PlainScore, ScoreModel, WithoutNoise
from scorefield.networks import MLP, MLPConfig, UNet, UNetConfig
from scorefield.tensors import event_size

PROBES: list[Probe] = ["rademacher", "gaussian", "sphere", "orthogonal"]


class Opaque(nn.Module):
    """A network that jets cannot pass."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) + 0.1 * torch.cumsum(x.flatten(1), 1).sin().sum(1, keepdim=True).reshape(-1, *[1] * (x.ndim - 1))


def perceptron(d: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, 12), nn.SiLU(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, out))


def randomised(model: nn.Module) -> nn.Module:
    """Every parameter random, float64: zero initialisations would hide errors."""
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data = 0.4 * torch.randn(p.shape, generator=generator)
    return model.double()


IMAGE = (1, 4, 4)
UNET = UNetConfig(channels=4, multipliers=(1, 2), blocks=1)
SPEC = {shape: ModelSpec(shape) for shape in [(1,), (3,), IMAGE]}
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float, bool]] = {  # model, event shape, σ, do jets pass
    "plain score": (lambda: PlainScore(perceptron(3, 3)), (3,), 0.0, True),
    "plain score, d = 1": (lambda: PlainScore(perceptron(1, 1)), (1,), 0.0, True),
    "plain energy": (lambda: PlainEnergy(perceptron(3, 1)), (3,), 0.0, True),
    "plain energy, d = 1": (lambda: PlainEnergy(perceptron(1, 1), 0.5), (1,), 0.0, True),
    "opaque score": (lambda: PlainScore(Opaque(perceptron(3, 3))), (3,), 0.0, False),
    "opaque energy": (lambda: PlainEnergy(Opaque(perceptron(3, 1))), (3,), 0.0, False),
    "residual score": (lambda: ScoreModel(MLPConfig(8, 2, 2).build((3,)), SPEC[(3,)]), (3,), 0.7, True),
    "residual energy": (lambda: EnergyModel(MLP(3, 0, 8, 2, 2), SPEC[(3,)]), (3,), 0.7, True),
    "residual energy at 0": (lambda: PlainEnergy(WithoutNoise(MLP(3, 0, 8, 2, 2)), 1.0), (3,), 0.0, True),
    "U-Net score": (lambda: ScoreModel(UNET.build(IMAGE), SPEC[IMAGE]), IMAGE, 0.7, True),
    "U-Net energy": (lambda: EnergyModel(InnerProduct(UNET.build(IMAGE)), SPEC[IMAGE]), IMAGE, 0.7, True),
    "attention energy": (
        lambda: EnergyModel(InnerProduct(UNet(1, 4, (1, 2), 1, attention=True)), SPEC[IMAGE]), IMAGE, 0.7, True
    ),
}  # fmt: skip
each_model = pytest.mark.parametrize("name", MODELS)


def build(name: str, n: int = 4) -> tuple[Score, Field, Tensor]:
    make, shape, sigma, _ = MODELS[name]
    model = randomised(make())
    x = torch.randn(n, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    level: float | Tensor = sigma and sigma * torch.linspace(0.5, 1.5, n, dtype=torch.float64)
    return model, Field(model, level), x  # type: ignore[arg-type, return-value]


def jacobians(field: Field, x: Tensor) -> Tensor:
    """∇s of every example, `(b, d, d)`, by reverse mode, differentiable."""
    d = event_size(x)
    with AllDerivatives():
        return _jacobians(field, x, d)


def _jacobians(field: Field, x: Tensor, d: int) -> Tensor:
    rows = torch.autograd.functional.jacobian(field.score, x, create_graph=True).reshape(len(x), d, len(x), d)
    return torch.stack([rows[i, :, i] for i in range(len(x))])


def gradients(value: Tensor, model: object) -> list[Tensor]:
    assert isinstance(model, nn.Module)
    found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if f is None else f for f, p in zip(found, model.parameters(), strict=True)]


@each_model
@pytest.mark.parametrize("chunk", [64, 2])
def test_exact_trace_with_its_score_and_gradients(name: str, chunk: int) -> None:
    model, field, x = build(name)
    _, _, sigma, jets_pass = MODELS[name]
    assert passes(Field(build(name)[0], sigma), x) == jets_pass  # σ as a number, a fresh model
    assert passes(field, x) == jets_pass
    score, trace, se = Exact(chunk)(field, x)
    assert se is None
    full = jacobians(field, x)
    torch.testing.assert_close(score, field.score(x), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(trace, full.diagonal(dim1=1, dim2=2).sum(1), rtol=1e-10, atol=1e-10)
    mine = gradients((trace * torch.arange(1.0, len(x) + 1)).sum() + score.square().sum(), model)
    weighted = (full.diagonal(dim1=1, dim2=2).sum(1) * torch.arange(1.0, len(x) + 1)).sum() + field.score(x).square().sum()
    for a, b in zip(mine, gradients(weighted, model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("trace", [Exact(), Hutchinson(2)], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("forward", [True, False], ids=["forward", "reverse"])
def test_gradients_through_layer_norm_are_those_of_differences(
    trace: JacobianTrace, forward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's own third derivative of layer norm is wrong, so the reference is a difference of values."""
    model, field, x = build("residual energy")
    assert isinstance(model, nn.Module)
    if not forward:
        monkeypatch.setitem(jacobian_trace._passes, model, False)

    def value() -> Tensor:
        return trace(field, x, generator=torch.Generator().manual_seed(9)).trace.sum()

    mine = gradients(value(), model)
    steps = [torch.randn(p.shape, generator=torch.Generator().manual_seed(10), dtype=p.dtype) for p in model.parameters()]
    ends = []
    with torch.no_grad():
        for h in (1e-5, -2e-5):
            for p, step in zip(model.parameters(), steps, strict=True):
                p += h * step
            ends.append(value())
    along = sum((a * step).sum() for a, step in zip(mine, steps, strict=True))
    assert float(along) == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-6)


@each_model
def test_slices_are_quadratic_forms_of_the_jacobian(name: str) -> None:
    model, field, x = build(name)
    v = draw_probes(x, 3, "gaussian", torch.Generator().manual_seed(3))
    full, flat = jacobians(field, x), v.flatten(2)
    slope, curvature = slices(field, x, v)
    torch.testing.assert_close(slope, torch.einsum("kbd,bd->kb", flat, field.score(x).flatten(1)), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(curvature, torch.einsum("kbd,bde,kbe->kb", flat, full, flat), rtol=1e-10, atol=1e-10)
    mine = gradients(curvature.sum() + slope.square().sum(), model)
    squares = torch.einsum("kbd,bd->kb", flat, field.score(x).flatten(1)).square().sum()
    for a, b in zip(mine, gradients(torch.einsum("kbd,bde,kbe->", flat, full, flat) + squares, model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@each_model
def test_hutchinson_is_the_mean_of_quadratic_forms_and_knows_its_error(name: str) -> None:
    _, field, x = build(name)
    estimate = Hutchinson(5, "gaussian")(field, x, generator=torch.Generator().manual_seed(4))
    v = draw_probes(x, 5, "gaussian", torch.Generator().manual_seed(4)).flatten(2)
    forms = torch.einsum("kbd,bde,kbe->kb", v, jacobians(field, x), v)
    torch.testing.assert_close(estimate.trace, forms.mean(0), rtol=1e-10, atol=1e-10)
    assert estimate.se is not None
    torch.testing.assert_close(estimate.se, forms.var(0).div(5).sqrt(), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(estimate.score, field.score(x), rtol=1e-11, atol=1e-11)
    assert Hutchinson()(field, x).se is None


@each_model
def test_differences_converge_at_second_order(name: str) -> None:
    """Their distance from the derivatives along the same probes falls by four when the step is halved."""
    model, field, x = build(name)
    assert isinstance(model, nn.Module)
    model.requires_grad_(False)
    v = draw_probes(x, 2, "rademacher", torch.Generator().manual_seed(5))
    exact = slices(field, x, v)
    for part in range(2):
        wide, narrow = ((difference_slices(field, x, v, h)[part] - exact[part]).norm().item() for h in (4e-3, 2e-3))
        assert math.log2(wide / narrow) == pytest.approx(2, abs=0.1)
    trace = Hutchinson(2)(field, x, generator=torch.Generator().manual_seed(6)).trace
    errors = [
        FiniteDifference(2, step=h)(field, x, generator=torch.Generator().manual_seed(6)).trace - trace for h in (4e-3, 2e-3)
    ]
    assert math.log2(float(errors[0].norm() / errors[1].norm())) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("trace", [Exact(), Hutchinson(2), FiniteDifference(2)], ids=lambda t: type(t).__name__)
def test_the_graph_is_kept_if_and_only_if_grad_mode_is_on(trace: JacobianTrace) -> None:
    for name in ("plain score", "plain energy", "opaque energy"):
        _, field, x = build(name)
        assert trace(field, x).trace.requires_grad
        with torch.no_grad():
            assert not trace(field, x).trace.requires_grad


@pytest.mark.parametrize("shape", [(2,), (8,), (1, 4, 4)], ids=str)
@pytest.mark.parametrize("distribution", PROBES)
def test_probe_laws(distribution: Probe, shape: tuple[int, ...]) -> None:
    """Mean tr ∇s, and the variance the formulas of identity 2 give, for a Gaussian's full ∇s = −C⁻¹."""
    d, n = math.prod(shape), 40_000
    root = torch.randn(d, d, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    c = root @ root.T / d + 0.5 * torch.eye(d, dtype=torch.float64)
    s = -torch.linalg.inv(c)
    field = Field(gaussian(torch.zeros(shape, dtype=torch.float64), c))
    v = draw_probes(torch.zeros(n, *shape, dtype=torch.float64), 1, distribution, torch.Generator().manual_seed(8))[0].flatten(
        1
    )
    forms = torch.einsum("bd,de,be->b", v, s, v)
    frobenius, trace = s.square().sum(), s.trace()
    variance = {
        "gaussian": 2 * frobenius,
        "rademacher": 2 * (frobenius - s.diagonal().square().sum()),
        "sphere": 2 * d / (d + 2) * (frobenius - trace**2 / d),
        "orthogonal": 2 * d / (d + 2) * (frobenius - trace**2 / d),
    }[distribution]
    assert abs(float(forms.mean() - trace)) < 4 * float(forms.std()) / n**0.5
    centred = (forms - trace) ** 2
    assert abs(float(centred.mean() - variance)) < 4 * float(centred.std()) / n**0.5 + 1e-9
    torch.testing.assert_close(v.T @ v / n, torch.eye(d, dtype=torch.float64), rtol=0, atol=5 * (2 / n) ** 0.5)
    x = torch.zeros(3, *shape, dtype=torch.float64)
    torch.testing.assert_close(Exact()(field, x).trace, trace.expand(3), rtol=1e-9, atol=0)


@pytest.mark.parametrize("shape", [(8,), (1, 4, 4)], ids=str)
@pytest.mark.parametrize("k", [2, 5])
def test_orthogonal_probes(shape: tuple[int, ...], k: int) -> None:
    """(d − k)/(d − 1) of the variance of independent ones, which their standard error knows; d of them give the trace."""
    d, n = math.prod(shape), 20_000
    root = torch.randn(d, d, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    s = -torch.linalg.inv(root @ root.T / d + 0.5 * torch.eye(d, dtype=torch.float64))
    field = Field(gaussian(torch.zeros(shape, dtype=torch.float64), -torch.linalg.inv(s)))
    x = torch.zeros(n, *shape, dtype=torch.float64)
    v = draw_probes(x[:50], k, "orthogonal", torch.Generator().manual_seed(0)).flatten(2)
    torch.testing.assert_close(torch.einsum("kbd,lbd->bkl", v, v), d * torch.eye(k).double().expand(50, k, k))
    found = Hutchinson(k, "orthogonal")(field, x, generator=torch.Generator().manual_seed(1))
    assert found.se is not None
    sphere = 2 * d / (d + 2) * (s.square().sum() - s.trace() ** 2 / d)
    variance = float(sphere) / k * (d - k) / (d - 1)
    assert abs(float(found.trace.mean() - s.trace())) < 4.5 * (variance / n) ** 0.5
    for squares in ((found.trace - s.trace()) ** 2, found.se**2):
        assert abs(float(squares.mean()) - variance) < 4.5 * float(squares.std()) / n**0.5
    for most in (d, d + 3):
        whole = Hutchinson(most, "orthogonal")(field, x[:5])
        torch.testing.assert_close(whole.trace, s.trace().expand(5))
        assert whole.se is not None
        assert not whole.se.any()


def test_a_model_is_tried_once_and_answers_alike_on_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    model, field, x = build("residual energy")
    forward = Exact()(field, x)
    monkeypatch.setattr(jacobian_trace, "tried", lambda *_: pytest.fail("tried again"))
    again = Exact()(field, x)
    assert torch.equal(forward.trace, again.trace)
    monkeypatch.setitem(jacobian_trace._passes, model, False)
    reverse = Exact()(field, x)
    torch.testing.assert_close(forward.trace, reverse.trace, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(forward.score, reverse.score, rtol=1e-11, atol=1e-11)


def test_float32_agrees_with_float64() -> None:
    for name in ("residual energy", "residual score"):
        model, field, x = build(name)
        exact = Exact()(field, x).trace
        assert isinstance(model, nn.Module)
        single = Exact()(Field(model.float(), field.sigma), x.float()).trace  # type: ignore[arg-type]
        assert float(((single - exact) / exact).abs().max()) < 1e-4


def test_bad_settings_are_refused() -> None:
    for make in (Hutchinson, FiniteDifference):
        for count in (0, -1, 1.5, math.nan):
            with pytest.raises(ValueError, match="probes must be a whole number of at least 1, got"):
                make(count)  # type: ignore[arg-type]
        with pytest.raises(
            ValueError, match="unknown distribution of probes 'cauchy': choose one of rademacher, gaussian, sphere"
        ):
            make(1, "cauchy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chunk must be a whole number of at least 1, got 0"):
        Exact(0)
    for step in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="step must be positive, got"):
            FiniteDifference(step=step)
    _, field, x = build("plain score")
    with pytest.raises(ValueError, match="step must be positive, got -1"):
        difference_slices(field, x, x[None], -1)


@pytest.mark.parametrize("trace", [Exact(), Hutchinson(), FiniteDifference()], ids=lambda t: type(t).__name__)
def test_integers_and_wrong_events_are_refused(trace: JacobianTrace) -> None:
    for model in (
        ScoreModel(UNET.build((1, 4, 4)), ModelSpec((1, 4, 4))),
        EnergyModel(InnerProduct(UNET.build((1, 4, 4))), ModelSpec((1, 4, 4))),
    ):
        with pytest.raises(ValueError, match=r"events of shape \(1, 4, 4\) expected, got \(1, 8, 8\)"):
            trace(Field(model, 0.5), torch.zeros(2, 1, 8, 8))
        with pytest.raises(ValueError, match=r"x must hold floating-point numbers, got torch\.int64"):
            trace(Field(model, 0.5), torch.zeros(2, 1, 4, 4, dtype=torch.int64))
    for plain in (PlainScore(nn.Linear(2, 2), event_shape=(2,)), PlainEnergy(nn.Linear(2, 1), event_shape=(2,))):
        with pytest.raises(ValueError, match=r"events of shape \(2,\) expected, got \(3,\)"):
            trace(Field(plain), torch.zeros(4, 3))


class Fickle(nn.Module):
    """A network with a layer without a rule, but only where there is a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = perceptron(3, 1)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.layers(x if cond is None else torch.cumsum(x, 1))


def test_what_was_learnt_of_a_model_is_unlearnt() -> None:
    """A layer without a rule that turns up later is no error, and a call at fault spoils nothing."""
    model, x = PlainEnergy(Fickle()).double(), torch.randn(4, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError):
        Exact()(Field(model), x[:, :2])
    assert passes(Field(model), x)
    cond = torch.zeros(4)
    found = Exact()(Field(model, 0.0, cond), x)
    torch.testing.assert_close(found.trace, jacobians(Field(model, 0.0, cond), x).diagonal(dim1=1, dim2=2).sum(1))
    assert not passes(Field(model), x)


def test_images_with_channels_through_a_unet() -> None:
    """3×4×4, energy and direct, float64 by rows of the Jacobian, and float32 beside it."""
    shape = (3, 4, 4)
    for make in (
        lambda: ScoreModel(UNET.build(shape), ModelSpec(shape)),
        lambda: EnergyModel(InnerProduct(UNET.build(shape)), ModelSpec(shape)),
    ):
        model = randomised(make()).requires_grad_(False)
        x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
        field = Field(model, 0.7)  # type: ignore[arg-type]
        trace = Exact()(field, x).trace
        torch.testing.assert_close(trace, jacobians(field, x).diagonal(dim1=1, dim2=2).sum(1), rtol=1e-9, atol=1e-9)
        single = Exact()(Field(model.float(), 0.7), x.float()).trace.double()  # type: ignore[arg-type]
        torch.testing.assert_close(single, trace, rtol=2e-3, atol=2e-3 * float(trace.abs().max()))


def test_batch_statistics_are_refused() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.SiLU(), nn.Linear(4, 1))
    with pytest.raises(ValueError, match="batch norm makes an example's score depend on the batch"):
        Exact()(Field(PlainEnergy(network)), torch.randn(5, 4))


def test_a_linear_energy_has_curvature_zero_for_every_example() -> None:
    x = torch.randn(5, 4)
    along = slices(Field(PlainEnergy(nn.Linear(4, 1))), x, x[None])
    assert along.curvature.tolist() == [[0.0] * 5]


def test_chunks_bound_the_memory_that_training_keeps() -> None:
    """What is saved for the backward pass is counted: with chunks it is the directions themselves, and no layer's tangents."""

    def kept(d: int, chunk: int) -> int:
        sizes: list[int] = []
        model = PlainEnergy(perceptron(d, 1))
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            Exact(chunk)(Field(model), torch.randn(8, d)).trace.sum()
        return sum(sizes)

    passes(Field(PlainEnergy(perceptron(4, 1))), torch.randn(8, 4))
    assert kept(64, 64) > 3 * kept(64, 8)


def test_instance_norm_is_refused_where_its_derivative_would_be_wrong() -> None:
    network = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.InstanceNorm1d(1), nn.Flatten(), nn.Linear(4, 1))
    with pytest.raises(ValueError, match="instance norm has no right third derivative"):
        Exact()(Field(PlainEnergy(network)), torch.zeros(3, 4))


def test_an_error_of_the_model_itself_comes_through() -> None:
    class Wrong(Energy):
        sigma_range = (0.0, 0.0)

        def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
            return x  # not one number an example

    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="a log-density must have shape"):
        Exact()(Field(Wrong()), x)
