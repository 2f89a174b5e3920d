"""Guidance: a score carried beyond a model's own, towards a class or away from a weaker model.

    s(x) = s₀(x) + w (s₁(x) − s₀(x))            w = 1 is s₁ itself, w > 1 lies further from s₀

s₁ is the score of a class; s₀ that of all classes together (classifier-free guidance) or what a weaker model makes of the same
class (autoguidance). At σ = 0 this is the score of p₁ʷ p₀¹⁻ʷ, but powers and smoothing do not commute: at σ > 0 it is *not*
the score of a diffused density unless w is 0 or 1. Reverse processes driven by it end in no density with a name, samples of
more typical members of a class at the price of variety; nor has it likelihoods. Take w for a knob, and judge what it does.

Reference: Ho & Salimans 2022, arXiv:2207.12598 (eq. 6, whose w is ours less 1); Karras et al. 2024, arXiv:2406.02507;
Bradley & Nakkiran 2024, arXiv:2408.09000 (what guided samplers sample).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.interfaces import Score
from scorefield.tensors import noise_levels


@dataclass(frozen=True)
class ClassifierFreeGuidance:
    """s(x | ∅) + w (s(x | c) − s(x | ∅)), a Score; both terms in one evaluation of twice the batch.

    With w = 1 (or without a class) it is the model itself, at its cost; with w = 0 the score of all classes together. At σ > 0
    and other w it is not the score of a diffused density.

    Raises:
        ValueError: a weight that is not finite.
    """

    model: Score
    """a model with classes, of which −1 is none"""
    weight: float
    """w: 0 ignores the class, 1 is the model's own score, more exaggerates the class"""

    def __post_init__(self) -> None:
        check_weight(self.weight)

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.model.sigma_range

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """The guided score towards the classes `cond` `(b,)`, `(b, *event)`."""
        if cond is None or self.weight == 0:
            return self.model.score(x, sigma)
        if self.weight == 1:
            return self.model.score(x, sigma, cond)
        both = torch.cat([cond, torch.full_like(cond, -1)])
        towards, away = self.model.score(torch.cat([x, x]), noise_levels(sigma, x).repeat(2), both).chunk(2)
        return torch.lerp(away, towards, self.weight)


@dataclass(frozen=True)
class AutoGuidance:
    """s_weak(x | c) + w (s(x | c) − s_weak(x | c)), a Score: a model guided by a worse version of itself, class or none.

    The weaker model is smaller or less trained, on the same data. With w = 1 it is the model itself, at its cost. At σ > 0 and
    other w it is not the score of a diffused density.

    Raises:
        ValueError: a weight that is not finite, or models without a noise level in common.
    """

    model: Score
    weaker: Score
    weight: float
    """w: 0 is the weaker model's score, 1 the model's own, more leads away from the weaker one"""

    def __post_init__(self) -> None:
        check_weight(self.weight)
        low, high = self.sigma_range
        if not low <= high:
            raise ValueError(f"the models have no noise level in common: {self.model.sigma_range}, {self.weaker.sigma_range}")

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The levels that both models answer for."""
        (a, b), (c, d) = self.model.sigma_range, self.weaker.sigma_range
        return max(a, c), min(b, d)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """The guided score, `(b, *event)`."""
        towards = self.model.score(x, sigma, cond)
        return towards if self.weight == 1 else torch.lerp(self.weaker.score(x, sigma, cond), towards, self.weight)


def check_weight(weight: float) -> None:
    """Raises `ValueError` for a guidance weight that is infinite or NaN."""
    if not math.isfinite(weight):
        raise ValueError(f"the guidance weight must be finite, got {weight}")
