"""A density of a table by an energy, normalised by annealed importance sampling.

    log f(x, σ) = log N_σ(x) + φ(x/√(1 + σ²), ¼ log σ)/σ

N is a Gaussian fitted first, with tails, smoothed by σ; φ is a network, bounded since its last features are normalised, so that
f always has an integral. Its gradient is trained by denoising, as `ScoreDensity` is.

Reference: Song & Kingma 2021, arXiv:2101.03288 (energies by score matching); Neal 2001, Statistics and Computing 11:125 (AIS).
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.data.columns import ColumnKind
from scorefield.densities import GaussianMixture
from scorefield.errors import UserError
from scorefield.estimators.flow import CHUNK
from scorefield.estimators.mixture import fitted_mixture, with_tails
from scorefield.estimators.residual import MixtureParameters
from scorefield.estimators.table import Rows, TableDensity, check_particles, resampled
from scorefield.estimators.training import Training, default_steps
from scorefield.interfaces import Energy
from scorefield.likelihood import Annealing, Partition, noise_path
from scorefield.networks import MLPConfig
from scorefield.networks.mlp import MLP
from scorefield.randomness import derive_seed, keyed_generator
from scorefield.samplers import HMC, Heun

RUNGS = 100
"""noise levels of annealed importance sampling"""
MOVES, LEAPFROG = 2, 10
"""of Hamiltonian Monte Carlo at each; with one short move k̂ is too large on narrow densities, or log Z too small"""


class GaussianEnergy(Energy):
    """log f above, of rows `(b, d)` in standardised units."""

    def __init__(self, gaussian: MixtureParameters, network: MLPConfig, sigma_range: tuple[float, float]) -> None:
        super().__init__()
        self.event_shape = tuple(gaussian.means.shape[1:])
        self.gaussian = GaussianMixture(*gaussian)
        self.network = MLP(self.event_shape[0], 0, network.width, network.blocks, network.frequencies)
        self._range = sigma_range

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self._range

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p_σ(x) + const(σ), nats, `(b,)`."""
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
        phi = self.network(x * (1 + level[:, None] ** 2).rsqrt(), level.log() / 4)
        return self.gaussian.log_density(x, level) + phi / level


class EnergyDensity(TableDensity):
    """A density of the rows of a table from an energy f: log p = log f − log Z, log Z by annealed importance sampling.

    Where `ScoreDensity` solves an equation for each row, an energy is one pass of its network, but for log Z, whose standard
    error all rows share. It wants complete rows. Tables are arrays `(n, d)`, or pandas, polars or Arrow tables.

    Args:
        columns: what columns are, by name, where it should not be found from the values.
        steps: of training; "auto" is 0.6 a row, from 300 to 8000.
        width, blocks: of the network.
        batch_size, learning_rate: of training.
        sigma_range: smallest and largest noise level, in standard deviations of the warped columns.
        flow_steps: of the solver that draws samples.
        particles: of annealed importance sampling, a multiple of 8.
        validation_fraction, calibration_fraction: shares of the rows that choose when to stop, and that p-values are
            calibrated on; neither serves anything else.
        random_state: an integer, or a RandomState that gives one; None is 0. The same gives the same.
        verbose: show a progress bar.

    Attributes:
        partition_: log Z with its standard error and verdict, in standardised units.
        columns_: the columns as a data frame.
        n_features_in_, feature_names_in_: as everywhere.
    """

    def __init__(
        self,
        columns: dict[str, ColumnKind] | None = None,
        steps: int | str = "auto",
        width: int = 128,
        blocks: int = 3,
        batch_size: int = 512,
        learning_rate: float = 2e-3,
        sigma_range: tuple[float, float] = (0.05, 6.0),
        flow_steps: int = 40,
        particles: int = 512,
        validation_fraction: float = 0.1,
        calibration_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.columns = columns
        self.steps = steps
        self.width = width
        self.blocks = blocks
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.sigma_range = sigma_range
        self.flow_steps = flow_steps
        self.particles = particles
        self.validation_fraction = validation_fraction
        self.calibration_fraction = calibration_fraction
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: object = None, sample_weight: Any = None) -> "EnergyDensity":
        """Fit to the rows of `X`; `y` is not used.

        Warns where log Z is not to be trusted, with the reason.

        Raises:
            ValueError: a table that cannot be read as one, or has gaps (`UserError`); weights that are negative or all zero;
            particles that cannot be divided among islands.
        """
        rows = self._rows(X, sample_weight)
        z = rows.encoding.encode(rows.encoding.noised(rows.numbers, rows.seed, "mixture of a table"))[0]
        train, validation = z[rows.train], z[rows.validation]
        seen = train if rows.weights is None else train[resampled(rows.weights, rows.seed)]
        network, levels = MLPConfig(int(self.width), int(self.blocks), frequencies=5), self._levels()
        gaussian = with_tails(fitted_mixture(seen, validation, (1,), rows.seed), len(seen))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(rows.seed, "weights of a table"))
            model = GaussianEnergy(gaussian, network, levels)
        training = Training(
            network, levels, default_steps(len(train)) if self.steps == "auto" else int(self.steps), int(self.batch_size),
            float(self.learning_rate), int(self.flow_steps), rows.seed, masked=False, verbose=self.verbose,
        )  # fmt: skip
        if training.steps:
            model = training.trained(model, rows.table)
        self.model_ = model.double().eval().requires_grad_(False)
        self.partition_ = self._normalised(rows.seed)
        if not self.partition_.trustworthy:
            warnings.warn(f"log Z is {self.partition_.verdict}", stacklevel=2)
        self._calibrated(rows)
        return self

    def _check_settings(self) -> None:
        super()._check_settings()
        check_particles(self.particles)

    def _rows(self, X: Any, sample_weight: Any) -> Rows:
        rows = super()._rows(X, sample_weight)
        check_complete(rows.numbers)
        return rows

    def _numbers(self, X: Any) -> np.ndarray:
        numbers = super()._numbers(X)
        check_complete(numbers)
        return numbers

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = False
        return tags

    def _levels(self) -> tuple[float, float]:
        low, high = self.sigma_range
        return float(low), float(high)

    def _normalised(self, seed: int) -> Partition:
        """log Z at the smallest level: down the noise levels by the reverse diffusion and HMC."""
        low, shape = self._levels()[0], self.model_.event_shape
        particles, first = int(self.particles), keyed_generator(seed, "log Z of a table, pilot")
        path = noise_path(self.model_, shape, low, RUNGS, denoising=True, pilot=particles, generator=first)
        walk = Annealing(particles, HMC(LEAPFROG), MOVES, pilot=min(32, particles))
        sizes = walk.step_sizes(path, generator=first)
        return walk.importance(path, sizes, generator=keyed_generator(seed, "log Z of a table"))

    # ── of encoded rows ────────────────────────────────────────────────────────────────────────────────────────────────

    @torch.no_grad()
    def _log_density(self, z: np.ndarray) -> np.ndarray:
        parts = [self.model_.log_density(part, self.partition_.sigma) for part in torch.from_numpy(z).split(CHUNK)]
        return torch.cat(parts).numpy() - self.partition_.log_z

    @torch.no_grad()
    def _score(self, z: Tensor) -> Tensor:
        return self.model_.score(z, self.partition_.sigma)

    def _drawn(self, seed: int, chunk: int) -> np.ndarray:
        levels, generator = self._levels(), keyed_generator(seed, "samples of a table", chunk)
        start = self.model_.gaussian.sample(CHUNK, levels[1], generator=generator)
        *_, state = Heun(steps=int(self.flow_steps), sigma_range=levels)(self.model_, start, generator=generator)
        return state.x.numpy()


def check_complete(numbers: np.ndarray, name: str = "EnergyDensity") -> None:
    """Raises `UserError` for a row with a gap, with its number, that the density of this name cannot take."""
    rows = np.flatnonzero(np.isnan(numbers).any(1))
    if len(rows):
        raise UserError(f"row {rows[0]} has missing values (NaN), which {name} cannot take: ScoreDensity can")
