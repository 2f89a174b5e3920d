"""Peers on encoded columns: each is a density in the units of the table."""

import numpy as np
import pytest
from scipy import stats

from scorefield.errors import UserError
from scorefield.estimators import KernelTable, MixtureTable, SplineFlowTable, TableDensity


def skewed(n: int, seed: int) -> np.ndarray:
    """A log-normal column and one that depends on it."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    return np.stack([np.exp(a), 2 * a + rng.normal(size=n)], 1)


def log_skewed(x: np.ndarray) -> np.ndarray:
    a = np.log(x[:, 0])
    return stats.norm.logpdf(a) - a + stats.norm.logpdf(x[:, 1], 2 * a, 1)


@pytest.mark.parametrize(
    "peer", [KernelTable(), MixtureTable(), SplineFlowTable(seconds=8.0)], ids=["kernel", "mixture", "flow"]
)
def test_a_peer_is_a_density_of_the_table(peer: TableDensity) -> None:
    peer.fit(skewed(1500, 0))
    new = skewed(1000, 1)
    gap = log_skewed(new) - peer.score_samples(new)
    assert -0.05 < gap.mean() < 0.25  # the divergence from the truth, which no density has below 0
    drawn = peer.sample(4000, random_state=0)
    assert stats.spearmanr(drawn).statistic == pytest.approx(stats.spearmanr(skewed(4000, 2)).statistic, abs=0.05)
    assert drawn[:, 0].min() > 0
    np.testing.assert_array_equal(drawn, peer.sample(4000, random_state=0))
    np.testing.assert_allclose(peer.score_samples(new[:1]), peer.score_samples(new)[:1], rtol=1e-9)


def test_they_refuse_gaps() -> None:
    x = skewed(100, 0)
    x[7, 1] = np.nan
    with pytest.raises(UserError, match=r"row 7 has missing values \(NaN\), which MixtureTable cannot take"):
        MixtureTable().fit(x)
    with pytest.raises(UserError, match="row 7"):
        MixtureTable().fit(skewed(100, 0)).score_samples(x)
