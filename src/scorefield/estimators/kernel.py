"""A density of a table by a kernel exponential family: one linear solve, log Z by annealed importance sampling.

    log p(z) = f(z) + log q₀(z) − log Z

f is a function of the kernel's space, q₀ a Gaussian no narrower than the rows, so that an integral always exists. Bandwidth,
ridge and the Gaussian's inflation are those with the least score-matching loss on held-out rows, within bounds: with hardly any
ridge and a wide Gaussian that loss is lower still, and most of the mass lies where no row is; with kernels much narrower than
distances between rows it may be lower still, too, and what comes is the Gaussian with a spike at each inducing row, whose log Z
is not to be trusted.

Reference: Sriperumbudur et al. 2017, JMLR 18(57); Sutherland et al. 2018, arXiv:1705.08360; Neal 2001 (AIS).
"""

import warnings

import numpy as np
import torch
from torch import Tensor

from scorefield.data.columns import ColumnKind
from scorefield.densities import gaussian
from scorefield.densities.kernel import FittedKernelFamily, KernelExponentialFamily
from scorefield.estimators.flow import CHUNK
from scorefield.estimators.peers import Peer
from scorefield.estimators.table import check_particles
from scorefield.interfaces import check_count
from scorefield.likelihood import Annealing, geometric_path
from scorefield.likelihood.annealing import Path
from scorefield.randomness import keyed_generator
from scorefield.samplers import HMC

TUNED = 3000
"""rows, at most, that the settings are chosen on"""
LEAST_RIDGE, MOST_INFLATION = 1e-4, 2.0
"""bounds of the settings, in standardised units"""
LEAST_BANDWIDTH = 0.25
"""of the median distance between rows; a tenth is what wines would choose, and their log Z is then not trustworthy"""
LEAPFROG, MOVES = 5, 2
"""of Hamiltonian Monte Carlo at each rung"""


class KernelScoreDensity(Peer):
    """A kernel exponential family of the rows of a table, fitted by score matching in closed form.

    For small tables: no training loop, memory of m² numbers whatever n is, time n d m². It wants complete rows. Tables are
    arrays `(n, d)`, or pandas, polars or Arrow tables.

    Args:
        columns: what columns are, by name, where it should not be found from the values.
        inducing: m, rows that kernels are centred on.
        tuning_steps: of the search for settings, at most, from each of two starts.
        particles, rungs: of annealed importance sampling, from the Gaussian to the density; particles a multiple of 8.
        validation_fraction, calibration_fraction: shares of the rows that settings are chosen on, and that p-values are
            calibrated on.
        random_state: an integer, or a RandomState that gives one; None is 0. The same gives the same.

    Attributes:
        family_: the settings that were chosen.
        model_: the unnormalised density of encoded rows, an Energy.
        partition_: log Z with its standard error and verdict, in standardised units.
        columns_: the columns as a data frame.
        n_features_in_, feature_names_in_: as everywhere.
    """

    def __init__(
        self,
        columns: dict[str, ColumnKind] | None = None,
        inducing: int = 300,
        tuning_steps: int = 20,
        particles: int = 1024,
        rungs: int = 60,
        validation_fraction: float = 0.1,
        calibration_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        super().__init__(columns, validation_fraction, calibration_fraction, random_state)
        self.inducing = inducing
        self.tuning_steps = tuning_steps
        self.particles = particles
        self.rungs = rungs

    def _check_settings(self) -> None:
        super()._check_settings()
        for name in ("inducing", "tuning_steps", "rungs"):
            check_count(name, getattr(self, name))
        check_particles(self.particles)

    def _fit(self, train: np.ndarray, validation: np.ndarray, seed: int) -> None:
        """Choose the settings, fit with them, and find log Z; warns where that is not to be trusted, with the reason."""
        rows = torch.from_numpy(np.concatenate([train, validation]))
        some = rows[torch.randperm(len(rows), generator=keyed_generator(seed, "kernel rows"))[:TUNED]]
        settings = KernelExponentialFamily(inducing=int(self.inducing), base=MOST_INFLATION, seed=seed)
        splits = 1 if len(some) == TUNED else 3
        self.family_ = settings.tuned(
            some, 0.2, splits, (0.5, 1.5), int(self.tuning_steps), LEAST_RIDGE, MOST_INFLATION, LEAST_BANDWIDTH
        )
        self.model_: FittedKernelFamily = self.family_.fit(rows)
        path, walk = self._path(), self._walk(int(self.particles))
        self.step_sizes_ = walk.step_sizes(path, generator=keyed_generator(seed, "log Z of a table, pilot"))
        self.partition_ = walk.importance(path, self.step_sizes_, generator=keyed_generator(seed, "log Z of a table"))
        if not self.partition_.trustworthy:
            warnings.warn(f"log Z is {self.partition_.verdict}", stacklevel=3)

    def _path(self) -> Path:
        base = self.model_.base
        assert base is not None
        return geometric_path(
            gaussian(base.mean, torch.linalg.inv(base.precision)), self.model_, steps=int(self.rungs), power=2.0
        )

    def _walk(self, particles: int) -> Annealing:
        return Annealing(particles, HMC(LEAPFROG), MOVES, pilot=min(64, particles))

    # ── of encoded rows ────────────────────────────────────────────────────────────────────────────────────────────────

    @torch.no_grad()
    def _log_density(self, z: np.ndarray) -> np.ndarray:
        parts = [self.model_.log_density(part) for part in torch.from_numpy(z).split(CHUNK)]
        return torch.cat(parts).numpy() - self.partition_.log_z

    @torch.no_grad()
    def _score(self, z: Tensor) -> Tensor:
        return self.model_.score(z)

    def _drawn(self, seed: int, chunk: int) -> np.ndarray:
        generator = keyed_generator(seed, "samples of a table", chunk)
        return self._walk(CHUNK).draws(self._path(), self.step_sizes_, generator=generator).numpy()
