"""What counts as noticing a mutant."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("table_of_mutants", Path(__file__).parent / "mutants.py")
assert SPEC is not None
assert SPEC.loader is not None
mutants = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = mutants  # dataclasses look there
SPEC.loader.exec_module(mutants)


@pytest.mark.parametrize(
    ("passed", "error", "killed"), [(False, 0.5, True), (False, None, False), (True, 0.5, False), (True, 0.0, False)]
)
def test_only_a_check_that_fails_by_a_number_notices(passed: bool, error: float | None, killed: bool) -> None:
    stopped = {"row": 6, "statement": "stopped by ArithmeticError", "error": None, "pass": False}
    check = {"row": 6, "statement": "a = b", "error": error, "pass": passed}
    assert mutants.failed_check(json.dumps({"rows": [check, stopped]})) == ("row 6: a = b" if killed else None)


def test_a_mutant_is_for_tests_or_for_a_row() -> None:
    assert [m for m in mutants.MUTANTS if m.row is not None] == []
    assert [m for m in mutants.IDENTITIES if m.row is None] == []


@pytest.mark.parametrize("mutant", mutants.MUTANTS + mutants.IDENTITIES, ids=lambda mutant: mutant.title)
def test_a_mutant_changes_one_place(mutant) -> None:  # type: ignore[no-untyped-def]
    text = (mutants.ROOT / "src" / "scorefield" / mutant.file).read_text()
    assert text.count(mutant.old) == 1
    assert mutant.new != mutant.old
    compile(text.replace(mutant.old, mutant.new), mutant.file, "exec")  # one that is no Python dies of nothing
