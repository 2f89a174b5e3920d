"""Numbers as JSON has them, and means with their errors."""

import json
import math
from dataclasses import asdict

import pytest
import torch

from scorefield.metrics import Record
from scorefield.metrics.record import Estimate, finite, mean_estimate


def test_what_json_has_no_number_for_becomes_null_however_deep_it_lies() -> None:
    content = {
        "value": math.inf,
        "rows": [1.5, -math.inf, {"nan": math.nan, "pair": (0.0, math.inf)}],
        "estimate": Estimate(2.0, math.nan),
        "none": None,
        "flag": True,
        "whole": 10**400,
        "word": "inf",
        "empty": [{}, [], ()],
    }
    found = finite(content)
    assert found == {
        "value": None,
        "rows": [1.5, None, {"nan": None, "pair": [0.0, None]}],
        "estimate": [2.0, None],
        "none": None,
        "flag": True,
        "whole": 10**400,
        "word": "inf",
        "empty": [{}, [], []],
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert content["rows"][2]["pair"] == (0.0, math.inf)  # the argument stays as it was  # type: ignore[index]
    assert finite(math.nan) is None
    assert finite(0.1) == 0.1


def test_a_record_without_a_finite_value_can_be_written() -> None:
    record = Record("bits per dimension, exact", math.inf, None, 5, "bits/dim", 0)
    written = json.loads(json.dumps(finite([asdict(record)]), allow_nan=False))
    assert written == [{**asdict(record), "value": None}]


def test_a_mean_has_the_standard_error_of_its_rows() -> None:
    found = mean_estimate(torch.tensor([1.0, 2.0, 6.0]))
    assert found == pytest.approx((3.0, math.sqrt(7 / 3)))
    assert mean_estimate(torch.tensor([4.0])) == (4.0, None)
