"""Precision, recall, density and coverage on sets that can be counted by hand."""

import pytest
import torch
from torch import Tensor

from scorefield.metrics import neighbourhoods, precision_recall_density_coverage


def line(*points: float) -> Tensor:
    return torch.tensor(points)[:, None]


def values(real: Tensor, fake: Tensor, k: int) -> list[float]:
    return [e.value for e in precision_recall_density_coverage(real, fake, k)]


@pytest.mark.parametrize("pairs", [2**22, 4])
def test_counted_by_hand(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real balls, k = 1: 0 ± 1, 1 ± 1, 10 ± 2, 12 ± 2; fake balls: 0.5 ± 1, 1.5 ± 1, 12 ± 10.5, 30 ± 18."""
    monkeypatch.setattr(neighbourhoods, "PAIRS", pairs)
    found = precision_recall_density_coverage(line(0, 1, 10, 12), line(0.5, 1.5, 12, 30), k=1)
    assert found.precision.value == 3 / 4
    assert found.recall.value == 1
    assert found.density.value == (2 + 1 + 2 + 0) / 4
    assert found.coverage.value == 1
    assert found.precision.se == pytest.approx((3 / 16 / 3) ** 0.5)
    assert found.recall.se == 0


def test_half_the_modes_missing() -> None:
    real, fake = line(0, 1, 2, 100, 101, 102), line(0.1, 1.1, 2.1, 0.2, 1.2, 2.2)
    precision, recall, density, coverage = values(real, fake, k=2)
    # fake balls, k = 2, reach 0.9 or 1 and hold all of 0, 1, 2; real balls are 0 ± 2, 1 ± 1, 2 ± 2
    assert (precision, recall, coverage) == (1, 1 / 2, 1 / 2)
    assert density == pytest.approx((3 + 3 + 1 + 3 + 3 + 1) / (6 * 2))


def test_disjoint_sets_share_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 50, 3, generator=generator)
    assert values(real, fake + 100, k=5) == [0, 0, 0, 0]


def test_identical_sets() -> None:
    """Every ball of the k-th neighbour, rim included, holds k rows beside its own."""
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    assert values(x, x, k=5) == pytest.approx([1, 1, 6 / 5, 1])


def test_equal_distributions_have_density_one_and_known_coverage() -> None:
    """Naeem et al. 2020: E density = 1 and, for equal n, E coverage = 1 − (n−1)…(n−k)/((2n−1)…(2n−k)), about 1 − 2^−k."""
    generator = torch.Generator().manual_seed(2)
    n, k, repetitions = 60, 3, 100
    found = torch.tensor([values(*torch.randn(2, n, 2, generator=generator), k) for _ in range(repetitions)])
    expected = 1.0
    for i in range(1, k + 1):
        expected *= (n - i) / (2 * n - i)
    errors = (found.std(0) / repetitions**0.5).tolist()
    assert found[:, 2].mean().item() == pytest.approx(1, abs=4 * errors[2])
    assert found[:, 3].mean().item() == pytest.approx(1 - expected, abs=4 * errors[3])
    assert found[:, 0].mean().item() == pytest.approx(found[:, 1].mean().item(), abs=4 * (errors[0] + errors[1]))


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="the 5-th neighbour needs more than 5 rows, got 5 and 9"):
        precision_recall_density_coverage(torch.zeros(5, 2), torch.zeros(9, 2))
