"""Whether Markov chains have mixed, and how much their draws are worth; computed by arviz-stats.

R̂ compares the spread between halves of chains with that within them, for ranks, and for ranks of distances to the median
(the larger is taken): 1 for chains that all roam the same law. It can only see modes that some chain has been in, so chains
should begin further apart than the law is wide. The effective sample size is the number of independent draws of equal worth,
for the bulk of the law and for its 5 % and 95 % quantiles.

Reference: Vehtari et al. 2021, arXiv:1903.08008 (and its thresholds).
"""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield.metrics.record import Estimate
from scorefield.samplers import Draws

LARGEST_RHAT = 1.01
FEWEST_EFFECTIVE = 400.0
LEAST_ACCEPTANCE = 0.05


class ChainWarning(UserWarning):
    """Chains whose draws should not be trusted; the text names the diagnostic that says so."""


class Diagnosis(NamedTuple):
    """What `diagnose` found."""

    rhat: Tensor
    """split, rank-normalised R̂ of each coordinate `(*event)`"""
    ess_bulk: Tensor
    """effective draws for the bulk `(*event)`"""
    ess_tail: Tensor
    """effective draws for the tails `(*event)`"""
    acceptance: Tensor
    """mean probability of a move, by chain `(chains,)`"""
    problems: tuple[str, ...]
    """what is wrong, one line each; none if all is well"""


def diagnose(draws: Draws) -> Diagnosis:
    """R̂, effective sample sizes and acceptance; warns by a `ChainWarning` for every problem.

    Raises:
        ValueError: fewer than 2 chains or 4 draws, which say nothing.
    """
    rhat, bulk, tail = (by_coordinate(draws.x, which) for which in ("rhat", "bulk", "tail"))
    acceptance = draws.acceptance.mean(0)
    problems = []
    if not (rhat <= LARGEST_RHAT).all():  # NaN, of a coordinate that never moved, is a problem too
        found = "not a number: a coordinate never moved"
        if not rhat.isnan().any():
            found = f"{rhat.max():.3f}, above {LARGEST_RHAT}: the chains have not mixed; take more steps, or bridge modes"
        problems.append(f"R̂ is {found}")
    for name, ess in (("bulk", bulk), ("tail", tail)):
        if not (ess >= FEWEST_EFFECTIVE).all():
            problems.append(
                f"the {name} effective sample size is {ess.min():.0f}, below {FEWEST_EFFECTIVE:.0f}: take more steps"
            )
    if (stuck := int((acceptance < LEAST_ACCEPTANCE).sum())) > 0:
        least = float(acceptance.min())
        problems.append(f"acceptance is {least:.2g} in {stuck} chains, below {LEAST_ACCEPTANCE}: take a smaller step size")
    for problem in problems:
        warnings.warn(problem, ChainWarning, stacklevel=2)
    return Diagnosis(rhat, bulk, tail, acceptance, tuple(problems))


def expectation(values: Tensor) -> Estimate:
    """Mean of one number for each draw `(draws, chains)`, its standard error by the effective sample size."""
    from arviz_stats.base import array_stats

    array = values.double().cpu().numpy()
    se = float(array_stats.mcse(array, chain_axis=1, draw_axis=0, method="mean"))
    return Estimate(float(array.mean()), se)


def by_coordinate(x: Tensor, which: str) -> Tensor:
    """`rhat`, or the `bulk` or `tail` effective sample size, of draws `(draws, chains, *event)`: `(*event)`, float64."""
    from arviz_stats.base import array_stats  # brings SciPy's statistics along, a second that few need

    draws, chains = x.shape[:2]
    if draws < 4 or chains < 2:
        raise ValueError(f"diagnostics need at least 2 chains and 4 draws, got {chains} and {draws}")
    array = x.double().cpu().numpy()
    if which == "rhat":
        found = array_stats.rhat(array, chain_axis=1, draw_axis=0)
    elif which == "bulk":
        found = array_stats.ess(array, chain_axis=1, draw_axis=0, method="bulk")
    else:
        found = array_stats.ess(array, chain_axis=1, draw_axis=0, method="tail", prob=(0.05, 0.95))
    return torch.from_numpy(np.asarray(found, dtype=np.float64))
