"""Many samples in bounded memory, each a function of (seed, its index).

Samples come in fixed chunks with a random stream each, so that 10,000 samples begin with the same 100.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from scorefield.interfaces import Sampler, Score, State
from scorefield.randomness import keyed_generator

CHUNK = 64


class StartingSampler(Sampler, Protocol):
    """A sampler that knows where to start from and how many states it will yield."""

    @property
    def states(self) -> int: ...

    def start(self, model: Score, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor: ...


class Autocast:
    """A score whose network computes in bf16; a Score itself. Autocast is entered inside the call, never across a `yield`."""

    def __init__(self, model: Score, device: torch.device) -> None:
        self.model, self.device = model, device

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.model.sigma_range

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.model.score(x, sigma, cond)


def generate(
    model: Score,
    sampler: StartingSampler,
    n: int,
    event_shape: tuple[int, ...],
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    watch: Callable[[int, State], None] = lambda chunk, state: None,
) -> Iterator[Tensor]:
    """Chunks `(≤ 64, *event)` of n samples in scaled data units.

    Args:
        watch: called with (chunk number, state) at every state of every chunk: for progress and films.

    Raises:
        ValueError: n < 1.
    """
    if n < 1:
        raise ValueError(f"the number of samples must be at least 1, got {n}")
    for chunk in range(-(-n // CHUNK)):
        generator = keyed_generator(seed, "samples", chunk, device=device)
        start = sampler.start(model, (CHUNK, *event_shape), generator)
        for state in sampler(model, start, generator=generator):
            watch(chunk, state)
        yield state.x[: n - chunk * CHUNK]
