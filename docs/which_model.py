"""Writes the numbers of one comparison into docs/which-model.md and README.md, between the marks that name them.

scorefield compare digits --budget 3m --out runs/compare-digits
python docs/which_model.py runs/compare-digits         copies its files to docs/which-model/, then fills the pages
python docs/which_model.py                             fills the pages from docs/which-model/
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from scorefield.report import leaderboard_markdown
from scorefield.report.comparison import best, find, reading

DOCS = Path(__file__).parent
KEPT = DOCS / "which-model"
FILES = ("compare.json", "plan.json", "levels.json", "leaderboard.png", "samples.png", "levels.png")
FINE, COLLAPSED = 0.1, 0.02
"""a noise level below which nothing is seen, and a share of the bits below which a level is hardly used"""
PAGES = (DOCS / "which-model.md", DOCS.parent / "README.md")
MARK = re.compile(r"(<!-- (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
CHAINS = ("VAE of 2 levels", "diffusion, T = 2", "diffusion, T = 10", "diffusion, T = 100", "diffusion, T = 1000")


def parts() -> dict[str, str]:
    """What stands between the marks."""
    records, plan = (json.loads((KEPT / name).read_text(encoding="utf-8")) for name in ("compare.json", "plan.json"))
    levels = json.loads((KEPT / "levels.json").read_text(encoding="utf-8"))["chains"]
    families = [r for r in records if not r["metric"].startswith("evidence bound by level")]
    return {
        "table": leaderboard_markdown(families),
        "winners": f"{reading(families)} {target(families)}",
        "second-estimates": second_estimates(families),
        "budget": f"Each family was trained for {plan['budget']:g} seconds, as many steps as a short trial said would fit: "
        + ", ".join(f"{name} {steps:,}" for name, steps in plan["steps"].items() if steps > 1) + ".\n",
        "levels": level_table(levels),
        "shares": shares(levels),
    }  # fmt: skip


def shares(levels: list[dict[str, Any]]) -> str:
    """Where the bits are, in words."""
    vae, finest = levels[0], levels[-1]
    parts = [value for value, _ in vae["parts"]]
    fine = sum(loss for sigma, loss in zip(finest["sigma"], finest["per_level"], strict=True) if sigma < FINE)
    first, upper = parts[0] / sum(parts), parts[-1] / sum(parts)
    collapse = "; that it hardly uses it is common, and known as posterior collapse" if upper < COLLAPSED else ""
    return (
        f"The VAE spends {first:.0%} of its bits on pixels given z₁, and {upper:.1%} on its upper level{collapse}. Of what\n"
        f"the steps of the diffusion add, {fine / sum(finest['per_level']):.0%} lie where σ is smaller than {FINE:g} standard\n"
        "deviations of the data, on what no eye sees.\n"
    )


def target(records: list[dict[str, Any]]) -> str:
    """Whether the score has the best samples, and bits no worse than the autoregressive model's."""
    frechet, bits = best(records, "Fréchet distance"), [find(records, f, "likelihood") for f in ("score", "autoregressive")]
    assert bits[0] is not None
    assert bits[1] is not None
    gap = bits[0]["value"] - bits[1]["value"]
    samples = "has the smallest" if frechet == "score" else f"does not have the smallest (that is {frechet}'s)"
    more = f"{abs(gap):.2f} bits/dim {'more' if gap > 0 else 'less'}"
    return f"The score {samples} Fréchet distance, and needs {more} than the autoregressive model.\n"


def second_estimates(records: list[dict[str, Any]]) -> str:
    """The evidence bounds of models that also have a probability flow."""
    lines = []
    for family in ("energy-denoising", "score"):
        r = find(records, family, "likelihood, second estimate")
        if r is not None:
            lines.append(f"{family}: at most {r['value']:.3f} ± {r['se']:.3f} bits/dim by the evidence bound of its chain")
    return "; ".join(lines) + ".\n"


def level_table(levels: list[dict[str, Any]]) -> str:
    """Totals of the chains, and the VAE's own levels."""
    rows = ["| chain | L_0 | levels | the prior's part | together, bits/dim |", "| --- | --- | --- | --- | --- |"]
    for chain in levels:
        first, *middle, last = (value for value, _ in chain["parts"])
        diffusion = bool(chain["sigma"])
        between = f"{sum(middle):.3f}" if diffusion else " + ".join(f"{v:.3f}" for v in [*middle, last])
        prior = f"{last:.4f}" if diffusion else ""
        value, se = chain["total"]
        rows.append(f"| {chain['chain']} | {first:.3f} | {between} | {prior} | {value:.3f} ± {se:.3f} |")
    return "\n".join(rows) + "\n"


def filled(text: str, found: dict[str, str]) -> str:
    """The page with every mark's part renewed."""
    return MARK.sub(lambda m: m[1] + found[m["name"]] + m[3], text)


def main(arguments: list[str]) -> None:
    if arguments:
        KEPT.mkdir(exist_ok=True)
        for name in FILES:
            shutil.copy(Path(arguments[0]) / name, KEPT / name)
    found = parts()
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), found), encoding="utf-8")
        print(f"wrote {page.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main(sys.argv[1:])
