"""Do points come from the law whose score this is? The kernel Stein discrepancy, which needs no Z.

    u(x, y) = s(x)ᵀs(y) k + s(x)ᵀ∇_y k + s(y)ᵀ∇_x k + tr ∇_x∇_y k        E_p u(x, ·) = 0 for s = ∇log p
    KSD² = E u(x, y) over pairs of points from q = E (s_p − s_q)(x)ᵀ k(x, y) (s_p − s_q)(y) ≥ 0

k is the inverse multiquadric (1 + ‖x − y‖²/ℓ²)^−½, whose slow fall sees tails that a Gaussian kernel forgets. Under p the mean
of u over pairs is degenerate, and its law is had by a wild bootstrap: signs for rows and columns.

What it cannot see are the weights of modes far apart: no score does.

Reference: Liu et al. 2016, arXiv:1602.03253; Chwialkowski et al. 2016, arXiv:1602.02964; Gorham & Mackey 2017,
arXiv:1703.01717.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.metrics.record import Estimate, mean_estimate
from scorefield.metrics.score import squares


class SteinTest(NamedTuple):
    """The discrepancy and what it means."""

    squared: float
    """KSD², the mean over pairs of different points: unbiased, and so at times below 0"""
    p_value: float
    """the share of bootstrapped values that are as large, if the points came from the law"""


@torch.no_grad()
def kernel_stein_discrepancy(
    score: Tensor, x: Tensor, *, length: float | None = None, draws: int = 1000, generator: torch.Generator | None = None
) -> SteinTest:
    """Of points x `(n, *event)` and the scores there, like x; n² numbers of memory. Points must be independent.

    Args:
        length: ℓ of the kernel; by default the median distance.
        draws: of the bootstrap.

    Raises:
        ValueError: fewer than 2 points, scores that are not like x, or a length that is not positive.
    """
    if score.shape != x.shape or len(x) < 2:
        raise ValueError(f"scores and at least 2 points of one shape are needed, got {tuple(score.shape)} and {tuple(x.shape)}")
    x, s = x.double().flatten(1), score.double().flatten(1)
    n, d = x.shape
    distances = torch.cdist(x, x)
    length = float(distances[~torch.eye(n, dtype=torch.bool)].median()) if length is None else length
    if not length > 0:
        raise ValueError(f"the kernel's length must be positive, got {length}: are all points the same?")
    u = stein_kernel(s, x, distances**2 / length**2, length, d).fill_diagonal_(0)
    pairs = n * (n - 1)
    squared = float(u.sum()) / pairs
    signs = 2.0 * torch.randint(2, (draws, n), generator=generator, device=x.device) - 1
    wild = ((signs.double() @ u) * signs).sum(1) / pairs
    return SteinTest(squared, (1 + int((wild >= squared).sum())) / (1 + draws))


def stein_kernel(s: Tensor, x: Tensor, r2: Tensor, length: float, d: int) -> Tensor:
    """u of all pairs `(n, n)`; r2 = ‖x − y‖²/ℓ²."""
    base = 1 + r2
    k, k1, k2 = base**-0.5, -(base**-1.5), 3 * base**-2.5  # k and, times r/ℓ², its derivatives
    # sᵀ(x)(x − y) for all pairs: ∇_x k = k1 (x − y)/ℓ², ∇_y k = −∇_x k
    along = (s * x).sum(1)
    s_x, s_y = along[:, None] - s @ x.T, (s @ x.T).T - along[None]
    mixed = -(d * k1 + k2 * r2) / length**2
    return s @ s.T * k + (s_y - s_x) * k1 / length**2 + mixed


def fisher_divergence(learned: Tensor, exact: Tensor) -> Estimate:
    """F = E‖ŝ − s‖² over points from the true law, of scores `(n, *event)`; no ½.

    Raises:
        ValueError: scores of different shapes.
    """
    return mean_estimate(squares(learned, exact)[0])
