"""What nearest neighbours tell: fidelity, variety, and whether samples are copies of training examples."""

from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.randomness import keyed_generator

CHUNK = 256


def nearest(queries: Tensor, base: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Euclidean distances `(n, k)` to the k nearest rows of `base`, nearest first, and their indices `(n, k)`.

    Raises:
        ValueError: `base` has fewer than k rows.
    """
    if len(base) < k:
        raise ValueError(f"{k} neighbours asked for among {len(base)} examples")
    flat = base.flatten(1)
    found = [torch.cdist(part, flat).topk(k, largest=False) for part in queries.flatten(1).to(flat.dtype).split(CHUNK)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


class Manifold(NamedTuple):
    """Precision, recall (Kynkäänniemi et al. 2019, arXiv:1904.06991), density, coverage (Naeem et al. 2020, arXiv:2002.09797)."""

    precision: float
    """share of samples inside some ball around a real example that reaches to its k-th real neighbour"""
    recall: float
    """share of real examples inside some such ball around a sample"""
    density: float
    """mean number of real balls a sample lies in, over k; not bounded by 1"""
    coverage: float
    """share of real balls that hold a sample"""


def precision_recall_density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> Manifold:
    """The four numbers for features `(n, d)` and `(m, d)`."""
    real_radius = nearest(real, real, k + 1)[0][:, k]  # the nearest neighbour of all is the point itself
    fake_radius = nearest(fake, fake, k + 1)[0][:, k]
    inside, recalled, covered = torch.zeros(len(fake)), torch.zeros(len(real)), torch.zeros(len(real), dtype=torch.bool)
    for start in range(0, len(fake), CHUNK):
        distance = torch.cdist(fake[start : start + CHUNK], real)
        in_real = distance <= real_radius
        inside[start : start + CHUNK] = in_real.sum(1)
        covered |= in_real.any(0)
        recalled = torch.maximum(recalled, (distance <= fake_radius[start : start + CHUNK, None]).any(0).float())
    return Manifold(
        (inside > 0).double().mean().item(), recalled.double().mean().item(), inside.double().mean().item() / k,
        covered.double().mean().item(),
    )  # fmt: skip


def memorisation_ratio(samples: Tensor, train: Tensor, held_out: Tensor, *, seed: int = 0) -> tuple[float, float]:
    """Median distance from a sample to its nearest training example, over the same for held-out examples; its standard error.

    About 1: samples are as new as held-out data. Well under 1: copies. The standard error is a bootstrap's over both sets of
    distances.
    """
    ours, theirs = nearest(samples, train)[0][:, 0], nearest(held_out, train)[0][:, 0]
    generator = keyed_generator(seed, "memorisation bootstrap")

    def resampled(x: Tensor) -> Tensor:
        return x[torch.randint(len(x), (200, len(x)), generator=generator)].median(1).values

    ratio = ours.median() / theirs.median()
    return ratio.item(), (resampled(ours) / resampled(theirs)).std().item()
