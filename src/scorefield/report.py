"""One self-contained HTML page a run: pictures inside, no scripts, nothing fetched, every string escaped."""

import base64
import json
from html import escape
from pathlib import Path
from typing import Any

from scorefield.system import write_durably

PICTURES = {
    "samples.png": ("Samples", "New examples drawn from the model, not picked by hand."),
    "film.gif": ("How they came about", "From pure noise to data: the states of the sampler."),
    "neighbours.png": (
        "Are they copies?",
        "Left a sample, right the training images nearest to it. Equal pictures would be copies.",
    ),
    "learning_curve.png": ("Learning", "Loss while training, and of the averaged weights on held-out examples."),
    "loss_by_sigma.png": ("Loss by noise level", "Where the model errs: fine detail at small σ, overall shape at large σ."),
}
MEANING = {
    "denoising loss": "Weighted error of removing noise from held-out data; the training objective. Lower is better.",
    "Fréchet distance": "How far means and covariances lie apart. Lower is better; real data is not at 0, since n is finite.",
    "kernel distance": "How far the two sets lie apart in all moments up to the third. 0 is best; may be slightly negative.",
    "precision": "Share of samples that look like real data. Higher is better.",
    "recall": "Share of real data that the samples cover. Higher is better.",
    "density": "How densely real data surrounds the samples. About 1 is best.",
    "coverage": "Share of real examples with a sample nearby. Higher is better.",
    "memorisation ratio": "About 1: samples are as far from the training data as held-out data is. Well under 1: copies.",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; margin: auto; padding: 1rem; }
h1, h2 { line-height: 1.2; overflow-wrap: anywhere; }
figure { margin: 1.5rem 0; }
figcaption, .note { color: #555; }
img { max-width: 100%; height: auto; }
img.pixels { image-rendering: pixelated; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #ddd; }
td.number { white-space: nowrap; }
pre { background: #f4f4f4; padding: .6rem; overflow-x: auto; }
@media print { body { max-width: none; } figure, tr { break-inside: avoid; } pre { white-space: pre-wrap; } }
"""


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder from what lies there, atomically; its path.

    Whatever is not there yet (evaluation, pictures, log) is left out with a sentence saying so.
    """
    path = folder / "report.html"
    write_durably(path, page(folder))
    return path


def page(folder: Path) -> str:
    """The whole document."""
    stored = json.loads((folder / "run.json").read_text())
    run = stored["run"]
    title = f"{folder.resolve().name}: {run['data']}"
    parts = [summary(folder, run), pictures(folder), evaluation(folder), commands(folder, run), configuration(stored)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def summary(folder: Path, run: dict[str, Any]) -> str:
    """What was trained and for how long, in a sentence or two."""
    training = run["training"]
    text = f"A {run['network']['kind']} learnt the score field of {run['data']}"
    log = folder / "log.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    train = [r for r in records if r["kind"] == "train"]
    if train:
        rates = sorted(r["images_per_s"] for r in train)
        text += (
            f" in {train[-1]['step']:,} steps of {training['batch_size']} examples ({train[-1]['images']:,} in all), "
            f"at about {rates[len(rates) // 2]:,.0f} examples a second "
            f"in {training['precision']} on {training['threads']} threads"
        )
    return f"<p>{escape(text)}.</p>"


def pictures(folder: Path) -> str:
    """Every picture that is there, inlined."""
    found = [name for name in PICTURES if (folder / name).exists()]
    if not found:
        return '<p class="note">No pictures yet: they come with <code>scorefield evaluate</code>.</p>'
    return "\n".join(figure(folder / name, *PICTURES[name]) for name in found)


def figure(path: Path, heading: str, caption: str) -> str:
    kind = "gif" if path.suffix == ".gif" else "png"
    data = base64.b64encode(path.read_bytes()).decode()
    style = "" if path.stem in ("learning_curve", "loss_by_sigma") else ' class="pixels"'
    return (
        f'<h2>{escape(heading)}</h2>\n<figure><img{style} src="data:image/{kind};base64,{data}" alt="{escape(heading)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def evaluation(folder: Path) -> str:
    """The table of evaluation.json, each metric explained once."""
    path = folder / "evaluation.json"
    if not path.exists():
        return '<p class="note">Not evaluated yet: run <code>scorefield evaluate</code>.</p>'
    rows, explained = [], set()
    for r in json.loads(path.read_text()):
        base = next((name for name in MEANING if r["metric"].startswith(name)), "")
        meaning = "" if base in explained else MEANING.get(base, "")
        explained.add(base)
        error = "" if r["se"] is None else f" ± {r['se']:.2g}"
        rows.append(
            f'<tr><td>{escape(r["metric"])}</td><td class="number">{r["value"]:.4g}{error}</td>'
            f"<td>{r['n']:,}</td><td>{escape(r['unit'])}</td><td>{escape(meaning)}</td></tr>"
        )
    head = "".join(f"<th>{name}</th>" for name in ("metric", "value ± s.e.", "n", "unit", "what it says"))
    return f'<h2>Evaluation</h2>\n<div class="wide"><table><tr>{head}</tr>\n' + "\n".join(rows) + "\n</table></div>"


def commands(folder: Path, run: dict[str, Any]) -> str:
    """What to type to get more of it."""
    lines = [f"scorefield train {run['data']} --out {folder} --resume", f"scorefield sample {folder} -n 64 --out samples.png"]
    return f"<h2>Commands</h2>\n<pre>{escape(chr(10).join(lines))}</pre>"


def configuration(stored: dict[str, Any]) -> str:
    """run.json as a list."""
    rows = "\n".join(f"<tr><td>{escape(k)}</td><td>{escape(str(v))}</td></tr>" for k, v in flat(stored))
    return f'<details><summary>The whole configuration</summary><div class="wide"><table>\n{rows}\n</table></div></details>'


def flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted names and values of a nested dict."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        found += flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found
