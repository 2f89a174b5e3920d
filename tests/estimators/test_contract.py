"""scikit-learn's own checks of an estimator, and the settings that all refuse."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from scorefield.estimators import EnergyDensity, KernelScoreDensity, MixtureTable, ScoreDensity


@pytest.fixture(autouse=True)
def few_rungs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract is not about log Z, which takes most of the time of a small fit."""
    monkeypatch.setattr("scorefield.estimators.energy.RUNGS", 8)


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


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"validation_fraction": 0}, r"validation_fraction must be in \(0, 1\), got 0"),
    ({"validation_fraction": 1.0}, r"validation_fraction must be in \(0, 1\), got 1\.0"),
    ({"validation_fraction": "some"}, r"validation_fraction must be in \(0, 1\), got 'some'"),
    ({"calibration_fraction": -0.1}, r"calibration_fraction must be in \[0, 1\), got -0\.1"),
    ({"calibration_fraction": 1}, r"calibration_fraction must be in \[0, 1\), got 1"),
    (
        {"columns": {"x1": "nonsense"}},
        "column 'x1' cannot be 'nonsense': choose from continuous, positive, bounded, integer, bin",
    ),
    ({"columns": ["x1"]}, r"columns must map names to kinds, such as \{'age': 'integer'\}, got \['x1'\]"),
]


@pytest.mark.parametrize("model", [ScoreDensity, EnergyDensity, KernelScoreDensity, MixtureTable])
@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_settings_that_make_no_fit_are_refused(model: type[Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        model(**settings).fit(np.random.default_rng(0).normal(size=(20, 2)))


@pytest.mark.parametrize("model", [EnergyDensity, KernelScoreDensity])
@pytest.mark.parametrize(
    ("particles", "message"),
    [
        (20, "particles must be a multiple of 8, got 20"),
        (0, "particles must be a whole number of at least 8, got 0"),
        (64.0, r"particles must be a whole number of at least 8, got 64\.0"),
    ],
)
def test_particles_are_divided_among_islands(model: type[Any], particles: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        model(particles=particles).fit(np.random.default_rng(0).normal(size=(20, 2)))
