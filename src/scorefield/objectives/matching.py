"""Score matching at one noise level: the Fisher divergence, rewritten until it needs neither Z nor the true score.

    explicit     ½ E_p ‖s − s*‖²                              = ½ F(p‖q), F = E_p ‖∇log p − ∇log q‖²
    implicit     E_p [ ½ ‖s‖² + tr ∇s ]                       = ½ F − ½ E_p ‖∇log p‖²            by integration by parts
    sliced       E_p E_v [ ½ (vᵀs)² + vᵀ ∇s v ]               the same in expectation, for E vvᵀ = I
    sliced, variance reduced    E_p E_v [ ½ ‖s‖² + vᵀ ∇s v ]  = implicit with Hutchinson's trace
    finite-difference           sliced, with differences of step ε for both terms; error of order ε²

At σ = 0 p is the data density itself; at σ > 0 the objective adds its noise to x and matches p_σ. All values have the ½.

Reference: Hyvärinen 2005, JMLR 6 (eq. 4); Song et al. 2019, arXiv:1905.07088 (eq. 7–8); Pang et al. 2020, arXiv:2007.03317.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scorefield.interfaces import Field, JacobianTrace, Loss, Score
from scorefield.jacobian_trace import (
    Exact,
    Hutchinson,
    Probe,
    Slices,
    check_probes,
    check_step,
    difference_slices,
    draw_probes,
    slices,
)  # fmt: skip
from scorefield.objectives.batch import check_batch
from scorefield.tensors import sum_event


class ExplicitScoreMatching(nn.Module):
    """½ ‖s(x, σ) − s*(x, σ)‖² per example, for a score s* that is known: the mean is ½ F(p_σ‖q) itself.

    Args:
        target: the score to match, an oracle or a teacher; its own parameters are not trained.
        sigma: the noise level, in scaled data units; noise of it is added to the data.
    """

    def __init__(self, target: Score, sigma: float = 0.0) -> None:
        super().__init__()
        check_level(sigma)
        self.target, self.sigma = target, sigma

    def forward(self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None) -> Loss:
        y, level = noised(x, self.sigma, generator)
        with torch.no_grad():
            target = Field(self.target, self.sigma, cond).score(y)
        return Loss(sum_event((Field(model, self.sigma, cond).score(y) - target) ** 2) / 2, level, {})


@dataclass(frozen=True)
class ImplicitScoreMatching:
    """½ ‖s‖² + tr ∇s per example; its mean is ½ F(p_σ‖q) − ½ E ‖∇log p_σ‖².

    With `Exact` there is nothing random about it at σ = 0; with `Hutchinson` it is sliced score matching with reduced variance.
    """

    trace: JacobianTrace = Exact()
    """how tr ∇s is taken"""
    sigma: float = 0.0
    """the noise level, in scaled data units; noise of it is added to the data"""

    def __post_init__(self) -> None:
        check_level(self.sigma)

    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Loss:
        y, level = noised(x, self.sigma, generator)
        score, trace, se = self.trace(Field(model, self.sigma, cond), y, generator=generator)
        info = {} if se is None else {"trace_se": se.detach()}
        return Loss(sum_event(score**2) / 2 + trace, level, info)


@dataclass(frozen=True)
class SlicedScoreMatching:
    """½ (vᵀs)² + vᵀ ∇s v per example, mean over probes v; in expectation implicit score matching.

    For energies one forward pass gives both terms and the score is never formed. `variance_reduced` puts ½ ‖s‖² in the
    place of the first term.
    """

    probes: int = 1
    """independent probes for each example"""
    distribution: Probe = "rademacher"
    """law of the probes: rademacher, gaussian or sphere (of radius √d)"""
    variance_reduced: bool = False
    """take ½ ‖s‖² exactly"""
    sigma: float = 0.0
    """the noise level, in scaled data units; noise of it is added to the data"""

    def __post_init__(self) -> None:
        check_probes(self.probes, self.distribution)
        check_level(self.sigma)

    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Loss:
        if self.variance_reduced:
            implicit = ImplicitScoreMatching(Hutchinson(self.probes, self.distribution), self.sigma)
            return implicit(model, x, cond, generator=generator)
        y, level = noised(x, self.sigma, generator)
        v = draw_probes(y, self.probes, self.distribution, generator)
        return Loss(sliced_value(slices(Field(model, self.sigma, cond), y, v)), level, {})


@dataclass(frozen=True)
class FiniteDifferenceScoreMatching:
    """Sliced score matching without second derivatives: both terms from differences of step ε along the probes.

    Energies take log-densities at x, x + εv and x − εv, direct scores their values at the last two: one batch.
    The error is of order ε² and rounding adds about 1e-7/ε² times the size of log p in float32. The step must suit the finest
    scale of the network: with several Fourier frequencies the default is some per cent off in float32.
    """

    probes: int = 1
    """independent probes for each example"""
    distribution: Probe = "rademacher"
    """law of the probes: rademacher, gaussian or sphere (of radius √d)"""
    step: float | None = None
    """ε in scaled data units; by default 0.019 for energies and 0.005 for direct scores in float32"""
    sigma: float = 0.0
    """the noise level, in scaled data units; noise of it is added to the data"""

    def __post_init__(self) -> None:
        check_probes(self.probes, self.distribution)
        check_step(self.step)
        check_level(self.sigma)

    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Loss:
        y, level = noised(x, self.sigma, generator)
        v = draw_probes(y, self.probes, self.distribution, generator)
        return Loss(sliced_value(difference_slices(Field(model, self.sigma, cond), y, v, self.step)), level, {})


def sliced_value(along: Slices) -> Tensor:
    """½ (vᵀs)² + vᵀ ∇s v, mean over probes: `(k, b)` to `(b,)`."""
    return (along.slope**2 / 2 + along.curvature).mean(0)


def noised(x: Tensor, sigma: float, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """x + σz with σ as `(b,)`, after checking the batch."""
    check_batch(x)
    level = x.new_full((len(x),), sigma)
    if sigma == 0:
        return x, level
    return x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device), level


def check_level(sigma: float) -> None:
    """Raises `ValueError` for a noise level that is negative or not finite."""
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma must be at least 0 and finite, got {sigma}")
