"""Does a density fall fast enough to have an integral? Looked at along rays, for no finite look can prove it.

Far out a density that falls like r^−a has an integral over ℝᵈ only if a > d; log-densities that fall like −r² pass, and those
like −c r if c is not small beside d/650.
"""

import math

import torch
from torch import Tensor

from scorefield.interfaces import Density, check_scalar, home
from scorefield.tensors import expand

RADII = (30.0, 3000.0)
"""in scaled data units, whose standard deviation is 1: outside the data, and far outside"""


@torch.no_grad()
def slowest_fall(density: Density, event_shape: tuple[int, ...], sigma: float = 0.0, rays: int = 64) -> float:
    """The least a = −d log f/d log r between `RADII` along random rays, over d: above 1 the density may have an integral.

    NaN counts as no fall at all, −∞ at either as a complete one.

    Raises:
        ValueError: a log-density that is not one number per example.
    """
    u, d = directions(rays, event_shape).to(home(density)), math.prod(event_shape)
    near, far = (check_scalar(density.log_density(r * max(1.0, sigma) * u, sigma), u).double() for r in RADII)
    fall = torch.where((far == -math.inf) | (near == -math.inf), math.inf, (near - far) / math.log(RADII[1] / RADII[0]))
    return float(fall.nan_to_num(nan=-math.inf, posinf=math.inf).min()) / d


def check_confined(density: Density, event_shape: tuple[int, ...], sigma: float = 0.0) -> None:
    """Raises `ValueError` where the density does not fall fast enough along some ray to have an integral."""
    fall = slowest_fall(density, event_shape, sigma)
    if not fall > 1:
        raise ValueError(
            f"the log-density falls like {-fall:.2g} d log r far out along some ray, and less than −1 is needed: Z may be "
            "infinite; give the energy a confinement (a network: parameterisation edm, v or flow)"
        )


def directions(n: int, event_shape: tuple[int, ...]) -> Tensor:
    """n random unit vectors `(n, *event)`."""
    u = torch.randn(n, *event_shape, generator=torch.Generator().manual_seed(0))
    return u / expand(u.flatten(1).norm(dim=1), u)
