"""The derivative of a log-density by its level: σ ∂ log p_σ/∂σ = E[‖z‖² − d | x], and what it sees that scores do not.

Data N(0, τ²I) and log f = a log p_σ + c(σ); noise is common to both sides of a comparison; 4 standard errors.
"""

import pytest
import torch
from torch import Tensor

from scorefield.densities import GaussianMixture
from scorefield.errors import UserError
from scorefield.experiment import Run
from scorefield.interfaces import Energy
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, Parameterisation, PlainScore
from scorefield.networks import MLPConfig
from scorefield.objectives import DenoisingScoreMatching, LogUniform, PowerWeighting
from scorefield.objectives.denoising import noise_and_level_errors
from scorefield.tensors import noise_levels, sum_event

TAU = 0.8
N = 40_000
RANGE = (0.05, 10.0)
SHAPES = [(3,), (1, 2, 2)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


class Scaled(Energy):
    """a log N(x; 0, (τ² + σ²)I) + c sin σ, without the normal law's own constant."""

    sigma_range = RANGE

    def __init__(self, a: float = 1.0, c: float = 0.0) -> None:
        super().__init__()
        self.a, self.c = a, c

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        s = noise_levels(sigma, x)
        return -self.a * sum_event(x**2) / (TAU**2 + s**2) / 2 + self.c * s.sin()


def draw(shape: tuple[int, ...], sigma: float, n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    x, z = (torch.randn(n, *shape, generator=g, dtype=torch.float64) for _ in range(2))
    return TAU * x, torch.full((n,), sigma, dtype=torch.float64), z


def deviation(values: Tensor, exact: float) -> float:
    """Of the mean of independent values from what it should be, in standard errors."""
    values = values.detach()
    return abs(float((values.mean() - exact) / (values.std() / len(values) ** 0.5)))


@each_shape
@pytest.mark.parametrize("sigma", [0.1, 0.7, 3.0])
def test_the_derivative_is_the_mean_of_its_target(shape: tuple[int, ...], sigma: float) -> None:
    """What is left over is uncorrelated with any function of x: here 1 and ‖x‖²."""
    x, levels, z = draw(shape, sigma)
    _, slip = noise_and_level_errors(Scaled(), x, levels, z, None)
    slip = slip - x[0].numel() * sigma**2 / (TAU**2 + sigma**2)  # σ ∂/∂σ of −½ d log(τ² + σ²)
    assert deviation(slip, 0.0) < 4
    assert deviation(slip * sum_event((x + sigma * z) ** 2), 0.0) < 4


@each_shape
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_the_excess_of_a_wrong_energy_is_exact(shape: tuple[int, ...], sigma: float) -> None:
    """(a − 1)² d/(τ² + σ²) of the scores and (a − 1)² 2d σ⁴/(τ² + σ²)² across levels, both by w σ²."""
    x, levels, z = draw(shape, sigma)
    objective, a, v = DenoisingScoreMatching(LogUniform(), PowerWeighting(-1.0), across_levels=0.5), 1.4, TAU**2 + sigma**2
    wrong, right = (objective.at(Scaled(scale), x, levels, z).value for scale in (a, 1.0))
    per_pair = (wrong - right).unflatten(0, (-1, 2)).mean(1)
    d = x[0].numel()
    exact = (a - 1) ** 2 * sigma * (sigma**2 * d / v + 0.5 * 2 * d * sigma**4 / v**2)
    assert deviation(per_pair, exact) < 4
    assert exact / (per_pair.std() / len(per_pair) ** 0.5) > 15  # the comparison has power


@each_shape
def test_a_constant_of_each_level_is_free(shape: tuple[int, ...]) -> None:
    x = torch.randn(64, *shape, dtype=torch.float64)
    objective = DenoisingScoreMatching(across_levels=1.0)
    sigma, z = objective.draw(x, RANGE, torch.Generator().manual_seed(2))
    plain, raised = (objective.at(Scaled(1.2, c), x, sigma, z).value for c in (0.0, 5.0))
    torch.testing.assert_close(raised, plain, rtol=1e-9, atol=1e-9)


class Drifting(Energy):
    """Two far modes whose weights drift apart below σ = 1, which no score at σ < 1 can tell."""

    sigma_range = RANGE

    def __init__(self, drift: float) -> None:
        super().__init__()
        centres = torch.tensor([[-15.0, 0.0], [15.0, 0.0]], dtype=torch.float64)
        self.modes = [GaussianMixture(torch.ones(1), c[None], torch.full((1,), TAU**2)) for c in centres]
        self.drift = drift

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        one, other = (p.log_density(x, sigma) for p in self.modes)
        return torch.logaddexp(one + self.drift * (1 - noise_levels(sigma, x)).clamp(min=0), other)


def test_it_sees_what_scores_do_not() -> None:
    """Far modes: ‖σs + z‖² is the same to rounding, the spread across levels grows by Var(σ ∂ log w/∂σ) = (σ drift)²/4."""
    x = torch.cat([m.sample(N // 2, generator=torch.Generator().manual_seed(i)) for i, m in enumerate(Drifting(0.0).modes)])
    x = x[torch.randperm(N, generator=torch.Generator().manual_seed(7))].double()
    _, levels, z = draw((2,), 0.5)
    (e0, s0), (e1, s1) = (noise_and_level_errors(Drifting(drift), x, levels, z, None) for drift in (0.0, 3.0))
    torch.testing.assert_close(e1, e0, rtol=1e-6, atol=1e-6)
    gained = ((s1[::2] - s1[1::2]) ** 2 - (s0[::2] - s0[1::2]) ** 2) / 2
    assert deviation(gained, (0.5 * 3.0) ** 2 / 4) < 4


def test_neighbours_share_a_level() -> None:
    x = torch.zeros(65, 2, dtype=torch.float64)
    sigma, z = DenoisingScoreMatching(LogUniform(), across_levels=1.0).draw(x, RANGE, torch.Generator().manual_seed(0))
    assert torch.equal(sigma[:64:2], sigma[1::2])
    stratum = ((sigma[::2] / RANGE[0]).log() / torch.tensor(RANGE[1] / RANGE[0]).log() * 33).floor()
    assert stratum.sort().values.tolist() == list(range(33))
    assert z.shape == x.shape
    objective = DenoisingScoreMatching(across_levels=1.0)
    alone = objective.at(Scaled(), x[:1], sigma[:1], z[:1]).value  # a last one without a neighbour has its score's part alone
    assert torch.equal(alone, DenoisingScoreMatching().at(Scaled(), x[:1], sigma[:1], z[:1]).value)


def test_gradients_reach_the_weights_only_where_they_are_wanted() -> None:
    weight = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    model = Scaled(weight)  # type: ignore[arg-type]
    x, levels, z = draw((3,), 0.5, 64)
    objective = DenoisingScoreMatching(across_levels=1.0)
    objective.at(model, x, levels, z).value.mean().backward()
    assert weight.grad is not None
    step = 1e-5
    ahead, behind = (float(objective.at(Scaled(1.2 + h), x, levels, z).value.mean()) for h in (step, -step))
    assert float(weight.grad) == pytest.approx((ahead - behind) / (2 * step), rel=1e-6)
    with torch.no_grad():
        assert not objective.at(model, x, levels, z).value.requires_grad


@pytest.mark.parametrize("row", ["edm", "v", "flow"])
def test_the_slope_of_a_model_is_by_all_that_knows_its_level(row: str) -> None:
    """Through c_skip, c_out, c_in and c_noise of a learned energy, by differences of its log-density."""
    torch.manual_seed(0)
    network = InnerProduct(MLPConfig(width=16, blocks=1).build((3,))).double()
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.3)
    model = EnergyModel(network, ModelSpec((3,), Parameterisation(row), RANGE))  # type: ignore[arg-type]
    x, levels, z = draw((3,), 0.7, 20)
    noisy, h = x + 0.7 * z, 1e-5
    _, slip = noise_and_level_errors(model, x, levels, z, None)
    slope = (model.log_density(noisy, 0.7 + h) - model.log_density(noisy, 0.7 - h)) / (2 * h)
    torch.testing.assert_close(slip, 0.7 * slope - (z**2).sum(1) + 3, rtol=1e-6, atol=1e-6)


class Flat(Scaled):
    """Knows nothing of its level."""

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return -sum_event(x**2)


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="neighbours must share a level"):
        DenoisingScoreMatching(across_levels=1.0).at(Scaled(), torch.zeros(2, 3), torch.tensor([1.0, 2.0]), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="Flat does not depend on its level"):
        DenoisingScoreMatching(across_levels=1.0).at(Flat(), torch.zeros(2, 3), torch.ones(2), torch.zeros(2, 3))
    x = torch.zeros(4, 3)
    with pytest.raises(ValueError, match="across_levels is for energies"):
        DenoisingScoreMatching(across_levels=1.0).at(PlainScore(torch.nn.Identity()), x, torch.ones(4), x, None)
    with pytest.raises(ValueError, match="across_levels must be at least 0"):
        DenoisingScoreMatching(across_levels=-1.0)
    with pytest.raises(ValueError, match="exclude each other"):
        DenoisingScoreMatching(across_levels=1.0, control_variate=True)
    with pytest.raises(UserError, match=r"--objective\.across-levels is for energies: give --energy as well"):
        Run(objective=DenoisingScoreMatching(across_levels=1.0))
