"""Samplers by name, as the command line offers them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch

from scorefield.errors import UserError
from scorefield.interfaces import Score, check_sigma
from scorefield.persistence import Model
from scorefield.samplers import AnnealedLangevin, Autocast, Heun, Langevin, StartingSampler
from scorefield.training.config import Precision, computes_in_bf16

SamplerName = Literal["heun", "annealed-langevin", "langevin"]
DEFAULTS: dict[str, Callable[[], Heun | AnnealedLangevin | Langevin]] = {
    "heun": Heun,
    "annealed-langevin": AnnealedLangevin,
    # a level at which neighbouring modes still touch: at σ_min the chain would not move
    "langevin": lambda: Langevin(sigma=0.3, to_zero=True),
}


def sampler_named(name: str, model: Score, steps: int | None = None, sigma: float | None = None) -> StartingSampler:
    """The sampler for `model` with its default settings, changed by what is given.

    Args:
        steps: steps (heun, langevin) or noise levels (annealed-langevin).
        sigma: the noise level that plain Langevin dynamics stays at.

    Raises:
        UserError: unknown name, a number of steps it cannot take, a `sigma` where there is none or that the model has not.
    """
    if name not in DEFAULTS:
        raise UserError(f"unknown sampler {name!r}: choose one of {', '.join(DEFAULTS)}")
    try:
        sampler = DEFAULTS[name]()
        if steps is not None:
            sampler = replace(sampler, steps=steps)
        if sigma is not None:
            if not isinstance(sampler, Langevin):
                raise UserError(f"--sigma is for the sampler langevin; {name} walks through all levels")
            check_sigma(sigma, torch.zeros(1), model.sigma_range)
            sampler = replace(sampler, sigma=sigma)
    except ValueError as error:
        raise UserError(str(error) if isinstance(error, UserError) else f"--{error}") from error
    return sampler


def in_precision(model: Model, precision: Precision, device: torch.device) -> Score:
    """The model as it is sampled from: `auto` is bf16 where the device computes in it and the score is direct."""
    direct = not hasattr(model, "log_density")
    if precision == "bf16" and not direct:
        raise UserError("--precision bf16 is for direct scores only: an energy's gradient needs float32")
    if precision == "bf16" or (precision == "auto" and direct and computes_in_bf16(device)):
        return Autocast(model, device)
    return model
