"""Shapes. A batch is `(b, *event)`; a noise level σ is a number or `(b,)`. This file may not grow."""

import math
from typing import overload

import torch
from torch import Tensor


def noise_levels(sigma: float | Tensor, x: Tensor) -> Tensor:
    """σ as a tensor `(b,)` in the dtype and on the device of `x` `(b, *event)`.

    Raises:
        ValueError: `sigma` is neither a scalar nor of shape `(b,)`.
    """
    if isinstance(sigma, int | float):
        return torch.full((), sigma, dtype=x.dtype, device=x.device).expand(len(x))
    s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if s.ndim > 1 or (s.ndim == 1 and len(s) not in (1, len(x))):
        raise ValueError(f"sigma must be a scalar or of shape ({len(x)},), got {tuple(s.shape)}")
    return s.expand(len(x))


@overload
def expand(values: Tensor, x: Tensor) -> Tensor: ...
@overload
def expand(values: float | Tensor, x: Tensor) -> float | Tensor: ...
def expand(values: float | Tensor, x: Tensor) -> float | Tensor:
    """Values `(b,)` shaped `(b, 1, …, 1)` so that they broadcast against `x` `(b, *event)`; a number stays one."""
    return values if isinstance(values, int | float) else values.reshape(-1, *[1] * (x.ndim - 1))


def sum_event(x: Tensor) -> Tensor:
    """Sum over everything but the batch: `(b, *event)` to `(b,)`."""
    return x.flatten(1).sum(1)


def event_size(x: Tensor) -> int:
    """Number of coordinates of one event, d."""
    return math.prod(x.shape[1:])
