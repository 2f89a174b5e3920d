"""The same numbers on a GPU as on the CPU; everything here is skipped where there is none.

The model is a U-Net that has learnt nothing: its last layer is zero, so that as an energy it is N(0, I) with an unknown Z, and
every sampler and every estimate of log Z has an exact answer. Commands choose the GPU by themselves: the tests of the command
line are this file's other half, when they are run on such a machine.
"""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from scorefield.experiment.logz import LogZOptions, log_partition
from scorefield.experiment.samplers import SAMPLERS
from scorefield.jacobian_trace import Exact, Hutchinson
from scorefield.likelihood import FlowLikelihood
from scorefield.metrics import expectation
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, ScoreModel
from scorefield.networks import UNetConfig
from scorefield.samplers import HMC, MALA, AnnealedChains, Kernel, MarkovChains, RungeKutta4, collect, generate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can use")

SHAPE = (1, 8, 8)
SPEC = ModelSpec(SHAPE, sigma_range=(0.05, 20.0))


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    """Convolutions without TF32, whose 10 bits would hide small mistakes."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def unet(learnt: bool) -> nn.Module:
    """Fresh weights, those of the last layer zero unless `learnt`."""
    torch.manual_seed(3)
    network = UNetConfig(channels=16).build(SHAPE)
    if learnt:
        for p in network.parameters():
            if not p.any():
                nn.init.normal_(p, std=0.1)
    return network


def direct(learnt: bool = False) -> ScoreModel:
    return ScoreModel(unet(learnt), SPEC).eval()


def energy(learnt: bool = False) -> EnergyModel:
    return EnergyModel(InnerProduct(unet(learnt)), SPEC).eval()


def cuda(seed: int = 0) -> torch.Generator:
    return torch.Generator("cuda").manual_seed(seed)


@pytest.mark.parametrize("make", [direct, energy])
def test_scores_and_likelihoods_are_those_of_the_cpu(make: Callable[[bool], ScoreModel | EnergyModel]) -> None:
    model = make(True)
    x = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(1))
    flow = FlowLikelihood(RungeKutta4(8), Exact())
    found = []
    for device in ("cpu", "cuda"):
        model.to(device)
        x = x.to(device)
        found.append([model.score(x, 0.5), model.score(x, torch.full((6,), 3.0, device=device))])
        with torch.no_grad():
            found[-1] += [flow(model, x).log_density]
        if isinstance(model, EnergyModel):
            found[-1] += [model.log_density(x, 0.2), model.score(x, 0.2)]
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert on_gpu.device.type == "cuda"
        assert (on_cpu - on_gpu.cpu()).abs().max() < 2e-4 * on_cpu.abs().max()


def test_probes_come_from_a_generator_of_the_gpu() -> None:
    """Estimates by probes surround the exact trace."""
    model = direct(True).cuda()
    x = torch.randn(64, *SHAPE, generator=cuda(), device="cuda")
    with torch.no_grad():
        exact = FlowLikelihood(RungeKutta4(8), Exact())(model, x)
        found = FlowLikelihood(RungeKutta4(8), Hutchinson(16))(model, x, generator=cuda(1))
    z = (found.log_density - exact.log_density) / found.se
    assert z.abs().mean() < 2
    assert z.mean().abs() < 4.5 / 8


@pytest.mark.parametrize("make", [direct, energy])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_from_the_law(name: str, make: Callable[[], ScoreModel | EnergyModel]) -> None:
    """N(0, I) by every sampler's default steps; those with fresh noise are off by their steps, a few per cent."""
    samples = torch.cat(list(generate(make().cuda(), SAMPLERS[name], 64, SHAPE, seed=2, device="cuda")))  # type: ignore[index]
    assert samples.device.type == "cuda"
    n = samples.numel()
    assert abs(samples.mean()) < 4.5 * 1.5 / math.sqrt(n)
    assert abs(samples.var() - 1) < 0.1 + 4.5 * math.sqrt(2 / n)


@pytest.mark.parametrize("kernel", [MALA(), HMC(4)], ids=lambda k: type(k).__name__)
def test_markov_chains_stay_in_the_law(kernel: Kernel) -> None:
    model = energy().cuda()
    start = math.sqrt(1 + 0.05**2) * torch.randn(64, *SHAPE, generator=cuda(), device="cuda")
    draws = collect(MarkovChains(kernel, 300, warmup=100, sigma=0.05)(model, start, generator=cuda(1)))
    values = draws.x.flatten(2).pow(2).mean(2)
    found, se = expectation(values.cpu())
    assert se is not None
    assert abs(found - 1.0025) < 4.5 * se


def test_annealed_chains_end_in_the_law() -> None:
    model = energy().cuda()
    samples = torch.cat(list(generate(model, AnnealedChains(HMC(3), 20, 2), 128, SHAPE, seed=1, device="cuda")))
    assert abs(samples.var() - 1) < 0.05 + 4.5 * math.sqrt(2 / samples.numel())


def test_log_z_of_a_normal_law() -> None:
    """32 log 2π(1 + σ²), by every method."""
    model = energy().cuda()
    found = log_partition(model, LogZOptions(particles=256, rungs=200, flow_draws=64, flow_steps=25), seed=4)
    exact = 32 * math.log(2 * math.pi * (1 + 0.05**2))
    assert [p.method for p in found] == ["AIS", "SMC", "flow"]
    for p in found:
        assert p.trustworthy, p.verdict
        assert abs(p.log_z - exact) < 4.5 * p.se + 2e-3, p.method


def test_a_step_of_training_is_that_of_the_cpu() -> None:
    """The gradient of one loss on one batch."""
    gradients = []
    for device in ("cpu", "cuda"):
        model = direct(True).to(device)
        x = torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(5)).to(device)
        sigma = torch.linspace(0.1, 10, 16, device=device)
        loss = (model.score(x, sigma) * sigma.view(-1, 1, 1, 1) + x).pow(2).sum()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]))
    on_cpu, on_gpu = gradients
    assert (on_cpu - on_gpu).norm() < 1e-4 * on_cpu.norm()
