"""What else people use, on the same encoded columns: a kernel density, a Gaussian mixture, a neural spline flow."""

from typing import Any

import numpy as np
import torch
from sklearn.neighbors import KernelDensity
from torch import Tensor

from scorefield.baselines import fitted_spline_flow
from scorefield.data.columns import ColumnKind
from scorefield.densities import GaussianMixture
from scorefield.estimators.energy import check_complete
from scorefield.estimators.flow import CHUNK
from scorefield.estimators.mixture import COUNTS, fitted_mixture
from scorefield.estimators.table import TableDensity
from scorefield.interfaces import grad_log_density
from scorefield.randomness import derive_seed, keyed_generator

BANDWIDTHS = np.geomspace(0.05, 2.0, 16)


class Peer(TableDensity):
    """A density whose subclass fits encoded rows, complete ones, to the likelihood of validation rows."""

    def __init__(
        self,
        columns: dict[str, ColumnKind] | None = None,
        validation_fraction: float = 0.1,
        calibration_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.columns = columns
        self.validation_fraction = validation_fraction
        self.calibration_fraction = calibration_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: object = None) -> "Peer":
        """Fit to the rows of `X`; raises `UserError` for rows with missing values."""
        rows = self._rows(X, None)
        check_complete(rows.numbers, type(self).__name__)
        z = rows.encoding.encode(rows.encoding.noised(rows.numbers, rows.seed, "mixture of a table"))[0]
        self._fit(z[rows.train], z[rows.validation], rows.seed)
        self._calibrated(rows)
        return self

    def _fit(self, train: np.ndarray, validation: np.ndarray, seed: int) -> None:
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = False
        return tags

    def _numbers(self, X: Any) -> np.ndarray:
        numbers = super()._numbers(X)
        check_complete(numbers, type(self).__name__)
        return numbers


class KernelTable(Peer):
    """scikit-learn's KernelDensity, its bandwidth by validation; `density_` is it."""

    def _fit(self, train: np.ndarray, validation: np.ndarray, seed: int) -> None:
        found = [KernelDensity(bandwidth=h).fit(train) for h in BANDWIDTHS]
        self.density_ = max(found, key=lambda density: density.score(validation))

    def _log_density(self, z: np.ndarray) -> np.ndarray:
        return np.asarray(self.density_.score_samples(z))

    def _drawn(self, seed: int, chunk: int) -> np.ndarray:
        return np.asarray(self.density_.sample(CHUNK, random_state=derive_seed(seed, "samples of a table", chunk) % 2**32))


class MixtureTable(Peer):
    """A Gaussian mixture with full covariances, the number of components by validation; `density_` is it."""

    def _fit(self, train: np.ndarray, validation: np.ndarray, seed: int) -> None:
        self.density_ = GaussianMixture(*fitted_mixture(train, validation, COUNTS, seed, tails=False))

    def _log_density(self, z: np.ndarray) -> np.ndarray:
        return self.density_.log_density(torch.from_numpy(z)).numpy()

    def _score(self, z: Tensor) -> Tensor:
        return self.density_.score(z)

    def _drawn(self, seed: int, chunk: int) -> np.ndarray:
        return self.density_.sample(CHUNK, generator=keyed_generator(seed, "samples of a table", chunk)).numpy()


class SplineFlowTable(Peer):
    """A neural spline flow, stopped where validation is best; `flow_` is zuko's.

    Args:
        seconds: of training, at most.
    """

    def __init__(
        self,
        columns: dict[str, ColumnKind] | None = None,
        seconds: float = float("inf"),
        validation_fraction: float = 0.1,
        calibration_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        super().__init__(columns, validation_fraction, calibration_fraction, random_state)
        self.seconds = seconds

    def _fit(self, train: np.ndarray, validation: np.ndarray, seed: int) -> None:
        rows, held_out = torch.from_numpy(train).float(), torch.from_numpy(validation).float()
        self.flow_ = fitted_spline_flow(rows, held_out, seconds=float(self.seconds), seed=seed)

    @torch.no_grad()
    def _log_density(self, z: np.ndarray) -> np.ndarray:
        return self.flow_().log_prob(torch.from_numpy(z)).numpy()

    def _score(self, z: Tensor) -> Tensor:
        return grad_log_density(self.flow_().log_prob, z)

    @torch.no_grad()
    def _drawn(self, seed: int, chunk: int) -> np.ndarray:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "samples of a table", chunk))  # zuko takes no generator
            return self.flow_().sample((CHUNK,)).numpy()
