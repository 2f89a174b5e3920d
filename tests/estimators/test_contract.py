"""scikit-learn's own checks of an estimator."""

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from scorefield.estimators import EnergyDensity, KernelScoreDensity, ScoreDensity

SMALL: dict[str, Any] = {"steps": 5, "width": 8, "blocks": 1, "flow_steps": 4}


@pytest.mark.filterwarnings("ignore:log Z is not trustworthy")  # of a few particles
@parametrize_with_checks(
    [
        ScoreDensity(**SMALL),
        EnergyDensity(particles=16, **SMALL),
        KernelScoreDensity(inducing=10, particles=16, tuning_steps=1, rungs=5),
    ]
)
def test_scikit_learns_contract_is_kept(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)
