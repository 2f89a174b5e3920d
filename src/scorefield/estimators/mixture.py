"""The Gaussian mixture that a table's score begins with: full covariances by scikit-learn, as many components as help."""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as EM

from scorefield.estimators.residual import MixtureParameters

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 200)
FLOOR = 1e-4
"""added to the covariances' diagonals, standardised units"""


def fitted_mixture(
    train: np.ndarray, validation: np.ndarray, counts: tuple[int, ...] = COUNTS, seed: int = 0
) -> MixtureParameters:
    """The mixture of rows `(n, d)` whose validation likelihood is the best; more components are tried while they help."""
    best, score, worse = None, -np.inf, 0
    for count in counts:
        if best is not None and count * (train.shape[1] + 1) > len(train):
            break
        found = EM(count, reg_covar=FLOOR, random_state=seed, max_iter=200, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is judged by held-out rows
            found.fit(train)
        reached = float(found.score(validation))
        if reached > score:
            best, score, worse = found, reached, 0
        else:
            worse += 1
        if worse == 2:
            break
    assert best is not None
    covariances = (best.covariances_ + best.covariances_.transpose(0, 2, 1)) / 2
    return MixtureParameters(*(torch.from_numpy(v.copy()) for v in (best.weights_, best.means_, covariances)))
