"""Blindness to mode weights: found where modes are far apart, not where they touch."""

import warnings

import pytest
import torch

from scorefield.densities import GaussianMixture
from scorefield.metrics import ScoreWarning, mode_masses

SIGMAS = 4.5


@pytest.mark.parametrize("shape", [(2,), (1, 1, 2)], ids=str)
def test_far_modes_have_other_masses_by_plain_langevin_dynamics(shape: tuple[int, ...]) -> None:
    """Song & Ermon's two modes, scaled: plain dynamics from N(0, I) halves them, the others find 1/5 and 4/5."""
    centres = torch.stack([torch.full(shape, -1.0), torch.full(shape, 1.0)])
    p = GaussianMixture(torch.tensor([0.2, 0.8]), centres, torch.full((2,), 0.03))
    with pytest.warns(ScoreWarning, match="mode . has mass .* by plain Langevin dynamics"):
        found = mode_masses(p, centres, 1024, sigma_range=(0.1, 20.0), steps=200)
    assert abs(float(found.langevin[1]) - 0.5) < 0.1
    for masses in (found.annealed, found.flow):
        assert abs(float(masses[1]) - 0.8) < SIGMAS * 0.4 / 32 + 0.02
        assert float(masses.sum()) == pytest.approx(1)
    assert len(found.problems) == 2  # the two that are right agree


def test_modes_that_touch_are_weighed_alike() -> None:
    centres = torch.tensor([[-0.5, 0.0], [0.5, 0.0]])
    p = GaussianMixture(torch.tensor([0.3, 0.7]), centres, torch.full((2,), 0.25))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = mode_masses(p, centres, 1024, sigma_range=(0.3, 20.0), steps=800)
    assert found.problems == ()
    with pytest.raises(ValueError, match="at least 2 centres"):
        mode_masses(p, centres[:1])


def test_the_mode_that_is_named_is_the_one_that_differs_most() -> None:
    """Of three modes the middle one gets its share of N(0, I) by chance, the outer ones do not."""
    centres = torch.tensor([[-1.5, 0.0], [0.0, 0.0], [1.5, 0.0]])
    p = GaussianMixture(torch.tensor([0.05, 0.55, 0.4]), centres, torch.full((3,), 0.02))
    with pytest.warns(ScoreWarning, match=r"mode [02] has mass .* by plain Langevin dynamics"):
        found = mode_masses(p, centres, 1024, sigma_range=(0.1, 20.0), steps=200)
    assert abs(float(found.langevin[1]) - 0.55) < SIGMAS * 0.5 / 32 + 0.02
    assert len(found.problems) == 2
