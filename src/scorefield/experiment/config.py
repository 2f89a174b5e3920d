"""One frozen dataclass tree is one run: run.json holds it, recipes return it, the command line is derived from it."""

import dataclasses
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Fixed, Suppress, arg

from scorefield.data import Reading
from scorefield.errors import UserError
from scorefield.models import Parameterisation
from scorefield.networks import MLPConfig, NetworkConfig, UNetConfig
from scorefield.objectives import DenoisingScoreMatching
from scorefield.persistence import from_json, to_json
from scorefield.system import write_durably
from scorefield.training import Training

FREE_TO_CHANGE = {"steps", "minutes", "checkpoint_every", "keep", "log_every", "validate_every", "threads"}
"""training settings that may differ on --resume (steps may only grow)"""


@dataclass(frozen=True)
class Run:
    """A whole training run."""

    data: Annotated[str, Fixed, Suppress] = "digits"
    """a named source, a folder, a file or hf:owner/name"""
    recipe: Annotated[str, Fixed, Suppress] = ""
    """the recipe this run began from"""
    reading: Reading = field(default_factory=Reading)
    network: NetworkConfig = field(default_factory=UNetConfig)
    energy: bool = False
    """learn a log-density whose gradient is the score, instead of the score itself"""
    parameterisation: Parameterisation = field(default_factory=Parameterisation)
    sigma_range: tuple[float, float] = (0.002, 80.0)
    """smallest and largest noise level, in units of the data's standard deviation"""
    objective: DenoisingScoreMatching = field(default_factory=DenoisingScoreMatching)
    training: Annotated[Training, arg(name="")] = field(default_factory=Training)


@dataclass(frozen=True)
class RunFile:
    """run.json: the run, its resolved settings, and what it was made with."""

    run: Run
    made_with: dict[str, str]


def made_with(device: str) -> dict[str, str]:
    """Versions and machine, for whoever wants to repeat a run."""
    versions = {name: version(name) for name in ("scorefield", "torch", "accelerate", "numpy")}
    return {**versions, "python": platform.python_version(), "system": platform.platform(), "device": device}


def write_run(run: Run, folder: Path, device: str) -> None:
    """Write run.json atomically."""
    write_durably(folder / "run.json", to_json(RunFile(run, made_with(device))))


def read_run(folder: Path) -> Run:
    """The run of a folder; `UserError` where there is none."""
    if not (folder / "run.json").exists():
        raise UserError(f"no run in {folder}: it has no run.json")
    return from_json(RunFile, folder / "run.json").run


def check_resumable(stored: Run, asked: Run) -> list[str]:
    """The changes that `asked` makes to a stored run, as lines to show.

    Raises:
        UserError: a change that would make it another run, or fewer steps; names every such field.
    """
    old, new = flatten(dataclasses.asdict(stored)), flatten(dataclasses.asdict(asked))
    changed = {k for k in old | new if old.get(k) != new.get(k)}
    forbidden = sorted(k for k in changed if k.removeprefix("training.") not in FREE_TO_CHANGE)
    if forbidden:
        fields = "; ".join(f"{k} was {old.get(k)}, now {new.get(k)}" for k in forbidden)
        raise UserError(f"cannot resume with another configuration: {fields}")
    if asked.training.steps < stored.training.steps:
        raise UserError(f"--steps may only grow on resume: was {stored.training.steps}, now {asked.training.steps}")
    return [f"{k}: {old.get(k)} -> {new.get(k)}" for k in sorted(changed)]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


__all__ = ["MLPConfig", "Run", "RunFile", "UNetConfig", "check_resumable", "flatten", "read_run", "write_run"]
