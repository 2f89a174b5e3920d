"""A density of a table behind scikit-learn's interface.

Reference: Hyvärinen 2005 and Vincent 2011 (score matching), Song et al. 2021, arXiv:2101.09258 (weighted by g², the loss bounds
the likelihood); Vovk et al. 2005 (conformal p-values).
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from scorefield.data.columns import ColumnKind, as_frame, described, infer
from scorefield.data.transforms import Encoding, fitted_encoding
from scorefield.errors import UserError
from scorefield.estimators.mixture import COUNTS, fitted_mixture
from scorefield.estimators.residual import ClosedForm, MixtureParameters, MixtureResidual, MixtureTrace
from scorefield.likelihood import FlowLikelihood
from scorefield.networks import MLPConfig
from scorefield.objectives import DenoisingScoreMatching, LogUniform, PowerWeighting
from scorefield.persistence import from_json, read_weights, to_json
from scorefield.randomness import derive_seed, keyed_generator
from scorefield.samplers import Heun, RungeKutta4
from scorefield.system import write_durably
from scorefield.training.ema import update_average

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
        random_state: an integer; the same gives the same.

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
        random_state: int = 0,
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

    # ── fitting ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def fit(self, X: Any, y: object = None, sample_weight: Any = None) -> "ScoreDensity":
        """Fit to the rows of `X`; `y` is not used.

        Raises:
            ValueError: a table that cannot be read as one (`UserError`), missing values, weights that are negative or all zero.
        """
        frame, seed = as_frame(X), int(self.random_state)
        weights = checked_weights(sample_weight, len(frame))
        columns = infer(frame, self.columns)
        encoding = fitted_encoding(frame, columns, seed)
        if not encoding.modelled:
            raise UserError("every column is constant: there is nothing to model")
        numbers = encoding.numbers(frame)
        check_complete(numbers, encoding)
        train, validation, calibration = self._split(len(numbers), seed)
        z = encoding.encode(encoding.dequantised(numbers, seed))[0]
        counts = COUNTS if self.components == "auto" else (int(self.components),)
        seen = z[train] if weights is None else z[train][resampled(weights[train], seed)]
        mixture = fitted_mixture(seen, z[validation], counts, seed)
        self.model_ = self._trained(mixture, encoding, numbers, train, validation, weights, seed)
        self.parts_ = Parts(encoding, self._network(), self._levels(), len(mixture.weights), seed, int(self.flow_steps))
        self.columns_ = described(columns)
        self.n_features_in_ = len(columns)
        if not isinstance(X, np.ndarray | list):
            self.feature_names_in_ = np.array([c.name for c in columns], dtype=object)
        self.calibration_scores_ = np.sort(self._anomaly(z[calibration]))
        return self

    def _network(self) -> MLPConfig:
        return MLPConfig(int(self.width), int(self.blocks), frequencies=5)

    def _levels(self) -> tuple[float, float]:
        low, high = self.sigma_range
        return float(low), float(high)

    def _split(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows for training, validation and calibration, at least one of each."""
        order = np.random.default_rng(derive_seed(seed, "rows of a table")).permutation(n)
        validation, calibration = (max(1, round(f * n)) for f in (self.validation_fraction, self.calibration_fraction))
        if n < validation + calibration + 1:
            raise UserError(f"a density needs at least 3 rows for training, validation and calibration; n_samples = {n}")
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
            return model.eval()
        fresh = Fresh(encoding, numbers[train], seed)
        held_out = torch.from_numpy(encoding.encode(encoding.dequantised(numbers[validation], seed))[0]).float()
        batch = min(int(self.batch_size), len(train))
        chances = None if weights is None else torch.from_numpy(weights[train] / weights[train].sum())
        average = deepcopy(model).requires_grad_(False)
        own = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(own, self.learning_rate, betas=(0.9, 0.99))
        check_every = max(20, steps // 25)
        best, least = deepcopy(model.correction.state_dict()), validation_loss(model, held_out, seed)
        for step in range(steps):
            generator = keyed_generator(seed, "batches of a table", step)
            rows = drawn_rows(len(train), batch, chances, generator)
            x = fresh(rows.numpy(), step)
            loss = OBJECTIVE(model, x, generator=generator).value.mean() / x.shape[1]
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
        return model.eval().requires_grad_(False)

    # ── what is known afterwards ───────────────────────────────────────────────────────────────────────────────────────

    def score_samples(self, X: Any) -> np.ndarray:
        """log-density of each row `(n,)`, nats, in the units of the table; float64, on a fixed grid, with the exact trace.

        Of discrete columns it is that of the value with uniform noise, a function of the row: on average at most the
        logarithm of the value's probability.
        """
        z, slope = self._encoded(X)
        return self._log_density(z) + slope.sum(1)

    def score(self, X: Any, y: object = None) -> float:
        """The mean log-density, nats a row."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: int | None = None) -> Any:
        """New rows: an array if it was fitted on one, else a pandas data frame with the columns of the table."""
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples}")
        seed = self.parts_.seed if random_state is None else int(random_state)
        sampler = Heun(steps=self.parts_.flow_steps, sigma_range=self.parts_.sigma_range)
        parts = []
        for chunk in range(-(-n_samples // CHUNK)):
            generator = keyed_generator(seed, "samples of a table", chunk)
            start = self.model_.mixture.sample(CHUNK, self.parts_.sigma_range[1], generator=generator)
            *_, state = sampler(self._double(), start, generator=generator)
            parts.append(state.x.numpy())
        frame = self.parts_.encoding.decode(np.concatenate(parts)[:n_samples])
        return frame if hasattr(self, "feature_names_in_") else frame.to_numpy()

    def stein_score(self, X: Any) -> np.ndarray:
        """∇ log p `(n, d)` in the units of the table, a column for each modelled one; of discrete ones with their noise."""
        encoding, numbers = self.parts_.encoding, self._numbers(X)
        x = encoding.dequantised(numbers, self.parts_.seed)
        z, slope = encoding.encode(x)
        low = self.parts_.sigma_range[0]
        own = np.concatenate([self._double().score(part, low).numpy() for part in torch.from_numpy(z).split(CHUNK)])
        return own * np.exp(slope) + encoding.slope_of_slope(x)

    def anomaly_score(self, X: Any) -> np.ndarray:
        """How badly each row is denoised, summed over noise levels `(n,)`: higher is more anomalous."""
        return self._anomaly(self._encoded(X)[0])

    def anomaly_pvalue(self, X: Any) -> np.ndarray:
        """(1 + #{calibration rows at least as anomalous})/(n + 1) `(n,)`: below α for a share of at most α of ordinary rows."""
        scores, calibration = self.anomaly_score(X), self.calibration_scores_
        as_bad = len(calibration) - np.searchsorted(calibration, scores, side="left")
        return (1 + as_bad) / (len(calibration) + 1)

    # ── files ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def save(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors into a folder; nothing in them is executed when they are read."""
        check_is_fitted(self)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.contiguous() for k, v in self.model_.state_dict().items()}
        tensors["calibration_scores"] = torch.from_numpy(self.calibration_scores_)
        write_durably(folder / "model.safetensors", save(tensors))
        write_durably(folder / "config.json", to_json(self.parts_))

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
            model = MixtureResidual(mixture, parts.network, parts.sigma_range)
            model.load_state_dict(tensors)
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{folder / 'model.safetensors'} does not fit config.json: {error}") from error
        found.parts_, found.model_ = parts, model.eval().requires_grad_(False)
        found.columns_ = described(parts.encoding.columns)
        found.n_features_in_ = len(parts.encoding.columns)
        found.feature_names_in_ = np.array([c.name for c in parts.encoding.columns], dtype=object)
        return found

    # ── inside ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _double(self) -> MixtureResidual:
        """The model in float64."""
        kept: tuple[MixtureResidual, MixtureResidual] | None = getattr(self, "_double_model", None)
        if kept is None or kept[0] is not self.model_:
            kept = self._double_model = (self.model_, deepcopy(self.model_).double())
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "_double_model"}

    def _numbers(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        frame = as_frame(X)
        if len(frame.columns) != self.n_features_in_:
            expected = f"{type(self).__name__} is expecting {self.n_features_in_} features as input"
            raise ValueError(f"X has {len(frame.columns)} features, but {expected}")
        numbers = self.parts_.encoding.numbers(frame)
        check_complete(numbers, self.parts_.encoding)
        return numbers

    def _encoded(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        encoding = self.parts_.encoding
        return encoding.encode(encoding.dequantised(self._numbers(X), self.parts_.seed))

    def _log_density(self, z: np.ndarray) -> np.ndarray:
        """Of standardised rows, by the probability flow up to σ_max and the mixture there.

        Most of the solver's error is that of the mixture's own flow, whose density is known: that error is taken away.
        """
        model, (low, high) = self._double(), self.parts_.sigma_range
        x, mixture = torch.from_numpy(z), model.mixture
        exact = mixture.log_density(x, low)
        if model.untouched:
            return exact.numpy()
        solver = RungeKutta4(self.parts_.flow_steps, sigma_range=(low, high))
        whole, part = FlowLikelihood(solver, MixtureTrace()), FlowLikelihood(solver, ClosedForm())
        found = [
            whole(model, rows, prior=mixture).log_density - part(mixture, rows, prior=mixture).log_density
            for rows in x.split(CHUNK)
        ]
        return (exact + torch.cat(found)).numpy()

    @torch.no_grad()
    def _anomaly(self, z: np.ndarray) -> np.ndarray:
        """Σ over levels of the mean of ‖z − ẑ‖²/d, under noises that are the same for every row."""
        model, d = self._double(), z.shape[1]
        half = torch.randn(NOISES // 2, 1, d, generator=keyed_generator(0, "noises"), dtype=torch.float64)
        noises = torch.cat([half, -half])
        out = []
        for part in torch.from_numpy(z).split(CHUNK):
            total = torch.zeros(len(part), dtype=torch.float64)
            for sigma in np.geomspace(FINE, COARSE, LEVELS).tolist():
                for noise in noises:
                    error = noise + sigma * model.score(part + sigma * noise, sigma)
                    total += (error**2).mean(1) / NOISES
            out.append(total)
        return torch.cat(out).numpy()


class Fresh:
    """Standardised rows of a training table with new dequantisation noise in every batch, float32."""

    def __init__(self, encoding: Encoding, numbers: np.ndarray, seed: int) -> None:
        self.encoding, self.numbers, self.seed = encoding, numbers, seed
        self.widths = np.array([c.resolution for c in encoding.modelled])
        self.fixed = None if self.widths.any() else torch.from_numpy(encoding.encode(numbers)[0]).float()

    def __call__(self, rows: np.ndarray, step: int) -> Tensor:
        if self.fixed is not None:
            return self.fixed[rows]
        noise = np.random.default_rng(derive_seed(self.seed, "dequantise", step)).random((len(rows), len(self.widths))) - 0.5
        return torch.from_numpy(self.encoding.encode(self.numbers[rows] + self.widths * noise)[0]).float()


def drawn_rows(n: int, batch: int, chances: Tensor | None, generator: torch.Generator) -> Tensor:
    """Row numbers of a batch: uniform, or by weights."""
    if chances is None:
        return torch.randint(n, (batch,), generator=generator)
    return torch.multinomial(chances, batch, replacement=True, generator=generator)


@torch.no_grad()
def validation_loss(model: MixtureResidual, x: Tensor, seed: int, draws: int = 4) -> float:
    """The objective on held-out rows, always with the same noise."""
    losses = [
        OBJECTIVE(model, part, generator=keyed_generator(seed, "validation of a table", draw, i)).value
        for draw in range(draws)
        for i, part in enumerate(x.split(CHUNK))
    ]
    return float(torch.cat(losses).mean())


def checked_weights(weights: Any, n: int) -> np.ndarray | None:
    """Weights `(n,)`, None where all are one; raises `ValueError` for others than non-negative ones that are not all 0."""
    if weights is None:
        return None
    found = np.asarray(weights, dtype=np.float64)
    found = np.full(n, found) if found.ndim == 0 else found
    if found.shape != (n,) or not np.isfinite(found).all() or (found < 0).any() or not found.any():
        raise ValueError(f"sample_weight must be {n} finite numbers of at least 0, not all 0")
    return None if (found == found[0]).all() else found


def resampled(weights: np.ndarray, seed: int) -> np.ndarray:
    """Row numbers drawn by their weights, as many as there are."""
    rng = np.random.default_rng(derive_seed(seed, "weighted rows"))
    return rng.choice(len(weights), len(weights), p=weights / weights.sum())


def check_complete(numbers: np.ndarray, encoding: Encoding) -> None:
    """Raises `UserError` for missing values, with the first."""
    gaps = np.argwhere(np.isnan(numbers))
    if len(gaps):
        row, column = gaps[0]
        raise UserError(f"column {encoding.modelled[column].name!r}, row {row}: the value is missing (NaN)")
