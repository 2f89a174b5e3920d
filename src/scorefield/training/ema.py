"""The average of the weights that is sampled from: an exponential moving average whose window grows with training.

    θ̂ ← β θ̂ + (1 − β) θ,   β = (1 − 1/t)^(γ+1)

so the average always covers the same *fraction* of the run, whatever its length; `width` is its relative standard
deviation (Karras et al. 2024, arXiv:2312.02696, eq. 1, 2 and appendix C).
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def power_exponent(width: float) -> float:
    """γ for a relative width in (0, 0.28): the positive root of (γ+1)/((γ+2)²(γ+3)) = width²."""
    return float(np.roots([1, 7, 16 - width**-2, 12 - width**-2]).real.max())


@torch.no_grad()
def update_average(average: Iterable[Tensor], current: Iterable[Tensor], step: int, width: float) -> None:
    """One step of the average in place, after training step `step` = 1, 2, …; all tensors in one fused call."""
    beta = (1 - 1 / step) ** (power_exponent(width) + 1)
    torch._foreach_lerp_(list(average), list(current), 1 - beta)
