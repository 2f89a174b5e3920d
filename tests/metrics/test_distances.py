"""Fréchet and kernel distance against closed forms and exact expectations."""

import math

import pytest
import torch
from torch import Tensor

from scorefield.metrics import frechet_distance, kernel_distance
from scorefield.metrics.distances import jackknife


def with_moments(n: int, mean: Tensor, root: Tensor, seed: int = 0) -> Tensor:
    """`n` rows whose sample mean is exactly `mean` and whose unbiased covariance is exactly `root rootᵀ`."""
    z = torch.randn(n, len(mean), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    z = z - z.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(z.T)), z.T, upper=False).T
    return white @ root.T + mean


def test_frechet_of_commuting_gaussians() -> None:
    a = with_moments(50, torch.tensor([1.0, 0, 0]).double(), torch.diag(torch.tensor([1.0, 2, 3]).double()))
    b = with_moments(80, torch.tensor([0.0, 2, 0]).double(), torch.diag(torch.tensor([2.0, 2, 0.5]).double()), seed=1)
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + (1 - 2) ** 2 + (3 - 0.5) ** 2, abs=1e-10)


def test_frechet_of_two_planes_with_a_known_cross_term() -> None:
    """For 2 × 2 matrices tr M^½ = √(tr M + 2 √det M), here with M = Ca Cb that do not commute."""
    ra, rb = torch.tensor([[1.0, 0], [0.8, 0.6]]).double(), torch.tensor([[2.0, 0], [-1.0, 1.5]]).double()
    a, b = with_moments(30, torch.zeros(2).double(), ra), with_moments(30, torch.zeros(2).double(), rb, seed=1)
    ca, cb = ra @ ra.T, rb @ rb.T
    cross = math.sqrt(torch.trace(ca @ cb) + 2 * torch.linalg.det(ca @ cb).sqrt())
    assert frechet_distance(a, b) == pytest.approx((ca + cb).trace().item() - 2 * cross, abs=1e-10)


def test_frechet_of_rank_deficient_gaussians() -> None:
    """Two lines at an angle θ: variances s² and t², overlap s t |cos θ|; far fewer rows than features."""
    generator = torch.Generator().manual_seed(0)
    s, t, theta = 2.0, 0.5, 0.7
    u, v = torch.zeros(2, 40, dtype=torch.float64)
    u[0], v[0], v[1] = 1, math.cos(theta), math.sin(theta)
    z = torch.randn(2, 9, 1, dtype=torch.float64, generator=generator)
    z = (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)
    expected = s**2 + t**2 - 2 * s * t * math.cos(theta)
    assert frechet_distance(s * z[0] * u, t * z[1] * v) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("n", "k"), [(100, 5), (6, 50), (20, 1)])
def test_frechet_of_a_sample_and_itself_is_zero(n: int, k: int) -> None:
    x = torch.randn(n, k, generator=torch.Generator().manual_seed(1))
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-10 * k)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 rows"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(9, 3))
    with pytest.raises(ValueError, match="at least 2 rows"):
        kernel_distance(torch.zeros(1, 3), torch.zeros(9, 3))
    assert jackknife(frechet_distance, torch.zeros(3, 1), torch.zeros(3, 1)) is None


def test_jackknife_error_of_a_mean_is_that_of_the_block_means() -> None:
    x = torch.randn(40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    se = jackknife(lambda a, b: (a.mean() - b.mean()).item(), x, torch.zeros(50, 1))
    blocks = (x[:20] + x[20:]) / 2
    assert se == pytest.approx((blocks.std() / 20**0.5).item(), rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(200, 40), (40, 200), (137, 61), (60, 60)])
def test_jackknife_error_of_samples_of_unequal_sizes_is_that_of_both(n: int, m: int) -> None:
    """Of a difference of means it is √(var a/n + var b/m), whichever of the samples is the smaller one.

    A squared jackknife error of 20 blocks has about a χ² law of 19 degrees of freedom, so that the mean of 200 of them is
    uncertain by √(2/19/200) = 2.3 %; blocks of 3 and 4 rows in place of equal ones make it 1 % too large.
    """
    generator = torch.Generator().manual_seed(5)

    def difference(a: Tensor, b: Tensor) -> float:
        return (a.mean() - b.mean()).item()

    squares = []
    for _ in range(200):
        a = torch.randn(n, 1, dtype=torch.float64, generator=generator)
        b = 3 * torch.randn(m, 1, dtype=torch.float64, generator=generator)
        squares.append((jackknife(difference, a, b) or 0.0) ** 2)
    assert sum(squares) / 200 == pytest.approx(1 / n + 9 / m, rel=4 * 0.023 + 0.01)


def test_jackknife_leaves_out_rows_of_either_sample_once() -> None:
    """Six rows against four make two blocks: every other row of both."""
    a, b = (torch.arange(k, dtype=torch.float64)[:, None] for k in (6, 4))
    left: list[tuple[list[float], list[float]]] = []

    def statistic(x: Tensor, y: Tensor) -> float:
        left.append((x[:, 0].tolist(), y[:, 0].tolist()))
        return x.sum().item()

    assert jackknife(statistic, a, b) == pytest.approx(math.sqrt((9 - 7.5) ** 2), rel=1e-12)
    assert left == [([1, 3, 5], [1, 3]), ([0, 2, 4], [0, 2])]
    for few in (a[:3], b[:3]):
        assert jackknife(statistic, few, b) is None
        assert jackknife(statistic, a, few) is None


def test_jackknife_error_of_frechet_is_the_spread_over_repetitions() -> None:
    generator = torch.Generator().manual_seed(3)
    values, errors = [], []
    for _ in range(100):
        a, b = torch.randn(2, 200, 3, dtype=torch.float64, generator=generator)
        b = 1.5 * b + 1
        values.append(frechet_distance(a, b))
        errors.append(jackknife(frechet_distance, a, b) or 0.0)
    spread = torch.tensor(values).std().item()
    # both the spread of 100 values (7 %) and the mean of 100 jackknife errors (1.6 %) are uncertain
    assert torch.tensor(errors).mean().item() == pytest.approx(spread, rel=4 * 0.075)


def exact_mmd(shift: float) -> float:
    """MMD² of N(0, 1) and N(shift, 1) in one dimension: Σ over the powers p of (xy + 1)³ of its coefficient (E xᵖ − E yᵖ)²."""
    m = shift
    moments = [0.0, m, (m**2 + 1) - 1, m**3 + 3 * m]
    return sum(c * d**2 for c, d in zip((1, 3, 3, 1), moments, strict=True))


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_kernel_distance_is_unbiased_and_knows_its_error(shift: float) -> None:
    generator = torch.Generator().manual_seed(4)
    estimates = []
    for _ in range(200):
        a, b = torch.randn(2, 100, 1, dtype=torch.float64, generator=generator)
        estimates.append(kernel_distance(a, b + shift))
    values, errors = torch.tensor(estimates, dtype=torch.float64).T
    mean, spread = values.mean().item(), values.std().item()
    assert mean == pytest.approx(exact_mmd(shift), abs=4 * spread / 200**0.5)
    assert errors.square().mean().sqrt().item() == pytest.approx(spread, rel=0.4)


def test_kernel_distance_of_four_rows_by_hand() -> None:
    """Two blocks of one pair each side: k(x, x′) + k(y, y′) − ½ Σ k(x, y)."""
    a = torch.tensor([[0.0], [1.0], [2.0], [0.0]])
    b = torch.tensor([[1.0], [1.0], [0.0], [3.0]])
    first = 1 + 8 - (1 + 1 + 8 + 8) / 2
    second = 1 + 1 - (1 + 343 + 1 + 1) / 2
    estimate = kernel_distance(a, b)
    assert estimate.value == pytest.approx((first + second) / 2)
    assert estimate.se == pytest.approx(abs(first - second) / 2)
    assert kernel_distance(a[:2], b[:2]).se is None
