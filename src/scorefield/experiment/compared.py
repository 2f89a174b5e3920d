"""What is made of a comparison's records besides the table: levels.json and the pictures."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from scorefield.baselines import Baseline, HierarchicalVAE
from scorefield.data import Data, random_rows
from scorefield.experiment.compare import FamilyRecord, Plan
from scorefield.experiment.levels import Levels, diffusion_levels, vae_levels
from scorefield.experiment.sample import arrays_of
from scorefield.metrics.evaluation import REAL
from scorefield.metrics.record import Estimate
from scorefield.persistence import load
from scorefield.plots import figure_png
from scorefield.plots.compare import Chain, Panel, bound_by_level, leaderboard, sample_rows
from scorefield.system import write_durably

STEPS = (2, 10, 100, 1000)
"""T of the diffusion chains"""
LEVEL_ROWS = 32
SHOWN = 14
"""samples of each family in the picture"""


def levels_of(
    folder: Path, data: Data, plan: Plan, watch: Callable[[int, int], None] = lambda done, total: None
) -> list[Levels]:
    """The bounds of the hierarchical VAE and of the score's chains, where both are there; kept in levels.json.

    Args:
        watch: called with the steps done, and of how many.
    """
    path, vae, score = folder / "levels.json", folder / "hierarchical-vae", folder / "score"
    if path.exists():
        return [as_levels(chain) for chain in json.loads(path.read_text())]
    if not all((run / "compare.json").exists() for run in (vae, score)):
        return []
    test = data.splits["test"].x
    raw = np.array(test[random_rows(len(test), min(LEVEL_ROWS, plan.likelihood_rows), plan.seed, "likelihood")])
    found = []
    model = load(vae)
    if isinstance(model, Baseline) and isinstance(model.family, HierarchicalVAE):
        found.append(vae_levels(model, raw, seed=plan.seed))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    diffusion, done = load(score, device=device), 0
    for steps in STEPS:
        found.append(diffusion_levels(diffusion, raw, steps, seed=plan.seed, device=device))  # type: ignore[arg-type]
        done += steps
        watch(done, sum(STEPS))
    write_durably(path, json.dumps([asdict(chain) for chain in found], indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return found


def as_levels(chain: dict) -> Levels:  # type: ignore[type-arg]
    """A chain out of levels.json."""
    return Levels(
        chain["chain"], tuple(chain["names"]), tuple(Estimate(*p) for p in chain["parts"]), Estimate(*chain["total"]),
        chain["unit"], tuple(chain["sigma"]), tuple(chain["per_level"]),
    )  # fmt: skip


def level_records(levels: Sequence[Levels], seed: int) -> list[FamilyRecord]:
    """The same as lines of compare.json."""
    records = []
    for chain in levels:
        family = "score" if chain.sigma else "hierarchical-vae"
        unit = f"{chain.unit}; {chain.chain}"
        for name, (value, se) in zip([*chain.names, "together"], [*chain.parts, chain.total], strict=True):
            metric = f"evidence bound by level, {name}"
            records.append(FamilyRecord(family, metric, value, se, LEVEL_ROWS, unit, "bound", seed))
    return records


def pictures(folder: Path, data: Data, records: Sequence[FamilyRecord], levels: Sequence[Levels], low: float) -> list[Path]:
    """leaderboard.png, of images samples.png, and levels.png where there are levels.

    Args:
        low: the smallest level of the diffusion.
    """
    names = [n for n in dict.fromkeys(r.family for r in records) if not refused(records, n)]
    figures = {"leaderboard.png": leaderboard(names, panels(records, names))} if names else {}
    if data.kind == "images" and names:
        rows = {name: np.load(folder / name / "samples.npz")["samples"][:SHOWN] for name in names}
        test = data.splits["test"].x
        real = torch.from_numpy(np.array(test[random_rows(len(test), SHOWN, purpose="shown")]))
        figures["samples.png"] = sample_rows(rows | {"held-out data": arrays_of(real, data.levels)})
    if levels:
        chains = [Chain(c.chain, c.sigma, c.per_level, low) for c in levels if c.sigma]
        vae = next(((c.names, [p.value for p in c.parts]) for c in levels if not c.sigma), None)
        figures["levels.png"] = bound_by_level(vae, chains, levels[0].unit)
    for name, figure in figures.items():
        write_durably(folder / name, figure_png(figure))
    return [folder / name for name in figures]


def refused(records: Sequence[FamilyRecord], family: str) -> bool:
    """Whether the family is not for this data."""
    return any(r.family == family and r.kind == "not applicable" for r in records)


def panels(records: Sequence[FamilyRecord], names: Sequence[str]) -> list[Panel]:
    """Likelihood (as bits, or as nats lost, so that small is good), distance of samples, speed."""

    def of(metric: str, title: str, logarithmic: bool = False) -> Panel:
        found = [next((r for r in records if r.family == name and r.metric == metric), None) for name in names]
        real = next((r.value for r in records if r.metric == metric + REAL), None)
        values = [None if r is None or "not trustworthy" in r.unit else r.value for r in found]
        kinds = ["" if r is None else "infinite" if r.value is None else said(r) for r in found]
        return Panel(title, values, [None if r is None else r.se for r in found], kinds, logarithmic, real)

    first = next((r.unit for r in records if r.metric == "likelihood"), "")
    likelihood = of("likelihood", first.partition(" of ")[0].partition(",")[0])
    if first.startswith("nats"):  # more is better
        turned = [None if v is None else -v for v in likelihood.values]
        likelihood = likelihood._replace(title="minus log-density, nats", values=turned)
    return [
        likelihood,
        of("Fréchet distance", "Fréchet distance", logarithmic=True),
        of("seconds per 1,000 samples", "seconds per 1,000 samples", logarithmic=True),
    ]


def said(record: FamilyRecord) -> str:
    """Its kind, or why it is not shown."""
    return "not trustworthy" if "not trustworthy" in record.unit else record.kind
