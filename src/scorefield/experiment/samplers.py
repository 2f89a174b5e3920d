"""Samplers by name, as the command line offers them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from scorefield.baselines import Baseline, Drawing
from scorefield.errors import UserError
from scorefield.interfaces import Score, check_sigma
from scorefield.persistence import AnyModel
from scorefield.processes import PROCESSES, ProcessName
from scorefield.samplers import (
    DDIM,
    GRIDS,
    Ancestral,
    AnnealedLangevin,
    Autocast,
    Churn,
    Descent,
    DormandPrince,
    DPMSolver,
    Euler,
    EulerMaruyama,
    GridName,
    Heun,
    Langevin,
    PredictorCorrector,
    RungeKutta4,
)
from scorefield.samplers.levels import levels_of
from scorefield.training.config import Precision, computes_in_bf16

SamplerName = Literal[
    "heun", "euler", "rk4", "dormand-prince", "ddim", "dpm-solver-2m", "dpm-solver-3m", "ancestral", "reverse-sde",
    "predictor-corrector", "churn", "annealed-langevin", "langevin",
]  # fmt: skip
NamedSampler = Descent | AnnealedLangevin | Langevin
AnySampler = NamedSampler | Drawing
SAMPLERS: dict[SamplerName, NamedSampler] = {
    "heun": Heun(),
    "euler": Euler(),
    "rk4": RungeKutta4(),
    "dormand-prince": DormandPrince(),
    "ddim": DDIM(),
    "dpm-solver-2m": DPMSolver(order=2),
    "dpm-solver-3m": DPMSolver(order=3),
    "ancestral": Ancestral(),
    "reverse-sde": EulerMaruyama(),
    "predictor-corrector": PredictorCorrector(),
    "churn": Churn(),
    "annealed-langevin": AnnealedLangevin(),
    # a level at which neighbouring modes still touch: at σ_min the chain would not move
    "langevin": Langevin(sigma=0.3, to_zero=True),
}
LONG_CHAIN = 5000
"""steps of langevin for an energy of one level: the way from noise to data is long where no level helps"""
MOST = 1_000_000
"""steps, or evaluations: what a slip of the keyboard exceeds"""


@dataclass(frozen=True)
class SamplerOptions:
    """Which sampler, and how it differs from its defaults."""

    sampler: SamplerName | None = None
    """the probability flow (heun to dpm-solver-3m), fresh noise (ancestral to churn), Langevin dynamics (all levels, or one);
    by default heun, or langevin for an energy of one level. Models of other families draw by themselves"""
    steps: int | None = None
    """noise levels to walk, or steps of langevin; the sampler's own number if not given"""
    nfe: int | None = None
    """evaluations of the network for each sample, instead of --steps: as many steps as they allow"""
    process: ProcessName | None = None
    """the process in whose time heun, euler, rk4, dormand-prince and reverse-sde step (edm)"""
    grid: GridName | None = None
    """spacing of the levels, not of annealed-langevin's (karras)"""
    sigma_range: tuple[float, float] | None = None
    """smallest and largest noise level to walk between, in units of the data's standard deviation (the model's); few steps do
    better if the smallest is not much finer than the data"""
    eta: float | None = None
    """ddim: the share of fresh noise, 0 for none, 1 for ancestral sampling (0)"""
    sigma: float | None = None
    """langevin: the noise level it stays at, in units of the data's standard deviation (0.3)"""


TAKERS: dict[str, list[SamplerName]] = {
    "process": [name for name, sampler in SAMPLERS.items() if hasattr(sampler, "process")],
    "grid": [name for name, sampler in SAMPLERS.items() if isinstance(sampler, Descent)],
    "sigma_range": [name for name, sampler in SAMPLERS.items() if hasattr(sampler, "sigma_range")],
    "eta": ["ddim"],
    "sigma": ["langevin"],
}
"""which samplers have an option"""


def sampler_name(options: SamplerOptions, model: AnyModel) -> str:
    """What the sampler for `model` is called."""
    if isinstance(model, Baseline):
        return "its own law"
    low, high = model.sigma_range
    return options.sampler or ("langevin" if low == high else "heun")


def sampler_named(options: SamplerOptions, model: AnyModel) -> AnySampler:
    """The sampler for `model`.

    Raises:
        UserError: an unknown name, an option the sampler does not have, a number it cannot take, levels it cannot walk.
    """
    if isinstance(model, Baseline):
        for option, value in vars(options).items():
            if value is not None:
                raise UserError(f"--{option.replace('_', '-')} is for scores, and this model draws by itself: leave it out")
        return Drawing()
    name: SamplerName = sampler_name(options, model)  # type: ignore[assignment]
    check_choice("sampler", name, SAMPLERS)
    if model.sigma_range[0] == model.sigma_range[1] and name != "langevin":
        raise UserError(f"{name} walks many noise levels, and this model answers for one: take --sampler langevin")
    changes: dict[str, Any] = {option: getattr(options, option) for option in TAKERS if getattr(options, option) is not None}
    for option in changes:
        if name not in TAKERS[option]:
            raise UserError(f"--{option.replace('_', '-')} is for {', '.join(TAKERS[option])}; {name} has none")
    for option, choices in (("process", PROCESSES), ("grid", GRIDS)):
        if option in changes:
            check_choice(option, changes[option], choices)
            changes[option] = choices[changes[option]]
    if name == "langevin" and model.sigma_range[0] == model.sigma_range[1]:
        changes.setdefault("sigma", model.sigma_range[0])
        changes["steps"] = LONG_CHAIN
    steps = steps_asked(name, options)
    if steps is not None:
        changes["steps"] = steps
    try:
        if options.sigma is not None:
            check_sigma(options.sigma, torch.zeros(1), model.sigma_range)
        sampler = replace(SAMPLERS[name], **changes)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    try:
        if isinstance(sampler, Descent):
            sampler.grid(2, levels_of(sampler, model, sampler.coordinates))
        elif isinstance(sampler, AnnealedLangevin):
            levels_of(sampler, model)
    except ValueError as error:
        raise UserError(str(error)) from error
    return sampler


def check_choice(what: str, name: str, choices: Iterable[str]) -> None:
    """Raises `UserError` with the choices when `name` is none of them."""
    if name not in choices:
        raise UserError(f"unknown {what} {name!r}: choose one of {', '.join(choices)}")


def steps_asked(name: SamplerName, options: SamplerOptions) -> int | None:
    """The number of steps that --steps or --nfe asks for; None if neither is given."""
    if options.steps is not None and options.nfe is not None:
        raise UserError("--steps and --nfe both say how many steps: give one of them")
    for option, value in (("steps", options.steps), ("nfe", options.nfe)):
        if value is not None and value > MOST:
            raise UserError(f"--{option} must be at most {MOST}, got {value}")
    return options.steps if options.nfe is None else steps_within(name, options.nfe)


def steps_within(name: SamplerName, nfe: int) -> int:
    """The most steps that take at most `nfe` evaluations, which are linear in the steps.

    Raises:
        UserError: too few evaluations, or a sampler that chooses their number itself.
    """
    if nfe < 1:
        raise UserError(f"--nfe must be at least 1, got {nfe}")
    two, three = (replace(SAMPLERS[name], steps=n).nfe for n in (2, 3))
    if two is None or three is None:
        raise UserError(f"--nfe is not for {name}, which takes as many evaluations as its tolerance needs")
    steps = 2 + (nfe - two) // (three - two)
    fewest = 1 if name == "langevin" else 2
    if steps < fewest:
        least = two - (2 - fewest) * (three - two)
        raise UserError(f"--nfe must be at least {least} for {name}, got {nfe}")
    return steps


def levels_walked(sampler: AnySampler, model: AnyModel) -> str:
    """In words: the levels that the sampler walks, what they end at, and what each sample costs."""
    if isinstance(sampler, Drawing) or isinstance(model, Baseline):
        return "exact draws"
    cost = "" if sampler.nfe is None else f"; {sampler.nfe} evaluations each"
    if isinstance(sampler, Langevin):
        return f"{sampler.steps} steps at level {sampler.sigma:g}{cost}"
    process = sampler.coordinates if isinstance(sampler, Descent) else None
    low, high = levels_of(sampler, model, process)
    least, most = model.sigma_range
    limit = "the model's"
    if (low, high) != (least, most):
        limit = f"within the model's {most:g} to {least:g}"
        if getattr(sampler, "sigma_range", None) is None:
            limit = f"as far as the process reaches in the model's {most:g} to {least:g}"
    return f"{sampler.steps} levels from {high:g} to {low:g}, {limit}{cost}"


def in_precision(model: AnyModel, precision: Precision, device: torch.device, sampler: object = None) -> Score:
    """The model as it is sampled from: `auto` is bf16 where the device computes in it and the score is direct.

    Not for a sampler that measures its own error: it would take ever smaller steps to get below that of bf16.
    """
    if isinstance(model, Baseline):
        if precision == "bf16":
            raise UserError("--precision bf16 is for direct scores only: leave it out")
        return model  # type: ignore[return-value]  # its sampler asks for no score
    direct = not hasattr(model, "log_density")
    if precision == "bf16" and not direct:
        raise UserError("--precision bf16 is for direct scores only: an energy's gradient needs float32")
    adaptive = isinstance(sampler, DormandPrince)
    if precision == "bf16" or (precision == "auto" and direct and not adaptive and computes_in_bf16(device)):
        return Autocast(model, device)
    return model
