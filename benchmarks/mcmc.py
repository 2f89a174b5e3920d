"""Effective samples per second of MALA and HMC beside ebmkit's and torchebm's, on laws whose moments are known.

    pip install --constraint constraints.txt --editable '.[benchmark]'
    python benchmarks/mcmc.py [--rounds 7] [--steps 2000] [--chains 64] [--out mcmc.md]

Laws: a correlated Gaussian in 10 dimensions, and two Gaussians in the plane that touch. All samplers get the same energy, a
PyTorch function that is differentiated by autograd, the same chains, which begin at exact draws, and the same step sizes: those
that scorefield's warm-up finds. The rounds of all are interleaved on one thread. Effective is the least bulk effective sample
size of any coordinate and of its square. torchebm has no exact Langevin kernel.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from scorefield.densities import GaussianMixture, gaussian
from scorefield.interfaces import Energy
from scorefield.metrics.chains import by_coordinate
from scorefield.samplers import HMC, MALA, Kernel, MarkovChains, collect

LEAPFROG = 5
Sampler = Callable[[Tensor, int], Tensor]
"""(chains `(b, d)`, steps) -> draws `(steps, b, d)`"""


class Quadratic(nn.Module):
    """½ xᵀ P x, as an energy in physics' sign."""

    def __init__(self, precision: Tensor) -> None:
        super().__init__()
        self.register_buffer("precision", precision)

    def forward(self, x: Tensor) -> Tensor:
        return (x * (x @ self.precision)).sum(1) / 2


class TwoModes(nn.Module):
    """−log ½ (N(−m, I) + N(m, I)) + const, m = (1.5, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        m = x.new_tensor([1.5, 0.0])
        return -torch.logaddexp(-((x - m) ** 2).sum(1) / 2, -((x + m) ** 2).sum(1) / 2)


class Ours(Energy):
    """The same for scorefield."""

    sigma_range = (0.0, 0.0)

    def __init__(self, energy_of: nn.Module) -> None:
        super().__init__()
        self.energy_of = energy_of

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return -self.energy_of(x)


def laws() -> dict[str, tuple[nn.Module, GaussianMixture]]:
    """Energies with the laws they are of."""
    a = torch.randn(10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance = a @ a.T / 10 + torch.eye(10) / 4
    modes = torch.tensor([[-1.5, 0.0], [1.5, 0.0]])
    return {
        "Gaussian, 10-d": (Quadratic(torch.linalg.inv(covariance).float()), gaussian(torch.zeros(10), covariance)),
        "two Gaussians, 2-d": (TwoModes(), GaussianMixture(torch.ones(2), modes, torch.ones(2))),
    }


def samplers(energy: nn.Module, start: Tensor) -> dict[str, Sampler]:
    """Those that are installed, with the step sizes that scorefield finds."""
    found: dict[str, Sampler] = {}
    sizes = {}
    for name, kernel in (("MALA", MALA()), ("HMC", HMC(LEAPFROG))):
        sizes[name] = tuned(energy, kernel, start)
        found[f"scorefield {name}"] = scorefield_sampler(energy, kernel, sizes[name])
    h, eps = sizes["MALA"], math.sqrt(2 * sizes["HMC"])
    try:
        from ebm.samplers import HMC as EbmkitHMC
        from ebm.samplers import MALA as EbmkitMALA

        for name, peer in (("MALA", EbmkitMALA(h)), ("HMC", EbmkitHMC(eps, LEAPFROG))):
            found[f"ebmkit {name}"] = lambda x, n, p=peer: p.sample(energy, x, steps=n, return_trajectory=True)[1:]  # type: ignore[misc]
    except ImportError:
        print("ebmkit is not installed: left out")
    try:
        from torchebm.core import BaseModel
        from torchebm.samplers import HamiltonianMonteCarlo

        class Theirs(BaseModel):
            def forward(self, x: Tensor) -> Tensor:
                return energy(x)

        peer = HamiltonianMonteCarlo(Theirs(), eps, LEAPFROG)
        found["torchebm HMC"] = lambda x, n: peer.sample(x, n_steps=n, return_trajectory=True).transpose(0, 1)
    except ImportError:
        print("torchebm is not installed: left out")
    return found


def tuned(energy: nn.Module, kernel: Kernel, start: Tensor) -> float:
    """h after a warm-up."""
    chains = MarkovChains(kernel, steps=1, warmup=500)
    return collect(chains(Ours(energy), start, generator=torch.Generator().manual_seed(1))).step_size


def scorefield_sampler(energy: nn.Module, kernel: Kernel, h: float) -> Sampler:
    model, generator = Ours(energy), torch.Generator().manual_seed(2)
    return lambda x, n: collect(MarkovChains(kernel, n, 0, step_size=h)(model, x, generator=generator)).x


def measure(sampler: Sampler, start: Tensor, steps: int) -> tuple[float, float, Tensor]:
    """Effective draws and seconds, and the draws."""
    began = time.perf_counter()
    x = sampler(start, steps)
    seconds = time.perf_counter() - began
    return float(by_coordinate(torch.cat([x, x**2], -1), "bulk").min()), seconds, x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "| law | sampler | effective/s, median (quartiles) | effective/draw | µs/step | error of E‖x‖² |",
        "|---|---|---|---|---|---|",
    ]
    for law, (energy, exact) in laws().items():
        start = exact.sample(args.chains, generator=torch.Generator().manual_seed(3)).float()
        found = samplers(energy, start)
        results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in found}
        for _ in range(args.rounds):
            for name, sampler in found.items():
                effective, seconds, x = measure(sampler, start, args.steps)
                results[name].append((effective, seconds, float((x**2).sum(-1).mean())))
        second = float(exact.covariance().trace() + exact.mean().norm() ** 2)
        for name, rows in results.items():
            rates = [e / s for e, s, _ in rows]
            low, middle, high = statistics.quantiles(rates, n=4) if len(rates) > 1 else (rates[0],) * 3
            per_draw = statistics.median(e for e, _, _ in rows) / (args.steps * args.chains)
            micro = 1e6 * statistics.median(s for _, s, _ in rows) / args.steps
            error = statistics.mean(m for _, _, m in rows) / second - 1
            lines.append(
                f"| {law} | {name} | {middle:,.0f} ({low:,.0f} to {high:,.0f}) | {per_draw:.2f} | {micro:.0f} | {error:+.1%} |"
            )
            print(lines[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")
        print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
