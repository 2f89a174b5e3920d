"""The Gaussian mixture that a table's score begins with: full covariances by scikit-learn, as many components as help."""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as EM

from scorefield.densities import GaussianMixture
from scorefield.estimators.residual import MixtureParameters, RowMixtures, States

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 200)
FLOOR = 1e-4
"""added to the covariances' diagonals, standardised units"""


TAILS = (4.0, 16.0)
"""widths of the components for outliers, in units of the rows' own"""


def with_tails(mixture: MixtureParameters, n: int) -> MixtureParameters:
    """The mixture, of n rows, with wide components about all of it, which share the weight of one row more.

    Without them a single outlier, whose log-density under a Gaussian falls with the square of its distance, may outweigh
    all else that a mean over rows has to tell.
    """
    whole = GaussianMixture(*mixture)
    shares = torch.full((len(TAILS),), 1 / (len(TAILS) * (n + 1)), dtype=torch.float64)
    return MixtureParameters(
        torch.cat([whole.weights * n / (n + 1), shares]),
        torch.cat([mixture.means, whole.mean().expand(len(TAILS), -1)]),
        torch.cat([mixture.covariances, torch.stack([width**2 * whole.covariance() for width in TAILS])]),
    )


def fitted_mixture(
    train: np.ndarray, validation: np.ndarray, counts: tuple[int, ...] = COUNTS, seed: int = 0, *, tails: bool = True
) -> MixtureParameters:
    """The mixture of rows `(n, d)` whose validation likelihood is the best; more components are tried while they help.

    With `tails` it is judged with the wide components that it will have, lest one outlier decide how many there are.
    """
    best, score, worse, held_out = None, -np.inf, 0, torch.from_numpy(validation)
    for count in counts:
        if best is not None and count * (train.shape[1] + 1) > len(train):
            break
        found = EM(count, reg_covar=FLOOR, random_state=seed, max_iter=200, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is judged by held-out rows
            found.fit(train)
        covariances = (found.covariances_ + found.covariances_.transpose(0, 2, 1)) / 2
        own = MixtureParameters(*(torch.from_numpy(v.copy()) for v in (found.weights_, found.means_, covariances)))
        judged = with_tails(own, len(train)) if tails else own
        reached = float(GaussianMixture(*judged).log_density(held_out).mean())
        if reached > score:
            best, score, worse = own, reached, 0
        else:
            worse += 1
        if worse == 2:
            break
    assert best is not None
    return best


ROUNDS = 4
"""of filling gaps and fitting again"""


def fitted_mixture_with_gaps(
    train: np.ndarray, validation: np.ndarray, counts: tuple[int, ...] = COUNTS, seed: int = 0
) -> MixtureParameters:
    """The same of rows with NaNs, by stochastic EM: gaps are drawn from their law given the rest, under the mixture before.

    Reference: Celeux & Diebolt 1985, Computational Statistics Quarterly 2:73.
    """
    if not np.isnan(train).any() and not np.isnan(validation).any():
        return fitted_mixture(train, validation, counts, seed)
    rows = np.concatenate([train, validation])
    gaps = np.isnan(rows)
    rng = np.random.default_rng(seed)
    filled = rows.copy()
    for column, missing in zip(filled.T, gaps.T, strict=True):
        column[missing] = rng.choice(column[~missing], missing.sum())
    for round_ in range(ROUNDS):
        few = (1,) if round_ == 0 else counts  # columns that were filled apart from each other show no shape but their moments
        found = fitted_mixture(filled[: len(train)], filled[len(train) :], few, seed)
        filled = drawn_gaps(found, rows, seed + round_)
    return fitted_mixture(filled[: len(train)], filled[len(train) :], (len(found.weights),), seed)


def rows_at_once(mixture: MixtureParameters) -> int:
    """How many rows may have mixtures of their own in about a gigabyte; at most 4,096."""
    return max(1, min(4096, 2**23 // mixture.covariances.numel()))


def drawn_gaps(mixture: MixtureParameters, rows: np.ndarray, seed: int) -> np.ndarray:
    """Rows whose NaNs are drawn from the mixture given the rest."""
    filled, chunk = rows.copy(), rows_at_once(mixture)
    incomplete = np.flatnonzero(np.isnan(rows).any(1))
    for start in range(0, len(incomplete), chunk):
        part = incomplete[start : start + chunk]
        x = torch.from_numpy(rows[part])
        gaps = x.isnan()
        states = States(gaps.double(), (~gaps).double(), x.nan_to_num(0.0))
        generator = torch.Generator().manual_seed(seed * 1000 + start)
        drawn = RowMixtures(mixture, states).sample(0.0, generator)
        filled[part] = torch.where(gaps, drawn, x).numpy()
    return filled
