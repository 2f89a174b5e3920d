"""Distances between two sets of features `(n, k)`.

Fréchet: ‖μₐ − μ_b‖² + tr(Cₐ + C_b − 2 (Cₐ C_b)^½), the squared 2-Wasserstein distance of the fitted Gaussians. Its estimate is
biased upwards by a term of order 1/n: compare at equal n only (Heusel et al. 2017, arXiv:1706.08500).
Kernel: the unbiased squared maximum mean discrepancy with kernel (⟨a, b⟩/k + 1)³ (Bińkowski et al. 2018, arXiv:1801.01401).
"""

import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance of the Gaussians fitted to `a` `(n, k)` and `b` `(m, k)`, float64.

    Raises:
        ValueError: fewer than 2 rows, or different k.
    """
    check(a, b)
    a, b = a.double(), b.double()
    covariance_a, covariance_b = (torch.atleast_2d(torch.cov(x.T)) for x in (a, b))
    root = symmetric_root(covariance_a)
    # tr (Cₐ C_b)^½ = tr (Cₐ^½ C_b Cₐ^½)^½, whose argument is symmetric
    cross = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp(min=0).sqrt().sum()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return float(shift + covariance_a.trace() + covariance_b.trace() - 2 * cross)


def symmetric_root(matrix: Tensor) -> Tensor:
    """The square root of a positive semi-definite matrix; negative eigenvalues are rounding and count as 0."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_standard_error(a: Tensor, b: Tensor, blocks: int = 10) -> float:
    """Jackknife over `blocks` parts of `a` left out in turn, `b` fixed."""
    parts = torch.arange(len(a)) % blocks
    values = torch.tensor([frechet_distance(a[parts != k], b) for k in range(blocks)], dtype=torch.float64)
    return float(((blocks - 1) / blocks * (values - values.mean()).square().sum()).sqrt())


def kernel_distance(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Unbiased MMD² of `a` `(n, k)` and `b` `(n, k)` (cut to the shorter), and its standard error.

    It may be negative. The standard error is that of the U-statistic of h(i, j) = k(aᵢ,aⱼ) + k(bᵢ,bⱼ) − k(aᵢ,bⱼ) − k(aⱼ,bᵢ): its
    first-order term from the row means, and the second-order term that is left when both laws are equal (Gretton et al.
    2012, JMLR 13).
    """
    check(a, b)
    n = min(len(a), len(b))
    a, b = a[:n].double(), b[:n].double()

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    cross = kernel(a, b)
    h = kernel(a, a) + kernel(b, b) - cross - cross.T
    h.fill_diagonal_(0)
    value = h.sum() / (n * (n - 1))
    rows = h.sum(1) / (n - 1)
    first = 4 * rows.var() / n
    second = 2 * h.square().sum() / (n * (n - 1)) ** 2
    return float(value), float((first + second).sqrt())


def check(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"two sets of at least 2 features of one length are needed, got {tuple(a.shape)} and {tuple(b.shape)}")
