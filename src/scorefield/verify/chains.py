"""Row 15: what Markov chains settle at on the standard normal law.

ULA      x ← (1 − h) x + √(2h) z has the variance v = (1 − h)² v + 2h, so v = 1/(1 − h/2)
BAOAB    exact in x for Gaussians, biased in v            MALA, HMC    exact
"""

from collections.abc import Iterator

import torch

from scorefield.densities import gaussian
from scorefield.metrics.chains import LARGEST_RHAT, by_coordinate, expectation
from scorefield.samplers import BAOAB, HMC, MALA, ULA, Kernel, MarkovChains, collect
from scorefield.verify.families import Shape, name, shapes, stream
from scorefield.verify.record import STANDARD_ERRORS, Record, close, ordered

KERNELS: list[tuple[Kernel, float]] = [(ULA(), 0.5), (ULA(), 1.0), (BAOAB(), 0.5), (MALA(), 0.5), (HMC(5), 0.1)]


def row_15(full: bool) -> Iterator[Record]:
    for shape in shapes(full)[:2]:
        for kernel, h in KERNELS:
            yield from settled(kernel, h, shape, 4000 if full else 800)


def settled(kernel: Kernel, h: float, shape: Shape, steps: int) -> Iterator[Record]:
    """Mean over coordinates of x²: one number for each draw, whose Monte-Carlo error arviz-stats tells."""
    start = 2 * torch.randn(32, *shape, generator=stream(15), dtype=torch.float64)
    chains = MarkovChains(kernel, steps, warmup=100, step_size=h)
    draws = collect(chains(gaussian(torch.zeros(shape), 1.0), start, generator=stream(15, 1)))
    value, se = expectation(draws.x.flatten(2).pow(2).mean(2))
    unadjusted = isinstance(kernel, ULA)
    expected = 1 / (1 - h / 2) if unadjusted else 1.0
    which = f"{type(kernel).__name__}{f', h = {h:g}' if unadjusted else ''}: {name(shape)}"
    rhat = by_coordinate(draws.x, "rhat")
    assert se is not None
    yield close(15, f"stationary variance, {which} [{STANDARD_ERRORS} standard errors]", value, expected, STANDARD_ERRORS * se)
    yield ordered(15, f"R̂ < {LARGEST_RHAT}, {which}", LARGEST_RHAT, float(rhat.max()))
