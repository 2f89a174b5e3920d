"""Nearest neighbours, exactly, and whether samples are copies of training data."""

from typing import Any, Protocol

import torch
from torch import Tensor

from scorefield.metrics.record import Estimate
from scorefield.randomness import keyed_generator

PAIRS = 2**22
"""pairs whose distances are held in memory at once"""
COPIES = 0.2
"""a memorisation ratio below it is that of copies, which win no comparison"""
NUMBERS = 2**23
"""coordinates of rows that are held in memory at once"""


class Rows(Protocol):
    """Rows `(n, *event)` that need not fit in memory: a tensor, or anything that gives tensors for slices and index arrays."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Tensor: ...


def nearest(queries: Tensor, base: Rows, k: int = 1) -> tuple[Tensor, Tensor]:
    """Euclidean distances `(n, k)`, float64 and rising, and indices `(n, k)` of the `k` rows of `base` nearest to each query.

    Exact: every pair is compared, in float64, a part of the pairs at a time. Rows may be `(n, *event)`.

    Raises:
        ValueError: `base` has fewer than `k` rows.
    """
    if k > len(base):
        raise ValueError(f"{k} neighbours asked of {len(base)} rows")
    queries = queries.flatten(1).double()
    step = max(k, min(NUMBERS // queries.shape[1], round(PAIRS**0.5)))
    centre = base[:step].flatten(1).double().mean(0)
    queries = queries - centre
    distances, indices = [], []
    for start in range(0, len(base), step):
        part = base[start : start + step].flatten(1).double() - centre
        blocks = [nearest_of_block(q, part, min(k, len(part))) for q in queries.split(step)]
        distances.append(torch.cat([d for d, _ in blocks]))
        indices.append(torch.cat([i for _, i in blocks]) + start)
    best, order = torch.cat(distances, 1).sort(dim=1, stable=True)
    return best[:, :k], torch.cat(indices, 1).gather(1, order)[:, :k]


def nearest_of_block(q: Tensor, part: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances and indices within a part: ranked by ‖b‖² − 2⟨q, b⟩, then measured without that form's cancellation."""
    indices = (part.square().sum(1) - 2 * q @ part.T).topk(k, largest=False).indices
    return torch.stack([(q - part[i]).norm(dim=1) for i in indices.T], 1), indices


def memorisation_ratio(
    samples: Tensor, train: Rows, held_out: Tensor, *, seed: int = 0, resamples: int = 200
) -> Estimate | None:
    """Median distance to the nearest training row, of samples over that of held-out rows; the data's own coordinates.

    1: samples are as far from the training rows as unseen data is; far below 1: they are copies. The standard error is a
    bootstrap over samples and held-out rows, the training rows being given. None if at least half of the held-out rows are
    themselves copies of training rows, which leaves nothing to compare with.
    """
    of_samples, of_data = nearest(samples, train)[0][:, 0], nearest(held_out, train)[0][:, 0]
    typical = of_data.quantile(0.5)
    if typical == 0:
        return None
    tops = resampled_medians(of_samples, seed, 0, resamples)
    bottoms = resampled_medians(of_data, seed, 1, resamples)
    ratios = (tops / bottoms)[bottoms > 0]
    se = ratios.std().item() if len(ratios) > 1 else None
    return Estimate((of_samples.quantile(0.5) / typical).item(), se)


def resampled_medians(values: Tensor, seed: int, side: int, resamples: int) -> Tensor:
    """Medians `(resamples,)` of as many draws with replacement from `values` `(n,)`."""
    generator = keyed_generator(seed, "memorisation", side)
    rows = [torch.randint(len(values), (len(values),), generator=generator) for _ in range(resamples)]
    return torch.stack([values[row.to(values.device)].quantile(0.5) for row in rows])
