"""Matching the ratios of a discrete law: objectives for x in {0, …, S−1}ᵈ without the partition function.

x_{i→a} is x with x_i := a, a neighbour of x if a ≠ x_i. Write r_p(x → n) = p(n)/p(x).

**Ratio matching** (S = 2, n the flip of bit i). With g(u) = 1/(1+u), g_p = g(1/r_p) = p(n)/(p(x) + p(n)) is bounded. Of a pair
{x, n} of weights P, P' and a model's g_q(x) = t, hence g_q(n) = 1 − t,

    P t² + P' (1 − t)² = (P + P') (t − P'/(P + P'))² + P P'/(P + P')
    so   E_p Σ_i g(1/r_q)² = E_p Σ_i (g_p − g_q)² + E_p Σ_i g_p²

which uses g_q(x) + g_q(n) = 1: true of every log-density, not of free ratios.

**Concrete score matching.** Ratios r(x → n) of any kind, on the complete Hamming-1 neighbourhood N(x):

    E_p Σ_{n∈N(x)} (r(x → n) − p(n)/p(x))² = E_p Σ_n r(x → n)² − 2 Σ_x Σ_{n∈N(x)} p(n) r(x → n) + E_p Σ_n r_p²

N is symmetric, so the middle sum, with n renamed y, is an expectation over y ~ p of what the model says *at the
neighbours of y about coming back to y*:

    value(y) = Σ_{n∈N(y)} r(y → n)² − 2 Σ_{x∈N(y)} r(x → y),      E_p value = E_p Σ (r − r_p)² − E_p Σ_n r_p²

Leaving the second term at y itself, r(y → n), would fit r = 1. For a log-density r(x → y) = 1/r(y → x), so the neighbours are
evaluated once.

**Pseudo-likelihood** is E_p Σ_i −log q(x_i | x_{−i}) = E_p Σ_i KL(p(· | x_{−i}) ‖ q(· | x_{−i})) + const, maximum likelihood
E_p[−log q] = KL(p‖q) + H(p). If p is positive everywhere, each of the four is least at q = p alone.

Reference: Hyvärinen 2007, Computational Statistics & Data Analysis 51(5); Besag 1975, The Statistician 24(3);
Meng et al. 2022, arXiv:2211.00802.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.densities.discrete import (
    DiscreteDensity,
    Ratios,
    as_density,
    check_states,
    log_conditionals,
    moves,
    neighbour_log_ratios,
    neighbours,
)
from scorefield.interfaces import Density, Energy, Loss
from scorefield.objectives.batch import check_batch


@dataclass(frozen=True)
class RatioMatching:
    """Σ_i g(q(x)/q(x with bit i flipped))², g(u) = 1/(1+u): in [0, d], no units; binary data.

    Raises:
        ValueError: the model is not a log-density on two states, or x is not int64 `(b, d)` of zeros and ones.
    """

    def __call__(
        self, model: DiscreteDensity, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Loss:
        if as_density(model).states != 2:
            raise ValueError(f"ratio matching is for binary data, got {model.states} states: use PseudoLikelihood")
        flips = neighbour_log_ratios(model, x, cond).gather(2, moves(x, 2))
        return Loss((flips.sigmoid() ** 2).sum((1, 2)), None, {})  # g(u) = sigmoid(−log u)


@dataclass(frozen=True)
class PseudoLikelihood:
    """−Σ_i log q(x_i | x_{−i}), nats.

    Raises:
        ValueError: the model is not a discrete log-density, or x is not int64 `(b, d)` of its states.
    """

    def __call__(
        self, model: DiscreteDensity, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Loss:
        return Loss(-log_conditionals(model, x, cond).gather(2, x[:, :, None]).sum((1, 2)), None, {})


@dataclass(frozen=True)
class ConcreteScoreMatching:
    """Σ_n r(x → n)² − 2 Σ_n r(n → x) over all Hamming-1 neighbours n of x, for free ratios and for log-densities.

    Ratios grow exponentially in log q; a model or data with nearly impossible states wants float64.

    Raises:
        ValueError: the model has neither `ratios` nor a discrete log-density, or x is not int64 `(b, d)` of its states.
    """

    def __call__(
        self,
        model: Ratios | DiscreteDensity,
        x: Tensor,
        cond: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Loss:
        if isinstance(model, Ratios):
            returning = _returning(model, x, cond)
            leaving = model.ratios(x, cond).gather(2, moves(x, model.states))
        else:
            log_ratios = neighbour_log_ratios(model, x, cond).gather(2, moves(x, model.states))
            leaving, returning = log_ratios.exp(), (-log_ratios).exp()
        return Loss((leaving**2 - 2 * returning).sum((1, 2)), None, {})


@dataclass(frozen=True)
class MaximumLikelihood:
    """−log q(x), nats; for exactly normalised densities only.

    An unnormalised one would lower this loss without end by adding a constant to log q. A model that declares
    `normalised = False` is refused, and an `Energy` unless it declares True; any other that declares nothing is believed.

    Raises:
        ValueError: the model has no `log_density`, or says that it is not normalised; x is floating-point and empty or not
            finite, or the model is discrete and x is not int64 `(b, d)` of its states.
    """

    def __call__(
        self, model: Density, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Loss:
        if not isinstance(model, Density) or not getattr(model, "normalised", not isinstance(model, Energy)):
            raise ValueError(f"maximum likelihood needs a normalised log-density, got {type(model).__name__}")
        if isinstance(model, DiscreteDensity):
            check_states(x, model.states)
        elif x.is_floating_point():
            check_batch(x)
        return Loss(-model.log_density(x, 0.0, cond), None, {})


def _returning(model: Ratios, x: Tensor, cond: Tensor | None) -> Tensor:
    """r(n → x) of every neighbour n of x, `(b, d, states−1)`, from the model's ratios at n."""
    near = neighbours(x, model.states)
    b, d, k, _ = near.shape
    r = model.ratios(near.flatten(0, 2), None if cond is None else cond.repeat_interleave(d * k, 0))
    same_site = r.reshape(b, d, k, d, model.states).diagonal(dim1=1, dim2=3)  # (b, states−1, states, d)
    return same_site.gather(2, x[:, None, None].expand(b, k, 1, d))[:, :, 0].transpose(1, 2)
