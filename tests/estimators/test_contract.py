"""scikit-learn's own checks of an estimator."""

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from scorefield.estimators import ScoreDensity

SKIPPED = {
    "check_sample_weight_equivalence_on_dense_data": "weights act through random draws: a row of weight 2 is a row drawn twice "
    "as often, not the same as two rows",
}


@parametrize_with_checks(
    [ScoreDensity(steps=5, width=8, blocks=1, flow_steps=4)], expected_failed_checks=lambda estimator: SKIPPED
)
def test_scikit_learns_contract_is_kept(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_every_check_that_is_skipped_has_a_reason() -> None:
    assert all(SKIPPED.values())
    pytest.importorskip("sklearn", "1.6")
