"""A density of a table by denoising score matching, behind scikit-learn's interface.

Reference: Hyvärinen 2005 and Vincent 2011 (score matching), Song et al. 2021, arXiv:2101.09258 (weighted by g², the loss bounds
the likelihood).
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from scorefield.data.columns import ColumnKind, described
from scorefield.data.transforms import Encoding
from scorefield.errors import UserError
from scorefield.estimators.checkpoint import Checkpoint
from scorefield.estimators.flow import CHUNK, log_densities_of
from scorefield.estimators.imputation import completed
from scorefield.estimators.mixture import COUNTS, TAILS, fitted_mixture_with_gaps, rows_at_once, with_tails
from scorefield.estimators.residual import MixtureParameters, MixtureResidual, observed_states
from scorefield.estimators.table import Rows, TableDensity, resampled, seed_of
from scorefield.estimators.training import Training, default_steps
from scorefield.networks import MLPConfig
from scorefield.persistence import from_json, read_weights, to_json
from scorefield.randomness import keyed_generator
from scorefield.samplers import Heun
from scorefield.system import write_durably

MOST = 10_000
"""training rows, at most, that mixtures of many Gaussians are fitted to, which takes long"""
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


class ScoreDensity(TableDensity):
    """log-density, samples, scores and anomaly p-values of the rows of a table.

    A Gaussian mixture is fitted first; a network learns what is missing to the data's score by denoising at all noise levels,
    and is kept only as far as it helps held-out rows. Tables are arrays `(n, d)`, or pandas, polars or Arrow tables.

    Args:
        columns: what columns are, by name, where it should not be found from the values: continuous, positive, bounded,
            integer, binary, categorical, datetime or constant.
        components: of the mixture that the network is added to; "auto" is one, and the mixture of as many as help is kept in
            place of it and the network where it suits held-out rows better.
        steps: of training, at most; "auto" is 0.6 a row, from 300 to 8000. 0 leaves the mixture alone.
        width, blocks: of the network.
        batch_size, learning_rate: of training.
        sigma_range: smallest and largest noise level, in standard deviations of the warped columns.
        flow_steps: of the solver of log-densities.
        validation_fraction, calibration_fraction: shares of the rows that choose when to stop, and that p-values are
            calibrated on; neither serves anything else.
        random_state: an integer, or a RandomState that gives one; None is 0. The same gives the same.
        verbose: show a progress bar.
        device: where networks are computed, "cpu" or "cuda"; the fitted model is kept on the CPU.
        checkpoint: a file in which a training is kept that Ctrl-C ends, and that the same fit goes on from; `save` removes it.

    Attributes:
        columns_: the columns as a data frame.
        n_features_in_, feature_names_in_: as everywhere.
    """

    def __init__(
        self,
        columns: dict[str, ColumnKind] | None = None,
        components: int | Literal["auto"] = "auto",
        steps: int | Literal["auto"] = "auto",
        width: int = 256,
        blocks: int = 3,
        batch_size: int = 512,
        learning_rate: float = 2e-3,
        sigma_range: tuple[float, float] = (0.01, 6.0),
        flow_steps: int = 20,
        validation_fraction: float = 0.1,
        calibration_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
        device: str = "cpu",
        checkpoint: str | Path | None = None,
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
        self.device = device
        self.checkpoint = checkpoint

    def fit(self, X: Any, y: object = None, sample_weight: Any = None) -> "ScoreDensity":
        """Fit to the rows of `X`; `y` is not used.

        Raises:
            ValueError: a table that cannot be read as one (`UserError`), weights that are negative or all zero.
        """
        rows = self._rows(X, sample_weight)
        training, table = self._training(rows), rows.table
        checkpoint = (
            None if self.checkpoint is None else Checkpoint(Path(self.checkpoint), training.fingerprint(table, self.components))
        )
        if checkpoint is None:
            self.model_ = training.best(self._bases(rows), table)
        else:
            checkpoint.bases = checkpoint.bases or self._bases(rows)
            self.model_ = training.best(checkpoint.bases, table, checkpoint)
        self.parts_ = Parts(
            rows.encoding,
            training.network,
            training.sigma_range,
            len(self.model_.weights) - len(TAILS),
            rows.seed,
            training.flow_steps,
            hasattr(self, "feature_names_in_"),
        )
        self.spreads_ = spreads_of(rows.encoding.dequantised(rows.numbers[rows.train], rows.seed))
        self._calibrated(rows)
        return self

    def _bases(self, rows: Rows) -> list[MixtureParameters]:
        """One Gaussian, which the network is added to, and as many as help; or the mixture that is asked for."""
        z = rows.encoding.encode(rows.encoding.noised(rows.numbers, rows.seed, "mixture of a table"))[0]
        train, validation = z[rows.train], z[rows.validation]
        if rows.weights is not None:
            train = train[resampled(rows.weights, rows.seed)]
        asked = [(1,), COUNTS] if self.components == "auto" else [(int(self.components),)]
        found = [
            fitted_mixture_with_gaps(train if counts == (1,) else train[:MOST], validation, counts, rows.seed)
            for counts in asked
        ]
        bases = found[:1] if len(found[-1].weights) == 1 else found
        return [with_tails(base, len(train)) for base in bases]

    def _training(self, rows: Rows) -> Training:
        low, high = self.sigma_range
        steps = default_steps(len(rows.train)) if self.steps == "auto" else int(self.steps)
        if steps < 0:
            raise ValueError(f"steps must be at least 0, got {steps}")
        return Training(
            MLPConfig(int(self.width), int(self.blocks), frequencies=5),
            (float(low), float(high)),
            steps,
            int(self.batch_size),
            float(self.learning_rate),
            int(self.flow_steps),
            rows.seed,
            verbose=self.verbose,
            device=self.device,
        )

    def _placed(self, *, tails: bool = True) -> MixtureResidual:
        """The model on its device, on request without the wide components: what is drawn from them would be absurd."""
        model = self.model_ if tails else self.model_.without(len(TAILS))
        return model if self.device == "cpu" else deepcopy(model).to(self.device)

    # ── what is known afterwards ───────────────────────────────────────────────────────────────────────────────────────

    def impute(self, X: Any, n_draws: int = 1, random_state: int | np.random.RandomState | None = None) -> list[Any]:
        """Tables like `X` whose missing values are drawn from their law given the others, `n_draws` of them.

        Values are taken to be missing at random: that they are may depend on what is there, not on what is not.
        """
        numbers = self._numbers(X)
        if n_draws < 1:
            raise ValueError(f"n_draws must be at least 1, got {n_draws}")
        encoding, seed = self.encoding_, self.seed_ if random_state is None else seed_of(random_state)
        z = encoding.encode(encoding.dequantised(numbers, self.seed_))[0]
        incomplete = np.flatnonzero(np.isnan(z).any(1))
        frame, found, model, steps = self._frame(X, reset=False), [], self._placed(tails=False), self.parts_.flow_steps
        size = min(CHUNK, rows_at_once(model.parameters_of_mixture))
        for draw in range(n_draws):
            filled = z.copy()
            for chunk, start in enumerate(range(0, len(incomplete), size)):
                rows = incomplete[start : start + size]
                generator = keyed_generator(seed, "imputation", draw, chunk, device=self.device)
                filled[rows] = completed(model, torch.from_numpy(z[rows]).to(self.device), steps, generator).cpu().numpy()
            drawn = encoding.decode(filled)
            complete = frame.assign(**{name: filled_in(values, drawn[name]) for name, values in frame.items()})
            for column in encoding.columns:
                if column.copy_of:
                    complete[column.name] = filled_in(frame[column.name], complete[column.copy_of])
            if isinstance(X, pd.DataFrame):
                complete = complete.set_axis(X.index)
            found.append(complete if isinstance(X, pd.DataFrame) or hasattr(X, "to_pandas") else complete.to_numpy(np.float64))
        return found

    # ── files ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def save(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors into a folder; nothing in them is executed when they are read."""
        check_is_fitted(self)
        folder, config = Path(folder), to_json(self.parts_)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.contiguous() for k, v in self.model_.state_dict().items()}
        tensors |= {name: torch.from_numpy(getattr(self, f"{name}_")) for name in ("calibration_scores", "spreads")}
        write_durably(folder / "model.safetensors", save(tensors))
        write_durably(folder / "config.json", config)
        if self.checkpoint is not None:
            Path(self.checkpoint).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> "ScoreDensity":
        """What `save` wrote; raises `UserError` for anything else."""
        folder = Path(folder)
        parts, tensors = from_json(Parts, folder / "config.json"), read_weights(folder / "model.safetensors")
        found = cls(width=parts.network.width, blocks=parts.network.blocks, sigma_range=parts.sigma_range,
                    flow_steps=parts.flow_steps, random_state=parts.seed, device=device)  # fmt: skip
        try:
            found.calibration_scores_, found.spreads_ = (tensors.pop(k).numpy() for k in ("calibration_scores", "spreads"))
            mixture = MixtureParameters(*(tensors[name] for name in MixtureParameters._fields))
            model = MixtureResidual(mixture, parts.network, parts.sigma_range).double()
            model.load_state_dict(tensors)
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{folder / 'model.safetensors'} does not fit config.json: {error}") from error
        found.parts_, found.model_ = parts, model.eval().requires_grad_(False)
        found.encoding_, found.seed_ = parts.encoding, parts.seed
        found.columns_ = described(parts.encoding.columns)
        found.n_features_in_ = len(parts.encoding.columns)
        if parts.named:
            found.feature_names_in_ = np.array([c.name for c in parts.encoding.columns], dtype=object)
        return found

    # ── of encoded rows ────────────────────────────────────────────────────────────────────────────────────────────────

    def _log_density(self, z: np.ndarray) -> np.ndarray:
        """By the flow on a fixed grid, with the exact trace; of a row with gaps that of what is there."""
        return log_densities_of(self._placed(), torch.from_numpy(z).to(self.device), self.parts_.flow_steps).cpu().numpy()

    @torch.no_grad()
    def _score(self, z: Tensor) -> Tensor:
        return score_of(self._placed(), z.to(self.device), self.parts_.sigma_range[0]).cpu()

    def _drawn(self, seed: int, chunk: int) -> np.ndarray:
        ordinary, levels = self._placed(tails=False), self.parts_.sigma_range
        generator = keyed_generator(seed, "samples of a table", chunk, device=self.device)
        start = ordinary.mixture.sample(CHUNK, levels[1], generator=generator)
        *_, state = Heun(steps=self.parts_.flow_steps, sigma_range=levels)(ordinary, start, generator=generator)
        return state.x.cpu().numpy()

    def anomaly_score(self, X: Any) -> np.ndarray:
        """How far rows move when noise is added and taken away by the model `(n,)`: higher is more anomalous.

        The mean square of x − x̂ over known values, levels and noises, in standard deviations of the columns. Levels are spread
        evenly in log σ; noises are the same for every row. The components for outliers are left out: to them an outlier is
        nothing unusual.

        Reference: Graham et al. 2023, arXiv:2211.07740 (reconstruction from many noise levels).
        """
        return super().anomaly_score(X)

    def anomaly_parts(self, X: Any) -> np.ndarray:
        """What each modelled column has of the score, `(n, d)`: the score is their mean; NaN where a value is missing."""
        numbers = self._numbers(X)
        return self._moves(self.encoding_.dequantised(numbers, self.seed_))

    def _anomaly(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.nanmean(self._moves(x), 1))

    @torch.no_grad()
    def _moves(self, x: np.ndarray) -> np.ndarray:
        """(x − x̂)² in squared standard deviations, averaged over levels and noises, of dequantised rows `(n, d)`."""
        ordinary, encoding = self._placed(tails=False), self.encoding_
        half = torch.randn(NOISES // 2, 1, x.shape[1], generator=keyed_generator(0, "noises"), dtype=torch.float64)
        noises, levels = torch.cat([half, -half]).to(self.device), np.geomspace(FINE, COARSE, LEVELS)
        out = []
        for part in np.split(x, range(CHUNK, len(x), CHUNK)):
            z, total = torch.from_numpy(encoding.encode(part)[0]).to(self.device), np.zeros(part.shape)
            for sigma in levels.tolist():
                for noise in noises:
                    noisy = z + sigma * noise
                    denoised = encoding.unwarped((noisy + sigma**2 * score_of(ordinary, noisy, sigma)).cpu().numpy())
                    total += ((part - denoised) / self.spreads_) ** 2
            out.append(total / (LEVELS * NOISES))
        return np.concatenate(out)


def filled_in(values: pd.Series, drawn: pd.Series) -> pd.Series:
    """A column whose missing values are those drawn, of its own type where that can hold them."""
    gaps = values.isna()
    if not gaps.any():
        return values
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.cat.add_categories([v for v in drawn.unique() if v not in values.cat.categories])
    if pd.api.types.is_integer_dtype(values) and not pd.api.types.is_integer_dtype(drawn):
        values = values.astype(np.float64)
    return values.where(~gaps, drawn)


def spreads_of(x: np.ndarray) -> np.ndarray:
    """Standard deviations of the columns of `(n, d)`, 1 where all values are the same."""
    found = np.nanstd(x, 0)
    return np.where(found > 0, found, 1.0)


def score_of(model: MixtureResidual, z: Tensor, sigma: float) -> Tensor:
    """∇ log p_σ of rows `(n, d)`, of what is there."""
    return model.score(z.nan_to_num(0.0), sigma, observed_states(z)) if z.isnan().any() else model.score(z, sigma)
