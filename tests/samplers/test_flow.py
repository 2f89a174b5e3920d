"""The probability flow: the same path in every process, up as well as down, to the tolerance asked for."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scorefield.densities import GaussianMixture, gaussian
from scorefield.interfaces import Score, State
from scorefield.models import EnergyModel, ModelSpec, Parameterisation, ParameterisationName, ScoreModel
from scorefield.networks import MLPConfig
from scorefield.processes import PROCESSES, VP, Process
from scorefield.samplers import DormandPrince, Euler, Geometric, Heun, ProbabilityFlow, RungeKutta4

P = GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.5], [1.0, 2.0]]), torch.tensor([0.2, 0.6]))
X = 2 * torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ENDS = (0.05, 2.0)


def last(states: Iterator[State]) -> Tensor:
    *_, state = states
    return state.x


def solved(sampler: ProbabilityFlow, x: Tensor = X) -> Tensor:
    return last(replace(sampler, sigma_range=ENDS, to_zero=False)(P, x))


EXACT = solved(RungeKutta4(1000, Geometric()))


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_every_process_solves_the_same_equation(process: object) -> None:
    for sampler, tolerance in (
        (Heun(1000, Geometric(), process=process), 1e-5),  # type: ignore[arg-type]
        (RungeKutta4(200, Geometric(), process=process), 1e-7),  # type: ignore[arg-type]
        (DormandPrince(process=process, rtol=1e-9, atol=1e-9), 1e-7),  # type: ignore[arg-type]
    ):
        torch.testing.assert_close(solved(sampler), EXACT, rtol=0, atol=tolerance)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_the_adaptive_solver_meets_its_tolerance(process: object) -> None:
    """Errors of single steps add up, so the error at the end may be some tolerances large; it falls with them."""
    tolerances = [1e-3, 1e-5, 1e-7, 1e-9]
    errors = [
        (solved(DormandPrince(2, process=process, rtol=tol, atol=tol)) - EXACT).abs().amax(1)  # type: ignore[arg-type]
        for tol in tolerances
    ]
    for tol, error in zip(tolerances, errors, strict=True):
        assert error.max() < 20 * tol
    slope = np.polyfit(np.log(tolerances), np.log([float(e.max()) for e in errors]), 1)[0]
    assert 0.7 < slope < 1.4


@pytest.mark.parametrize("energy", [False, True], ids=["direct", "energy"])
@pytest.mark.parametrize("name", ["edm", "noise", "data", "v", "flow", "ncsn"])
def test_a_model_of_any_parameterisation_under_any_process(name: ParameterisationName, energy: bool) -> None:
    """The end is the same, whatever the process, for any network: it is a change of coordinates."""
    if energy and name == "data":
        pytest.skip("energies do not come in this parameterisation")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1 if energy else 2)).double()

    def with_level(u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        return network(torch.cat([u, c_noise[:, None]], 1))

    spec = ModelSpec((2,), Parameterisation(name), sigma_range=(0.05, 10.0))
    model: Score = EnergyModel(with_level, spec) if energy else ScoreModel(with_level, spec)  # type: ignore[arg-type]
    start = 10 * torch.randn(5, 2, dtype=torch.float64)
    ends = []
    for process in PROCESSES.values():
        *_, state = DormandPrince(2, process=process, rtol=1e-9, atol=1e-9, to_zero=False)(model, start)
        ends.append(state.x)
    for other in ends[1:]:
        torch.testing.assert_close(other, ends[0], rtol=1e-5, atol=1e-5)
    assert (ends[0] - start).abs().min() > 1e-3


def test_absolute_and_relative_tolerance() -> None:
    """Started far away, the state is large, so that rtol is what counts; atol counts near 0."""
    far, near = 1e4 * torch.ones(1, 2, dtype=torch.float64), 1e-4 * torch.ones(1, 2, dtype=torch.float64)
    p = gaussian(torch.zeros(2), 0.64)
    shrink = math.sqrt((0.64 + 0.05**2) / 4.64)

    def error(x: Tensor, **tolerances: float) -> float:
        return float((last(DormandPrince(2, sigma_range=ENDS, to_zero=False, **tolerances)(p, x)) - shrink * x).abs().max())

    assert error(far, rtol=1e-8, atol=1e-3) < 20e-4 < error(far, rtol=1e-3, atol=1e-8)
    assert error(near, rtol=1e-3, atol=1e-10) < 20e-7
    assert error(near, rtol=1e-12, atol=1e-10) < 20e-10 < error(near, rtol=1e-12, atol=1e-3)


def test_rows_at_rest_do_not_dilute_the_error_of_another() -> None:
    """A batch takes the steps that its worst row would take alone."""
    p = gaussian(torch.zeros(2), 0.64)
    x = torch.zeros(1000, 2, dtype=torch.float64)
    x[7] = 3
    sampler = DormandPrince(2, sigma_range=ENDS, to_zero=False, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(last(sampler(p, x))[7:8], last(sampler(p, x[7:8])), rtol=1e-12, atol=0)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=str)
def test_encoding_is_the_exact_path_upwards_and_decodes(process: object, shape: tuple[int, ...]) -> None:
    p = gaussian(torch.full(shape, 0.5), 0.64)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for sampler in (RungeKutta4(60, Geometric()), DormandPrince(4, rtol=1e-8, atol=1e-8)):
        flow = replace(sampler, process=process, sigma_range=ENDS, to_zero=False)
        states = list(flow.encode(p, x))
        assert [float(s.sigma) for s in states] == pytest.approx(flow.grid(flow.steps, ENDS)[::-1])
        assert torch.equal(states[0].x, x)
        exact = 0.5 + (x - 0.5) * math.sqrt(4.64 / (0.64 + 0.05**2))
        torch.testing.assert_close(states[-1].x, exact, rtol=0, atol=1e-5)
        torch.testing.assert_close(last(flow(p, states[-1].x)), x, rtol=0, atol=1e-5)


def test_modes_of_the_caller() -> None:
    sampler = Heun(3, sigma_range=ENDS, process=VP())
    states = sampler.encode(P, X.requires_grad_())
    assert not any(s.x.requires_grad for s in list(states)[1:])
    assert torch.is_grad_enabled()
    X.requires_grad_(False)
    with torch.inference_mode():
        assert torch.equal(last(sampler(P, X)), last(sampler(P, X)))


def test_float32_in_float32_out() -> None:
    for kind in (Euler, Heun, RungeKutta4, DormandPrince):
        for process in PROCESSES.values():
            x = solved(kind(process=process), X.float())
            assert x.dtype == torch.float32
            torch.testing.assert_close(x.double(), solved(kind(process=process)), rtol=1e-3, atol=1e-3)


def test_tolerances_out_of_range_are_refused() -> None:
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="rtol must be positive, got"):
            DormandPrince(rtol=value)
        with pytest.raises(ValueError, match="atol must be positive, got"):
            DormandPrince(atol=value)


@pytest.mark.parametrize("steps", [2, 5, 10, 14, 30])
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_the_adaptive_solver_looks_no_further_than_its_interval(process: Process, steps: int) -> None:
    """Beyond the ends of a process's time there is no level, and a model refuses what lies beyond its own."""
    spec = ModelSpec((2,), sigma_range=(0.002, 80.0))
    model = ScoreModel(MLPConfig(width=4, blocks=1).build((2,)), spec).requires_grad_(False)
    sampler = DormandPrince(steps, process=process)
    *_, state = sampler(model, sampler.start(model, (3, 2), torch.Generator().manual_seed(0)))
    assert state.x.isfinite().all()
