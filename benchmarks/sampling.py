"""A sampler's time beyond that of its network evaluations, beside azula's and diffusers' samplers.

Each cell is (seconds of a run of the sampler) / (seconds of as many bare forward passes of the network, without gradients).
A run and its bare passes alternate in one process, so that a machine that drifts drifts for both; the median of the ratios is
shown, and their quartiles in brackets. Each package's sampler takes about the same steps and dresses the network in its own
way: here as EDM does, σ checked against the model's range; in azula by `KarrasDenoiser`; in diffusers as a prediction of the
noise.

    pip install --constraint constraints.txt --editable '.[benchmark]'     # azula and diffusers; absent ones are left out
    python benchmarks/sampling.py [--networks mlp unet] [--steps 18] [--rounds 9] [--threads 1] [--json FILE]

Networks: an MLP with three hidden layers of 256 SiLU units on 2-D data, 256 and 10,000 particles; and the U-Net of the recipe
fashion-mnist on 16 images.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scorefield.models import ModelSpec, ScoreModel
from scorefield.recipes import recipe
from scorefield.samplers import DDIM, Descent, DPMSolver, Heun

Run = Callable[[], object]
SAMPLERS = ("Heun", "DDIM", "DPM-Solver++ 2M")


class MLP(nn.Module):
    """Three hidden layers of 256 on 2-D data; the noise level is a third coordinate."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 256, 256, 256]
        layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(256, 2))

    def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.layers(torch.cat([u, c_noise[:, None]], 1))


class ForAll(nn.Module):
    """A network as azula and diffusers call it, with one time for all of a batch; its calls can be counted."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, u: Tensor, time: Tensor) -> Tensor:
        return self.network(u, time.to(u.dtype).expand(len(u)))


def ours(network: nn.Module, x: Tensor, steps: int) -> dict[str, Run]:
    """scorefield's samplers."""
    model = ScoreModel(network, ModelSpec(tuple(x.shape[1:])))
    samplers: list[Descent] = [Heun(steps), DDIM(steps), DPMSolver(steps)]
    return {name: lambda s=s: list(s(model, 80 * x)) for name, s in zip(SAMPLERS, samplers, strict=True)}  # type: ignore[misc]


def azula_runs(network: nn.Module, x: Tensor, steps: int) -> dict[str, Run]:
    """The same in azula: its EAB method with data prediction is DPM-Solver++'s multistep."""
    from azula.denoise import KarrasDenoiser
    from azula.noise import VESchedule
    from azula.sample import DDIMSampler, HeunSampler, xEABSampler

    denoiser = KarrasDenoiser(ForAll(network), VESchedule())
    samplers = [kind(denoiser, steps=steps, silent=True) for kind in (HeunSampler, DDIMSampler, xEABSampler)]
    return {name: lambda s=s: s(x) for name, s in zip(SAMPLERS, samplers, strict=True)}  # type: ignore[misc]


def diffusers_runs(network: nn.Module, x: Tensor, steps: int) -> dict[str, Run]:
    """The same with the schedulers of diffusers, in the loop that its pipelines have."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler

    net = ForAll(network)

    def run(scheduler: Any) -> Run:
        @torch.no_grad()
        def loop() -> Tensor:
            scheduler.set_timesteps(steps)
            y = x * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                y = scheduler.step(net(scheduler.scale_model_input(y, t), t), t, y).prev_sample
            return y

        return loop

    schedulers = [HeunDiscreteScheduler(), DDIMScheduler(clip_sample=False), DPMSolverMultistepScheduler()]
    return {name: run(scheduler) for name, scheduler in zip(SAMPLERS, schedulers, strict=True)}


PEERS = {"azula": azula_runs, "diffusers": diffusers_runs}


def evaluations(network: nn.Module, run: Run) -> int:
    """How often a run calls the network."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    handle = network.register_forward_hook(count)
    run()
    handle.remove()
    return calls


def seconds(run: Run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def measure(label: str, network: nn.Module, x: Tensor, steps: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of the table for one network and one batch of noise `x`."""
    network.eval().requires_grad_(False)
    c_noise = torch.zeros(len(x))
    runs = {("scorefield", name): run for name, run in ours(network, x, steps).items()}
    for package, make in PEERS.items():
        if find_spec(package) is not None:
            runs |= {(package, name): run for name, run in make(network, x, steps).items()}
    nfe = {key: evaluations(network, run) for key, run in runs.items()}

    @torch.no_grad()
    def bare(count: int) -> None:
        for _ in range(count):
            network(x, c_noise)

    ratios: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    forward = []
    for _ in range(rounds):
        for key, run in runs.items():
            floor = seconds(lambda n=nfe[key]: bare(n))  # type: ignore[misc]
            ratios[key].append(seconds(run) / floor)
            forward.append(floor / nfe[key])
    return [
        {
            "network": label, "package": package, "sampler": name, "nfe": nfe[package, name],
            "ratio": statistics.median(found), "quartiles": np.quantile(found, (0.25, 0.75)).tolist(),
            "forward_ms": 1e3 * statistics.median(forward),
        }
        for (package, name), found in ratios.items()
    ]  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a sampler a line, a package a column; absent packages are named."""
    packages = ["scorefield", *PEERS]
    lines = [f"| network | forward | sampler | {' | '.join(packages)} |", "|---|---|---|" + "---|" * len(packages)]
    for label, sampler in dict.fromkeys((r["network"], r["sampler"]) for r in rows):
        cells = {r["package"]: r for r in rows if (r["network"], r["sampler"]) == (label, sampler)}
        shown = [ratio(cells[p]) if p in cells else "not installed" for p in packages]
        lines.append(f"| {label} | {cells['scorefield']['forward_ms']:.2f} ms | {sampler} | {' | '.join(shown)} |")
    return "\n".join(lines)


def ratio(row: dict[str, Any]) -> str:
    """The median ratio, and its quartiles."""
    low, high = row["quartiles"]
    return f"{row['ratio']:.2f} ({low:.2f}–{high:.2f})"


def problems(names: list[str]) -> list[tuple[str, nn.Module, Tensor]]:
    """Label, network and standard normal noise."""
    torch.manual_seed(0)
    found: list[tuple[str, nn.Module, Tensor]] = []
    if "mlp" in names:
        network = MLP()
        found += [(f"MLP 3×256, {n} particles", network, torch.randn(n, 2)) for n in (256, 10_000)]
    if "unet" in names:
        unet = recipe("fashion-mnist").network.build((1, 28, 28))
        found.append(("U-Net, 16 images 28×28", unet, torch.randn(16, 1, 28, 28)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=["mlp", "unet"], default=["mlp", "unet"])
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for label, network, x in problems(args.networks):
        found = measure(label, network, x, args.steps, args.rounds)
        print(table(found), flush=True)
        rows += found
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")
        print(f"wrote {args.json}")


if __name__ == "__main__":
    main()
