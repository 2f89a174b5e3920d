"""What densities of tables share: columns and their encoding, the split of the rows, p-values, scikit-learn's contract.

Reference: Vovk et al. 2005 (conformal p-values).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from scorefield.data.columns import ColumnKind, as_frame, described, infer
from scorefield.data.transforms import Encoding, fitted_encoding
from scorefield.errors import UserError
from scorefield.estimators.flow import CHUNK
from scorefield.estimators.training import Table
from scorefield.interfaces import check_count, is_real
from scorefield.randomness import derive_seed

FEWEST = 4
"""rows"""
ROUNDING = 1e-9
"""relative, of scores"""
ISLANDS = 8
"""groups of particles of annealed importance sampling, whose number is a multiple of it"""


class Rows(NamedTuple):
    """A table as a fit sees it: the numbers of its rows `(n, d)`, and which are for what."""

    encoding: Encoding
    numbers: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    calibration: np.ndarray
    weights: np.ndarray | None
    """of the training rows, None where all count alike"""
    seed: int

    @property
    def table(self) -> Table:
        """What a network is trained on."""
        held_out = self.encoding.encode(self.encoding.noised(self.numbers[self.validation], self.seed, "held out"))[0]
        return Table(self.encoding, self.numbers[self.train], torch.from_numpy(held_out), self.weights)


class TableDensity(DensityMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A density of the encoded rows z `(n, d)`, float64, and what a table needs around it.

    A subclass has `columns`, `random_state`, `validation_fraction`, `calibration_fraction`, and gives `_log_density`, `_score`
    and `_drawn` of encoded rows; after a fit it has `encoding_`, `seed_`, `columns_` and `calibration_scores_`.
    """

    columns: dict[str, ColumnKind] | None
    random_state: int | np.random.RandomState | None
    validation_fraction: float
    calibration_fraction: float
    encoding_: Encoding
    seed_: int
    calibration_scores_: np.ndarray

    # ── of encoded rows ────────────────────────────────────────────────────────────────────────────────────────────────

    def _log_density(self, z: np.ndarray) -> np.ndarray:
        """`(n,)`, nats"""
        raise NotImplementedError

    def _score(self, z: Tensor) -> Tensor:
        """The gradient of the same `(n, d)`."""
        raise NotImplementedError

    def _drawn(self, seed: int, chunk: int) -> np.ndarray:
        """New rows `(CHUNK, d)`, others for each chunk."""
        raise NotImplementedError

    # ── fitting ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_settings(self) -> None:
        """Raises `ValueError` for arguments of the constructor that make no fit; a subclass adds its own."""
        if not (is_real(self.validation_fraction) and 0 < self.validation_fraction < 1):
            raise ValueError(f"validation_fraction must be in (0, 1), got {self.validation_fraction!r}")
        if not (is_real(self.calibration_fraction) and 0 <= self.calibration_fraction < 1):
            raise ValueError(f"calibration_fraction must be in [0, 1), got {self.calibration_fraction!r}")

    def _rows(self, X: Any, sample_weight: Any) -> Rows:
        """The table's rows, split; sets what is known of the columns.

        Raises:
            ValueError: a table that cannot be read as one (`UserError`), weights that are negative or all zero, settings that
                make no fit.
        """
        self._check_settings()
        frame, seed = self._frame(X, reset=True), seed_of(self.random_state)
        weights = checked_weights(sample_weight, len(frame))
        if len(frame) < FEWEST:
            raise UserError(f"a density needs at least {FEWEST} rows, to train and to be judged; n_samples = {len(frame)}")
        columns = infer(frame, self.columns)
        if all(c.kind == "constant" or c.copy_of for c in columns):
            raise UserError("every column is constant: there is nothing to model")
        self.encoding_, self.seed_, self.columns_ = fitted_encoding(frame, columns, seed), seed, described(columns)
        numbers = self.encoding_.numbers(frame)
        check_rows(numbers)
        train, validation, calibration = self._split(len(numbers), seed)
        for column, values in zip(self.encoding_.modelled, numbers[train].T, strict=True):
            if np.isnan(values).all():
                few = int((~np.isnan(numbers[:, self.encoding_.modelled.index(column)])).sum())
                raise UserError(f"column {column.name!r} has {few} values, none in a row that is trained on: leave it out")
        own = None if weights is None else weights[train]
        return Rows(self.encoding_, numbers, train, validation, calibration, own, seed)

    def _split(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows for training, validation and calibration, at least one of each."""
        order = np.random.default_rng(derive_seed(seed, "rows of a table")).permutation(n)
        most = (n - 1) // 2
        validation, calibration = (
            min(most, max(1, round(f * n))) for f in (self.validation_fraction, self.calibration_fraction)
        )
        return order[validation + calibration :], order[:validation], order[validation : validation + calibration]

    def _calibrated(self, rows: Rows) -> None:
        """Keep the calibration rows' anomaly scores, dequantised as rows to be scored are."""
        self.calibration_scores_ = np.sort(self._anomaly(self.encoding_.dequantised(rows.numbers[rows.calibration], rows.seed)))

    def _anomaly(self, x: np.ndarray) -> np.ndarray:
        """Of dequantised rows `(n, d)`: −log p in the units of the table, or something in its place, for each known value."""
        z, slope = self.encoding_.encode(x)
        return -(self._log_density(z) + np.nansum(slope, 1)) / (~np.isnan(z)).sum(1)

    # ── what is known afterwards ───────────────────────────────────────────────────────────────────────────────────────

    def score_samples(self, X: Any) -> np.ndarray:
        """log-density of each row `(n,)`, nats, in the units of the table.

        Of discrete columns it is that of the value with uniform noise, a function of the row: if all are discrete, on average
        at most the logarithm of the row's probability less Σ log resolution.
        """
        z, slope = self._encoded(X)
        return self._log_density(z) + np.nansum(slope, 1)

    def score(self, X: Any, y: object = None) -> float:
        """The mean log-density, nats a row."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Any:
        """New rows: an array if it was fitted on one, else a pandas data frame with the columns of the table."""
        frame = pd.concat(self.samples(n_samples, random_state), ignore_index=True)
        return frame if hasattr(self, "feature_names_in_") else frame.to_numpy()

    def samples(self, n_samples: int, random_state: int | np.random.RandomState | None = None) -> Iterator[pd.DataFrame]:
        """The same rows in data frames of at most 1,024, each drawn when it is asked for."""
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples}")
        seed = self.seed_ if random_state is None else seed_of(random_state)
        for chunk, start in enumerate(range(0, n_samples, CHUNK)):
            yield self.encoding_.decode(self._drawn(seed, chunk)[: n_samples - start])

    def stein_score(self, X: Any) -> np.ndarray:
        """∇ log p `(n, d)` in the units of the table, a column for each modelled one; of discrete ones with their noise.

        Where a value is missing there is NaN.
        """
        numbers = self._numbers(X)
        x = self.encoding_.dequantised(numbers, self.seed_)
        z, slope = self.encoding_.encode(x)
        own = np.concatenate([self._score(part).numpy() for part in torch.from_numpy(z).split(CHUNK)])
        return own * np.exp(slope) + self.encoding_.slope_of_slope(x)

    def anomaly_score(self, X: Any) -> np.ndarray:
        """−log p for each value that is there `(n,)`, nats: higher is more anomalous."""
        numbers = self._numbers(X)
        return self._anomaly(self.encoding_.dequantised(numbers, self.seed_))

    def anomaly_pvalue(self, X: Any) -> np.ndarray:
        """(1 + #{calibration rows at least as anomalous})/(n + 1) `(n,)`: below α for a share of at most α of ordinary rows.

        Scores that differ by rounding, as in another batch, count as equal.
        """
        scores, calibration = self.anomaly_score(X), self.calibration_scores_
        as_bad = len(calibration) - np.searchsorted(calibration, scores - ROUNDING * np.abs(scores), side="left")
        return (1 + as_bad) / (len(calibration) + 1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

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
        numbers = self.encoding_.numbers(frame)
        check_rows(numbers)
        return numbers

    def _encoded(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        numbers = self._numbers(X)
        return self.encoding_.encode(self.encoding_.dequantised(numbers, self.seed_))


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """The seed that a random state stands for."""
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    return int(random_state or 0)


def check_particles(particles: int) -> None:
    """Raises `ValueError` for what is no whole number of particles, or cannot be divided among islands."""
    check_count("particles", particles, ISLANDS)
    if particles % ISLANDS:
        raise ValueError(f"particles must be a multiple of {ISLANDS}, got {particles}")


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
