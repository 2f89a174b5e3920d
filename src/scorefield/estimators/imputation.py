"""Missing values of encoded rows, drawn from their law given the others."""

import torch
from torch import Tensor

from scorefield.estimators.residual import MixtureResidual, OfRows, States
from scorefield.samplers import Heun


@torch.no_grad()
def completed(model: MixtureResidual, z: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Encoded rows `(n, d)` whose NaNs are drawn given the others."""
    gaps = z.isnan()
    known = torch.where(gaps, 0.0, z)
    rows = OfRows(model, States(gaps.to(z.dtype), (~gaps).to(z.dtype), known))
    low, high = model.sigma_range
    start = rows.mixture.sample(high, generator).to(z.dtype)
    *_, state = Heun(steps=steps, sigma_range=(low, high))(rows, start, generator=generator)
    return torch.where(gaps, state.x, known)
