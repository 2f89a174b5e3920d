"""A training step of each objective, relative to its floor, beside the public APIs of torchebm and ebmkit.

The floor is a bare regression step of the same network with the same optimiser. Every step is loss, backward and fused Adam
on 512 rows that lie in memory; steps of all objectives and packages are interleaved, so that a machine that drifts drifts
for all, and medians are compared. One network, an MLP with three hidden layers of 256 SiLU units, scalar for energies.

    pip install --constraint constraints.txt --editable '.[benchmark]'
    python benchmarks/objectives.py [--dimensions 2 16 64 256] [--rounds 9] [--json FILE] [--compile]

A cell is (median seconds of a step) / (median seconds of the floor's step of the same kind of network).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.interfaces import Objective
from scorefield.models import PlainEnergy, PlainScore
from scorefield.objectives import (
    DenoisingAt,
    ExplicitScoreMatching,
    FiniteDifferenceScoreMatching,
    ImplicitScoreMatching,
    SlicedScoreMatching,
)

BATCH = 512
Step = Callable[[], None]


class AnyLevel(PlainScore):
    """A network that answers at every level, for denoising: what it is told of σ costs nothing here."""

    sigma_range = (0.0, 100.0)


class AnyEnergy(PlainEnergy):
    """The same for energies."""

    sigma_range = (0.0, 100.0)


def mlp(d: int, out: int) -> nn.Sequential:
    """Three hidden layers of 256."""
    torch.manual_seed(0)
    widths = [d, 256, 256, 256]
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*layers, nn.Linear(256, out))


def step_of(module: nn.Module, loss: Callable[[], Tensor], compiled: bool = False) -> Step:
    """Loss, backward, Adam."""
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 1e-4, fused=True)
    loss = torch.compile(loss) if compiled else loss

    def step() -> None:
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def ours(d: int, x: Tensor, energy: bool, compiled: bool) -> dict[str, Step]:
    """scorefield's objectives, and the floor."""
    out = 1 if energy else d
    bare, target = mlp(d, out), torch.randn(BATCH, out)
    found = {"floor": step_of(bare, lambda: (bare(x) - target).square().mean())}
    objectives: dict[str, Objective] = {
        "explicit": ExplicitScoreMatching(AnyLevel(nn.Identity())),
        "exact": ImplicitScoreMatching(),
        "sliced": SlicedScoreMatching(),
        "sliced, variance reduced": SlicedScoreMatching(variance_reduced=True),
        "finite difference": FiniteDifferenceScoreMatching(),
        "denoising": DenoisingAt(0.1),
    }
    for name, objective in objectives.items():
        model = AnyEnergy(mlp(d, 1)) if energy else AnyLevel(mlp(d, d))
        found[name] = step_of(model, lambda o=objective, m=model: o(m, x).value.mean(), compiled)  # type: ignore[misc]
    return found


def torchebm_steps(d: int, x: Tensor) -> dict[str, Step]:
    """The same through torchebm's losses (energies only)."""
    from torchebm.core import BaseModel
    from torchebm.losses import DenoisingScoreMatching as Denoising
    from torchebm.losses import ScoreMatching
    from torchebm.losses import SlicedScoreMatching as Sliced

    class Model(BaseModel):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(d, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).squeeze(-1)

    def step(make: Callable[[Any], Any]) -> Step:
        model = Model()
        loss = make(model)
        return step_of(model, lambda: loss(x))

    return {
        "exact": step(lambda m: ScoreMatching(m, hessian_method="exact")),
        "sliced": step(lambda m: Sliced(m, n_projections=1)),
        "denoising": step(lambda m: Denoising(m, noise_scale=0.1)),
    }


def ebmkit_steps(d: int, x: Tensor) -> dict[str, Step]:
    """The same through ebmkit's losses (energies only)."""
    from ebm.energy import EnergyModel
    from ebm.losses.score_matching import DenoisingScoreMatching, ExactScoreMatching, SlicedScoreMatching

    def step(loss: nn.Module) -> Step:
        model = EnergyModel(mlp(d, 1))
        return step_of(model, lambda: loss(model, x).loss)

    return {
        "exact": step(ExactScoreMatching()),
        "sliced": step(SlicedScoreMatching(1, vr=False)),
        "sliced, variance reduced": step(SlicedScoreMatching(1, vr=True)),
        "denoising": step(DenoisingScoreMatching(0.1)),
    }


def medians(steps: dict[tuple[str, ...], Step], rounds: int) -> dict[tuple[str, ...], float]:
    """Median seconds of each, interleaved; the first round warms up."""
    seconds: dict[tuple[str, ...], list[float]] = {key: [] for key in steps}
    for _ in range(rounds + 1):
        for key, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[key].append(time.perf_counter() - began)
    return {key: statistics.median(found[1:]) for key, found in seconds.items()}


def measure(d: int, rounds: int, compiled: bool) -> list[dict[str, Any]]:
    """Rows of the table at one dimension."""
    x = torch.randn(BATCH, d)
    steps: dict[tuple[str, ...], Step] = {}
    for kind, energy in (("energy", True), ("direct", False)):
        steps |= {("scorefield", kind, name): step for name, step in ours(d, x, energy, False).items()}
        if compiled:
            steps |= {("compiled", kind, name): s for name, s in ours(d, x, energy, True).items() if name != "floor"}
    steps |= {("torchebm", "energy", name): step for name, step in torchebm_steps(d, x).items()}
    steps |= {("ebmkit", "energy", name): step for name, step in ebmkit_steps(d, x).items()}
    found = medians(steps, rounds)
    rows = []
    for (package, kind, name), seconds in found.items():
        floor = found["scorefield", kind, "floor"]
        rows.append(
            {"d": d, "package": package, "model": kind, "objective": name, "ms": 1e3 * seconds, "ratio": seconds / floor}
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: an objective a line, a package a column."""
    packages = list(dict.fromkeys(r["package"] for r in rows))
    lines = [f"| d | model | objective | {' | '.join(packages)} |", "|---|---|---|" + "---|" * len(packages)]
    keys = dict.fromkeys((r["d"], r["model"], r["objective"]) for r in rows)
    for key in sorted(keys, key=lambda k: (k[0], k[1] != "energy")):
        cells = {r["package"]: r for r in rows if (r["d"], r["model"], r["objective"]) == key}
        if key[2] == "floor":
            shown = [f"{cells['scorefield']['ms']:.2f} ms", *[""] * (len(packages) - 1)]
        else:
            shown = [f"{cells[p]['ratio']:.2f}" if p in cells else "" for p in packages]
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 16, 64, 256])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="also compile each loss of scorefield's")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for d in args.dimensions:
        rows += measure(d, args.rounds if d < 256 else max(3, args.rounds // 3), args.compile)
        print(table([r for r in rows if r["d"] == d]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")
        print(f"wrote {args.json}")


if __name__ == "__main__":
    main()
