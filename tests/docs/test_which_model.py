"""docs/which-model.md and README.md say what the comparison in docs/which-model/ found."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def which_model() -> ModuleType:
    spec = importlib.util.spec_from_file_location("which_model", ROOT / "docs" / "which_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_filled_from_the_files(which_model: ModuleType) -> None:
    found = which_model.parts()
    for page in which_model.PAGES:
        text = page.read_text(encoding="utf-8")
        assert which_model.MARK.search(text)
        assert which_model.filled(text, found) == text


def test_every_family_and_every_picture_is_there(which_model: ModuleType) -> None:
    records = json.loads((which_model.KEPT / "compare.json").read_text(encoding="utf-8"))
    from scorefield.recipes import FAMILIES

    assert [*dict.fromkeys(r["family"] for r in records)] == [*FAMILIES]
    for page in which_model.PAGES:
        for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / name).is_file(), name


def test_totals_of_the_chains_fall_with_their_length(which_model: ModuleType) -> None:
    chains = json.loads((which_model.KEPT / "levels.json").read_text(encoding="utf-8"))["chains"]
    totals = [chain["total"][0] for chain in chains if chain["sigma"]]
    assert [len(chain["sigma"]) for chain in chains if chain["sigma"]] == [2, 10, 100, 1000]
    assert totals == sorted(totals, reverse=True)
    for chain in chains:
        assert sum(value for value, _ in chain["parts"]) == pytest.approx(chain["total"][0])
