"""Generalised score matching: one divergence for gradients, marginals and whatever else is linear.

For a linear operator L from functions to m functions, with adjoint L* (∫ ⟨Lf, h⟩ = ∫ f L*h, a sum where x is discrete),

    E_p‖L[p]/p − L[q]/q‖² = E_p‖L[q]/q‖² − 2 ∫ ⟨L[p], L[q]/q⟩ + const = E_p[ ‖L[q]/q‖² − 2 L*(L[q]/q) ] + const

with const = E_p‖L[p]/p‖² free of q. If L[p]/p determines p, the minimiser is q = p. L[q]/q never needs the partition function.

    L          L[q]/q                    L*h                     per example
    ∇          ∇ log q = s               −div h                  ‖s‖² + 2 tr ∇s: twice implicit score matching
    (M_i)_i    1/q(x_i | x_{−i})         Σ_i Σ_a h_i(x_{i→a})    Σ_i [1/q(x_i | x_{−i})² − 2 Σ_a 1/q(a | x_{−i})]

M_i f(x) = Σ_a f(x_{i→a}) sums coordinate i out; it is its own adjoint. The constants are E_p‖∇log p‖², and
E_p Σ_i 1/p(x_i | x_{−i})².

Reference: Lyu 2009, arXiv:1205.2629 (section 4); Hyvärinen 2005, JMLR 6.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from scorefield.densities.discrete import DiscreteDensity, log_conditionals
from scorefield.interfaces import Field, JacobianTrace, Loss, Score
from scorefield.objectives.batch import check_batch
from scorefield.objectives.matching import check_level


class OperatorRatio(NamedTuple):
    """L[q]/q at each example, `(b, m)`, and L* of it there, `(b,)`: one record, as they share the model's evaluation."""

    ratio: Tensor
    adjoint: Tensor


class Operator(Protocol):
    """A linear operator L on densities, known by what it makes of a model q."""

    def __call__(
        self, model: Any, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> OperatorRatio: ...


@dataclass(frozen=True)
class Gradient:
    """L = ∇, L* = −div: the ratio is the score, flat `(b, d)`.

    `sigma`, in scaled data units, is the level at which the model is asked; no noise is added, so x must be a sample of p_σ.

    Raises:
        ValueError: `sigma` is negative or not finite; the model has no score, or not at this `sigma`; x is empty, not
            floating-point or not finite.
    """

    trace: JacobianTrace
    sigma: float = 0.0

    def __post_init__(self) -> None:
        check_level(self.sigma)

    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> OperatorRatio:
        if not isinstance(model, Score):
            raise ValueError(f"the gradient operator needs a model with a score, got {type(model).__name__}")
        check_batch(x)
        score, trace, _ = self.trace(Field(model, self.sigma, cond), x, generator=generator)
        return OperatorRatio(score.flatten(1), -trace)


@dataclass(frozen=True)
class Marginalisation:
    """L = (M_i), sums over one coordinate each: the ratio is 1/q(x_i | x_{−i}), `(b, d)`; discrete data.

    Inverse probabilities grow exponentially in log q; a model or data with nearly impossible states wants float64.

    Raises:
        ValueError: the model is not a discrete log-density, or x is not int64 `(b, d)` of its states.
    """

    def __call__(
        self, model: DiscreteDensity, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> OperatorRatio:
        inverse = (-log_conditionals(model, x, cond)).exp()
        return OperatorRatio(inverse.gather(2, x[:, :, None])[:, :, 0], inverse.sum((1, 2)))


@dataclass(frozen=True)
class GeneralisedScoreMatching:
    """‖L[q]/q‖² − 2 L*(L[q]/q) per example: its mean is E_p‖L[p]/p − L[q]/q‖² (no ½) up to a constant of q.

    Raises:
        ValueError: what the operator raises for a model or data that it is not made for.
    """

    operator: Operator

    def __call__(self, model: Any, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None) -> Loss:
        ratio, adjoint = self.operator(model, x, cond, generator=generator)
        return Loss((ratio**2).sum(1) - 2 * adjoint, None, {})
