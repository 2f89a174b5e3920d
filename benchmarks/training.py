"""Images a second of the training loop against its floor, interleaved in one run.

The floor is the same network's bare forward, backward and optimiser step on tensors that already lie on the run's device, in
its precision and compiled if it is; the loop adds data, noise, loss by σ, clipping, the weight average and the log. Blocks
of both alternate, so that a machine that drifts drifts for both, and each is timed until the device has finished it.

    python benchmarks/training.py [--steps 400] [--recipes digits fashion-mnist]
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield.data import Data
from scorefield.errors import UserError
from scorefield.experiment import Run, train
from scorefield.persistence import Model
from scorefield.recipes import recipe
from scorefield.training.loop import Watcher
from scorefield.training.muon import make_optimizer

BLOCK = 10


class Floor:
    """Bare training steps of a resolved run's network, on resident tensors."""

    def __init__(self, run: Run, event_shape: tuple[int, ...], device: torch.device) -> None:
        b = run.training.batch_size
        self.device, self.bf16 = device, run.training.precision == "bf16"
        self.network = run.network.build(event_shape).to(device)
        if run.training.compile == "on":
            self.network.compile()
        self.optimizer = make_optimizer(run.training.optimizer, self.network.parameters(), 1e-3, run.training.beta2)
        self.u, self.target = torch.randn(2, b, *event_shape, device=device).unbind()
        self.c_noise = torch.randn(b, device=device)

    def steps(self, count: int) -> float:
        """Seconds for `count` steps."""
        began = finished(self.device)
        for _ in range(count):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                output: Tensor = self.network(self.u, self.c_noise)
            ((output.float() - self.target) ** 2).mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return finished(self.device) - began


def finished(device: torch.device) -> float:
    """The time at which the device has done all that was asked of it; GPUs work behind the program's back."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(run: Run, folder: Path) -> dict[str, Any]:
    """Throughput of loop and floor, medians over the blocks."""
    loop_seconds: list[float] = []
    floor_seconds: list[float] = []

    def started(resolved: Run, data: Data, model: Model) -> Watcher:
        floor: Floor | None = None
        mark = time.perf_counter()

        def watch(step: int, fields: dict[str, Any]) -> None:
            nonlocal floor, mark
            if step % BLOCK == 0:
                floor = floor or Floor(resolved, data.event_shape, next(model.parameters()).device)
                loop_seconds.append(finished(floor.device) - mark)
                floor_seconds.append(floor.steps(BLOCK))
                mark = time.perf_counter()

        return watch

    done = train(run, folder, started=started)
    # the first block of each warms up, and compiles if it is to
    ratios = [floor / loop for loop, floor in zip(loop_seconds[1:], floor_seconds[1:], strict=True)]
    images = BLOCK * run.training.batch_size
    return {
        "recipe": run.recipe,
        "precision": done.run.training.precision,
        "compile": done.run.training.compile,
        "threads": done.run.training.threads,
        "loop_images_per_s": round(images / statistics.median(loop_seconds[1:]), 1),
        "floor_images_per_s": round(images / statistics.median(floor_seconds[1:]), 1),
        "ratio": round(statistics.median(ratios), 4),
        "quartiles": [round(q, 4) for q in statistics.quantiles(ratios)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--recipes", nargs="+", default=["digits", "fashion-mnist"])
    args = parser.parse_args()
    for name in args.recipes:
        run = recipe(name)
        # validation and checkpoints happen at a pace of their own and are not part of a step
        rare = replace(run.training, steps=args.steps, validate_every=10**9, checkpoint_every=10**9)
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(json.dumps(measure(replace(run, training=rare), Path(folder) / "run")), flush=True)
            except UserError as error:
                print(json.dumps({"recipe": name, "skipped": str(error)}), flush=True)


if __name__ == "__main__":
    main()
