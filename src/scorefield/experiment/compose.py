"""Several trained models as one: log f = Σ cᵢ log fᵢ, sampled by chains at one noise level after another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scorefield.densities import LogLinear
from scorefield.densities.confinement import check_confined
from scorefield.errors import UserError
from scorefield.models import EnergyModel
from scorefield.persistence import Model
from scorefield.samplers import HMC, MALA, ULA, AnnealedChains, Kernel

KernelName = Literal["hmc", "mala", "ula"]
KERNELS: dict[KernelName, Kernel] = {"hmc": HMC(3), "mala": MALA(), "ula": ULA()}


@dataclass(frozen=True)
class ChainOptions:
    """How the composition is sampled."""

    kernel: KernelName | None = None
    """hmc or mala, which are corrected and need energies, or ula, which is not and takes scores (hmc for energies, else ula)"""
    steps: int = 60
    """noise levels to walk"""
    steps_per_level: int = 6
    """moves at each"""
    sigma_range: tuple[float, float] | None = None
    """smallest and largest noise level to walk between, in units of the data's standard deviation (the models')"""


def composed(models: Sequence[Model], exponents: Sequence[float]) -> LogLinear:
    """The composition.

    Raises:
        UserError: fewer than two models and no exponent, other numbers of exponents, a sum of exponents that is not positive,
            models of different shapes or scalings, or energies whose composition does not fall far out.
    """
    coefficients = tuple(exponents) or (1.0,) * len(models)
    if len(models) < 2 and not exponents:
        raise UserError("nothing to compose: give two runs or more, or one with --exponents")
    if len(coefficients) != len(models):
        raise UserError(f"--exponents needs a number for each of {len(models)} runs, got {len(coefficients)}")
    if not all(map(math.isfinite, coefficients)):
        raise UserError(f"--exponents must be finite, got {coefficients}")
    if not sum(coefficients) > 0:
        raise UserError(f"--exponents must have a positive sum, or nothing falls far out, got {coefficients}")
    try:
        found = LogLinear(models, coefficients)
        if all(isinstance(model, EnergyModel) for model in models) and found.event_shape is not None:
            check_confined(found, found.event_shape, found.sigma_range[0])
    except ValueError as error:
        raise UserError(f"these runs cannot be composed: {error}") from error
    return found


def chains_named(options: ChainOptions, models: Sequence[Model]) -> AnnealedChains:
    """The sampler.

    Raises:
        UserError: a corrected kernel for scores alone, or a number it cannot take.
    """
    energies = all(isinstance(model, EnergyModel) for model in models)
    name: KernelName = options.kernel or ("hmc" if energies else "ula")
    if name != "ula" and not energies:
        raise UserError(f"--kernel {name} is for energies, and not all of these runs are: train with --energy, or take ula")
    try:
        return AnnealedChains(
            KERNELS[name], options.steps, options.steps_per_level, 0.1 if name == "ula" else 0.2, options.sigma_range
        )
    except ValueError as error:
        raise UserError(f"--{error}".replace("_", "-")) from error
