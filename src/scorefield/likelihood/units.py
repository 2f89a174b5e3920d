"""From nats in scaled data units to the units people quote.

A density changes with its coordinates: x = (raw − shift)/scale gives log p_raw = log p_scaled − Σ log scale. Of integer data
the probability of a value is the mass of the unit cube round it; the log-density of the raw value with uniform noise of
width 1 added is on average below its logarithm, so bits per dimension from it are an upper bound (Theis et al. 2016,
arXiv:1511.01844, eq. 5).
"""

import math

import torch
from torch import Tensor

from scorefield.data.scaling import Scaling


def log_scale(scaling: Scaling, event_shape: tuple[int, ...]) -> float:
    """Σ log scale over the coordinates of an event, nats."""
    d = math.prod(event_shape)
    return sum(math.log(s) for s in scaling.scale) * d / len(scaling.scale)


def raw_log_density(log_density: Tensor, scaling: Scaling, event_shape: tuple[int, ...]) -> Tensor:
    """Nats in the units of the raw data, from nats in scaled units."""
    return log_density - log_scale(scaling, event_shape)


def bits_per_dim(log_density: Tensor, event_shape: tuple[int, ...]) -> Tensor:
    """−log₂ p/d from nats in the units of the raw data; of integers an upper bound on the bits that name a value."""
    return -log_density / (math.prod(event_shape) * math.log(2))


def dequantise(raw: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Integers with uniform noise in [−½, ½) added, float32 (float64 stays): the mean of a value stays what it was."""
    values = raw if raw.is_floating_point() else raw.float()
    return values + torch.rand(values.shape, generator=generator, dtype=values.dtype, device=values.device) - 0.5
