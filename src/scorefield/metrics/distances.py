"""Distances between two distributions, from samples of their features `(n, k)`.

Reference: Dowson & Landau 1982 (Fréchet distance of Gaussians); Heusel et al. 2017, arXiv:1706.08500;
Bińkowski et al. 2018, arXiv:1801.01401 (kernel distance).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from scorefield.metrics.record import Estimate, mean_estimate


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """‖μa − μb‖² + tr(Ca + Cb − 2 (Ca Cb)^½) of the Gaussians fitted to `a` `(n, k)` and `b` `(m, k)`; squared units.

    Biased: with finitely many rows it is too large, the more so the fewer rows and the more features, and never 0 for
    two samples of one distribution. Compare only values of equal n, best with that of real data.

    Raises:
        ValueError: fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance needs at least 2 rows, got {len(a)} and {len(b)}")
    a, b = a.double(), b.double()
    root_a, root_b = root(covariance(a)), root(covariance(b))
    # tr (Ca Cb)^½ is the sum of the singular values of Ca^½ Cb^½, and tr Ca the sum of the squares of Ca^½
    overlap = torch.linalg.matrix_norm(root_a @ root_b, "nuc")
    distance = (a.mean(0) - b.mean(0)).square().sum() + root_a.square().sum() + root_b.square().sum() - 2 * overlap
    return float(distance.clamp(min=0))


def covariance(x: Tensor) -> Tensor:
    """The unbiased covariance `(k, k)` of rows `(n, k)`."""
    return torch.cov(x.T).reshape(x.shape[1], x.shape[1])


def root(c: Tensor) -> Tensor:
    """The symmetric square root of a positive semi-definite matrix, of any rank."""
    values, vectors = torch.linalg.eigh(c)
    result: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return result


def jackknife(statistic: Callable[[Tensor, Tensor], float], a: Tensor, b: Tensor, blocks: int = 20) -> float | None:
    """Standard error of `statistic(a, b)` by leaving out one block of rows after the other, of both samples at once.

    The rows must be in random order. Bias is not part of it. None for fewer than four rows of one of them.
    """
    blocks = min(blocks, min(len(a), len(b)) // 2)
    if blocks < 2:
        return None
    of_a, of_b = (torch.arange(len(rows)) % blocks for rows in (a, b))
    left = torch.tensor([statistic(a[of_a != i], b[of_b != i]) for i in range(blocks)], dtype=torch.float64)
    return ((blocks - 1) * left.var(correction=0)).sqrt().item()


def kernel_distance(a: Tensor, b: Tensor, blocks: int = 10) -> Estimate:
    """Unbiased squared MMD with the kernel (⟨x, y⟩/k + 1)³ between features `(n, k)`: 0 on average for one distribution.

    The mean over up to `blocks` disjoint blocks of min(n, m) rows, which also gives its standard error; blocks have 20 rows or
    more where there are enough for two, since the cube of few rows is far from normal.

    Raises:
        ValueError: fewer than two rows.
    """
    n = min(len(a), len(b))
    if n < 2:
        raise ValueError(f"the kernel distance needs at least 2 rows, got {len(a)} and {len(b)}")
    blocks = min(blocks, n // 2, max(2, n // 20))
    pairs = zip(a[:n].double().tensor_split(blocks), b[:n].double().tensor_split(blocks), strict=True)
    return mean_estimate(torch.stack([squared_mmd(x, y) for x, y in pairs]))


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased estimate from `x` `(n, k)` and `y` `(m, k)`, all pairs."""
    between = cubic(x, y).mean()
    return mean_of_pairs(cubic(x, x)) + mean_of_pairs(cubic(y, y)) - 2 * between


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """The kernel (⟨x, y⟩/k + 1)³ of all pairs."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def mean_of_pairs(gram: Tensor) -> Tensor:
    """Mean of the off-diagonal entries."""
    n = len(gram)
    return (gram.sum() - gram.trace()) / (n * (n - 1))
