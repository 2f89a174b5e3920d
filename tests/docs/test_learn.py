"""The pages of docs/learn run, print what they show, and hang together."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from matplotlib.figure import Figure

DOCS = Path(__file__).parents[2] / "docs"
NUMBER = re.compile(r"[-−]?\d+(?:\.(\d+))?(?:e([-+]\d+))?")
ORDER = [
    "density-and-softmax", "energies-and-z", "kl-to-fisher", "implicit-score-matching", "hutchinson", "sliced", "denoising",
    "covariate-shift", "many-noise-scales", "diffusion", "likelihood", "typicality", "chains-and-z", "closed-forms", "graphs",
    "spheres-and-simplices", "kernels",
]  # fmt: skip


def load_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load_builder()
PAGES = build.pages()


def disagreements(shown: str, printed: str) -> list[str]:
    """Lines whose words differ, or whose numbers differ by more than 5 % and 1½ units of the last printed place."""
    pairs = list(zip(shown.strip().splitlines(), printed.strip().splitlines(), strict=False))
    found = [f"{a} | {b}" for a, b in pairs if not agree(a, b)]
    counts = [len(text.strip().splitlines()) for text in (shown, printed)]
    return found if counts[0] == counts[1] else [*found, f"{counts[0]} lines shown, {counts[1]} printed"]


def agree(a: str, b: str) -> bool:
    if NUMBER.sub("#", a).split() != NUMBER.sub("#", b).split():
        return False
    for x, y in zip(NUMBER.finditer(a), NUMBER.finditer(b), strict=True):
        unit = 10.0 ** (int(x[2] or 0) - len(x[1] or ""))
        slack = 0 if x[1] is x[2] is None and abs(value(x)) < 20 else max(0.05 * abs(value(x)), 1.5 * unit)
        if abs(value(x) - value(y)) > slack:
            return False
    return True


def value(number: re.Match[str]) -> float:
    return float(number[0].replace("−", "-"))


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("loss 1.558 nats", "loss  1.600 nats", True),
        ("loss 1.558 nats", "loss 1.658 nats", False),
        ("loss 1.558 nats", "cost 1.558 nats", False),
        ("F 3.4e-09", "F 3.5e-09", True),
        ("F 3.4e-09", "F 3.9e-09", False),
        ("0.01 -2.0", "0.02 -2.1", True),
        ("0.01 -2.0", "0.01 2.0", False),
        ("±4 ", "±3", False),
        ("error 2 %", "error 3 %", False),
        ("good\nbad", "good\ngood", False),
        ("one\ntwo", "one", False),
    ],
)
def test_what_agreement_means(shown: str, printed: str, same: bool) -> None:
    assert (not disagreements(shown, printed)) == same


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_and_prints_what_it_shows(page: Path) -> None:
    """Its figures are those that it shows, in that order."""
    drawn: dict[str, list[Figure]] = {}

    def show(figure: Figure | list[Figure], name: str) -> None:
        frames = figure if isinstance(figure, list) else [figure]
        name += ".gif" if isinstance(figure, list) else ".png"
        assert name not in drawn
        assert all(frame.axes for frame in frames)
        drawn[name] = frames

    with torch.random.fork_rng():
        blocks = list(build.execute(page, show))
    assert len(blocks) >= 2
    assert [line for block in blocks for line in disagreements(block.shown, block.printed)] == []
    assert list(drawn) == figures(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_its_parts_and_its_neighbours(page: Path) -> None:
    text, i = page.read_text(), PAGES.index(page)
    assert text.startswith(f"# {i + 1} · ")
    for part in ("The mathematics", "The code", "What can go wrong", "Exercise"):
        assert text.count(f"\n## {part}\n") == 1
    neighbours = [p.name for p in PAGES[max(0, i - 1) : i]] + ["README.md"] + [p.name for p in PAGES[i + 1 : i + 2]]
    assert re.findall(r"\]\(([^)]*)\)", text.splitlines()[-1]) == neighbours
    assert all((page.parent / link).exists() for link in re.findall(r"\]\(([^)]*)\)", text))
    assert max(len(line) for found in build.BLOCK.finditer(text) for line in found["code"].splitlines()) <= 128


def test_the_order_of_the_pages_is_that_of_the_index() -> None:
    assert [page.stem for page in PAGES] == [f"{i:02d}-{name}" for i, name in enumerate(ORDER, 1)]
    index = re.findall(r"^\d+\. \[.*?\]\((.*?)\)", (DOCS / "learn" / "README.md").read_text(), re.MULTILINE)
    assert index == [page.name for page in PAGES]
    assert "](docs/learn/README.md)" in (DOCS.parent / "README.md").read_text()


def test_no_figure_is_left_over() -> None:
    used = [name for page in PAGES for name in figures(page)]
    assert len(set(used)) == len(used)
    assert {path.name for path in build.FIGURES.iterdir()} == set(used)


def figures(page: Path) -> list[str]:
    """Names of the pictures a page shows; each has a description."""
    found = re.findall(r"^!\[(.*?)\]\(figures/(.*?\.(?:png|gif))\)$", page.read_text(), re.MULTILINE)
    assert all(len(description) > 20 for description, _ in found)
    return [name for _, name in found]


def test_the_builder_rewrites_outputs_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "01-page.md"
    page.write_text(
        "# Title\n\n```python\na = 2\nprint(a)\n```\n\n```text\nold\n```\n\nWords.\n\n```text\nkept\n```\n\n"
        "```python\nb = a\n```\n\n```text\nstale\n```\n\n```python\nprint(f'b is {b}')\n```\nEnd.\n"
    )
    expected = (
        "# Title\n\n```python\na = 2\nprint(a)\n```\n\n```text\n2\n```\n\nWords.\n\n```text\nkept\n```\n\n"
        "```python\nb = a\n```\n\n```python\nprint(f'b is {b}')\n```\n\n```text\nb is 2\n```\nEnd.\n"
    )
    once = build.rebuilt(page.read_text(), list(build.execute(page, build.save)))
    assert once == expected
    page.write_text(once)
    assert build.rebuilt(once, list(build.execute(page, build.save))) == once


def test_an_error_names_the_line_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "01-page.md"
    page.write_text("# Title\n\nWords.\n\n```python\na = 1\nb = a / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        list(build.execute(page, build.save))
    assert caught.traceback[-1].lineno + 1 == 7
