"""Grids of levels, and the range they span: the sampler's, the model's, the process's."""

import math
from itertools import pairwise

import pytest
import torch

from scorefield.densities import gaussian
from scorefield.models import ModelSpec, ScoreModel
from scorefield.networks import MLPConfig
from scorefield.processes import EDM, PROCESSES, VE, VP, Cosine, RectifiedFlow, time_at
from scorefield.samplers import DDIM, GRIDS, EulerMaruyama, Geometric, Heun, Karras, Uniform
from scorefield.samplers.levels import levels_of

RANGE = (0.02, 50.0)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("steps", [2, 3, 17])
def test_grids_fall_from_end_to_end(grid: Karras, steps: int) -> None:
    levels = grid(steps, RANGE)
    assert len(levels) == steps
    assert (levels[0], levels[-1]) == RANGE[::-1]
    assert all(a > b for a, b in pairwise(levels))


def test_the_named_grids_are_these() -> None:
    assert GRIDS == {  # noqa: SIM300
        "karras": Karras(7.0), "log": Geometric(), "linear": Uniform(EDM()), "cosine": Uniform(Cosine()), "vp": Uniform(VP()),
    }  # fmt: skip


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_uniform_grids_are_uniform_in_time(process: EDM) -> None:
    times = time_at(process, Uniform(process)(9, RANGE))
    torch.testing.assert_close(times.diff(), times.diff().mean().expand(8), rtol=1e-9, atol=0)


def test_grids_in_closed_form() -> None:
    assert Uniform(EDM())(3, (1.0, 5.0)) == pytest.approx([5, 3, 1])
    assert Geometric()(4, RANGE) == pytest.approx(Uniform(VE())(4, RANGE))
    assert Karras(1.0)(5, RANGE) == pytest.approx(Uniform(EDM())(5, RANGE))


def model(low: float, high: float) -> ScoreModel:
    return ScoreModel(MLPConfig(width=8, blocks=1).build((2,)), ModelSpec((2,), sigma_range=(low, high)))


def test_the_range_is_the_models_as_far_as_the_process_reaches() -> None:
    reach = VE(0.01, 50.0)
    assert levels_of(Heun(), model(0.002, 80.0)) == (0.002, 80.0)
    assert levels_of(Heun(), model(0.002, 80.0), reach) == pytest.approx((0.01, 50.0))
    assert levels_of(Heun(), model(0.02, 80.0), reach) == pytest.approx((0.02, 50.0))
    assert levels_of(Heun(), gaussian(torch.zeros(2), 1.0), reach) == pytest.approx((0.01, 50.0))
    assert levels_of(Heun(sigma_range=(0.1, 5.0)), model(0.002, 80.0), reach) == (0.1, 5.0)
    x = torch.zeros(3, 2)
    for sampler in (Heun(5, process=reach), EulerMaruyama(5, process=reach)):
        levels = [float(state.sigma) for state in sampler(model(0.002, 80.0), x)]
        assert levels[0] == pytest.approx(50.0)
        assert levels[-2] == pytest.approx(0.01)
        start = sampler.start(model(0.002, 80.0), (4000, 2), torch.Generator().manual_seed(0))
        assert float(start.std()) == pytest.approx(50.0, rel=0.05)
    assert float(next(iter(DDIM(5)(model(0.002, 80.0), x))).sigma) == pytest.approx(80.0)  # it needs no process


def test_levels_that_the_process_does_not_reach_are_refused() -> None:
    for pair in ((0.005, 50.0), (0.01, 60.0)):
        sampler = Heun(5, sigma_range=pair, process=VE(0.01, 50.0))
        with pytest.raises(ValueError, match=r"VE has noise levels from 0.01 to 50: it cannot walk from"):
            next(iter(sampler(model(0.002, 80.0), torch.zeros(3, 2))))
    with pytest.raises(ValueError, match=r"VE has noise levels from 0\.01 to 50"):  # a model all of whose levels are beyond
        next(iter(Heun(5, process=VE(0.01, 50.0))(model(60.0, 80.0), torch.zeros(3, 2))))


def test_a_grid_that_does_not_reach_is_refused() -> None:
    with pytest.raises(ValueError, match=r"VE has noise levels from 0.01 to 50, not \["):
        next(iter(Heun(5, Uniform(VE(0.01, 50.0)))(model(0.002, 80.0), torch.zeros(3, 2))))


def test_a_flow_without_end_must_be_given_one() -> None:
    with pytest.raises(ValueError, match="give the sampler a sigma_range"):
        next(iter(Heun(5, process=RectifiedFlow())(gaussian(torch.zeros(2), 1.0), torch.zeros(3, 2))))
    assert math.isinf(levels_of(DDIM(), model(0.002, 80.0))[1]) is False
