"""How good samples are for what they cost: every sampler at several numbers of network evaluations, judged by one classifier.

    python benchmarks/quality.py runs/digits --judge ../shared/judge/judge.py --on digits --out quality.jsonl
        [--samplers heun dpm-solver-2m …] [--nfe 5 10 18 35 100] [--seeds 0 1 2] [-n 2000] [--threads 2] [--device cuda]

RUN is a trained run; for the judge see `judge.py`. A line of JSON is appended for each cell, and cells that the file has are
not computed again, so the work can be interrupted. The table of all cells is printed, and drawn into a picture beside the
file. A sampler takes as many steps as the evaluations allow; where they allow none, the cell is empty. The adaptive method
chooses its evaluations itself.
"""

import argparse
import json
import statistics
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from judge import Judge

from scorefield.errors import UserError
from scorefield.experiment import SamplerOptions, sampler_named
from scorefield.experiment.sample import arrays
from scorefield.experiment.samplers import SAMPLERS, in_precision
from scorefield.persistence import load
from scorefield.plots import figure_png
from scorefield.plots.curves import leading_digit
from scorefield.plots.style import FONT, label, new_figure
from scorefield.samplers import generate

Cell = dict[str, Any]


def measure(
    run: Path,
    model: Any,
    judge: Judge,
    name: Any,
    levels: tuple[float, float] | None,
    nfe: int,
    seed: int,
    n: int,
    precision: Any = "auto",
) -> Cell | None:
    """One cell; None where the sampler cannot do with so few evaluations."""
    adaptive = name == "dormand-prince"
    try:
        sampler = sampler_named(SamplerOptions(sampler=name, nfe=None if adaptive else nfe, sigma_range=levels), model)
    except UserError:
        return None
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    handle = model.network.register_forward_hook(count)
    began, drawn = time.perf_counter(), 0
    parts = []
    device = next(model.parameters()).device
    score = in_precision(model, precision, device, sampler)
    for x in generate(score, sampler, n, model.spec.event_shape, seed=seed, device=device):
        parts.append(x.cpu())
        drawn += 1
    handle.remove()
    pixels = arrays(torch.cat(parts), model.spec)
    confidence = judge.probabilities(pixels).max(1)[0].mean().item()
    return {
        "on": judge.name, "run": str(run), "n": n, "device": device.type, "precision": precision,
        "sampler": titled(name, levels), "nfe": nfe, "used": calls / drawn, "seed": seed,
        "frechet": judge.frechet(pixels), "confidence": confidence, "seconds": time.perf_counter() - began,
    }  # fmt: skip


def titled(name: str, levels: tuple[float, float] | None) -> str:
    """A sampler's name in the table."""
    return name if levels is None else f"{name}, σ from {levels[1]:g} to {levels[0]:g}"


def read(path: Path, like: Cell) -> dict[tuple[str, int, int], Cell]:
    """The cells a file holds of this judge, run, number of samples, device and precision."""
    lines = path.read_text().splitlines() if path.exists() else []
    cells = [cell for cell in map(json.loads, lines) if all(cell[key] == value for key, value in like.items())]
    return {(cell["sampler"], cell["nfe"], cell["seed"]): cell for cell in cells}


def grouped(cells: list[Cell]) -> dict[str, dict[int, list[Cell]]]:
    """By sampler and evaluations, the seeds together."""
    found: dict[str, dict[int, list[Cell]]] = {}
    for cell in cells:
        found.setdefault(cell["sampler"], {}).setdefault(cell["nfe"], []).append(cell)
    return found


def table(cells: list[Cell]) -> str:
    """Markdown: the mean over seeds and their range, in brackets the evaluations used where they are others."""
    costs = sorted({cell["nfe"] for cell in cells})
    lines = [f"| sampler | {' | '.join(map(str, costs))} |", "|---|" + "---|" * len(costs)]
    for name, by_cost in grouped(cells).items():
        texts = []
        for nfe in costs:
            found = by_cost.get(nfe, [])
            values = [cell["frechet"] for cell in found]
            used = statistics.mean(cell["used"] for cell in found) if found else nfe
            spread = f" ± {(max(values) - min(values)) / 2:.2f}" if len(values) > 1 else ""
            texts.append(f"{statistics.mean(values):.2f}{spread}{f' ({used:.0f})' if used != nfe else ''}" if values else "")
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return "\n".join(lines)


def draw(cells: list[Cell], path: Path) -> None:
    """Distance against evaluations, both logarithmic."""
    figure, axes = new_figure(7.2, 4.4)
    label(axes, "evaluations of the network", "Fréchet distance")
    styles = product(("-", "--", ":"), ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#767676"))
    for (name, by_cost), (line, colour) in zip(grouped(cells).items(), styles, strict=False):
        x = [statistics.mean(c["used"] for c in found) for _, found in sorted(by_cost.items())]
        y = [statistics.mean(c["frechet"] for c in found) for _, found in sorted(by_cost.items())]
        axes.plot(x, y, line, color=colour, marker="o", markersize=4, linewidth=1.8, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sorted({cell["nfe"] for cell in cells}), minor=False)
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if leading_digit(value) in (2, 5) else "")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend(fontsize=FONT - 2, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    path.write_bytes(figure_png(figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--on", default="digits", help="the judge's name of the data")
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", help="a folder the judge reads, if it reads one")
    parser.add_argument("--out", type=Path, default=Path("quality.jsonl"))
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--nfe", nargs="+", type=int, default=[5, 10, 18, 35, 100])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--sigma-range", nargs=2, type=float, help="levels to walk between, where not the model's")
    parser.add_argument("-n", type=int, default=2000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    judge, model = Judge(args.judge, args.on, args.data), load(args.run, device=args.device).eval()
    levels = args.sigma_range and tuple(args.sigma_range)
    like = {"on": args.on, "run": str(args.run), "n": args.n, "device": args.device, "precision": args.precision}
    cells = read(args.out, like)
    for seed, nfe, name in product(args.seeds, args.nfe, args.samplers):
        if (titled(name, levels), nfe, seed) in cells or (name == "dormand-prince" and nfe != max(args.nfe)):
            continue
        cell = measure(args.run, model, judge, name, levels, nfe, seed, args.n, args.precision)
        if cell is not None:
            cells[titled(name, levels), nfe, seed] = cell
            with open(args.out, "a") as file:
                file.write(json.dumps(cell) + "\n")
            print(f"{name}, {nfe} evaluations, seed {seed}: {cell['frechet']:.3f} in {cell['seconds']:.0f} s", flush=True)
    rank = list(SAMPLERS).index
    order = sorted(cells.values(), key=lambda c: (rank(c["sampler"].split(",")[0]), c["sampler"], c["nfe"], c["seed"]))
    print(table(order))
    draw(order, args.out.with_suffix(".png"))
    print(f"wrote {args.out} and {args.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
