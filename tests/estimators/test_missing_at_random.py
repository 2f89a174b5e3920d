"""Gaps that depend on what is there: the law that is learnt is that of all rows, not that of the rows that have no gaps.

x ~ N(0, 1) is always there, y = sin 2x + N(0, 0.3²) is missing in 70 % of the rows where x > 0 and in 10 % of the others: of
complete rows a quarter have x > 0.
"""

import numpy as np
import pytest

from scorefield.estimators import ScoreDensity
from scorefield.estimators.training import Learning

NOISE = 0.3
CURVED = {"components": 1, "steps": 1500, "width": 64, "blocks": 2, "batch_size": 256, "learning_rate": 5e-3}


def curved(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return np.stack([x, np.sin(2 * x) + NOISE * rng.normal(size=n)], 1)


def log_curved(rows: np.ndarray) -> np.ndarray:
    x, y = rows.T
    return -(x**2) / 2 - ((y - np.sin(2 * x)) / NOISE) ** 2 / 2 - np.log(2 * np.pi * NOISE)


def torn(n: int, seed: int) -> np.ndarray:
    rows = curved(n, seed)
    gone = np.random.default_rng(1000 + seed).random(n) < np.where(rows[:, 0] > 0, 0.7, 0.1)
    rows[gone, 1] = np.nan
    return rows


@pytest.fixture(scope="module")
def density() -> ScoreDensity:
    model = ScoreDensity(random_state=0, **CURVED).fit(torn(2000, 0))
    assert not model.model_.untouched
    return model


def test_samples_are_of_all_rows_and_not_of_complete_ones(density: ScoreDensity) -> None:
    x, y = density.sample(4000, random_state=1).T
    # 0.451, 0.456 and 0.483 with the seeds 0, 1 and 2, where 0.48 to 0.49 of all rows are there, and 0.25 of complete ones
    assert (x > 0).mean() == pytest.approx(0.5, abs=0.08)
    expected = np.sin(2 * np.abs(curved(100_000, 5)[:, 0])).mean()  # 0.51; 0.41 to 0.47; with gaps filled by one Gaussian 0.15
    assert y[x > 0].mean() == pytest.approx(expected, abs=0.12)


def test_so_are_log_densities(density: ScoreDensity) -> None:
    new = curved(600, 7)
    alone = np.stack([new[:, 0], np.full(600, np.nan)], 1)
    marginal = density.score_samples(alone) + new[:, 0] ** 2 / 2 + np.log(2 * np.pi) / 2
    assert abs(marginal[new[:, 0] > 0].mean() - marginal[new[:, 0] < 0].mean()) < 0.15  # log 3 of complete rows
    joint = density.score_samples(new) - log_curved(new)
    print(f"joint {joint.mean():.3f}, x > 0 {joint[new[:, 0] > 0].mean():.3f}; marginal {marginal.mean():.3f}")
    assert -0.5 < joint.mean() < 3 * joint.std() / 600**0.5


def test_gaps_are_drawn_again_under_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[np.ndarray] = []
    refill = Learning.refill

    def seen(self: Learning) -> None:
        assert self.filled is not None
        filled.append(self.filled.numpy().copy())
        refill(self)
        filled.append(self.filled.numpy().copy())

    monkeypatch.setattr(Learning, "refill", seen)
    x = torn(400, 0)
    ScoreDensity(random_state=0, components=1, steps=90, width=16, blocks=1, flow_steps=5).fit(x)
    assert len(filled) == 2 * 2  # of 90 steps, after 40 and 80
    first, second, _, last = filled
    gone = (first != second).any(1)
    assert not np.isnan(last).any()
    assert (first[:, 0] == second[:, 0]).all()  # what is there stays
    assert gone.mean() == pytest.approx(np.isnan(x[:, 1]).mean(), abs=0.06)


def chained(n: int, seed: int) -> np.ndarray:
    """k ~ N(0, 1), c = sin 2k + noise, a = c² + noise."""
    rng = np.random.default_rng(seed)
    k = rng.normal(size=n)
    c = np.sin(2 * k) + NOISE * rng.normal(size=n)
    return np.stack([k, c, c**2 + NOISE * rng.normal(size=n)], 1)


def test_gaps_of_one_column_may_depend_on_another_that_has_gaps_too() -> None:
    """30 % of rows lack c and a by chance; of the others most where c > 0 lack a, so rows that have both are of small c."""
    rows, rng = chained(2000, 0), np.random.default_rng(99)
    both = rng.random(2000) < 0.3
    one = ~both & (rng.random(2000) < np.where(rows[:, 1] > 0, 0.9, 0.05))
    torn = rows.copy()
    torn[both, 1:], torn[one, 2] = np.nan, np.nan
    model = ScoreDensity(random_state=0, flow_steps=10, **CURVED).fit(torn)
    assert not model.model_.untouched
    found = np.stack(model.impute(torn, 5))[:, both, 1]
    # truth −0.02 (its error is 0.036), found −0.03; were c and a scored together, −0.11
    assert found.mean() == pytest.approx(rows[both, 1].mean(), abs=0.08)
