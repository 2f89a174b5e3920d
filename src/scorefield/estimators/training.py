"""Training of the correction to a mixture by denoising, on rows that are complete or have gaps."""

import math
import signal
import time
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, TypeVar, cast

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from scorefield.data.transforms import Encoding
from scorefield.estimators.checkpoint import Checkpoint
from scorefield.estimators.flow import CHUNK, log_densities_of
from scorefield.estimators.imputation import completed
from scorefield.estimators.mixture import TAILS, drawn_gaps, rows_at_once
from scorefield.estimators.residual import MixtureParameters, MixtureResidual, States, observed_states
from scorefield.interfaces import Loss, Score
from scorefield.networks import MLPConfig
from scorefield.objectives import DenoisingScoreMatching, LogUniform
from scorefield.randomness import derive_seed, keyed_generator
from scorefield.system import Interruption
from scorefield.training.ema import update_average
from scorefield.training.muon import make_optimizer
from scorefield.training.state import Step, TrainState

JUDGES = 1024
"""held-out rows, at most, that choose between models by their likelihood"""
CHECKS = 25
"""of the average on held-out rows in a training"""
REFILLED = 2
"""checks between draws of the gaps"""
REFILLED_ROWS = 8192
"""whose gaps are drawn then, at most"""
PATIENCE = 6
"""checks without a better one after which it ends"""
SAVED_EVERY = 60.0
"""seconds"""
DRAWS = DenoisingScoreMatching(LogUniform())
"""of levels and noises"""
Learner = TypeVar("Learner", bound=nn.Module)


@dataclass(frozen=True)
class Table:
    """What is trained on: numbers of the rows `(n, d)` with their weights, and encoded held-out rows."""

    encoding: Encoding
    train: np.ndarray
    held_out: Tensor
    weights: np.ndarray | None

    @cached_property
    def gaps(self) -> bool:
        """Whether any value is missing."""
        return bool(np.isnan(self.train).any() or self.held_out.isnan().any())

    @cached_property
    def chances(self) -> Tensor | None:
        """Of the rows, where they differ."""
        return None if self.weights is None else torch.from_numpy(self.weights / self.weights.sum())

    @cached_property
    def encoded(self) -> Tensor:
        """Without dequantisation noise, float32."""
        return torch.from_numpy(self.encoding.encode(self.train)[0]).float()

    @cached_property
    def torn(self) -> Tensor:
        """Numbers of rows with gaps."""
        return torch.from_numpy(np.flatnonzero(np.isnan(self.train).any(1)))

    def patterns(self, size: int, generator: torch.Generator) -> Tensor:
        """Gaps of rows that have some, drawn anew: what is missing, `(size, d)`."""
        if not len(self.torn):
            return torch.zeros(size, self.train.shape[1], dtype=torch.bool)
        rows = self.torn[torch.randint(len(self.torn), (size,), generator=generator)]
        return torch.from_numpy(np.isnan(self.train[rows.numpy()]))

    def drawn(self, size: int, generator: torch.Generator) -> Tensor:
        """Numbers of rows."""
        if self.chances is None:
            return torch.randint(len(self.train), (size,), generator=generator)
        return torch.multinomial(self.chances, size, replacement=True, generator=generator)

    def noised(self, rows: Tensor, seed: int, step: int, purpose: str = "dequantise") -> Tensor:
        """Standardised rows with new dequantisation noise, float32."""
        if not self.encoding.widths.any():
            return self.encoded[rows]
        x = self.encoding.noised(self.train[rows.numpy()], seed, purpose, step)
        return torch.from_numpy(self.encoding.encode(x)[0]).float()


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
    masked: bool = True
    """in some batches, coordinates are left out or known, which a model must be able to be told"""
    verbose: bool = False
    device: str = "cpu"

    def best(self, bases: list[MixtureParameters], table: Table, checkpoint: Checkpoint | None = None) -> MixtureResidual:
        """Of a network trained on the first base, and of the bases alone, the model that suits held-out rows best: on the CPU,
        in double precision, nothing to train any more.

        Of many Gaussians the density is close, but what is missing to it is rough and hard to learn; to one Gaussian more is
        missing, and it is smooth.
        """
        models = [self.untrained(base) for base in bases]
        if self.steps:
            models.append(self.trained(self.untrained(bases[0]), table, checkpoint, completed_by(bases[-1], table, self.seed)))
        models = [model.double().eval().requires_grad_(False).to(self.device) for model in models]
        judges = table.held_out[:JUDGES].to(self.device)
        return max(models, key=lambda model: float(log_densities_of(model, judges, self.flow_steps).mean())).cpu()

    def untrained(self, base: MixtureParameters) -> MixtureResidual:
        """The base with a network that is 0 so far."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "weights of a table"))
            return MixtureResidual(base, self.network, self.sigma_range)

    def trained(
        self, model: Learner, table: Table, checkpoint: Checkpoint | None = None, filled: Tensor | None = None
    ) -> Learner:
        """Train a model; with the averaged weights whose loss on held-out rows was least, it ends when none was for long.

        `filled` are encoded rows without gaps, wanted of a table that has some. A signal ends it after the step that it fell in
        and after the checkpoint, which the same call goes on from.
        """
        learning = Learning(self, model, table, filled)
        state, saved = learning.state, -math.inf
        if checkpoint is not None:
            learning.filled = checkpoint.restore(state, learning.filled)
        with Progress(console=Console(stderr=True), disable=not self.verbose) as bar, Interruption() as interruption:
            task = bar.add_task("training", total=self.steps, completed=state.step)
            while not (learning.over or interruption.signal_number):
                learning.advance()
                bar.update(task, completed=state.step)
                if checkpoint is not None and (interruption.signal_number or time.monotonic() - saved > SAVED_EVERY):
                    checkpoint.save(state, learning.filled)
                    saved = time.monotonic()
        if interruption.signal_number:
            signal.raise_signal(interruption.signal_number)
        return state.chosen  # type: ignore[return-value]

    @property
    def check_every(self) -> int:
        """Steps between looks at held-out rows."""
        return max(20, self.steps // CHECKS)

    def fingerprint(self, table: Table, *others: object) -> str:
        """A digest of all that the weights depend on, but the machine."""
        settings = (
            self.network, self.sigma_range, self.steps, self.batch_size, self.learning_rate, self.flow_steps, self.seed,
            self.masked, *others,
        )  # fmt: skip
        digest = blake2b(repr((settings, table.encoding)).encode(), digest_size=16)
        for part in (table.train, table.held_out.numpy(), table.weights):
            digest.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


class Learning:
    """One model on its way.

    Rows with gaps are learnt from complete: the gaps are drawn from their law given the rest, at first under a mixture, later,
    and again and again, under the model itself. Coordinates are left out as another row's gaps are; were a model told the row's
    own gaps, it would learn the law of the rows that have these, which is another one where gaps depend on values that are
    there.

    Reference: Celeux & Diebolt 1985, Computational Statistics Quarterly 2:73 (stochastic EM); Zhang et al. 2024,
    arXiv:2405.20690 (with a diffusion).
    """

    def __init__(self, training: Training, model: nn.Module, table: Table, filled: Tensor | None = None) -> None:
        if table.gaps and training.masked and filled is None:
            raise ValueError("a table with gaps is learnt from completed rows: filled is wanted")
        self.training, self.table, self.filled = training, table, filled
        model = model.to(training.device)
        optimizer = make_optimizer("adam", model.parameters(), training.learning_rate, 0.99)
        average = deepcopy(model).requires_grad_(False)
        self.state = TrainState(Step(TableDenoising(training.device), model), average, optimizer)
        self.judge()

    @property
    def over(self) -> bool:
        """Whether all steps are done, or held-out rows have long seen no better."""
        return (
            self.state.step >= self.training.steps
            or self.state.step - self.state.best_step >= PATIENCE * self.training.check_every
        )

    def judge(self) -> None:
        """Remember the averaged weights if they are the best so far."""
        average, held_out = cast(Score, self.state.average), self.table.held_out.float()
        self.state.judge(validation_loss(average, held_out, self.training.seed, self.training.device))

    def advance(self) -> None:
        """One step."""
        training, table, state = self.training, self.table, self.state
        generator = keyed_generator(training.seed, "batches of a table", state.step)
        with_states = training.masked and state.step % (2 if table.gaps else 4) == 0
        size = max(1, min(training.batch_size // 2, len(table.train)))  # each comes twice
        if with_states and not table.gaps:
            size = max(1, size // 4)  # each has mixtures of its own
        rows = table.drawn(size, generator)
        x, states = table.noised(rows, training.seed, state.step), None
        if self.filled is not None:
            gaps = x.isnan()
            x = torch.where(gaps, self.filled[rows], x)
            if with_states:
                states = filling_states(x, gaps, table.patterns(size, generator), generator)
        elif with_states:
            states = random_states(x, generator)
        loss = state.train_step(x, states, generator).value.mean() / x.shape[1]
        state.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(state.train_step.parameters(), 1.0)
        decay = 0.5 * (1 + math.cos(math.pi * state.step / training.steps))
        for group in state.optimizer.param_groups:
            group["lr"] = training.learning_rate * min(1.0, (state.step + 1) / 50) * decay
        state.optimizer.step()
        state.step += 1
        update_average(state.average.parameters(), state.train_step.model.parameters(), state.step, 0.1)
        if state.step % training.check_every == 0 or state.step == training.steps:
            self.judge()
        if self.filled is not None and state.step % (REFILLED * training.check_every) == 0:
            self.refill()

    def refill(self) -> None:
        """Draw the gaps of at most `REFILLED_ROWS` rows anew, under the averaged model without the components for outliers."""
        assert self.filled is not None
        training, table, device, step = self.training, self.table, self.training.device, self.state.step
        model = cast(MixtureResidual, self.state.average).without(len(TAILS))
        order = torch.randperm(len(table.torn), generator=keyed_generator(training.seed, "rows whose gaps are drawn", step))
        rows = table.torn[order[:REFILLED_ROWS]]
        if not len(rows):
            return
        z = table.noised(rows, training.seed, step, "dequantise, to draw gaps").to(device)
        generator = keyed_generator(training.seed, "gaps of a table", step, device=device)
        size = rows_at_once(model.parameters_of_mixture)
        drawn = [completed(model, part, training.flow_steps, generator).cpu() for part in z.split(size)]
        self.filled[rows] = torch.cat(drawn)


def default_steps(rows: int) -> int:
    """About 150 passes over them, within bounds."""
    return min(8000, max(300, round(0.6 * rows)))


def completed_by(mixture: MixtureParameters, table: Table, seed: int) -> Tensor | None:
    """Encoded training rows whose gaps are drawn from a mixture, float32; None where there are none."""
    if not table.gaps:
        return None
    ordinary = MixtureParameters(*(part[: -len(TAILS)] for part in mixture))
    return torch.from_numpy(drawn_gaps(ordinary, table.encoded.double().numpy(), seed)).float()


def random_states(x: Tensor, generator: torch.Generator | None, left_out: Tensor | None = None) -> States:
    """Of what is not left out, some is absent and some known; shares are drawn afresh for each row, and something is scored."""
    here = torch.ones_like(x, dtype=torch.bool) if left_out is None else ~left_out
    absent, known = (torch.rand(len(x), 1, generator=generator) for _ in range(2))
    u, v, w = (torch.rand(x.shape, generator=generator) for _ in range(3))
    quiet = torch.rand(len(x), 1, generator=generator) < 0.5  # half of the rows lose nothing
    seen = here & (quiet | (u > absent / 2))
    one = (torch.where(here, w, -1.0) == torch.where(here, w, -1.0).amax(1, keepdim=True)) & here  # is always scored
    is_known = seen & (v < known) & ~one
    scored = (seen & ~is_known) | one
    return States(scored.to(x.dtype), is_known.to(x.dtype), torch.where(is_known, x, 0.0))


def filling_states(x: Tensor, gaps: Tensor, left_out: Tensor, generator: torch.Generator | None) -> States:
    """Half of the rows where anything is left out: one such coordinate is scored given all others, if it is no gap itself. The
    other rows at random.

    Where values are missing at random, whether one is missing says nothing of it that all others do not; so those that are
    there teach those that are not, without a detour by what the model drew for these. Whether a row is in that half has
    nothing to do with its own gaps; of some rows in it, nothing is scored.
    """
    lots = torch.where(left_out, torch.rand(x.shape, generator=generator), -1.0)
    one = (lots == lots.amax(1, keepdim=True)) & left_out
    scored, known = one & ~gaps, ~one
    chosen = left_out.any(1, keepdim=True) & (torch.rand(len(x), 1, generator=generator) < 0.5)
    asked = States(scored.to(x.dtype), known.to(x.dtype), torch.where(known, x, 0.0))
    others = random_states(x, generator, left_out)
    return States(*(torch.where(chosen, a, b) for a, b in zip(asked, others, strict=True)))


@dataclass(frozen=True)
class TableDenoising:
    """‖z − ẑ‖² over scored coordinates, at σ uniform in the logarithm: λ = g², which bounds the likelihood.

    Each row comes with a noise and with its negative, so there are two numbers a row, `(2b,)`. At small σ the noise to be
    guessed is of size 1 and what there is to learn of size σ; in the gradient of a smooth network the two noises cancel but for
    a part of size σ. All is drawn on the CPU, where the rows lie, and computed on the model's device.
    """

    device: str = "cpu"

    def __call__(self, model: Score, x: Tensor, cond: Any = None, *, generator: torch.Generator | None = None) -> Loss:
        sigma, z = DRAWS.draw(x, model.sigma_range, generator)
        sigma, z, x = (torch.cat(pair).to(self.device) for pair in ((sigma, sigma), (z, -z), (x, x)))
        if cond is None:
            return Loss(((z + sigma[:, None] * model.score(x + sigma[:, None] * z, sigma)) ** 2).sum(1), sigma, {})
        states = States(*(torch.cat([part, part]).to(self.device) for part in cond))
        noisy = states.scored * (x.nan_to_num(0.0) + sigma[:, None] * z)
        guessed = sigma[:, None] * model.score(noisy, sigma, states)  # type: ignore[arg-type]
        return Loss((states.scored * (z + guessed) ** 2).sum(1), sigma, {})


@torch.no_grad()
def validation_loss(model: Score, x: Tensor, seed: int, device: str = "cpu", draws: int = 4) -> float:
    """The objective on held-out rows, what is there scored, always with the same noise.

    A model that never saw which gaps go with which values cannot make use of being told them here.
    """
    objective, losses, gaps = TableDenoising(device), [], x.isnan().any(1)
    for draw in range(draws):
        for torn, group in enumerate((x[~gaps], x[gaps])):
            for i, rows in enumerate(group.split(CHUNK)):
                generator = keyed_generator(seed, "validation of a table", draw, torn, i)
                losses.append(objective(model, rows, observed_states(rows) if torn else None, generator=generator).value)
    return float(torch.cat(losses).mean())
