"""Identity 5: the denoising objective is ½F(p_σ‖q) + const, so its minimiser has the right sign and scale.

Data N(0, τ²I); models q = N(m, vI) smoothed in closed form, as a direct score and as an energy. All noise is common to
both sides of a comparison; 4 standard errors everywhere.
"""

from collections.abc import Callable
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from scorefield.interfaces import Energy, Score
from scorefield.models import denoise
from scorefield.objectives import (
    DenoisingAt,
    DenoisingScoreMatching,
    EDMWeighting,
    Geometric,
    LogNormal,
    LogUniform,
    PowerWeighting,
)
from scorefield.objectives.denoising import Noise, Weighting
from scorefield.tensors import expand, noise_levels, sum_event

TAU = 0.8
RANGE = (0.05, 10.0)
SHAPES = [(3,), (1, 2, 2)]
NOISES: list[Noise] = [LogNormal(), LogUniform(), Geometric(count=5)]


class Direct:
    """a·∇log N(x; m, (v + σ²)I); `a` is one number for each example, so that its gradients come out one by one."""

    sigma_range = RANGE

    def __init__(self, a: Tensor | float = 1.0, mean: float = 0.0, variance: float = TAU**2) -> None:
        self.a, self.mean, self.variance = torch.as_tensor(a, dtype=torch.float64).reshape(-1), mean, variance

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return -expand(self.a, x) * (x - self.mean) / (self.variance + expand(noise_levels(sigma, x), x) ** 2)


class Potential(Energy):
    """The same family as a log-density."""

    sigma_range = RANGE

    def __init__(self, a: Tensor | float = 1.0, mean: float = 0.0, variance: float = TAU**2) -> None:
        super().__init__()
        self.a, self.mean, self.variance = torch.as_tensor(a, dtype=torch.float64).reshape(-1), mean, variance

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return -self.a * sum_event((x - self.mean) ** 2) / (self.variance + noise_levels(sigma, x) ** 2) / 2


each_model = pytest.mark.parametrize("kind", [Direct, Potential])
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_objective = pytest.mark.parametrize(
    "objective",
    [
        DenoisingAt(0.5),
        DenoisingAt(0.1, control_variate=True),
        *[DenoisingScoreMatching(n, w) for n in NOISES for w in (EDMWeighting(), PowerWeighting())],
        DenoisingScoreMatching(LogUniform(), control_variate=True),
    ],
    ids=lambda o: (
        f"at-{o.sigma}" if isinstance(o, DenoisingAt) else f"{o.noise.kind}-{o.weighting.kind}{'-control' * o.control_variate}"
    ),
)


def draw(shape: tuple[int, ...], n: int = 4000) -> tuple[Tensor, torch.Generator]:
    g = torch.Generator().manual_seed(3)
    return TAU * torch.randn(n, *shape, generator=g, dtype=torch.float64), g


def standard_errors(values: Tensor, expected: float) -> float:
    return float((values.mean() - expected) / (values.std() / len(values) ** 0.5))


def gradients(objective: DenoisingAt | DenoisingScoreMatching, kind: type, a: float, shape: tuple[int, ...]) -> Tensor:
    """d loss/da of every example."""
    x, g = draw(shape)
    scale = torch.full((len(x),), a, dtype=torch.float64, requires_grad=True)
    loss = objective(kind(scale), x, generator=g).value
    return torch.autograd.grad(loss.sum(), scale)[0]


@each_objective
@each_model
@each_shape
def test_the_minimiser_is_the_true_score(
    objective: DenoisingAt | DenoisingScoreMatching, kind: type, shape: tuple[int, ...]
) -> None:
    assert abs(standard_errors(gradients(objective, kind, 1.0, shape), 0.0)) < 4
    assert standard_errors(gradients(objective, kind, 0.7, shape), 0.0) < -4
    assert standard_errors(gradients(objective, kind, 1.3, shape), 0.0) > 4
    assert standard_errors(gradients(objective, kind, -1.0, shape), 0.0) < -4


@each_model
@each_shape
@pytest.mark.parametrize("sigma", [0.1, 0.5, 3.0])
def test_one_levels_gradient_is_half_the_fisher_divergences(kind: type, shape: tuple[int, ...], sigma: float) -> None:
    d = torch.Size(shape).numel()
    for a in (0.5, 1.0, 1.5):  # ½F = ½(a − 1)² d/(τ² + σ²)
        expected = (a - 1) * d / (TAU**2 + sigma**2)
        assert abs(standard_errors(gradients(DenoisingAt(sigma), kind, a, shape), expected)) < 4


@each_model
@each_shape
@pytest.mark.parametrize("sigma", [0.1, 0.5, 3.0])
def test_differences_of_the_loss_are_differences_of_half_the_fisher_divergence(
    kind: type, shape: tuple[int, ...], sigma: float
) -> None:
    d, smoothed = torch.Size(shape).numel(), TAU**2 + sigma**2

    def fisher(mean: float, variance: float) -> float:  # E‖−x/v_p + (x − m)/v_q‖²
        v = variance + sigma**2
        return d * (smoothed * (1 / v - 1 / smoothed) ** 2 + mean**2 / v**2)

    first, second = (0.3, 1.2), (-0.8, 0.3)
    losses = [
        DenoisingAt(sigma)(kind(1.0, *q), *draw(shape)[:1], generator=torch.Generator().manual_seed(4)).value
        for q in (first, second)
    ]
    assert abs(standard_errors(losses[0] - losses[1], (fisher(*first) - fisher(*second)) / 2)) < 4


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("weighting", "formula"),
    [
        (EDMWeighting(), lambda s: (s**2 + 1) / s**2),
        (EDMWeighting(0.5), lambda s: (s**2 + 0.25) / (0.25 * s**2)),
        (PowerWeighting(), lambda s: 1 / s**2),
        (PowerWeighting(-4), lambda s: 1 / s**4),
        (PowerWeighting(0), lambda s: torch.ones_like(s)),
    ],
)
def test_the_weighted_value_is_exact(weighting: Weighting, formula: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
    model: Score = Direct(0.6, 0.2, 1.5)
    x, g = draw(shape, 40)
    objective = DenoisingScoreMatching(LogUniform(), weighting)
    sigma, z = objective.draw(x, RANGE, g)
    error = denoise(model, x + expand(sigma, x) * z, sigma) - x
    loss = objective.at(model, x, sigma, z)
    torch.testing.assert_close(loss.value, formula(sigma) * sum_event(error**2), rtol=1e-9, atol=0)
    assert loss.sigma is sigma


@each_model
@each_shape
def test_the_control_variate_keeps_the_mean_and_tames_the_variance(kind: type, shape: tuple[int, ...]) -> None:
    """With the same noise the values differ by what has mean zero; at σ = 0.01 the gradient varies far less."""
    plain, tamed = DenoisingAt(0.1), DenoisingAt(0.1, control_variate=True)
    model = kind(0.6, 0.2, 1.5)
    x, _ = draw(shape)
    values = [o(model, x, generator=torch.Generator().manual_seed(6)).value for o in (plain, tamed)]
    assert abs(standard_errors(values[0] - values[1], 0.0)) < 4
    spread = [gradients(DenoisingAt(0.06, c), kind, 0.8, shape).std() for c in (False, True)]
    assert spread[1] < spread[0] / 5


@each_shape
def test_the_control_variate_is_the_stated_one(shape: tuple[int, ...]) -> None:
    """zᵀs(x₀, σ)/σ + ½(‖z‖² − d)/σ² is what is taken away, example by example."""
    model, sigma = Direct(0.6, 0.2, 1.5), 0.3
    x, _ = draw(shape, 40)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(7), dtype=x.dtype)
    plain, tamed = (DenoisingAt(sigma, c)(model, x, generator=torch.Generator().manual_seed(7)).value for c in (False, True))
    taken = sum_event(z * model.score(x, sigma)) / sigma + (sum_event(z**2) - x[0].numel()) / sigma**2 / 2
    torch.testing.assert_close(plain - tamed, taken, rtol=1e-9, atol=1e-9)


def test_the_losses_draw_what_they_say() -> None:
    x, _ = draw((3,), 16)
    whole = DenoisingScoreMatching()(Direct(), x, generator=torch.Generator().manual_seed(5))
    sigma, z = DenoisingScoreMatching().draw(x, RANGE, torch.Generator().manual_seed(5))
    assert torch.equal(whole.value, DenoisingScoreMatching().at(Direct(), x, sigma, z).value)
    one = DenoisingAt(0.5)(Direct(), x, generator=torch.Generator().manual_seed(5))
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)
    torch.testing.assert_close(one.value, sum_event((Direct().score(x + 0.5 * z, 0.5) + z / 0.5) ** 2) / 2)
    assert one.sigma is not None
    assert one.sigma.tolist() == [0.5] * 16


@pytest.mark.parametrize("mean", [-0.5, 1.0])
def test_lognormal_quantiles(mean: float) -> None:
    u = torch.linspace(0, 1, 21, dtype=torch.float64)
    normal = NormalDist(mean, 1.2)
    low, high = (normal.cdf(torch.tensor(s).double().log().item()) for s in RANGE)
    expected = torch.tensor([normal.inv_cdf(low + (high - low) * v) for v in u.tolist()]).double().exp()
    torch.testing.assert_close(LogNormal(mean=mean).quantile(u, RANGE), expected, rtol=2e-6, atol=0)


def test_loguniform_and_geometric_quantiles() -> None:
    u = torch.linspace(0, 1, 21, dtype=torch.float64)
    torch.testing.assert_close(LogUniform().quantile(u, RANGE), RANGE[0] ** (1 - u) * RANGE[1] ** u)
    ladder = Geometric(count=4).quantile(torch.tensor([0.0, 0.2, 0.3, 0.49, 0.51, 0.74, 0.76, 1.0]).double(), (1.0, 27.0))
    torch.testing.assert_close(ladder, torch.tensor([1, 1, 3, 3, 9, 9, 27, 27]).double())


@pytest.mark.parametrize("noise", NOISES, ids=lambda n: n.kind)
def test_levels_stay_inside_the_range_in_float32(noise: Noise) -> None:
    sigma = noise.quantile(torch.tensor([0.0, 1e-7, 0.5, 1 - 6e-8, 1.0]), (0.002, 80.0))
    assert sigma.dtype == torch.float32
    assert (sigma >= 0.002).all()
    assert (sigma <= 80).all()
    assert (sigma.diff() >= 0).all()


def test_a_batch_has_one_level_in_every_stratum_in_random_order() -> None:
    x = torch.zeros(64, 2, dtype=torch.float64)
    sigma, z = DenoisingScoreMatching(LogUniform()).draw(x, RANGE, torch.Generator().manual_seed(0))
    stratum = ((sigma / RANGE[0]).log() / torch.tensor(RANGE[1] / RANGE[0]).log() * 64).floor()
    assert stratum.sort().values.tolist() == list(range(64))
    assert stratum.tolist() != list(range(64))
    assert z.shape == x.shape
