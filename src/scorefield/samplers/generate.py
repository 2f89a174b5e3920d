"""Many samples in bounded memory, each a function of (seed, its index).

Samples come in fixed chunks with a random stream each, so that 10,000 samples begin with the same 100.
"""

from collections.abc import Callable, Iterator
from functools import partial
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
    cond: int | Tensor | None = None,
    device: torch.device | str = "cpu",
    watch: Callable[[int, State], None] = lambda chunk, state: None,
) -> Iterator[Tensor]:
    """Chunks `(≤ 64, *event)` of n samples in scaled data units.

    Args:
        cond: what each sample is conditioned on, `(n, …)`, usually its class; or one class for all.
        watch: called with (chunk number, state) at every state of every chunk: for progress and films.

    Raises:
        ValueError: n < 1, or conditions that are not n.
    """
    if n < 1:
        raise ValueError(f"the number of samples must be at least 1, got {n}")
    if cond is not None:
        cond = torch.as_tensor(cond, device=device)
        cond = cond.expand(n) if cond.ndim == 0 else cond
        if len(cond) != n:
            raise ValueError(f"{n} samples need as many conditions, or one, got {len(cond)}")
    for chunk in range(chunks(n)):
        generator = keyed_generator(seed, "samples", chunk, device=device)
        part = None if cond is None else cond[full_rows(chunk, n, device=device)]
        x = draw_chunk(model, sampler, (CHUNK, *event_shape), part, generator, partial(watch, chunk))
        yield x[: n - chunk * CHUNK]


def chunks(n: int, size: int = CHUNK) -> int:
    """How many chunks n samples take."""
    return -(-n // size)


def full_rows(chunk: int, n: int, size: int = CHUNK, device: torch.device | str = "cpu") -> Tensor:
    """Row numbers `(size,)` of a chunk; where fewer are left the last one again, for chunks are always drawn in full."""
    return torch.arange(chunk * size, (chunk + 1) * size, device=device).clamp(max=n - 1)


def draw_chunk(
    model: Score,
    sampler: StartingSampler,
    shape: tuple[int, ...],
    cond: Tensor | None,
    generator: torch.Generator,
    watch: Callable[[State], None],
) -> Tensor:
    """Samples of `shape` from their start to their last state, each state shown to `watch`."""
    start = sampler.start(model, shape, generator)
    for state in sampler(model, start, cond, generator=generator):
        watch(state)
    return state.x
