"""The table of families: digits by standard errors, winners that may win; the page has everything in it."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scorefield.errors import UserError
from scorefield.report import leaderboard_markdown, write_comparison
from scorefield.report.comparison import PICTURES, best, reading

BITS = "bits/dim of 17 levels"
EVIL = "<script>alert('1')</script>&.npy"
SPEED = "seconds per 1,000 samples"


def line(
    family: str,
    metric: str,
    value: float | None,
    se: float | None = None,
    unit: str = "1",
    kind: str = "measured",
    n: int = 128,
) -> dict[str, Any]:
    return {
        "family": family, "metric": metric, "value": value, "se": se, "n": n, "unit": unit, "kind": kind, "seed": 0,
    }  # fmt: skip


REFUSED = line("autoregressive", "not applicable", None, None, "5,000 numbers are too slow", "not applicable", 0)
RECORDS = [
    line("pixels", "likelihood", 2.34567, 0.0123, f"{BITS}; exact", "exact"),
    line("pixels", "Fréchet distance", 12.345, 1.9, "squared"),
    line("pixels", "Fréchet distance, real data", 0.0456, 0.0041, "squared"),
    line("pixels", "coverage", 0.25, 0.031, "share"),
    line("pixels", "coverage, real data", 0.965, 0.012, "share"),
    line("pixels", "memorisation ratio", 0.987, 0.0234, "ratio"),
    line("pixels", SPEED, 0.01234),
    line("pixels", "parameters", 1088.0),
    line("copies", "likelihood", None, None, f"{BITS}; exact; infinite: 0", "exact"),
    line("copies", "Fréchet distance", 0.05, 0.004, "squared"),
    line("copies", "memorisation ratio", 0.0, 0.0, "ratio"),
    line("copies", SPEED, 0.002),
    REFUSED,
    line("energy", "likelihood", 1.234, 0.56, f"{BITS}, at sigma 0.4; AIS, not trustworthy: 3 weights count", "estimate"),
    line("energy", "Fréchet distance", 0.71, 0.08, "squared"),
    line("energy", "memorisation ratio", 0.9, 0.02, "ratio"),
    line("energy", "parameters", 1234567.0),
    line("score", "likelihood", 1.9, 0.03, f"{BITS}, at sigma 0.002; probability flow", "estimate"),
    line("score", "likelihood, second estimate", 1.95, 0.03, f"{BITS}, at sigma 0.002; evidence bound", "bound"),
    line("score", "Fréchet distance", 0.33, 0.06, "squared"),
    line("score", "memorisation ratio", 1.01, 0.02, "ratio"),
    line("score", SPEED, 45.678),
]


def cells(records: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The rows of the Markdown table by their first cell."""
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in leaderboard_markdown(records).splitlines()]
    assert len({len(row) for row in rows}) == 1
    return {row[0]: row[1:] for row in rows}


def test_numbers_stand_in_as_many_digits_as_their_errors_deserve() -> None:
    found = cells(RECORDS)
    assert list(found) == ["family", "---", "pixels", "copies", "autoregressive", "energy", "score", "real data"]
    assert found["family"] == [
        "bits/dim", "Fréchet distance", "coverage", "memorisation ratio", "s per 1,000 samples", "parameters", "s of training",
    ]  # fmt: skip
    assert found["pixels"] == ["2.346 ± 0.012 (exact)", "12.3 ± 1.9", "0.250 ± 0.031", "0.987 ± 0.023", "0.0123", "1,088", ""]
    assert found["copies"] == ["∞ (log p = −∞, exact)", "0.0500 ± 0.0040", "", "0 ± 0", "0.002", "", ""]
    assert found["energy"] == [
        "1.23 ± 0.56 (estimate, not trustworthy)", "0.710 ± 0.080", "", "0.900 ± 0.020", "", "1,234,567", "",
    ]  # fmt: skip
    assert found["score"] == ["1.900 ± 0.030 (estimate)", "0.330 ± 0.060", "", "1.010 ± 0.020", "45.7", "", ""]
    assert found["autoregressive"] == ["not applicable", "", "", "", "", "", ""]
    assert found["real data"] == ["", "0.0456 ± 0.0041", "0.965 ± 0.012", "", "", "", ""]


def test_a_table_of_vectors_is_in_nats() -> None:
    records = [REFUSED, line("score", "likelihood", -3.21, 0.04, "nats, at sigma 0.002; probability flow", "estimate")]
    found = cells(records)
    assert found["family"][0] == "nats"
    assert found["score"][0] == "-3.210 ± 0.040 (estimate)"
    assert "real data" not in found


def test_the_best_is_no_copy_and_can_be_trusted() -> None:
    assert best(RECORDS, "Fréchet distance") == "score"  # copies has 0.05
    assert best(RECORDS, SPEED) == "pixels"
    assert best(RECORDS, "likelihood") == "score"  # energy's 1.2 is not to be trusted
    assert best(RECORDS, "nothing") == ""
    near = [line("near", "Fréchet distance", 0.01), line("near", "memorisation ratio", 0.2)]
    assert best([*RECORDS, *near], "Fréchet distance") == "near"
    assert best([line("copies", "likelihood", None)], "likelihood") == ""


def test_a_sentence_names_the_winners() -> None:
    """Of bits the fewest, of nats the most."""
    assert reading(RECORDS) == (
        "Best at likelihood: score; samples (Fréchet distance): score; speed of sampling: pixels. "
        "Not counted, being copies of training data: copies."
    )  # fmt: skip
    nats = "nats, at sigma 0.002; probability flow"
    records = [
        line("one", "likelihood", -2.0, 0.1, nats), line("two", "likelihood", 1.0, 0.1, nats),
        line("three", "likelihood", 5.0, 0.1, f"{nats}, not trustworthy"), line("four", "likelihood", None, None, nats),
        line("one", "Fréchet distance", 0.1), line("two", "Fréchet distance", 0.2),
    ]  # fmt: skip
    assert reading(records) == "Best at likelihood: two; samples (Fréchet distance): one."
    assert reading([]) == reading([REFUSED]) == ""


def test_a_copy_is_not_best_in_nats_either() -> None:
    nats = "nats, at sigma 0.002; probability flow"
    records = [
        line("copies", "likelihood", 9.0, 0.1, nats), line("copies", "memorisation ratio", 0.0),
        line("score", "likelihood", 1.0, 0.1, nats), line("score", "memorisation ratio", 1.0),
    ]  # fmt: skip
    assert reading(records) == "Best at likelihood: score. Not counted, being copies of training data: copies."


# ── the page ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Page(HTMLParser):
    """All start tags with their attributes, all text, and the rows of every table."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.in_cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.in_cell:
            self.rows[-1][-1] += data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A comparison of data with an evil name, and everything in it."""
    chain = {
        "chain": "diffusion, T = 2", "names": ["L_0", EVIL], "parts": [[-1.25, 0.11], [3.5, None]], "total": [2.25, 0.21],
        "unit": "bits/dim", "sigma": [1.0, 2.0], "per_level": [1.0, 2.0],
    }  # fmt: skip
    plan = {"format_version": 1, "data": EVIL, "budget": 180.0, "likelihood_rows": 128, "seed": 0, "steps": {"score": 3300}}
    for name, content in (("compare", RECORDS), ("plan", plan), ("levels", {"key": "", "chains": [chain]})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    for number, name in enumerate(PICTURES):
        Image.fromarray(np.full((4, 5 + number), number, np.uint8)).save(tmp_path / name)
    return tmp_path


def written(folder: Path) -> Page:
    path = write_comparison(folder)
    assert path == folder / "compare.html"
    return Page(path.read_text(encoding="utf-8"))


def test_nothing_is_executed_and_nothing_loaded(folder: Path) -> None:
    parsed = written(folder)
    page = (folder / "compare.html").read_text()
    assert "<script" not in page.lower()
    assert not re.search(r"https?://|@import|url\(", page)
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "form", "base", "a"})
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert parsed.text.count(EVIL) >= 3  # title, plan and a level, all shown as they are


def test_every_picture_is_inlined_with_a_text_for_those_who_do_not_see_it(folder: Path) -> None:
    images = [attributes for tag, attributes in written(folder).tags if tag == "img"]
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in images)
    contents = [base64.b64decode((image["src"] or "").split("base64,")[1]) for image in images]
    assert contents == [(folder / name).read_bytes() for name in PICTURES]
    assert all(len(image["alt"] or "") > 20 for image in images)
    (folder / "levels.png").unlink()
    assert [tag for tag, _ in written(folder).tags].count("img") == 2


def test_the_page_has_the_table_its_reading_and_its_reasons(folder: Path) -> None:
    parsed = written(folder)
    rows = {row[0]: row[1:] for row in parsed.rows if row}
    for family, row in cells(RECORDS).items():
        if family not in ("family", "---"):
            assert rows[family] == row
    assert rows["together"] == ["2.25 ± 0.21"]
    assert rows["L_0"] == ["-1.25 ± 0.11"]
    assert rows[EVIL] == ["3.5"]
    for text in (
        "with 180 seconds of training each. Best at likelihood: score;",
        "autoregressive is not applicable: 5,000 numbers are too slow.",
        f"score, likelihood, second estimate: {BITS}, at sigma 0.002; evidence bound; 128 held-out examples, seed 0.",
        "memorisation ratio: ratio.",
        "Evidence bound, diffusion, T = 2, bits/dim",
    ):
        assert text in parsed.text


@pytest.mark.parametrize("name", ["compare.json", "plan.json", "levels.json"])
def test_damaged_files_are_named(folder: Path, name: str) -> None:
    for half in ("{half\n", "[1, "):
        (folder / name).write_text(half)
        with pytest.raises(UserError, match=f"{name} is damaged"):
            write_comparison(folder)
    assert not (folder / "compare.html").exists()


def test_an_empty_folder_gives_an_empty_page(tmp_path: Path) -> None:
    parsed = written(tmp_path)
    assert "Families on some data" in parsed.text
    assert [tag for tag, _ in parsed.tags].count("img") == 0
    assert "None" not in parsed.text
