"""Gibbs sampling of discrete models: each coordinate in turn is drawn from its conditional, which needs no Z.

Reference: Geman & Geman 1984, doi:10.1109/TPAMI.1984.4767596.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.densities.discrete import DiscreteDensity, as_density, check_states, log_conditional
from scorefield.interfaces import State
from scorefield.samplers.levels import check_counts


@dataclass(frozen=True)
class Gibbs:
    """Chains on {0, …, S−1}ᵈ, x int64 `(b, d)`; a state after every sweep, which costs b d S log-densities.

    Raises:
        ValueError: fewer than 1 sweep, or warm-up < 0; when called, a model that is not a discrete log-density, or x that is
            not of its states.
    """

    steps: int = 1000
    """sweeps after the warm-up"""
    warmup: int = 100
    """sweeps that lead the chains to their law"""

    def __post_init__(self) -> None:
        check_counts(steps=self.steps)
        if self.warmup < 0:
            raise ValueError(f"warmup must be at least 0, got {self.warmup}")

    @torch.no_grad()
    def __call__(
        self, model: DiscreteDensity, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Iterator[State]:
        model = as_density(model)
        check_states(x, model.states)
        clean, always, none = torch.zeros(()), torch.ones(len(x)), torch.tensor(0.0)
        yield State(x, clean, {"warmup": torch.tensor(True)})
        for sweep in range(self.warmup + self.steps):
            x = x.clone()
            for i in range(x.shape[1]):
                probabilities = log_conditional(model, x, i, cond).exp()
                x[:, i] = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
            warm = torch.tensor(sweep < self.warmup)
            yield State(x, clean, {"warmup": warm, "acceptance": always, "step_size": none})
