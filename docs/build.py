"""Runs the pages of docs/learn and writes what they print, and their figures, where they show them.

A page is Markdown. Its ```python blocks are executed from top to bottom in one namespace that starts with one function,
`show(figure, name)`, which writes figures/NAME.png, or the film figures/NAME.gif of a list of figures. What a block prints
stands in the ```text block right below it.

    python docs/build.py                  all pages
    python docs/build.py 03 07            those whose names begin so
"""

import contextlib
import io
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from PIL import Image

from scorefield.plots import figure_png, save_film

LEARN = Path(__file__).parent / "learn"
FIGURES = LEARN / "figures"
BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?P<output>\n```text\n(?P<shown>.*?)```\n)?", re.DOTALL)

Show = Callable[[Figure | list[Figure], str], None]
COLOURS = 128


class Block(NamedTuple):
    """A block of code: its place in the page with its output, what the page shows, and what it printed."""

    span: tuple[int, int]
    code: str
    shown: str
    printed: str


def pages() -> list[Path]:
    """The numbered pages in reading order."""
    return sorted(LEARN.glob("[0-9]*.md"))


def execute(page: Path, show: Show) -> Iterator[Block]:
    """Run a page's blocks one after another; line numbers in errors are those of the page."""
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "__main__", "show": show}
    for found in BLOCK.finditer(text):
        printed = io.StringIO()
        before = "\n" * text.count("\n", 0, found.start("code"))
        with contextlib.redirect_stdout(printed):
            exec(compile(before + found["code"], str(page), "exec"), namespace)
        yield Block(found.span(), found["code"], found["shown"] or "", printed.getvalue())


def rebuilt(text: str, blocks: list[Block]) -> str:
    """The page with the output of every block below it."""
    for (start, end), code, _, printed in reversed(blocks):
        output = f"\n```text\n{printed.rstrip()}\n```\n" if printed.strip() else ""
        text = f"{text[:start]}```python\n{code}```\n{output}{text[end:]}"
    return text


def save(figure: Figure | list[Figure], name: str) -> None:
    """Write figures/NAME.png, or a film NAME.gif of several figures, with a palette: a third of the size."""
    FIGURES.mkdir(exist_ok=True)
    if isinstance(figure, list):
        return save_film([drawn(frame).quantize(16) for frame in figure], FIGURES / f"{name}.gif")
    drawn(figure).quantize(COLOURS).save(FIGURES / f"{name}.png", optimize=True)


def drawn(figure: Figure) -> Image.Image:
    return Image.open(io.BytesIO(figure_png(figure))).convert("RGB")


def main(prefixes: list[str]) -> None:
    """Rebuild the pages whose names begin with one of `prefixes`, or all."""
    torch.set_num_threads(1)  # sums in one order
    for page in pages():
        if page.name.startswith(tuple(prefixes) or ""):
            start = time.perf_counter()
            blocks = list(execute(page, save))
            page.write_text(rebuilt(page.read_text(encoding="utf-8"), blocks), encoding="utf-8")
            print(f"{page.name}: {len(blocks)} blocks, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
