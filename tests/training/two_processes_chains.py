"""Run by test_distributed under torchrun: persistent chains of two processes, trained at once and in two parts."""

import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from scorefield.models import PlainEnergy, WithoutNoise
from scorefield.networks.mlp import MLP
from scorefield.objectives import PersistentContrastiveDivergence
from scorefield.randomness import keyed_generator
from scorefield.training import Training, fit

if __name__ == "__main__":
    accelerator, folder = Accelerator(cpu=True), Path(sys.argv[1])
    rank = accelerator.process_index

    def batches(step: int) -> tuple[Tensor, None]:
        return torch.randn(16, 2, generator=keyed_generator(0, "batches", step, rank)), None

    def go(name: str, steps: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = PlainEnergy(WithoutNoise(MLP(2, 0, 16, 1, 2)), 0.5)
        objective = PersistentContrastiveDivergence((2,), 32, steps=2)
        training = Training(steps=steps, batch_size=32, warmup=2, checkpoint_every=3, precision="float32", threads=1)
        (folder / name).mkdir(exist_ok=True)
        accelerator.wait_for_everyone()
        state, _ = fit(model, objective, batches, training, folder / name, accelerator=accelerator)
        return state.tensors()

    whole = go("whole", 6)
    go("parts", 3)
    parts = go("parts", 6)
    torch.save({"whole": whole, "parts": parts}, folder / f"rank{rank}.pt")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    os._exit(0)  # see two_processes.py
