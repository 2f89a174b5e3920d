"""A density of a table behind scikit-learn's interface.

Reference: Hyvärinen 2005 and Vincent 2011 (score matching), Song et al. 2021, arXiv:2101.09258 (weighted by g², the loss bounds
the likelihood); Vovk et al. 2005 (conformal p-values).
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import save
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from scorefield.data.columns import ColumnKind, as_frame, described, infer
from scorefield.data.transforms import Encoding, fitted_encoding
from scorefield.errors import UserError
from scorefield.estimators.mixture import COUNTS, fitted_mixture_with_gaps
from scorefield.estimators.residual import (
    ClosedForm,
    MixtureParameters,
    MixtureResidual,
    MixtureTrace,
    OfRows,
    States,
)
from scorefield.likelihood import FlowLikelihood
from scorefield.networks import MLPConfig
from scorefield.objectives import DenoisingScoreMatching, LogUniform, PowerWeighting
from scorefield.persistence import from_json, read_weights, to_json
from scorefield.randomness import derive_seed, keyed_generator
from scorefield.samplers import Heun, RungeKutta4
from scorefield.system import write_durably
from scorefield.training.ema import update_average

FEWEST = 3
"""rows"""
CHUNK = 1024
"""rows whose densities are computed together"""
OBJECTIVE = DenoisingScoreMatching(LogUniform(), PowerWeighting(-2.0))
"""λ = g²: uniform in log σ, ‖z − ẑ‖²"""
LEVELS = 10
"""noise levels of the anomaly score, from `FINE` to `COARSE`"""
FINE, COARSE = 0.05, 2.0
NOISES = 8
"""noises at each of them, half of them the others' negatives; the same for every row"""


@dataclass(frozen=True)
class Parts:
    """Everything about a fitted density but its weights; config.json."""

    encoding: Encoding
    network: MLPConfig
    sigma_range: tuple[float, float]
    components: int
    seed: int
    flow_steps: int
    named: bool
    """whether the table had names of its own"""


class ScoreDensity(DensityMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """log-density, samples, scores and anomaly p-values of the rows of a table.

    A Gaussian mixture is fitted first; a network learns what is missing to the data's score by denoising at all noise levels,
    and is kept only as far as it helps held-out rows. Tables are arrays `(n, d)`, or pandas, polars or Arrow tables.

    Args:
        columns: what columns are, by name, where it should not be found from the values: continuous, positive, bounded,
            integer, binary, categorical, datetime or constant.
        components: of the mixture; "auto" tries more as long as they help.
        steps: of training; "auto" is about 25 √n. 0 leaves the mixture alone.
        width, blocks: of the network.
        batch_size, learning_rate: of training.
        sigma_range: smallest and largest noise level, in standard deviations of the warped columns.
        flow_steps: of the solver of log-densities.
        validation_fraction, calibration_fraction: shares of the rows that choose when to stop, and that p-values are
            calibrated on; neither serves anything else.
        random_state: an integer, or a RandomState that gives one; None is 0. The same gives the same.
        verbose: show a progress bar.

    Attributes:
        columns_: the columns as a data frame.
        n_features_in_, feature_names_in_: as everywhere.
    """

    def __init__(
        self,
        columns: dict[str, ColumnKind] | None = None,
        components: int | Literal["auto"] = "auto",
        steps: int | Literal["auto"] = "auto",
        width: int = 128,
        blocks: int = 3,
        batch_size: int = 512,
        learning_rate: float = 1e-3,
        sigma_range: tuple[float, float] = (0.01, 6.0),
        flow_steps: int = 20,
        validation_fraction: float = 0.1,
        calibration_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.columns = columns
        self.components = components
        self.steps = steps
        self.width = width
        self.blocks = blocks
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.sigma_range = sigma_range
        self.flow_steps = flow_steps
        self.validation_fraction = validation_fraction
        self.calibration_fraction = calibration_fraction
        self.random_state = random_state
        self.verbose = verbose

    # ── fitting ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def fit(self, X: Any, y: object = None, sample_weight: Any = None) -> "ScoreDensity":
        """Fit to the rows of `X`; `y` is not used.

        Raises:
            ValueError: a table that cannot be read as one (`UserError`), missing values, weights that are negative or all zero.
        """
        frame, seed = self._frame(X, reset=True), seed_of(self.random_state)
        weights = checked_weights(sample_weight, len(frame))
        if len(frame) < FEWEST:
            raise UserError(f"a density needs at least {FEWEST} rows, to train and to be judged; n_samples = {len(frame)}")
        columns = infer(frame, self.columns)
        if all(c.kind == "constant" for c in columns):
            raise UserError("every column is constant: there is nothing to model")
        encoding = fitted_encoding(frame, columns, seed)
        numbers = encoding.numbers(frame)
        check_rows(numbers)
        train, validation, calibration = self._split(len(numbers), seed)
        z = encoding.encode(encoding.noised(numbers, seed, "mixture of a table"))[0]
        counts = COUNTS if self.components == "auto" else (int(self.components),)
        seen = z[train] if weights is None else z[train][resampled(weights[train], seed)]
        mixture = fitted_mixture_with_gaps(seen, z[validation], counts, seed)
        self.model_ = self._trained(mixture, encoding, numbers, train, validation, weights, seed)
        self.parts_ = Parts(
            encoding,
            self._network(),
            self._levels(),
            len(mixture.weights),
            seed,
            int(self.flow_steps),
            hasattr(self, "feature_names_in_"),
        )
        self.columns_ = described(columns)
        own = encoding.encode(encoding.dequantised(numbers[calibration], seed))[0]  # as rows to be scored get it
        self.calibration_scores_ = np.sort(self._anomaly(own))
        return self

    def _network(self) -> MLPConfig:
        return MLPConfig(int(self.width), int(self.blocks), frequencies=5)

    def _levels(self) -> tuple[float, float]:
        low, high = self.sigma_range
        return float(low), float(high)

    def _split(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows for training, validation and calibration, at least one of each."""
        order = np.random.default_rng(derive_seed(seed, "rows of a table")).permutation(n)
        most = (n - 1) // 2
        validation, calibration = (
            min(most, max(1, round(f * n))) for f in (self.validation_fraction, self.calibration_fraction)
        )
        return order[validation + calibration :], order[:validation], order[validation : validation + calibration]

    def _trained(
        self, mixture: MixtureParameters, encoding: Encoding, numbers: np.ndarray, train: np.ndarray, validation: np.ndarray,
        weights: np.ndarray | None, seed: int,
    ) -> MixtureResidual:  # fmt: skip
        """The model after training, with the weights that suit validation rows best, the untrained ones among them."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "weights of a table"))
            model = MixtureResidual(mixture, self._network(), self._levels())
        steps = round(25 * math.sqrt(len(train))) if self.steps == "auto" else int(self.steps)
        if steps == 0:
            return model.double().eval().requires_grad_(False)
        fresh = Fresh(encoding, numbers[train], seed)
        held_out = torch.from_numpy(encoding.encode(encoding.noised(numbers[validation], seed, "held out"))[0]).float()
        gaps = bool(np.isnan(numbers).any())
        every = 2 if gaps else 4  # so often a batch has states
        batch = min(int(self.batch_size), len(train))
        chances = None if weights is None else torch.from_numpy(weights[train] / weights[train].sum())
        average = deepcopy(model).requires_grad_(False)
        own = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(own, self.learning_rate, betas=(0.9, 0.99))
        check_every = max(20, steps // 25)
        best, least = deepcopy(model.correction.state_dict()), validation_loss(model, held_out, seed)
        for step in track(range(steps), "training", console=Console(stderr=True), disable=not self.verbose):
            generator = keyed_generator(seed, "batches of a table", step)
            rows = drawn_rows(len(train), batch, chances, generator)
            x = fresh(rows.numpy(), step)
            states = random_states(x, generator) if step % every == 0 else observed_states(x) if gaps else None
            loss = denoising_loss(model, x, states, generator).mean() / x.shape[1]
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(own, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.step()
            update_average(average.parameters(), model.parameters(), step + 1, 0.1)
            if (step + 1) % check_every == 0 or step + 1 == steps:
                reached = validation_loss(average, held_out, seed)
                if reached < least:
                    best, least = deepcopy(average.correction.state_dict()), reached
        model.correction.load_state_dict(best)
        model = model.double().eval().requires_grad_(False)
        judges = held_out.double()[: 2 * CHUNK]
        gain = log_density_of(model, judges, int(self.flow_steps)) - log_density_of(
            untrained(model), judges, int(self.flow_steps)
        )
        return model if gain.mean() > 0 else untrained(model)

    # ── what is known afterwards ───────────────────────────────────────────────────────────────────────────────────────

    def score_samples(self, X: Any) -> np.ndarray:
        """log-density of each row `(n,)`, nats, in the units of the table; float64, on a fixed grid, with the exact trace.

        Of discrete columns it is that of the value with uniform noise, a function of the row: on average at most the
        logarithm of the value's probability. Of a row with missing values it is that of the others.
        """
        z, slope = self._encoded(X)
        return self._log_density(z) + np.nansum(slope, 1)

    def score(self, X: Any, y: object = None) -> float:
        """The mean log-density, nats a row."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Any:
        """New rows: an array if it was fitted on one, else a pandas data frame with the columns of the table."""
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples}")
        seed = self.parts_.seed if random_state is None else seed_of(random_state)
        sampler = Heun(steps=self.parts_.flow_steps, sigma_range=self.parts_.sigma_range)
        parts = []
        for chunk in range(-(-n_samples // CHUNK)):
            generator = keyed_generator(seed, "samples of a table", chunk)
            start = self.model_.mixture.sample(CHUNK, self.parts_.sigma_range[1], generator=generator)
            *_, state = sampler(self.model_, start, generator=generator)
            parts.append(state.x.numpy())
        frame = self.parts_.encoding.decode(np.concatenate(parts)[:n_samples])
        return frame if hasattr(self, "feature_names_in_") else frame.to_numpy()

    def impute(self, X: Any, n_draws: int = 1, random_state: int | np.random.RandomState | None = None) -> list[Any]:
        """Tables like `X` whose missing values are drawn from their law given the others, `n_draws` of them.

        Values are taken to be missing at random: that they are may depend on what is there, not on what is not.
        """
        numbers = self._numbers(X)
        if n_draws < 1:
            raise ValueError(f"n_draws must be at least 1, got {n_draws}")
        encoding, seed = self.parts_.encoding, self.parts_.seed if random_state is None else seed_of(random_state)
        z = encoding.encode(encoding.dequantised(numbers, self.parts_.seed))[0]
        incomplete = np.flatnonzero(np.isnan(z).any(1))
        frame, found = self._frame(X, reset=False), []
        for draw in range(n_draws):
            filled = z.copy()
            for chunk, start in enumerate(range(0, len(incomplete), CHUNK)):
                rows = incomplete[start : start + CHUNK]
                generator = keyed_generator(seed, "imputation", draw, chunk)
                filled[rows] = self._completed(torch.from_numpy(z[rows]), generator).numpy()
            drawn = encoding.decode(filled)
            complete = frame.copy()
            for name in frame.columns:
                gaps = frame[name].isna()
                if gaps.any():
                    complete[name] = frame[name].where(~gaps, drawn[name])
            found.append(complete if isinstance(X, pd.DataFrame) or hasattr(X, "to_pandas") else complete.to_numpy(np.float64))
        return found

    @torch.no_grad()
    def _completed(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Rows whose NaNs are drawn given the others."""
        gaps = z.isnan()
        known = torch.where(gaps, 0.0, z)
        states = States(gaps.double(), (~gaps).double(), known)
        low, high = self.parts_.sigma_range
        model = OfRows(self.model_, states)
        start = model.mixture.sample(high, generator)
        *_, state = Heun(steps=self.parts_.flow_steps, sigma_range=(low, high))(model, start, generator=generator)
        return torch.where(gaps, state.x, known)

    def stein_score(self, X: Any) -> np.ndarray:
        """∇ log p `(n, d)` in the units of the table, a column for each modelled one; of discrete ones with their noise.

        Where a value is missing there is NaN.
        """
        encoding, numbers = self.parts_.encoding, self._numbers(X)
        x = encoding.dequantised(numbers, self.parts_.seed)
        z, slope = encoding.encode(x)
        own = np.concatenate(
            [self._score(part, self.parts_.sigma_range[0]).numpy() for part in torch.from_numpy(z).split(CHUNK)]
        )
        return own * np.exp(slope) + encoding.slope_of_slope(x)

    @torch.no_grad()
    def _score(self, z: Tensor, sigma: float) -> Tensor:
        """Of rows, gaps left out."""
        if not z.isnan().any():
            return self.model_.score(z, sigma)
        return self.model_.score(z.nan_to_num(0.0), sigma, observed_states(z))

    def anomaly_score(self, X: Any) -> np.ndarray:
        """How badly each row is denoised, summed over noise levels `(n,)`: higher is more anomalous."""
        return self._anomaly(self._encoded(X)[0])

    def anomaly_pvalue(self, X: Any) -> np.ndarray:
        """(1 + #{calibration rows at least as anomalous})/(n + 1) `(n,)`: below α for a share of at most α of ordinary rows."""
        scores, calibration = self.anomaly_score(X), self.calibration_scores_
        as_bad = len(calibration) - np.searchsorted(calibration, scores, side="left")
        return (1 + as_bad) / (len(calibration) + 1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    # ── files ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def save(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors into a folder; nothing in them is executed when they are read."""
        check_is_fitted(self)
        folder, config = Path(folder), to_json(self.parts_)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.contiguous() for k, v in self.model_.state_dict().items()}
        tensors["calibration_scores"] = torch.from_numpy(self.calibration_scores_)
        write_durably(folder / "model.safetensors", save(tensors))
        write_durably(folder / "config.json", config)

    @classmethod
    def load(cls, folder: str | Path) -> "ScoreDensity":
        """What `save` wrote; raises `UserError` for anything else."""
        folder = Path(folder)
        parts, tensors = from_json(Parts, folder / "config.json"), read_weights(folder / "model.safetensors")
        found = cls(width=parts.network.width, blocks=parts.network.blocks, sigma_range=parts.sigma_range,
                    flow_steps=parts.flow_steps, random_state=parts.seed)  # fmt: skip
        try:
            found.calibration_scores_ = tensors.pop("calibration_scores").numpy()
            mixture = MixtureParameters(*(tensors[name] for name in MixtureParameters._fields))
            model = MixtureResidual(mixture, parts.network, parts.sigma_range).double()
            model.load_state_dict(tensors)
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{folder / 'model.safetensors'} does not fit config.json: {error}") from error
        found.parts_, found.model_ = parts, model.eval().requires_grad_(False)
        found.columns_ = described(parts.encoding.columns)
        found.n_features_in_ = len(parts.encoding.columns)
        if parts.named:
            found.feature_names_in_ = np.array([c.name for c in parts.encoding.columns], dtype=object)
        return found

    # ── inside ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _frame(self, X: Any, *, reset: bool) -> pd.DataFrame:
        """A table as a data frame, checked as scikit-learn does: the same columns in the same order, no complex numbers."""
        if isinstance(X, pd.DataFrame) or hasattr(X, "to_pandas"):
            frame = as_frame(X)
            validate_data(self, frame, reset=reset, skip_check_array=True)
            return frame
        return as_frame(validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan"))

    def _numbers(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        frame = self._frame(X, reset=False)
        numbers = self.parts_.encoding.numbers(frame)
        check_rows(numbers)
        return numbers

    def _encoded(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        encoding = self.parts_.encoding
        return encoding.encode(encoding.dequantised(self._numbers(X), self.parts_.seed))

    def _log_density(self, z: np.ndarray, model: MixtureResidual | None = None) -> np.ndarray:
        """Of standardised rows, by the probability flow up to σ_max and the mixture there.

        Most of the solver's error is that of the mixture's own flow, whose density is known: that error is taken away.
        """
        x, out = torch.from_numpy(z), torch.empty(len(z), dtype=torch.float64)
        gaps = x.isnan().any(1)
        for group in (~gaps, gaps):
            rows = group.nonzero()[:, 0]
            for part in rows.split(CHUNK):
                out[part] = log_density_of(model or self.model_, x[part], int(self.flow_steps))
        return out.numpy()

    @torch.no_grad()
    def _anomaly(self, z: np.ndarray) -> np.ndarray:
        """Σ over levels of the mean of ‖z − ẑ‖²/d, under noises that are the same for every row."""
        d = z.shape[1]
        half = torch.randn(NOISES // 2, 1, d, generator=keyed_generator(0, "noises"), dtype=torch.float64)
        noises = torch.cat([half, -half])
        out = []
        for part in torch.from_numpy(z).split(CHUNK):
            here = (~part.isnan()).double()
            total = torch.zeros(len(part), dtype=torch.float64)
            for sigma in np.geomspace(FINE, COARSE, LEVELS).tolist():
                for noise in noises:
                    error = here * (noise + sigma * self._score(part + sigma * noise, sigma))
                    total += (error**2).sum(1) / here.sum(1) / NOISES
            out.append(total)
        return torch.cat(out).numpy()


def untrained(model: MixtureResidual) -> MixtureResidual:
    """The same with a network that is 0: the mixture."""
    plain = deepcopy(model)
    leave: torch.nn.Linear = plain.correction.network.leave  # type: ignore[assignment]
    torch.nn.init.zeros_(leave.weight)
    torch.nn.init.zeros_(leave.bias)
    return plain


def log_density_of(model: MixtureResidual, x: Tensor, steps: int) -> Tensor:
    """log p_σmin of standardised rows, all complete or all with gaps, `(b,)`, by the flow up to σ_max and the mixture there.

    Most of the solver's error is that of the mixture's own flow, whose density is known: that error is taken away.
    """
    low, high = model.sigma_range
    rows: MixtureResidual | OfRows = model
    if x.isnan().any():
        rows, x = OfRows(model, observed_states(x)), x.nan_to_num(0.0)
    exact = rows.mixture.log_density(x, low)
    if model.untouched:
        return exact
    solver = RungeKutta4(steps, sigma_range=(low, high))
    whole = FlowLikelihood(solver, MixtureTrace())(rows, x, prior=rows.mixture)
    part = FlowLikelihood(solver, ClosedForm())(Levelled(rows.mixture, (low, high)), x, prior=rows.mixture)
    return exact + whole.log_density - part.log_density


class Levelled(NamedTuple):
    """A mixture as a score with a range of levels."""

    density: Any
    sigma_range: tuple[float, float]

    def score_and_laplacian(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """The density's own."""
        return self.density.score_and_laplacian(x, sigma)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """The density's own."""
        return self.density.score(x, sigma)


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


def observed_states(x: Tensor) -> States:
    """All that is there is scored."""
    here = (~x.isnan()).to(x.dtype)
    return States(here, torch.zeros_like(here), torch.zeros_like(here))


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


def denoising_loss(model: MixtureResidual, x: Tensor, states: States | None, generator: torch.Generator | None) -> Tensor:
    """‖z − ẑ‖² over scored coordinates, at σ uniform in the logarithm, `(b,)`: λ = g²."""
    if states is None:
        return OBJECTIVE(model, x, generator=generator).value
    sigma, z = OBJECTIVE.draw(x, model.sigma_range, generator)
    noisy = states.scored * (x.nan_to_num(0.0) + sigma[:, None] * z)
    return (states.scored * (z + sigma[:, None] * model.score(noisy, sigma, states)) ** 2).sum(1)


@torch.no_grad()
def validation_loss(model: MixtureResidual, x: Tensor, seed: int, draws: int = 4) -> float:
    """The objective on held-out rows, what is there scored, always with the same noise."""
    states = observed_states(x) if x.isnan().any() else None
    losses = []
    for draw in range(draws):
        for i, rows in enumerate(torch.arange(len(x)).split(CHUNK)):
            generator = keyed_generator(seed, "validation of a table", draw, i)
            losses.append(denoising_loss(model, x[rows], None if states is None else states.of(rows), generator))
    return float(torch.cat(losses).mean())


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """The seed that a random state stands for."""
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    return int(random_state or 0)


def checked_weights(weights: Any, n: int) -> np.ndarray | None:
    """Weights `(n,)`, None where all are one; raises `ValueError` for others than non-negative ones that are not all 0."""
    if weights is None:
        return None
    found = np.asarray(weights, dtype=np.float64)
    found = np.full(n, found) if found.ndim == 0 else found
    if found.shape != (n,) or not np.isfinite(found).all() or (found < 0).any() or not found.any():
        raise ValueError(f"sample_weight must be {n} finite numbers of at least 0, not all zero")
    return None if (found == found[0]).all() else found


def resampled(weights: np.ndarray, seed: int) -> np.ndarray:
    """Row numbers drawn by their weights, as many as there are."""
    rng = np.random.default_rng(derive_seed(seed, "weighted rows"))
    return rng.choice(len(weights), len(weights), p=weights / weights.sum())


def check_rows(numbers: np.ndarray) -> None:
    """Raises `UserError` for a row without any value, with its number."""
    empty = np.flatnonzero(np.isnan(numbers).all(1))
    if len(empty):
        raise UserError(f"row {empty[0]} has no values: leave it out")
