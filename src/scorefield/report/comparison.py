"""compare.html: families side by side; and the same table as Markdown."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from scorefield.errors import UserError
from scorefield.metrics.copies import COPIES
from scorefield.metrics.evaluation import REAL
from scorefield.report.page import HEAD, html_table, number, picture, read_json
from scorefield.system import write_durably

COLUMNS = (
    "likelihood",
    "Fréchet distance",
    "coverage",
    "memorisation ratio",
    "seconds per 1,000 samples",
    "parameters",
    "training",
)
SHORT = {"seconds per 1,000 samples": "s per 1,000 samples", "training": "s of training"}
PICTURES = {
    "leaderboard.png": (
        "The measures",
        "each measure of each family, bars of two standard errors; the smallest value is orange, the dashed line is real data. "
        "Likelihoods: a dot is exact, a square an estimate, a triangle a bound",
    ),
    "samples.png": ("Samples", "the first samples of each family, and held-out data; nothing was chosen"),
    "levels.png": (
        "A diffusion is a hierarchical VAE of very many levels",
        "what each level of the two-level VAE adds to its bound, and what the levels of the diffusion's chain of T steps add: "
        "a Gaussian step down is true only if it is small, and with many of them the sum tends to a bound that knows no T. "
        "L_0 of the diffusion is a density, and may be below 0; that of the VAE is a probability",
    ),
}
PAGE = Template(
    HEAD
    + """<body>
<header><h1>$title</h1>$summary</header>
<main>
<section><h2>The table</h2>$table$notes</section>
$pictures
$levels
<section><h2>What was done</h2>$plan</section>
</main>
</body>
</html>
"""
)

Row = dict[str, Any]
FIELDS = {"family", "metric", "value", "se", "n", "unit", "kind", "seed"}


def write_comparison(folder: Path) -> Path:
    """Write `folder`/compare.html from compare.json, plan.json, levels.json and the pictures there.

    Raises:
        UserError: one of them is damaged, or the page cannot be written.
    """
    records, plan = read_json(folder / "compare.json") or [], read_json(folder / "plan.json") or {}
    if not isinstance(records, list) or not all(isinstance(r, dict) and r.keys() >= FIELDS for r in records):
        raise UserError(f"{folder / 'compare.json'} is damaged: scorefield compare writes it anew")
    levels = (read_json(folder / "levels.json") or {}).get("chains", [])
    budget = f"{plan.get('budget', 0):g} seconds of training each" if plan else "an unknown budget"
    page = PAGE.substitute(
        title=escape(f"Families on {plan.get('data', 'some data')}"),
        summary=f"<p>Every family on the same split, with {budget}. {escape(reading(records))}</p>",
        table=html_table(header(records), table(records)),
        notes="".join(f'<p class="soft">{escape(line)}</p>' for line in notes(records)),
        pictures="".join(picture(folder / name, *texts, command="compare") for name, texts in PICTURES.items()),
        levels="".join(map(level_table, levels)),
        plan=html_table(("setting", "value"), settings(plan)),
    )
    path = folder / "compare.html"
    write_durably(path, page)
    return path


def settings(plan: Row) -> list[list[str]]:
    """The plan as rows of a table."""
    shown = {k: v for k, v in plan.items() if k not in ("format_version", "steps", "reading")}
    rows = [[escape(k.replace("_", " ")), escape(str(v))] for k, v in shown.items()]
    return rows + [[f"steps of {escape(family)}", f"{steps:,}"] for family, steps in plan.get("steps", {}).items()]


def leaderboard_cells(records: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Names of the columns, and the rows as plain text."""
    return header(records), table(records, plain=True)


def leaderboard_markdown(records: Sequence[Row]) -> str:
    """The table in Markdown."""
    head, rows = leaderboard_cells(records)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def header(records: Sequence[Row]) -> list[str]:
    """Names of the columns, with the unit of the likelihood."""
    first = next((r for r in records if r["metric"] == "likelihood"), None)
    unit = "likelihood" if first is None else first["unit"].partition(" of ")[0].partition(",")[0]
    return ["family", unit, *(SHORT.get(name, name) for name in COLUMNS[1:])]


def table(records: Sequence[Row], plain: bool = False) -> list[list[str]]:
    """A row for each family, and one for real data."""
    rows = []
    for family in families(records):
        refused = find(records, family, "not applicable") or find(records, family, "failed")
        if refused is not None:
            rows.append([escape(family), refused["kind"], *[""] * (len(COLUMNS) - 1)])
            continue
        cells = [cell(find(records, family, name), plain) for name in COLUMNS]
        likelihood = find(records, family, "likelihood")
        if likelihood is not None:
            infinite = "log p = −∞, " if likelihood["value"] is None else ""
            cells[0] += f" ({infinite}{likelihood['kind']}{'' if trusted(likelihood) else ', not trustworthy'})"
        rows.append([escape(family), *cells])
    real = [next((r for r in records if r["metric"] == name + REAL), None) for name in COLUMNS]
    if any(real):
        rows.append(["real data", *(cell(r, plain) for r in real)])
    return rows


def families(records: Sequence[Row]) -> list[str]:
    """Their names in the order of the file."""
    return list(dict.fromkeys(r["family"] for r in records))


def find(records: Sequence[Row], family: str, metric: str) -> Row | None:
    """A family's record of a metric."""
    return next((r for r in records if r["family"] == family and r["metric"] == metric), None)


def trusted(record: Row) -> bool:
    """Whether the estimate's own diagnosis trusts it."""
    return "not trustworthy" not in record["unit"]


def cell(record: Row | None, plain: bool = False) -> str:
    """A number with its standard error, in as many digits as it deserves."""
    if record is None:
        return ""
    if record["metric"] == "parameters":
        return f"{record['value']:,.0f}"
    if record["se"] is None and record["value"] is not None:
        return f"{record['value']:,.0f}" if record["value"] >= 1000 else f"{record['value']:.3g}"
    text = number(record)
    return text if not plain else text[text.index(">") + 1 : text.rindex("<")]


def best(records: Sequence[Row], metric: str) -> str:
    """The family with the smallest value that can be trusted, and that is no copy of the training data; '' if there is none."""
    copies = copied(records)
    able = [
        r for r in records
        if r["metric"] == metric and r["value"] is not None and trusted(r) and r["family"] not in copies
    ]  # fmt: skip
    return min(able, key=lambda r: r["value"])["family"] if able else ""


def copied(records: Sequence[Row]) -> set[str]:
    """Families whose samples are copies of training data."""
    return {r["family"] for r in records if r["metric"] == "memorisation ratio" and r["value"] < COPIES}


def reading(records: Sequence[Row]) -> str:
    """Who is best at what, and who is not to be told from the best, in a sentence."""
    nats = any(r["metric"] == "likelihood" and r["unit"].startswith("nats") for r in records)
    winners = {
        "likelihood": ("likelihood", highest(records) if nats else best(records, "likelihood")),
        "samples (Fréchet distance)": ("Fréchet distance", best(records, "Fréchet distance")),
        "speed of sampling": (COLUMNS[4], best(records, COLUMNS[4])),
    }
    said = [f"{what}: {family}{peers(records, metric, family)}" for what, (metric, family) in winners.items() if family]
    copies = f" Not counted, being copies of training data: {', '.join(sorted(copied(records)))}." if copied(records) else ""
    return f"Best at {'; '.join(said)}.{copies}" if said else ""


def peers(records: Sequence[Row], metric: str, family: str) -> str:
    """Families within two standard errors of the difference from the best, errors taken as independent."""
    mine, copies = find(records, family, metric), copied(records)
    assert mine is not None
    near = [
        r["family"] for r in records
        if r["metric"] == metric and r["family"] not in {family, *copies} and r["value"] is not None and trusted(r)
        and mine["se"] is not None and r["se"] is not None
        and abs(r["value"] - mine["value"]) <= 2 * (r["se"] ** 2 + mine["se"] ** 2) ** 0.5
    ]  # fmt: skip
    return f" (with {', '.join(near)} not to be told from it)" if near else ""


def highest(records: Sequence[Row]) -> str:
    """The family with the largest log-density that can be trusted."""
    copies = copied(records)
    able = [
        r for r in records
        if r["metric"] == "likelihood" and r["value"] is not None and trusted(r) and r["family"] not in copies
    ]  # fmt: skip
    return max(able, key=lambda r: r["value"])["family"] if able else ""


def notes(records: Sequence[Row]) -> list[str]:
    """What the numbers are, and why some families are left out."""
    lines = []
    for r in records:
        if r["kind"] in ("not applicable", "failed"):
            lines.append(f"{r['family']} {'is not applicable' if r['kind'] == 'not applicable' else 'failed'}: {r['unit']}.")
        elif r["metric"].startswith("likelihood"):
            lines.append(f"{r['family']}, {r['metric']}: {r['unit']}; {r['n']} held-out examples, seed {r['seed']}.")
    for name in COLUMNS[1:]:
        unit = next((r["unit"] for r in records if r["metric"] == name), None)
        if unit is not None:
            lines.append(f"{name}: {unit}.")
    return lines


def level_table(chain: Row) -> str:
    """What each level of a chain adds to its bound."""
    rows = [[escape(name), number({"value": p[0], "se": p[1]})] for name, p in zip(chain["names"], chain["parts"], strict=True)]
    rows.append(["<b>together</b>", number({"value": chain["total"][0], "se": chain["total"][1]})])
    title = escape(f"Evidence bound, {chain['chain']}, {chain['unit']}")
    return f"<details><summary>{title}</summary>{html_table(('level', 'adds'), rows)}</details>"
