"""What is made of a comparison's records besides the table: levels.json and the pictures."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scorefield.baselines import Baseline
from scorefield.data import Data, random_rows
from scorefield.experiment.compare import FamilyRecord, Plan
from scorefield.experiment.levels import Levels, diffusion_levels, vae_levels
from scorefield.experiment.sample import arrays_of
from scorefield.metrics.copies import COPIES
from scorefield.metrics.evaluation import REAL
from scorefield.metrics.record import Estimate
from scorefield.persistence import load, load_score
from scorefield.plots import figure_png
from scorefield.plots.compare import Chain, Panel, bound_by_level, leaderboard, sample_rows
from scorefield.system import default_device, write_durably

STEPS = (2, 10, 100, 1000)
"""T of the diffusion chains"""
LEVEL_ROWS = 32
PICTURES = ("leaderboard.png", "samples.png", "levels.png")
SHOWN = 14
"""samples of each family in the picture"""


def levels_of(
    folder: Path,
    names: Sequence[str],
    data: Data,
    plan: Plan,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> list[Levels]:
    """The bounds of the hierarchical VAE and of the score's chains, where both are among the names; kept in levels.json.

    Args:
        watch: called with the steps done, and of how many.
    """
    vae, score = folder / "hierarchical-vae", folder / "score"
    if not all(run.name in names and (run / "compare.json").exists() for run in (vae, score)):
        return []
    path, key = folder / "levels.json", weights_digest(vae, score)
    if (found := read_levels(path, key)) is not None:
        return found
    test = data.splits["test"].x
    raw = np.array(test[random_rows(len(test), min(LEVEL_ROWS, plan.likelihood_rows), plan.seed, "likelihood")])
    device = default_device()
    model, diffusion, done = load(vae), load_score(score, device=device), 0
    assert isinstance(model, Baseline)
    found = [vae_levels(model, raw, seed=plan.seed)]
    for steps in STEPS:
        found.append(diffusion_levels(diffusion, raw, steps, seed=plan.seed, device=device))
        done += steps
        watch(done, sum(STEPS))
    content = {"key": key, "chains": [asdict(chain) for chain in found]}
    write_durably(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return found


def weights_digest(*runs: Path) -> str:
    """A hash of the runs' weights."""
    digest = blake2b(digest_size=10)
    for run in runs:
        digest.update((run / "model.safetensors").read_bytes())
    return digest.hexdigest()


def read_levels(path: Path, key: str) -> list[Levels] | None:
    """The chains in levels.json, if it is there, whole, and of these weights."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [as_levels(chain) for chain in content["chains"]] if content["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def as_levels(chain: dict[str, Any]) -> Levels:
    """A chain out of levels.json."""
    made: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in chain.items()}
    made |= {"parts": tuple(Estimate(*p) for p in chain["parts"]), "total": Estimate(*chain["total"])}
    return Levels(**made)


def level_records(levels: Sequence[Levels], seed: int) -> list[FamilyRecord]:
    """The same as lines of compare.json."""
    records = []
    for chain in levels:
        family = "score" if chain.sigma else "hierarchical-vae"
        unit = f"{chain.unit}; {chain.chain}"
        for name, (value, se) in zip([*chain.names, "together"], [*chain.parts, chain.total], strict=True):
            metric = f"evidence bound by level, {name}"
            records.append(FamilyRecord(family, metric, value, se, chain.rows, unit, "bound", seed))
    return records


def pictures(folder: Path, data: Data, records: Sequence[FamilyRecord], levels: Sequence[Levels]) -> list[Path]:
    """leaderboard.png, of images samples.png, and levels.png where there are levels; older ones are removed."""
    for name in PICTURES:
        (folder / name).unlink(missing_ok=True)
    names = [n for n in dict.fromkeys(r.family for r in records) if not refused(records, n)]
    figures = {"leaderboard.png": leaderboard(names, panels(records, names))} if names else {}
    if data.kind == "images" and names:
        files = {name: folder / name / "samples.npz" for name in names}
        rows = {name: np.load(file)["samples"][:SHOWN] for name, file in files.items() if file.exists()}
        test = data.splits["test"].x
        real = torch.from_numpy(np.array(test[random_rows(len(test), SHOWN, purpose="shown")]))
        figures["samples.png"] = sample_rows(rows | {"held-out data": arrays_of(real, data.levels)})
    if levels:
        chains = [Chain(c.chain, c.sigma, c.per_level, c.lowest) for c in levels if c.sigma]
        vae = next(((c.names, [p.value for p in c.parts]) for c in levels if not c.sigma), None)
        figures["levels.png"] = bound_by_level(vae, chains, levels[0].unit)
    for name, figure in figures.items():
        write_durably(folder / name, figure_png(figure))
    return [folder / name for name in figures]


def refused(records: Sequence[FamilyRecord], family: str) -> bool:
    """Whether the family has no results, being not for this data or having failed."""
    return any(r.family == family and r.kind in ("not applicable", "failed") for r in records)


def panels(records: Sequence[FamilyRecord], names: Sequence[str]) -> list[Panel]:
    """Likelihood (as bits, or as nats lost, so that small is good), distance of samples, speed."""
    copies = {r.family for r in records if r.metric == "memorisation ratio" and (r.value or 0.0) < COPIES}

    def of(metric: str, title: str, logarithmic: bool = False) -> Panel:
        found = [next((r for r in records if r.family == name and r.metric == metric), None) for name in names]
        real = next((r.value for r in records if r.metric == metric + REAL), None)
        values = [None if r is None or "not trustworthy" in r.unit else r.value for r in found]
        kinds = ["" if r is None else "infinite" if r.value is None else said(r) for r in found]
        able = [v for v, name in zip(values, names, strict=True) if v is not None and name not in copies]
        best = min(able, default=None)
        return Panel(title, values, [None if r is None else r.se for r in found], kinds, logarithmic, real, best)

    first = next((r.unit for r in records if r.metric == "likelihood"), "")
    likelihood = of("likelihood", first.partition(" of ")[0].partition(",")[0])
    if first.startswith("nats"):  # more is better
        turned = [None if v is None else -v for v in likelihood.values]
        best = min((v for v in turned if v is not None), default=None)
        likelihood = likelihood._replace(title="minus log-density, nats", values=turned, best=best)
    return [
        likelihood,
        of("Fréchet distance", "Fréchet distance", logarithmic=True),
        of("seconds per 1,000 samples", "seconds per 1,000 samples", logarithmic=True),
    ]


def said(record: FamilyRecord) -> str:
    """Its kind, or why it is not shown."""
    return "not trustworthy" if "not trustworthy" in record.unit else record.kind
