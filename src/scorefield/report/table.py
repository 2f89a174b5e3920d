"""report.html of a table's run: what evaluation.json says, in words, and its pictures."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from scorefield.errors import UserError
from scorefield.metrics.evaluation import REAL
from scorefield.report.page import HEAD, html_table, metric_rows, picture, read_json, row
from scorefield.system import write_durably

Content = dict[str, Any]

MEANINGS = {
    "log-density": "Higher is better; rows that the model was trained on flatter it.",
    "log-density, without the network": "The same by the Gaussian, or the mixture of them, that the network corrects.",
    "log-density, gained by the network": "The difference, row by row.",
    "two-sample accuracy": "How often boosted trees tell real rows from sampled ones that they have not seen: ½ is guessing.",
    "largest difference of rank correlations": "Between any two columns, sampled less real.",
    "samples near a row": "Samples that lie nearer to a row than the nearest of the real rows lie to others. Many more than of "
    "real rows would mean that samples are copies with little changes.",
    "exact copies": "Of samples; beside it how many rows of the table have a double there. In tables of few discrete columns "
    "both are many, and mean nothing.",
}  # fmt: skip
PICTURES = {
    "marginals.png": ("Columns", "every column: real rows grey, sampled ones orange; gaps are left out"),
    "pairs.png": (
        "Pairs of columns",
        "below the diagonal real rows (grey), above it sampled ones (orange), as many and on the same axes, so that panels "
        "opposite each other are mirror images if the model is right",
    ),
    "correlations.png": ("Correlations", "Spearman's rank correlations of real rows, sampled rows, and their difference"),
    "nearest.png": ("Are they copies?", "distances to the nearest row, of samples and of real rows"),
}
PAGE = Template(
    HEAD
    + """<body>
<header><h1>$title</h1><p>$summary</p></header>
<main>
<section><h2>In words</h2>$words</section>
<section><h2>In numbers</h2>$metrics</section>
<section class="pictures">$pictures</section>
<section><h2>The oddest rows</h2>$oddest</section>
</main>
</body>
</html>
"""
)


def write_table_report(folder: Path) -> Path:
    """Write `folder`/report.html from evaluation.json and the pictures there.

    Raises:
        UserError: evaluation.json is missing or damaged, a picture is none, or the page cannot be written.
    """
    content = read_json(folder / "evaluation.json")
    if not isinstance(content, dict):
        raise UserError(f"{folder} has no evaluation of a table: scorefield evaluate {folder} TABLE makes it")
    page = PAGE.substitute(
        title=escape(folder.resolve().name),
        summary=escape(summary(content)),
        words="".join(f"<p>{escape(line)}</p>" for line in in_words(content)),
        metrics=metrics(content["records"]),
        pictures="".join(picture(folder / name, *texts, command="evaluate") for name, texts in captions(content).items()),
        oddest=oddest(content["oddest"]),
    )
    path = folder / "report.html"
    write_durably(path, page)
    return path


def summary(content: Content) -> str:
    """What was compared with what."""
    said = f"{content['compared']:,} of {content['rows']:,} rows of {content['columns']} columns, beside as many samples"
    filled = f"; {content['gaps']:,} gaps are filled by draws from the model where rows are compared" if content["gaps"] else ""
    return f"{said}{filled}. Seed {content['seed']}."


def in_words(content: Content) -> list[str]:
    """The two verdicts: whether samples are told from rows, and whether they are copies."""
    return [two_samples_in_words(content["two_sample_test"]), copies_in_words(content)]


def two_samples_in_words(test: Content) -> str:
    """Whether the classifier sees a difference."""
    told = f"A classifier tells real rows from sampled ones in {test['accuracy']:.1%} of cases"
    interval = f"95 % interval {test['low']:.1%} to {test['high']:.1%}, 50 % is guessing"
    verdict = "it found a difference" if test["low"] > 0.5 else "it found no difference"
    return f"{told} ({interval}): {verdict}."


def copies_in_words(content: Content) -> str:
    """Whether samples are nearer to rows than rows are to each other."""
    found = {r["metric"]: r for r in content["records"]}
    name, copies, doubles = "samples near a row", found["exact copies"], found["exact copies" + REAL]
    mine, real = found[name], found[name + REAL]
    more = mine["value"] - real["value"] > 2 * (mine["se"] ** 2 + real["se"] ** 2) ** 0.5
    whose = "the evaluated rows" if content["trained_on"] is None else f"the {content['trained_on']:,} rows trained on"
    verdict = "more than real rows, so some are near-copies" if more else "no more than real rows: no sign of copying"
    return (
        f"Privacy: {mine['value']:.1%} of samples lie as near to one of {whose} as the nearest {real['value']:.1%} of real "
        f"rows do ({verdict}). Exact copies: {copies['value']:,} of {copies['n']:,} samples; {doubles['value']:,} of the "
        f"{doubles['n']:,} rows have a double among themselves. This finds copies, and proves nothing about other ways to "
        "learn of a person."
    )


def captions(content: Content) -> dict[str, tuple[str, str]]:
    """Titles and descriptions of the pictures; which columns are paired where not all are."""
    found = dict(PICTURES)
    if len(content["paired"]) < content["columns"]:
        title, description = found["pairs.png"]
        chosen = f"of the {content['columns']} columns the {len(content['paired'])} with the strongest rank correlations: "
        found["pairs.png"] = title, f"{chosen}{', '.join(content['paired'])}; {description}"
    return found


def metrics(records: Sequence[Content]) -> str:
    """Each number beside that of real rows, and what it means."""
    reference = {r["metric"].removesuffix(REAL): r for r in records if r["metric"].endswith(REAL)}
    head = row("th", "metric", "value ± standard error", "same for real rows", scope=' scope="col"')
    shown = [r for r in records if not r["metric"].endswith(REAL)]
    body = "".join(metric_rows(r, reference.get(r["metric"]), MEANINGS) for r in shown)
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def oddest(rows: Sequence[Content]) -> str:
    """The most anomalous rows, what makes them so, and all their values."""
    cells = [
        [
            f"{r['row']:,}",
            f"{r['score']:.3g}",
            f"{r['p_value']:.3g}",
            "<br>".join(escape(f"{b['column']} = {text(r['values'][b['column']])} ({b['size']:.1f})") for b in r["because"]),
            f'<span class="soft">{escape("; ".join(f"{k} = {text(v)}" for k, v in r["values"].items()))}</span>',
        ]
        for r in rows
    ]
    return html_table(("row (from 0)", "anomaly score", "p-value", "because of", "all values"), cells) + (
        '<p class="soft">The score says how far a row moves when noise is added and taken away by the model; at most a share '
        "α of ordinary rows has p ≤ α, and among many rows some small p-values are ordinary. In brackets: how far the value of "
        "that column moves, in its standard deviations; the score is the mean of their squares over all columns.</p>"
    )


def text(value: Any) -> str:
    """A value in a few digits."""
    return "missing" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
