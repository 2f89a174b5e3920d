"""Nearest neighbours, exactly, and whether samples are copies of training data."""

import torch
from torch import Tensor

from scorefield.metrics.record import Estimate
from scorefield.randomness import keyed_generator

PAIRS = 2**22
"""pairs whose distances are held in memory at once"""


def nearest(queries: Tensor, base: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Euclidean distances `(n, k)`, float64 and rising, and indices `(n, k)` of the `k` rows of `base` nearest to each query.

    Exact: every pair is compared, in float64. Rows may be `(n, *event)`.

    Raises:
        ValueError: `base` has fewer than `k` rows.
    """
    if k > len(base):
        raise ValueError(f"{k} neighbours asked of {len(base)} rows")
    base = base.flatten(1).double()
    centre = base.mean(0)
    base, queries = base - centre, queries.flatten(1).double() - centre
    norms = base.square().sum(1)
    found = [nearest_of_chunk(q, base, norms, k) for q in queries.split(max(1, PAIRS // len(base)))]
    distances, indices = zip(*found, strict=True)
    return torch.cat(distances), torch.cat(indices)


def nearest_of_chunk(q: Tensor, base: Tensor, norms: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same for few queries: ranked by ‖b‖² − 2⟨q, b⟩, then measured without that form's cancellation."""
    indices = (norms - 2 * q @ base.T).topk(k, largest=False).indices
    distances = torch.stack([(q - base[i]).norm(dim=1) for i in indices.T], 1)
    distances, order = distances.sort(dim=1, stable=True)
    return distances, indices.gather(1, order)


def memorisation_ratio(
    samples: Tensor, train: Tensor, held_out: Tensor, *, seed: int = 0, resamples: int = 200
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
