"""log-densities of a mixture with a network's correction, by the probability flow."""

from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.estimators.mixture import rows_at_once
from scorefield.estimators.residual import ClosedForm, MixtureResidual, MixtureTrace, OfRows, observed_states
from scorefield.likelihood import FlowLikelihood
from scorefield.samplers import RungeKutta4

CHUNK = 1024
"""rows that are computed together"""


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


def log_densities_of(model: MixtureResidual, x: Tensor, steps: int) -> Tensor:
    """The same of any rows `(n, d)`, complete ones and such with gaps apart."""
    out, gaps = torch.empty(len(x), dtype=torch.float64, device=x.device), x.isnan().any(1)
    for group, size in ((~gaps, CHUNK), (gaps, min(CHUNK, rows_at_once(model.parameters_of_mixture)))):
        for rows in group.nonzero()[:, 0].split(size):
            out[rows] = log_density_of(model, x[rows], steps)
    return out
