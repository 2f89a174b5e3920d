"""The point sets that papers draw in the plane: `(n, *, seed)` to points `(n, 2)`, float64, about standard deviation 1.

Each is shifted and divided by constants of its law, not of the sample, so that the mean is 0, the variances of the two
coordinates average to 1, and more points are more points of the same law. The same n and seed give the same points.
"""

import math

import numpy as np
import torch
from torch import Tensor

from scorefield.densities.analytic import eight_gaussians
from scorefield.randomness import derive_seed, keyed_generator


def two_moons(n: int, *, seed: int, noise: float = 0.05) -> Tensor:
    """Two interleaved half circles, at scikit-learn's equally spaced angles, plus noise of standard deviation `noise`."""
    from sklearn.datasets import make_moons

    points, _ = make_moons(n, noise=noise, random_state=_sklearn_seed(seed, "two moons"))
    variances = 3 / 4, 9 / 16 - 1 / math.pi
    return _standardised(points, (1 / 2, 1 / 4), sum(variances) / 2 + noise**2)


def swiss_roll(n: int, *, seed: int, noise: float = 0.3) -> Tensor:
    """The spiral t (cos t, sin t), t uniform on [3π/2, 9π/2], plus noise of standard deviation `noise` before scaling."""
    from sklearn.datasets import make_swiss_roll

    points, _ = make_swiss_roll(n, noise=noise, random_state=_sklearn_seed(seed, "swiss roll"))
    mean = 2.0, 2 / (3 * math.pi)
    second_moment = 39 / 4 * math.pi**2  # E[t²] = E[x₁² + x₂²]
    return _standardised(points[:, [0, 2]], mean, (second_moment - mean[0] ** 2 - mean[1] ** 2) / 2 + noise**2)


def checkerboard(n: int, *, seed: int) -> Tensor:
    """The uniform law on the eight dark squares of a 4 × 4 board."""
    g = keyed_generator(seed, "checkerboard")
    column = torch.randint(4, (n,), generator=g)
    row = 2 * torch.randint(2, (n,), generator=g) + column % 2
    corner = torch.stack([column, row], 1) - 2
    points = corner + torch.rand(n, 2, generator=g, dtype=torch.float64)
    return points / math.sqrt(4 / 3)  # each coordinate is uniform on [−2, 2]


def pinwheel(n: int, *, seed: int, arms: int = 5, radial: float = 0.3, tangential: float = 0.1, rate: float = 0.25) -> Tensor:
    """Gaussian blades around the origin, each bent by a rotation that grows exponentially with the radius.

    Reference: Johnson et al. 2016, arXiv:1603.06277, figure 4.
    """
    g = keyed_generator(seed, "pinwheel")
    arm = torch.randint(arms, (n,), generator=g)
    along, across = torch.randn(2, n, generator=g, dtype=torch.float64)
    along, across = 1 + radial * along, tangential * across
    angle = 2 * math.pi / arms * arm.double() + rate * along.exp()
    c, s = angle.cos(), angle.sin()
    points = torch.stack([c * along - s * across, s * along + c * across], 1)
    return points / math.sqrt((1 + radial**2 + tangential**2) / 2)  # a rotation keeps E‖x‖²; two arms or more, mean 0


def eight_gaussian_points(n: int, *, seed: int) -> Tensor:
    """Draws of the density `eight_gaussians()`."""
    return eight_gaussians().sample(n, generator=keyed_generator(seed, "eight gaussians"))


def _sklearn_seed(seed: int, purpose: str) -> int:
    return derive_seed(seed, purpose) % 2**32


def _standardised(points: np.ndarray, mean: tuple[float, float], variance: float) -> Tensor:
    return (torch.from_numpy(points).double() - torch.tensor(mean, dtype=torch.float64)) / math.sqrt(variance)
