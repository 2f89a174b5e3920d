"""scikit-learn's own checks of an estimator."""

from collections.abc import Callable
from typing import Any

from sklearn.utils.estimator_checks import parametrize_with_checks

from scorefield.estimators import ScoreDensity


@parametrize_with_checks([ScoreDensity(steps=5, width=8, blocks=1, flow_steps=4)])
def test_scikit_learns_contract_is_kept(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)
