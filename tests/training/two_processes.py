"""Run by test_distributed under torchrun: writes the gradient that data-parallel training computes on rank 0."""

import os
import sys

import torch
from accelerate import Accelerator

from scorefield import DenoisingScoreMatching, EnergyModel, InnerProduct, ModelSpec, ScoreModel
from scorefield.networks import MLPConfig
from scorefield.randomness import keyed_generator
from scorefield.training import Step

BATCH = 16


def build(energy: bool) -> ScoreModel | EnergyModel:
    torch.manual_seed(0)
    network = MLPConfig(width=16, blocks=1, frequencies=2).build((3,)).double()
    torch.nn.init.normal_(network.leave.weight)  # zero at initialisation, and then most gradients are, too
    spec = ModelSpec((3,), sigma_range=(0.05, 5.0))
    return EnergyModel(InnerProduct(network), spec) if energy else ScoreModel(network, spec)


def batch(rank: int) -> torch.Tensor:
    return torch.randn(BATCH, 3, generator=keyed_generator(0, "data", rank), dtype=torch.float64)


def noise(rank: int) -> torch.Generator:
    return keyed_generator(0, "noise", rank)


if __name__ == "__main__":
    accelerator = Accelerator(cpu=True)
    model = build(sys.argv[1] == "energy")
    step = accelerator.prepare(Step(DenoisingScoreMatching(), model))
    loss = step(batch(accelerator.process_index), None, noise(accelerator.process_index))
    accelerator.backward(loss.value.mean() / 3)
    assert accelerator.num_processes == 2
    if accelerator.is_main_process:
        torch.save({k: p.grad for k, p in model.named_parameters()}, sys.argv[2])
    accelerator.wait_for_everyone()
    accelerator.end_training()
    # PyTorch now and then aborts after all this, when the interpreter is torn down ("terminate called without an active
    # exception", once in some fifty runs on a busy machine); what is tested here is the gradient, so leave without it
    os._exit(0)
