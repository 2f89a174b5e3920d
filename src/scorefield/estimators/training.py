"""Training of the correction to a mixture by denoising, on rows that are complete or have gaps."""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from scorefield.data.transforms import Encoding
from scorefield.estimators.flow import log_densities_of
from scorefield.estimators.residual import MixtureParameters, MixtureResidual, States, observed_states
from scorefield.interfaces import Energy, Score
from scorefield.networks import MLPConfig
from scorefield.objectives import DenoisingScoreMatching, LogUniform
from scorefield.randomness import derive_seed, keyed_generator
from scorefield.training.ema import update_average

JUDGES = 2048
"""held-out rows, at most, that choose between models by their likelihood"""
DRAWS = DenoisingScoreMatching(LogUniform())
"""of levels and noises"""
CHUNK = 1024


Learner = TypeVar("Learner", MixtureResidual, Energy)


@dataclass(frozen=True)
class Training:
    """Settings of one training."""

    network: MLPConfig
    sigma_range: tuple[float, float]
    steps: int
    batch_size: int
    learning_rate: float
    flow_steps: int
    seed: int
    verbose: bool

    def best(
        self, bases: list[MixtureParameters], encoding: Encoding, train: np.ndarray, validation: np.ndarray,
        weights: np.ndarray | None,
    ) -> MixtureResidual:  # fmt: skip
        """A network is trained on each base, and of all models, the bases alone among them, that which suits validation rows
        best is kept: double precision, nothing to train any more.

        Of many Gaussians the density is close, but what is missing to it is rough and hard to learn; to one Gaussian more is
        missing, and it is smooth. Which is better differs from table to table.
        """
        held_out = torch.from_numpy(encoding.encode(encoding.noised(validation, self.seed, "held out"))[0])
        models = [self.untrained(base) for base in bases]
        if self.steps:
            starts = [self.untrained(base) for base in bases]
            models += [self.trained(start, encoding, train, held_out.float(), weights) for start in starts]
        models = [model.double().eval().requires_grad_(False) for model in models]
        judges = held_out[:JUDGES]
        return max(models, key=lambda model: float(log_densities_of(model, judges, self.flow_steps).mean()))

    def untrained(self, base: MixtureParameters) -> MixtureResidual:
        """The base with a network that is 0 so far."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "weights of a table"))
            return MixtureResidual(base, self.network, self.sigma_range)

    def trained(
        self, model: Learner, encoding: Encoding, train: np.ndarray, held_out: Tensor, weights: np.ndarray | None,
        masked: bool = True,
    ) -> Learner:  # fmt: skip
        """The model after training, with the averaged weights whose loss on held-out rows was least.

        Args:
            masked: in some batches, coordinates are left out or known, which a model must be able to be told.
        """
        fresh = Fresh(encoding, train, self.seed)
        gaps = bool(np.isnan(train).any() or held_out.isnan().any())
        every = 2 if gaps else 4  # so often a batch has states
        rows_of_batch = max(1, min(self.batch_size // 2, len(train)))  # each comes twice
        chances = None if weights is None else torch.from_numpy(weights / weights.sum())
        average = deepcopy(model).requires_grad_(False)
        own = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(own, self.learning_rate, betas=(0.9, 0.99))
        check_every = max(20, self.steps // 25)
        best, least = deepcopy(model.state_dict()), validation_loss(model, held_out, self.seed)
        bar = track(range(self.steps), "training", console=Console(stderr=True), disable=not self.verbose)
        for step in bar:
            generator = keyed_generator(self.seed, "batches of a table", step)
            with_states = masked and step % every == 0
            rows = max(1, rows_of_batch // 4) if with_states and not gaps else rows_of_batch  # each has mixtures of its own
            x = fresh(drawn_rows(len(train), rows, chances, generator).numpy(), step)
            states = random_states(x, generator) if with_states else observed_states(x) if gaps else None
            loss = denoising_loss(model, x, states, generator).mean() / x.shape[1]
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(own, 1.0)
            decay = 0.5 * (1 + math.cos(math.pi * step / self.steps))
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * min(1.0, (step + 1) / 50) * decay
            optimizer.step()
            update_average(average.parameters(), model.parameters(), step + 1, 0.1)
            if (step + 1) % check_every == 0 or step + 1 == self.steps:
                reached = validation_loss(average, held_out, self.seed)
                if reached < least:
                    best, least = deepcopy(average.state_dict()), reached
        model.load_state_dict(best)
        return model


def default_steps(rows: int) -> int:
    """About 150 passes over them, within bounds."""
    return min(8000, max(300, round(0.6 * rows)))


class Fresh:
    """Standardised rows of a training table with new dequantisation noise in every batch, float32."""

    def __init__(self, encoding: Encoding, numbers: np.ndarray, seed: int) -> None:
        self.encoding, self.numbers, self.seed = encoding, numbers, seed
        self.fixed = None if encoding.widths.any() else torch.from_numpy(encoding.encode(numbers)[0]).float()

    def __call__(self, rows: np.ndarray, step: int) -> Tensor:
        if self.fixed is not None:
            return self.fixed[rows]
        x = self.encoding.noised(self.numbers[rows], self.seed, "dequantise", step)
        return torch.from_numpy(self.encoding.encode(x)[0]).float()


def drawn_rows(n: int, batch: int, chances: Tensor | None, generator: torch.Generator) -> Tensor:
    """Row numbers of a batch: uniform, or by weights."""
    if chances is None:
        return torch.randint(n, (batch,), generator=generator)
    return torch.multinomial(chances, batch, replacement=True, generator=generator)


def random_states(x: Tensor, generator: torch.Generator | None) -> States:
    """Of what is there, some is left out and some known; shares are drawn afresh for each row, and something is scored."""
    here = ~x.isnan()
    absent, known = (torch.rand(len(x), 1, generator=generator) for _ in range(2))
    u, v, w = (torch.rand(x.shape, generator=generator) for _ in range(3))
    quiet = torch.rand(len(x), 1, generator=generator) < 0.5  # half of the rows lose nothing
    seen = here & (quiet | (u > absent / 2))
    one = (torch.where(here, w, -1.0) == torch.where(here, w, -1.0).amax(1, keepdim=True)) & here  # is always scored
    is_known = seen & (v < known) & ~one
    scored = (seen & ~is_known) | one
    return States(scored.to(x.dtype), is_known.to(x.dtype), torch.where(is_known, x, 0.0))


def denoising_loss(model: Score, x: Tensor, states: States | None, generator: torch.Generator | None) -> Tensor:
    """‖z − ẑ‖² over scored coordinates, at σ uniform in the logarithm, `(2b,)`: λ = g², which bounds the likelihood.

    Each row comes with a noise and with its negative. At small σ the noise to be guessed is of size 1 and what there is to
    learn of size σ; in the gradient of a smooth network the two noises cancel but for a part of size σ.
    """
    sigma, z = DRAWS.draw(x, model.sigma_range, generator)
    sigma, z, x = torch.cat([sigma, sigma]), torch.cat([z, -z]), torch.cat([x, x])
    if states is None:
        return ((z + sigma[:, None] * model.score(x + sigma[:, None] * z, sigma)) ** 2).sum(1)
    states = States(*(torch.cat([part, part]) for part in states))
    noisy = states.scored * (x.nan_to_num(0.0) + sigma[:, None] * z)
    return (states.scored * (z + sigma[:, None] * model.score(noisy, sigma, states)) ** 2).sum(1)  # type: ignore[arg-type]


@torch.no_grad()
def validation_loss(model: Score, x: Tensor, seed: int, draws: int = 4) -> float:
    """The objective on held-out rows, what is there scored, always with the same noise."""
    states = observed_states(x) if x.isnan().any() else None
    losses = []
    for draw in range(draws):
        for i, rows in enumerate(torch.arange(len(x)).split(CHUNK)):
            generator = keyed_generator(seed, "validation of a table", draw, i)
            losses.append(denoising_loss(model, x[rows], None if states is None else states.of(rows), generator))
    return float(torch.cat(losses).mean())
