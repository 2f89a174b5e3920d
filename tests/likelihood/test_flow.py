"""Log-densities by the probability-flow ODE against mixtures whose density is known (identity 13)."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from scorefield.densities import GaussianMixture, gaussian
from scorefield.interfaces import Energy, Score
from scorefield.jacobian_trace import Exact, Hutchinson
from scorefield.likelihood import FlowLikelihood, prior_mismatch
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, ScoreModel
from scorefield.networks import MLPConfig
from scorefield.processes import PROCESSES, Process, level_range
from scorefield.samplers import DormandPrince, Geometric, Heun, RungeKutta4

ENDS = (0.02, 40.0)
PRECISE = DormandPrince(2, sigma_range=ENDS, rtol=1e-7, atol=1e-7)
EXACT = FlowLikelihood(PRECISE, Exact())
SHAPES = [(2,), (8,), (16,), (1, 8, 8)]


def oracle(shape: tuple[int, ...]) -> GaussianMixture:
    """A mixture for vectors; for images one Gaussian with a covariance of its own for each pixel."""
    g = torch.Generator().manual_seed(3)
    means = torch.randn(3, *shape, generator=g, dtype=torch.float64)
    if len(shape) == 3:
        return GaussianMixture(
            torch.ones(1), means[:1], torch.rand(1, math.prod(shape), generator=g).double().diag_embed() + 0.1
        )
    return GaussianMixture(torch.tensor([0.2, 0.5, 0.3]), means, torch.tensor([0.1, 0.4, 0.2], dtype=torch.float64))


class AsEnergy(Energy):
    """The same density with its score by differentiation."""

    def __init__(self, density: GaussianMixture) -> None:
        super().__init__()
        self.density = density

    sigma_range = (0.0, math.inf)  # type: ignore[assignment]

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return self.density.log_density(x, sigma) + 5.0  # energies know no constant


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("kind", ["direct", "energy"])
def test_exact_traces_give_the_log_density(shape: tuple[int, ...], process: Process, kind: str) -> None:
    p = oracle(shape)
    x = p.sample(4, ENDS[0], generator=torch.Generator().manual_seed(0))
    model: Score = p if kind == "direct" else AsEnergy(p)
    found = replace(EXACT, solver=replace(PRECISE, process=process))(model, x, prior=p)
    assert (found.sigma, found.sigma_max) == ENDS
    assert found.se is None
    error = (found.log_density - p.log_density(x, ENDS[0])).abs().max()
    assert error < 1e-4, f"{error:.1e} nats"


@pytest.mark.parametrize(
    ("shape", "probes", "kind", "least"),
    [*((shape, 16, "direct", 0.99) for shape in SHAPES), ((8,), 4, "direct", 0.95), ((8,), 4, "energy", 0.95)],
    ids=str,
)
def test_intervals_from_probes_cover(shape: tuple[int, ...], probes: int, kind: str, least: float) -> None:
    """1,000 rows, each with probes of its own; of 99.7 % intervals that hold, fewer than 990 would be 4 deviations away.

    Integrals of few probes are skewed, and Student's interval does not know it: 97.4 % were seen with 4 in 8 dimensions.
    """
    p = oracle(shape)
    model: Score = p if kind == "direct" else AsEnergy(p)
    g = torch.Generator().manual_seed(1)
    x = p.sample(1000, ENDS[0], generator=g)
    solver = DormandPrince(2, sigma_range=ENDS, rtol=1e-6, atol=1e-6)
    found = FlowLikelihood(solver, Hutchinson(probes, "orthogonal"))(model, x, prior=p, generator=g)
    assert found.se is not None
    width = stats.t.ppf(1 - 0.003 / 2, probes - 1) * found.se + 1e-4
    covered = ((found.log_density - p.log_density(x, ENDS[0])).abs() <= width).double().mean()
    assert covered >= least
    if math.prod(shape) > probes:
        assert found.se.mean() > 0.01
    else:  # the probes fill the space, and nothing is left to chance
        assert not found.se.any()


def test_each_probe_stays_the_same_along_its_path() -> None:
    """Fresh ones at every evaluation would make the spread of the integrals far too small, and the path's law rough."""
    p = gaussian(torch.zeros(2, dtype=torch.float64), torch.tensor([[1.0, 0.8], [0.8, 1.0]]).double())
    x = torch.tensor([[0.3, -1.0]]).double()
    found = FlowLikelihood(RungeKutta4(41, Geometric(), ENDS), Hutchinson(64))(p, x, prior=p, generator=torch.Generator())
    # vᵀ∇s v takes two values for v = ±(1, 1), ±(1, −1), so the integral takes two
    assert len(np.unique(found.integral.numpy().round(6))) == 2


@pytest.mark.parametrize(
    "solver", [Heun(33, Geometric(), ENDS), RungeKutta4(33, Geometric(), ENDS), PRECISE], ids=lambda s: type(s).__name__
)
def test_the_refinement_bounds_the_solvers_error(solver: Heun) -> None:
    p = oracle((4,))
    x = p.sample(50, ENDS[0], generator=torch.Generator().manual_seed(0))
    found = FlowLikelihood(solver, Exact(), refine=True)(p, x, prior=p)
    assert found.refinement is not None
    error = (found.log_density - p.log_density(x, ENDS[0])).abs()
    assert error.max() <= found.refinement.abs().max()
    assert (error <= found.refinement.abs() + 0.05 * found.refinement.abs().max() + 1e-6).all()


@pytest.mark.parametrize("process", ["vp", "flow"])
def test_the_practical_priors_mismatch_explains_the_rest(process: str) -> None:
    """The path is the same, so what differs is the log-density of its end."""
    p = oracle((3,))
    x = p.sample(20_000, ENDS[0], generator=torch.Generator().manual_seed(0))
    for top in (2.0, 10.0):
        solver = DormandPrince(2, sigma_range=(ENDS[0], top), rtol=1e-6, atol=1e-6, process=PROCESSES[process])
        few = FlowLikelihood(solver, Exact())(p, x[:10])
        rest = few.log_density - p.log_density(x[:10], ENDS[0])
        torch.testing.assert_close(rest, few.log_prior - p.log_density(few.latent, top), atol=1e-4, rtol=0)
        y = x + math.sqrt(top**2 - ENDS[0] ** 2) * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
        lost = p.log_density(y, top) - gaussian(torch.zeros(3).double(), 1.0).log_density(y, top)
        mean, variance = p.mean(), p.covariance().diagonal().reshape(3)
        error = prior_mismatch(mean, variance, top) - float(lost.mean())
        # a mixture and its correlations differ from independent Gaussians by terms of order σ⁻⁴
        between = float((p.covariance() - p.covariance().diagonal().diag()).square().sum() / (4 * top**4)) + 1 / top**4
        assert abs(error) < 4 * float(lost.std()) / len(y) ** 0.5 + between


def test_the_mismatch_of_a_gaussian_is_its_divergence() -> None:
    mean, variance = torch.tensor([0.5, -1.0]), torch.tensor([0.3, 2.0])
    p, q = (torch.distributions.Normal(m, s) for m, s in ((mean, (variance + 9).sqrt()), (0.0, math.sqrt(10))))
    assert prior_mismatch(mean, variance, 3.0) == pytest.approx(float(torch.distributions.kl_divergence(p, q).sum()), rel=1e-5)


def models(event_shape: tuple[int, ...]) -> list[Score]:
    torch.manual_seed(0)
    spec = ModelSpec(event_shape, sigma_range=(0.1, 20.0))
    network = MLPConfig(width=16, blocks=1)
    found: list[Score] = []
    direct, scalar = network.build(event_shape), InnerProduct(network.build(event_shape))
    for model in (ScoreModel(direct, spec), EnergyModel(scalar, spec)):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        found.append(model.requires_grad_(False))
    return found


@pytest.mark.parametrize("index", [0, 1], ids=["direct", "energy"])
def test_a_models_density_integrates_to_one(index: int) -> None:
    """Whatever the network, the flow carries the prior's mass: ∫ p_σ dx = 1 by quadrature in the plane."""
    model = models((2,))[index]
    axis = torch.linspace(-6, 6, 161)
    x = torch.cartesian_prod(axis, axis)
    found = FlowLikelihood(RungeKutta4(25, Geometric()), Exact())(model, x)
    assert (found.sigma, found.sigma_max) == (0.1, 20.0)
    mass = found.log_density.double().exp().sum() * float(axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=0.01)


def test_the_callers_grad_mode_and_precision() -> None:
    model = models((2,))[1]
    x = torch.zeros(3, 2)
    found = FlowLikelihood(RungeKutta4(5, Geometric()), Hutchinson(2))(model, x)
    assert torch.is_grad_enabled()
    assert found.log_density.dtype == torch.float32
    assert not found.log_density.requires_grad


def test_levels_are_those_that_both_model_and_process_have() -> None:
    model = models((2,))[0]
    low, high = level_range(PROCESSES["vp"])
    assert low < 0.1 < 20 < high
    found = FlowLikelihood(RungeKutta4(5, Geometric(), process=PROCESSES["vp"]), Exact())(model, torch.zeros(1, 2))
    assert (found.sigma, found.sigma_max) == (0.1, 20.0)
    with pytest.raises(ValueError, match="must lie in the model's sigma_range"):
        FlowLikelihood(RungeKutta4(5, Geometric(), (0.01, 1.0)))(model, torch.zeros(1, 2))
    with pytest.raises(ValueError, match="floating-point"):
        FlowLikelihood()(model, torch.zeros(1, 2, dtype=torch.long))
