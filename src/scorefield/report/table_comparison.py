"""compare.html of a table: densities side by side."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from scorefield.errors import UserError
from scorefield.report.comparison import cell
from scorefield.report.page import HEAD, html_table, picture, read_json
from scorefield.system import write_durably

COLUMNS = {
    "log-density": "log-density, nats a row",
    "less than the best": "less than the best",
    "two-sample accuracy": "two-sample accuracy",
    "seconds per 1,000 samples": "s per 1,000 samples",
    "seconds of training": "s of training",
}
PAGE = Template(
    HEAD
    + """<body>
<header><h1>$title</h1>$summary</header>
<main>
<section><h2>The table</h2>$table$notes</section>
$picture
<section><h2>What was done</h2>$plan</section>
</main>
</body>
</html>
"""
)
PICTURE = ("The measures", "bars of two standard errors; the best is orange")
NOTES = (
    "log-density: of held-out rows, in the units of the table; larger is better. An exact one has a standard error by the rows "
    "alone; an estimate also has an error of its solver (score) or of log Z (energy), which is not in it.",
    "less than the best: the difference, row by row.",
    "two-sample accuracy: how often boosted trees tell samples from held-out rows; ½ is guessing.",
)


def write_table_comparison(folder: Path) -> Path:
    """Write `folder`/compare.html from compare.json and leaderboard.png there.

    Raises:
        UserError: one of them is damaged, or the page cannot be written.
    """
    content = read_json(folder / "compare.json")
    if not isinstance(content, dict) or not content.keys() >= {"plan", "records", "refused"}:
        raise UserError(f"{folder / 'compare.json'} is damaged: scorefield compare writes it anew")
    plan, refused = content["plan"], [f"{name} is not applicable: {why}" for name, why in content["refused"].items()]
    notes = [*refused, *NOTES, *(f"{r['family']}: {r['unit']}" for r in content["records"] if "log Z" in r["unit"])]
    page = PAGE.substitute(
        title=escape(f"Densities of {plan['data']}"),
        summary=f"<p>All were fitted to the same rows under the same transforms; {plan['held_out']:.0%} were held out.</p>",
        table=html_table(*table_comparison_cells(content["records"])),
        notes="".join(f'<p class="soft">{escape(line)}</p>' for line in notes),
        picture=picture(
            folder / "leaderboard.png", "The measures", "bars of two standard errors; the best is orange", "compare"
        ),
        plan=html_table(("setting", "value"), [[escape(str(k)), escape(str(v))] for k, v in plan.items()]),
    )
    write_durably(folder / "compare.html", page)
    return folder / "compare.html"


def table_comparison_cells(records: Sequence[dict[str, Any]], plain: bool = False) -> tuple[list[str], list[list[str]]]:
    """Names of the columns, and a row for each density: cells in HTML, or plain text."""
    rows = []
    for family in dict.fromkeys(r["family"] for r in records):
        own = {r["metric"]: r for r in records if r["family"] == family}
        cells = [cell(own[metric], plain) for metric in COLUMNS]
        cells[0] += f" ({own['log-density']['kind']})"
        rows.append([family, *cells])
    return ["density", *COLUMNS.values()], rows
