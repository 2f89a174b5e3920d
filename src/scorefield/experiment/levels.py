"""The diffusion model as the deep limit of a hierarchical VAE: what each level of either adds to the evidence bound.

    −log p(x) ≤ L_T + Σ L_t + L_0      in nats of the raw data, or bits per dimension of integers

A VAE has a few levels and learns its way up; a diffusion has as many as one likes, and its way up is to add noise.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from scorefield.baselines import Baseline, HierarchicalVAE
from scorefield.experiment.likelihood import encoded, unit_of
from scorefield.likelihood import ELBO, raw_log_density
from scorefield.metrics import Estimate
from scorefield.metrics.record import mean_estimate
from scorefield.persistence import Model
from scorefield.randomness import keyed_generator

STRATA = 10
"""rows of a table into which the levels of a long chain are summed"""
DRAWS = 16
"""of a VAE's latents for each row"""


@dataclass(frozen=True)
class Levels:
    """The parts of one chain's bound, each with a standard error over rows."""

    chain: str
    names: tuple[str, ...]
    parts: tuple[Estimate, ...]
    total: Estimate
    unit: str
    rows: int
    """held-out rows"""
    lowest: float = 0.0
    """of a diffusion: the lower end of its first step"""
    sigma: tuple[float, ...] = ()
    """of a diffusion: the upper end of every step, the smallest first"""
    per_level: tuple[float, ...] = ()
    """of a diffusion: the mean L_t of every step"""


@torch.no_grad()
def vae_levels(model: Baseline, raw: np.ndarray, *, seed: int = 0) -> Levels:
    """L_0, the reconstruction, and L_l of each stochastic level of a (hierarchical) VAE.

    Raises:
        ValueError: another family.
    """
    if not isinstance(model.family, HierarchicalVAE):
        raise ValueError("only latent-variable models have levels")
    unit, rows = unit_of(model.spec), torch.from_numpy(np.array(raw))
    drawn = [model.family.terms(rows, generator=keyed_generator(seed, "levels", i)) for i in range(DRAWS)]
    parts = [torch.stack([d.reconstruction for d in drawn]).mean(0)]
    parts += [torch.stack([d.levels[level] for d in drawn]).mean(0) for level in range(len(drawn[0].levels))]
    names = ("L_0: x given z_1", *(f"L_{k}: z_{k}" for k in range(1, len(parts))))
    return summed(f"VAE of {len(parts) - 1} levels", names, [abs(unit.factor) * p.double() for p in parts], unit.short)


@torch.no_grad()
def diffusion_levels(model: Model, raw: np.ndarray, steps: int, *, seed: int = 0, device: torch.device | str = "cpu") -> Levels:
    """L_0, L_1 … L_T of the chain of T = `steps` steps between levels in geometric progression, and the prior's part.

    Raises:
        ValueError: no steps.
    """
    spec, unit = model.spec, unit_of(model.spec)
    x = encoded(spec, torch.from_numpy(np.array(raw)), seed, "levels", 0).to(device)
    low, high = spec.sigma_range
    bound = ELBO(steps=steps, draws=steps)(model, x, generator=keyed_generator(seed, "levels", steps, device=device))
    factor = abs(unit.factor)
    each = factor * np.log(high / low) / steps * bound.density.double().cpu()
    last = -factor * raw_log_density(-bound.reconstruction.double().cpu(), spec.scaling, spec.event_shape)
    strata = [part.sum(0) for part in each.tensor_split(min(STRATA, steps))]
    ends = np.geomspace(low, high, steps + 1)
    lengths = [len(part) for part in torch.arange(steps).tensor_split(len(strata))]
    edges = ends[np.cumsum([0, *lengths])]
    names = [f"σ from {a:.3g} to {b:.3g}" for a, b in itertools.pairwise(edges)]
    parts = [last, *strata, factor * bound.prior.double().cpu()]
    found = summed(f"diffusion, T = {steps}", ("L_0: x given x_1", *names, "L_T: the prior"), parts, unit.short)
    return replace(found, lowest=low, sigma=tuple(ends[1:].tolist()), per_level=tuple(each.mean(1).tolist()))


def summed(chain: str, names: tuple[str, ...], parts: list[Tensor], unit: str) -> Levels:
    """Means over rows of parts `(b,)` and of their sum."""
    total = torch.stack(parts).sum(0)
    return Levels(chain, names, tuple(mean_estimate(p) for p in parts), mean_estimate(total), unit, len(total))
