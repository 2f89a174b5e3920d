"""How far a learned score lies from the true one, and how far it is from being a gradient.

    relative error     E‖ŝ − s‖² / E‖s‖²                        0 is perfect, 1 no better than ŝ = 0
    by deciles         the same within tenths of the points by log p: where there is little data, little was learned
    curl               ‖(J − Jᵀ)/2‖_F / ‖J‖_F,  J = ∇ŝ          0 for every gradient field, 1 for a pure rotation

Reference: Song & Ermon 2019, arXiv:1907.05600 (figure 2).
"""

import torch
from torch import Tensor

from scorefield.interfaces import Field
from scorefield.metrics.record import Estimate
from scorefield.tensors import event_size


def relative_error(learned: Tensor, exact: Tensor) -> Estimate:
    """E‖ŝ − s‖²/E‖s‖² over points, of scores `(n, *event)`, with the standard error of a ratio of means.

    Raises:
        ValueError: scores of different shapes, or an exact score that is zero everywhere.
    """
    error, size = squares(learned, exact)
    return ratio_of_means(error, size)


def error_by_log_density(learned: Tensor, exact: Tensor, log_density: Tensor, groups: int = 10) -> list[Estimate]:
    """The relative error within `groups` equal parts of the points, ordered by `log_density` `(n,)`, lowest first.

    Raises:
        ValueError: as `relative_error`, or fewer points than groups, or `log_density` not of shape `(n,)`.
    """
    error, size = squares(learned, exact)
    if log_density.shape != error.shape or not 1 <= groups <= len(error):
        raise ValueError(f"{groups} groups need as many points and their log-densities, got {tuple(log_density.shape)}")
    parts = log_density.argsort().tensor_split(groups)
    return [ratio_of_means(error[part], size[part]) for part in parts]


def curl(field: Field, x: Tensor) -> Tensor:
    """‖(J − Jᵀ)/2‖_F/‖J‖_F at each point of `x` `(b, *event)`, `(b,)`, J the Jacobian of the score; NaN where J = 0."""
    j = jacobian(field, x)
    return torch.linalg.matrix_norm(j - j.mT) / (2 * torch.linalg.matrix_norm(j))


def jacobian(field: Field, x: Tensor) -> Tensor:
    """The Jacobian of a score at each point, `(b, d, d)`: entry ij is ∂sᵢ/∂xⱼ. Memory grows with b d²."""
    d = event_size(x)
    basis = torch.eye(d, dtype=x.dtype, device=x.device).reshape(d, 1, *x.shape[1:])
    _, pullback = torch.func.vjp(field.score, x)  # type: ignore[misc]  # its type allows for has_aux
    rows: Tensor = torch.func.vmap(lambda v: pullback(v.expand(x.shape))[0])(basis)
    return rows.flatten(2).transpose(0, 1)


def squares(learned: Tensor, exact: Tensor) -> tuple[Tensor, Tensor]:
    """‖ŝ − s‖² and ‖s‖², `(n,)`, float64."""
    if learned.shape != exact.shape:
        raise ValueError(f"scores must have one shape, got {tuple(learned.shape)} and {tuple(exact.shape)}")
    learned, exact = learned.detach().double().flatten(1), exact.detach().double().flatten(1)
    return ((learned - exact) ** 2).sum(1), (exact**2).sum(1)


def ratio_of_means(above: Tensor, below: Tensor) -> Estimate:
    """mean(above)/mean(below) of pairs `(n,)`, its standard error to first order."""
    if not below.any():
        raise ValueError("the exact score is zero at every point: there is nothing to be relative to")
    ratio = above.mean() / below.mean()
    se = (above - ratio * below).std() / (below.mean() * len(above) ** 0.5) if len(above) > 1 else None
    return Estimate(float(ratio), None if se is None else float(se))
