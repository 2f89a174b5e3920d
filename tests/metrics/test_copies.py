"""Nearest neighbours against brute force; copies are found, fresh draws are not."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from scorefield.metrics import copies, memorisation_ratio, nearest


@pytest.mark.parametrize(("pairs", "numbers"), [(2**22, 2**23), (100, 2**23), (2**22, 30), (1, 1)])
def test_nearest_is_brute_force(pairs: int, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few pairs and rows may lie in memory at once."""
    monkeypatch.setattr(copies, "PAIRS", pairs)
    monkeypatch.setattr(copies, "NUMBERS", numbers)
    generator = torch.Generator().manual_seed(0)
    queries, base = torch.randn(23, 2, 3, generator=generator), torch.randn(41, 2, 3, generator=generator)
    distances, indices = nearest(queries, base, k=4)
    every = (queries[:, None].double() - base.double()).flatten(2).norm(dim=2)
    expected = every.sort(dim=1)
    torch.testing.assert_close(distances, expected.values[:, :4], rtol=1e-12, atol=0)
    assert torch.equal(indices, expected.indices[:, :4])


def test_nearest_is_exact_far_from_the_origin() -> None:
    base = 1e6 + torch.arange(50, dtype=torch.float64)[:, None].expand(50, 3)
    distances, indices = nearest(base[10:12] + 0.25, base, k=2)
    assert indices.tolist() == [[10, 11], [11, 12]]
    torch.testing.assert_close(distances, torch.tensor([[0.25, 0.75]] * 2).double() * 3**0.5, rtol=1e-12, atol=0)


def test_nearest_reads_rows_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows on disk are asked for by slices, each once (and the first once more, for the centre)."""

    class Disk:
        asked: ClassVar[list[slice]] = []
        rows = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, rows: slice) -> Tensor:
            self.asked.append(rows)
            return self.rows[rows]

    monkeypatch.setattr(copies, "NUMBERS", 300)
    queries = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    found = nearest(queries, Disk(), k=3)
    assert all(torch.equal(a, b) for a, b in zip(found, nearest(queries, Disk.rows, k=3), strict=True))
    assert [(rows.start, rows.stop) for rows in Disk.asked[1:]] == [(k, k + 100) for k in range(0, 1000, 100)]


def test_nearest_of_copies_is_exactly_zero() -> None:
    base = torch.randn(100, 7, generator=torch.Generator().manual_seed(1))
    distances, indices = nearest(base, base)
    assert torch.equal(distances, torch.zeros(100, 1, dtype=torch.float64))
    assert torch.equal(indices[:, 0], torch.arange(100))


def test_more_neighbours_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="3 neighbours asked of 2 rows"):
        nearest(torch.zeros(1, 2), torch.zeros(2, 2), k=3)


def test_copies_have_ratio_zero() -> None:
    generator = torch.Generator().manual_seed(2)
    train, held_out = torch.randn(200, 5, generator=generator), torch.randn(100, 5, generator=generator)
    ratio = memorisation_ratio(train[:100], train, held_out)
    assert ratio == (0.0, 0.0)


def test_fresh_draws_have_ratio_one_and_the_error_is_right() -> None:
    generator = torch.Generator().manual_seed(3)
    deviations = []
    for _ in range(60):
        train, held_out, fresh = torch.randn(3, 150, 4, generator=generator)
        ratio = memorisation_ratio(fresh, train, held_out)
        assert ratio is not None
        assert ratio.se is not None
        deviations.append((ratio.value - 1) / ratio.se)
    standardised = torch.tensor(deviations)
    assert standardised.mean().abs() < 4 / 60**0.5
    assert 0.6 < standardised.std() < 1.4  # ±4 standard errors of a deviation of 60 values, and the bootstrap of a median


def test_the_ratio_is_that_of_the_medians_and_repeats() -> None:
    train = torch.zeros(1, 1)
    samples, held_out = torch.tensor([[1.0], [2.0], [9.0]]), torch.tensor([[4.0], [-4.0], [5.0], [1.0]])
    ratio = memorisation_ratio(samples, train, held_out, seed=5)
    assert ratio is not None
    assert ratio.value == 0.5
    assert ratio == memorisation_ratio(samples, train, held_out, seed=5)
    assert ratio != memorisation_ratio(samples, train, held_out, seed=6)


def test_held_out_copies_leave_nothing_to_compare_with() -> None:
    train = torch.randn(20, 3, generator=torch.Generator().manual_seed(4))
    assert memorisation_ratio(train + 1, train, train[:10]) is None
