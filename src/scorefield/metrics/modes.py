"""Which mass a score puts on each mode, by samplers that should agree and do not where the score is blind.

Score matching weighs errors by p. Between modes far apart there is next to none of it, and the weights of the modes are nowhere
in the score, which is that of one mode after the other. Plain Langevin dynamics then returns the weights of its start; noise
bridges the modes, and annealed dynamics and the probability flow find what the large levels know.

Reference: Song & Ermon 2019, arXiv:1907.05600 (section 3.2.2); Wenliang & Kanagawa 2020, arXiv:2008.10087 (blindness).
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.interfaces import Score
from scorefield.samplers import AnnealedLangevin, Heun, Langevin, StartingSampler, generate


class ScoreWarning(UserWarning):
    """A score whose samples should not be trusted; the text says why."""


class ModeMasses(NamedTuple):
    """Shares of samples nearest to each centre `(k,)`, by three samplers."""

    langevin: Tensor
    """plain Langevin dynamics at one small level, from N(0, I)"""
    annealed: Tensor
    """annealed Langevin dynamics"""
    flow: Tensor
    """the probability flow, by Heun's method"""
    n: int
    """samples of each"""
    problems: tuple[str, ...]
    """which samplers disagree, one line each"""


def mode_masses(
    model: Score,
    centres: Tensor,
    n: int = 1024,
    *,
    sigma_range: tuple[float, float] | None = None,
    steps: int = 1000,
    seed: int = 0,
    slack: float = 0.05,
) -> ModeMasses:
    """Masses of the modes at `centres` `(k, *event)`, scaled units; warns by a `ScoreWarning` where samplers disagree.

    Args:
        sigma_range: levels to walk between; the model's by default.
        steps: of plain Langevin dynamics at σ = 0.1 (or the smallest level, if that is larger), each of size 0.1 σ²: far below,
            it would not move.
        slack: differences that are overlooked, beside three standard errors; samplers have errors of their own.

    Raises:
        ValueError: fewer than 2 centres.
    """
    if len(centres) < 2:
        raise ValueError(f"masses of modes need at least 2 centres, got {len(centres)}")
    level = max((sigma_range or model.sigma_range)[0], 0.1)
    samplers: dict[str, StartingSampler] = {
        "plain Langevin dynamics": Langevin(steps, level, 0.1 * level**2),
        "annealed Langevin dynamics": AnnealedLangevin(100, 5, sigma_range=sigma_range),
        "the probability flow": Heun(35, sigma_range=sigma_range),
    }
    shares = {name: masses(model, sampler, centres, n, seed) for name, sampler in samplers.items()}
    problems = []
    names = list(shares)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            apart = (shares[one] - shares[other]).abs()
            error = ((shares[one] * (1 - shares[one]) + shares[other] * (1 - shares[other])) / n).sqrt()
            worst = int((apart - 3 * error).argmax())
            if apart[worst] > 3 * error[worst] + slack:
                a, b = float(shares[one][worst]), float(shares[other][worst])
                problems.append(
                    f"mode {worst} has mass {a:.2f} by {one} and {b:.2f} by {other}: not every level of the score knows the "
                    "modes' weights; trust annealed samplers as far as the large levels were learned"
                )
    for problem in problems:
        warnings.warn(problem, ScoreWarning, stacklevel=2)
    plain, annealed, flow = shares.values()
    return ModeMasses(plain, annealed, flow, n, tuple(problems))


def masses(model: Score, sampler: StartingSampler, centres: Tensor, n: int, seed: int) -> Tensor:
    """The share of n samples that are nearest to each centre `(k,)`, float64."""
    flat = centres.flatten(1).float()
    counts = torch.zeros(len(centres), dtype=torch.float64)
    for x in generate(model, sampler, n, tuple(centres.shape[1:]), seed=seed, device=centres.device):
        nearest = torch.cdist(x.flatten(1).float(), flat).argmin(1)
        counts += torch.bincount(nearest, minlength=len(centres)).double().cpu()
    return counts / n
