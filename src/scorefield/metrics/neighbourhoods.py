"""How much of each sample lies near the other, "near" being within the distance of the k-th neighbour among its own.

Reference: Kynkäänniemi et al. 2019, arXiv:1904.06991 (precision, recall); Naeem et al. 2020, arXiv:2002.09797
(density, coverage).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.metrics.copies import PAIRS
from scorefield.metrics.record import Estimate, mean_estimate


class Neighbourhoods(NamedTuple):
    """Four means; standard errors are those of the mean over examples, the balls being given."""

    precision: Estimate
    """share of fake rows in the ball of some real row"""
    recall: Estimate
    """share of real rows in the ball of some fake row"""
    density: Estimate
    """mean number of real balls a fake row lies in, over k: near 1 for one distribution"""
    coverage: Estimate
    """share of real rows whose ball holds some fake row"""


def precision_recall_density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> Neighbourhoods:
    """The four from features `(n, d)` and `(m, d)`; a row's ball reaches to its k-th neighbour in its own sample, inclusive.

    Raises:
        ValueError: k or fewer rows on either side.
    """
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"the {k}-th neighbour needs more than {k} rows, got {len(real)} and {len(fake)}")
    real, fake = real.double(), fake.double()
    real_balls, fake_balls = radii(real, k), radii(fake, k)
    inside_real = torch.zeros(len(fake), dtype=torch.long)
    covered, recalled = [], []
    for rows, balls in zip(real.split(chunk(fake)), real_balls.split(chunk(fake)), strict=True):
        distance = distances(rows, fake)
        inside = distance <= balls[:, None]
        inside_real += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distance <= fake_balls).any(1))
    return Neighbourhoods(
        precision=mean_estimate((inside_real > 0).double()),
        recall=mean_estimate(torch.cat(recalled).double()),
        density=mean_estimate(inside_real.double() / k),
        coverage=mean_estimate(torch.cat(covered).double()),
    )


def radii(x: Tensor, k: int) -> Tensor:
    """Distance `(n,)` from each row to its k-th neighbour; the row itself, at distance 0, is not counted."""
    return torch.cat([distances(rows, x).kthvalue(k + 1, dim=1).values for rows in x.split(chunk(x))])


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances of all pairs, each by the same arithmetic in either order: balls include their rim."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def chunk(other: Tensor) -> int:
    """Rows to compare with all of `other` at once."""
    return max(1, PAIRS // len(other))
