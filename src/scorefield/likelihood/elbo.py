"""A diffusion model as a hierarchical VAE whose latents are the noised data: an evidence lower bound on its log-density.

The chain goes from the prior at σ_T down the levels σ_T > … > σ_1 to the data, each step a Gaussian with the mean and variance
that the posterior would have if the data were D(x_t, σ_t):

    −log p(x) ≤ L_T + Σ_t L_t + L_0
    L_T = KL(N(x, σ_T² I) ‖ N(0, (1 + σ_T²) I))                      the prior's part
    L_t = ½ (1/σ_{t−1}² − 1/σ_t²) E‖x − D(x + σ_t z, σ_t)‖²           t = 2 … T
    L_0 = E[−log N(x; D(x + σ_1 z, σ_1), σ_1² I)]                     the last step, to the data itself

It depends on the levels alone, not on the process. With ever finer levels the sum becomes ∫ E‖z − ẑ‖² d log σ from σ_1 to σ_T,
the continuous bound, which knows nothing of the schedule but its ends.

The bound is on the density of the *chain*, an SDE's; the probability flow has another density unless the score is exact.

Reference: Ho et al. 2020, arXiv:2006.11239 (eq. 5); Kingma et al. 2021, arXiv:2107.00630 (eq. 11–18).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.interfaces import Score, check_event
from scorefield.models import predict_noise
from scorefield.samplers import Geometric, Grid
from scorefield.samplers.levels import check_counts, levels_of
from scorefield.tensors import event_size, expand, sum_event


class Bound(NamedTuple):
    """A lower bound on the log-density of each row, nats in scaled data units: minus the sum of three losses."""

    log_density_bound: Tensor
    """`(b,)`; an unbiased estimate of the bound"""
    se: Tensor | None
    """its standard error from the draws `(b,)`; None for a single one"""
    prior: Tensor
    """L_T `(b,)`"""
    diffusion: Tensor
    """ΣL_t `(b,)`"""
    reconstruction: Tensor
    """L_0 `(b,)`"""
    sigma: Tensor
    """noise levels drawn `(draws, b)`"""
    density: Tensor
    """E‖z − ẑ‖² there, weighted: the diffusion part per unit of log σ `(draws, b)`. On a geometric ladder as many draws as
    steps meet every level once, the smallest first, and `density · log(σ_T/σ_1)/T` are the single L_t"""


@dataclass(frozen=True)
class ELBO:
    """The bound, its sum over levels estimated from random ones: `elbo(model, x) -> Bound`.

    Raises:
        ValueError: no draws, or no steps.
    """

    steps: int | None = None
    """T, steps between levels; None for infinitely many, the continuous bound"""
    grid: Grid = Geometric()
    """spacing of finitely many levels, from the model's largest to its smallest"""
    draws: int = 16
    """noise levels drawn for each row, one in each of as many equal strata of log σ"""
    sigma_range: tuple[float, float] | None = None
    """σ_1 and σ_T; the model's range by default"""

    def __post_init__(self) -> None:
        check_counts(steps=1 if self.steps is None else self.steps, draws=self.draws)

    @torch.no_grad()
    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Bound:
        """The bound for `x` `(b, *event)`.

        Raises:
            ValueError: integers, or levels that the model does not answer for, begin at 0 or have no end.
        """
        check_event(x, x.shape[1:])
        low, high = ends = levels_of(self, model)
        b, length = len(x), math.log(high / low)
        ladder = None if self.steps is None else x.new_tensor(self.grid(self.steps + 1, ends)[::-1], dtype=torch.float64)

        def error(sigma: Tensor) -> Tensor:
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            return sum_event((z - predict_noise(model, x + expand(sigma, x) * z, sigma, cond)) ** 2)

        drawn, densities, lasts = [], [], []
        for draw in range(self.draws):
            u = (draw + torch.rand(b, generator=generator, dtype=x.dtype, device=x.device)) / self.draws
            sigma, weight = level_and_weight(u, ends, ladder)
            drawn.append(sigma)
            densities.append(weight * error(sigma))
            lasts.append(error(torch.full_like(u, low)))
        density = torch.stack(densities)
        reconstruction = event_size(x) / 2 * math.log(2 * math.pi * low**2) + torch.stack(lasts) / 2
        changing = length * density + reconstruction
        prior = kl_to_prior(x, high)
        return Bound(
            -(prior + changing.mean(0)),
            changing.std(0) / self.draws**0.5 if self.draws > 1 else None,
            prior, length * density.mean(0), reconstruction.mean(0), torch.stack(drawn), density,
        )  # fmt: skip


def level_and_weight(u: Tensor, ends: tuple[float, float], ladder: Tensor | None) -> tuple[Tensor, Tensor]:
    """σ at the share `u` of log σ's range, and what ‖z − ẑ‖² counts there per unit of log σ.

    On a ladder of levels `(T + 1,)` from small to large σ is the upper end of the interval that holds u, and the weight is
    ½ (σ_t²/σ_{t−1}² − 1)/log(σ_t/σ_{t−1}), which tends to 1.
    """
    low, high = ends
    if ladder is None:
        return (low * (high / low) ** u).clamp(low, high), torch.ones_like(u)
    logs = ladder.log()
    gaps = logs.diff()
    t = torch.searchsorted(logs[1:-1], logs[0] + u.double() * (logs[-1] - logs[0]), right=True)
    return ladder[1:][t].to(u.dtype), (torch.expm1(2 * gaps) / (2 * gaps))[t].to(u.dtype)


def kl_to_prior(x: Tensor, sigma: float) -> Tensor:
    """L_T = KL(N(x, σ² I) ‖ N(0, (1 + σ²) I)) of each row `(b,)`."""
    d, total = event_size(x), 1 + sigma**2
    return (sum_event(x**2) - d) / (2 * total) + d / 2 * math.log(total / sigma**2)
