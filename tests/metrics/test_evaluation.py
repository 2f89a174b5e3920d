"""All metrics at once: what is compared with what."""

import pytest
import torch
from torch import Tensor

from scorefield.metrics import PixelPCA, Record, evaluate_samples, frechet_distance

NAMES = ["Fréchet distance", "kernel distance", "precision", "recall", "density", "coverage"]


def draws(*n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(k, 2, generator=generator) for k in n]


def evaluated(samples: Tensor, train: Tensor, held_out: Tensor, seed: int = 0) -> dict[str, Record]:
    return {r.metric: r for r in evaluate_samples(samples, train, held_out, PixelPCA.fit(train), seed=seed)}


def test_every_metric_stands_beside_that_of_real_data_at_the_smallest_n() -> None:
    records = evaluated(*draws(150, 300, 120))
    assert list(records) == [*NAMES, *(f"{name}, real data" for name in NAMES), "memorisation ratio"]
    assert {r.n for r in records.values()} == {120}
    assert {r.seed for r in records.values()} == {0}
    assert "coordinates" in records["Fréchet distance"].unit


def test_good_samples_are_like_real_data_and_shifted_ones_are_not() -> None:
    samples, train, held_out = draws(400, 400, 400)
    good, bad = evaluated(samples, train, held_out), evaluated(samples + 3, train, held_out)
    for name in NAMES:
        fake, real = good[name], good[f"{name}, real data"]
        assert fake.value == pytest.approx(real.value, abs=5 * ((fake.se or 0) ** 2 + (real.se or 0) ** 2) ** 0.5)
        assert bad[f"{name}, real data"] == real
    assert bad["Fréchet distance"].value == pytest.approx(18, abs=4 * (bad["Fréchet distance"].se or 0))
    assert bad["coverage"].value < 0.5 < good["coverage"].value


def test_all_rows_are_used_where_all_are_equally_many() -> None:
    samples, train, held_out = draws(50, 50, 50)
    features = PixelPCA.fit(train)
    found = evaluated(samples, train, held_out)
    assert found["Fréchet distance"].value == pytest.approx(frechet_distance(features(samples), features(held_out)))
    same = found["Fréchet distance, real data"].value
    assert same == pytest.approx(frechet_distance(features(train), features(held_out)))


def test_copies_are_found_and_the_seed_decides_all() -> None:
    _, train, held_out = draws(1, 200, 100)
    records = evaluated(train[:100], train, held_out, seed=3)
    assert records["memorisation ratio"].value == 0
    assert records == evaluated(train[:100], train, held_out, seed=3)


def test_two_rows_are_enough() -> None:
    records = evaluated(*draws(2, 9, 5))
    assert records["kernel distance"].n == 2
    assert records["kernel distance"].se is None


def test_no_ratio_where_held_out_rows_are_training_rows() -> None:
    samples, train = draws(30, 30)
    assert "memorisation ratio" not in evaluated(samples, train, train)


def test_no_ratio_where_the_model_was_trained_on_other_rows() -> None:
    samples, train, held_out = draws(30, 60, 30)
    found = evaluate_samples(samples, train, held_out, PixelPCA.fit(train), seed=0, memorisation=False)
    assert [r.metric for r in found] == [*NAMES, *(f"{name}, real data" for name in NAMES)]


def test_sorted_rows_are_compared_at_random() -> None:
    """Held-out rows and training rows sorted by class: their first hundred would be of one class only."""
    train, held_out = (torch.cat([x, x + torch.tensor([9.0, 0.0])]) for x in draws(500, 500))
    samples = torch.cat([x + torch.tensor([shift, 0.0]) for x, shift in zip(draws(50, 50), (0.0, 9.0), strict=True)])
    found = evaluated(samples, train, held_out)
    assert found["Fréchet distance, real data"].value < 2  # one class only would be 4.5² off in the mean alone
    assert found["Fréchet distance"].value < 2
