"""Row 18: log Z by annealed importance sampling, from below and, with exact samples, from above.

E w = Z forward and E 1/w = 1/Z backward, so E log w ≤ log Z ≤ E log w_backward. The mixtures' log Z is known, and that in the
plane is also found by quadrature.
"""

import math
from collections.abc import Iterator

import torch

from scorefield.densities import gaussian
from scorefield.likelihood import Annealing, geometric_path, noise_path, quadrature
from scorefield.verify.compose import Unnormalised
from scorefield.verify.families import Shape, name, random_mixture, stream
from scorefield.verify.record import STANDARD_ERRORS, Record, close, ordered

LOG_Z = 1.5


def row_18(full: bool) -> Iterator[Record]:
    for shape in ((2,), (16,), (1, 4, 4)) if full else ((2,), (1, 4, 4)):
        yield from bracketed(shape, 1024 if full else 256)


def bracketed(shape: Shape, particles: int) -> Iterator[Record]:
    p = random_mixture(shape, stream(18))
    f = Unnormalised(p, LOG_Z)
    if math.prod(shape) == 2:
        yield close(18, "log ∫ f by quadrature [1e-4]", quadrature(f, shape).log_z, LOG_Z, 1e-4)
    moved, still = Annealing(particles, islands=8), Annealing(particles, islands=8, moves=0)
    denoised = noise_path(f, shape, 0.1, 80, 20.0, denoising=True, generator=stream(18, 5))
    for along, path, walk in (
        ("temperatures", geometric_path(gaussian(torch.zeros(shape), 4.0), f, steps=80), moved),
        ("noise levels", noise_path(f, shape, 0.1, 80, 20.0), moved),
        ("noise levels, denoising", denoised, still),
    ):
        which = f"{name(shape)}, along {along}"
        sizes = walk.step_sizes(path, generator=stream(18, 1))
        exact = p.sample(particles, path.sigma, generator=stream(18, 2))
        ais = walk.importance(path, sizes, exact=exact, generator=stream(18, 3))
        smc = walk.sequential(path, sizes, generator=stream(18, 4))
        for what, found in (("AIS", ais), ("SMC", smc)):
            allowed = STANDARD_ERRORS * found.se
            yield close(18, f"log Z by {what}: {which} [{STANDARD_ERRORS} standard errors]", found.log_z, LOG_Z, allowed)
        assert ais.lower is not None and ais.upper is not None  # noqa: PT018  # both were asked for
        yield ordered(18, f"log Z ≥ E log w: {which}", LOG_Z + STANDARD_ERRORS * ais.lower.se, ais.lower.value)
        yield ordered(18, f"E log w backward ≥ log Z: {which}", ais.upper.value + STANDARD_ERRORS * ais.upper.se, LOG_Z)
