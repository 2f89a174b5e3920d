"""What all pages share: one look, and numbers with their standard errors."""

import io
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from math import floor, isfinite, log10
from pathlib import Path
from typing import Any

from PIL import Image

from scorefield.errors import UserError

HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title – scorefield report</title>
<style>
:root { color-scheme: light; --ink: #1d2733; --soft: #52606d; --line: #d9dfe5; --tint: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: #fff; color: var(--ink);
       font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
p { margin: .5rem 0; }
.soft, figcaption, .meaning td { color: var(--soft); font-size: .9rem; }
.pictures { display: grid; margin-top: 1.5rem; gap: 1.5rem;
            grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; }
figure h2 { margin-top: 0; }
img { display: block; max-width: 100%; height: auto; margin-bottom: .4rem; }
img.pixels { image-rendering: pixelated; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; font-variant-numeric: tabular-nums; }
thead th { border-bottom: 2px solid var(--line); font-size: .9rem; }
tbody th { font-weight: 600; }
.meaning td { padding-top: 0; padding-bottom: .7rem; border-bottom: 1px solid var(--line); }
data { white-space: nowrap; }
@media (max-width: 30rem) { table { font-size: .85rem; } }
@media (max-width: 22rem) { data { white-space: normal; } }
summary { cursor: pointer; font-weight: 600; padding: .4rem 0; }
dl { margin: 0; display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .1rem 1rem; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; }
dd.nested { grid-column: 1 / -1; margin-left: .2rem; padding-left: .8rem; border-left: 2px solid var(--line); }
dt.nested { grid-column: 1 / -1; color: var(--ink); font-weight: 600; margin-top: .4rem; }
pre { background: var(--tint); padding: .8rem; border-radius: .3rem; white-space: pre-wrap; font-size: .85rem; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; }
  figure, tr, pre { break-inside: avoid; } h2 { break-after: avoid; } }
</style>
</head>
"""
"""of a template with a `$title`"""


def missing(what: str) -> str:
    """A sentence where something would be."""
    return f'<p class="soft">{escape(what)}</p>'


def row(cell: str, *texts: str, scope: str = "") -> str:
    """A table row of escaped texts."""
    return "<tr>" + "".join(f"<{cell}{scope}>{escape(text)}</{cell}>" for text in texts) + "</tr>"


def number(record: dict[str, Any]) -> str:
    """Value ± standard error to two digits of the error; the value in full is in the element's attribute."""
    value, se = record["value"], record["se"]
    if value is None:  # JSON has no infinity
        return "<data>∞</data>"
    if se and isfinite(se):
        digits = max(0, 1 - floor(log10(se)))
        text = f"{value:.{digits}f} ± {se:.{digits}f}" if digits <= 6 else f"{value:.3g} ± {se:.2g}"
    else:
        text = f"{value:.4g}" if se is None else f"{value:.4g} ± {se:g}"
    return f'<data value="{escape(repr(value))}">{escape(text)}</data>'


def metric_rows(record: dict[str, Any], reference: dict[str, Any] | None, meanings: Mapping[str, str]) -> str:
    """A row of numbers, the same for real data beside them, and a row of words."""
    name = record["metric"]
    numbers = f"<td>{number(record)}</td><td>{number(reference) if reference else ''}</td>"
    seed = "" if record["seed"] is None else f", seed {record['seed']}"
    details = f"Unit: {record['unit']}. {record['n']:,} examples{seed}."
    words = " ".join(part for part in (meanings.get(name, ""), details) if part)
    meaning = f'<tr class="meaning"><td colspan="3">{escape(words)}</td></tr>'
    return f'<tr><th scope="row">{escape(name)}</th>{numbers}</tr>\n{meaning}\n'


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>\n" for cells in rows)
    return f'<div style="overflow-x:auto"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def read_json(path: Path) -> Any:
    """The content of a JSON file, None if there is none; `UserError` if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): put an intact copy there, or remove it") from error


def inlined(path: Path, command: str) -> tuple[str, int, int]:
    """A picture as an image's source, its width and height; `UserError` if it is none, naming the command that makes it."""
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    except OSError as error:
        raise UserError(f"{path} is not a picture ({error}): remove it, or run scorefield {command} again") from error
    return f"data:image/{path.suffix[1:]};base64,{b64encode(content).decode()}", width, height


def picture(path: Path, title: str, description: str, command: str) -> str:
    """A figure with the picture, which a command makes, inlined; nothing where there is none."""
    if not path.exists():
        return ""
    source, width, height = inlined(path, command)
    caption = escape(description[0].upper() + description[1:])
    return (
        f'<figure><h2>{escape(title)}</h2><img src="{source}" alt="{escape(description)}" width="{width}" height="{height}">'
        f"<figcaption>{caption}.</figcaption></figure>\n"
    )
