"""One frozen dataclass tree is one run: run.json holds it, recipes return it, the command line is derived from it."""

import dataclasses
import math
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor
from tyro.conf import Fixed, Suppress, arg

from scorefield.baselines import BaselineConfig, EvidenceBound
from scorefield.data import Reading
from scorefield.data.scaling import Scaling
from scorefield.errors import UserError
from scorefield.interfaces import Objective
from scorefield.likelihood import dequantise
from scorefield.models import Parameterisation
from scorefield.networks import MLPConfig, UNetConfig
from scorefield.objectives import DenoisingScoreMatching, PersistentChains
from scorefield.persistence import Architecture, from_json, to_json
from scorefield.system import write_durably
from scorefield.training import Training

FREE_TO_CHANGE = {"steps", "minutes", "checkpoint_every", "keep", "log_every", "validate_every", "threads"}
"""training settings that may differ on --resume (steps may only grow)"""


@dataclass(frozen=True)
class Run:
    """A whole training run.

    Raises:
        UserError: a label_dropout without which one of the two scores would never be learnt, or settings that do not go
            together: an objective that is not for the network, noise levels that are not for the objective.
    """

    data: Annotated[str, Fixed, Suppress] = "digits"
    """a named source, a folder, a file or hf:owner/name"""
    recipe: Annotated[str, Fixed, Suppress] = ""
    """the recipe this run began from"""
    reading: Reading = field(default_factory=Reading)
    network: Architecture = field(default_factory=UNetConfig)
    energy: bool = False
    """learn a log-density whose gradient is the score, instead of the score itself"""
    conditional: bool = False
    """learn a score for each class of the data, and one for all together"""
    label_dropout: float = 0.1
    """share of examples whose class is left out in training: from these the score for all together is learnt"""
    parameterisation: Parameterisation = field(default_factory=Parameterisation)
    sigma_range: tuple[float, float] = (0.002, 80.0)
    """smallest and largest noise level, in units of the data's standard deviation"""
    dequantise: bool = True
    """add fresh uniform noise, as wide as a level, to integer data in every batch; likelihoods of integers need it"""
    objective: DenoisingScoreMatching | PersistentChains | EvidenceBound = field(default_factory=DenoisingScoreMatching)
    training: Annotated[Training, arg(name="")] = field(default_factory=Training)

    def __post_init__(self) -> None:
        if not 0 < self.label_dropout < 1:
            raise UserError(f"--label-dropout must be between 0 and 1, got {self.label_dropout}")
        objective, network, (low, high) = self.objective, self.network, self.sigma_range
        if isinstance(network, BaselineConfig) != isinstance(objective, EvidenceBound):
            hint = f"; --recipe {network.kind} has both" if isinstance(network, BaselineConfig) else ""
            raise UserError(
                f"--network.kind {network.kind} cannot be learnt by --objective.kind {objective.kind}: scores and energies are "
                f"learnt by denoising or persistent-chains, other families by likelihood{hint}"
            )
        if isinstance(network, BaselineConfig) and (self.training.compile == "on" or self.training.precision == "bf16"):
            raise UserError(f"--compile on and --precision bf16 are for scores, and {network.kind} is none: leave them out")
        if isinstance(network, BaselineConfig) and (self.energy or self.conditional):
            raise UserError(f"--energy and --conditional are for scores, and {network.kind} is none: leave them out")
        if isinstance(objective, DenoisingScoreMatching):
            if objective.across_levels and not self.energy:
                raise UserError("--objective.across-levels is for energies: give --energy as well")
            if not 0 < low < high < math.inf:
                raise UserError(f"--sigma-range must satisfy 0 < low < high < inf, got {low:g} {high:g}")
        if isinstance(objective, PersistentChains):
            if not self.energy:
                raise UserError("--objective.kind persistent-chains is for energies: give --energy as well")
            if self.conditional:
                raise UserError("--objective.kind persistent-chains knows no classes: leave --conditional out")
            if objective.chains < self.training.batch_size:
                raise UserError(
                    f"--objective.chains must be at least --batch-size {self.training.batch_size}, got {objective.chains}"
                )
            if not 0 < low == high < math.inf:
                raise UserError(f"persistent chains live at one level: give --sigma-range LEVEL LEVEL, got {low:g} {high:g}")

    @property
    def of_integers(self) -> bool:
        """Whether the model is of the raw integers themselves."""
        return isinstance(self.network, BaselineConfig)

    def loss(self, event_shape: tuple[int, ...]) -> Objective:
        """The objective for such events, with its state at the beginning if it has one."""
        objective = self.objective
        return objective.build(event_shape) if isinstance(objective, PersistentChains) else objective  # type: ignore[return-value]

    def encode(self, raw: Tensor, scaling: Scaling, generator: torch.Generator) -> Tensor:
        """Raw data as the model sees it in training: scaled, float32; integers with uniform noise, unless that was left out.

        Models of integers see them as they are.
        """
        if self.of_integers:
            return raw.long()
        noised = self.dequantise and scaling.levels is not None
        return scaling.encode(dequantise(raw, generator) if noised else raw).float()  # scaled in the data's own precision


@dataclass(frozen=True)
class RunFile:
    """run.json: the run with its settings resolved, what it depends on besides, and what it was made with."""

    run: Run
    data_fingerprint: str
    """of the examples and their order"""
    processes: int
    """how many trained together, each with its part of every batch and noise of its own"""
    made_with: dict[str, str]


def made_with(device: str) -> dict[str, str]:
    """Versions and machine, for whoever wants to repeat a run."""
    versions = {name: version(name) for name in ("scorefield", "torch", "accelerate", "numpy")}
    return {**versions, "python": platform.python_version(), "system": platform.platform(), "device": device}


def write_run(file: RunFile, folder: Path) -> None:
    """Write run.json atomically."""
    write_durably(folder / "run.json", to_json(file))


def read_run_file(folder: Path) -> RunFile:
    """The run.json of a folder; `UserError` where there is none."""
    if not (folder / "run.json").exists():
        raise UserError(f"no run in {folder}: it has no run.json")
    return from_json(RunFile, folder / "run.json")


def read_run(folder: Path) -> Run:
    """The run of a folder; `UserError` where there is none."""
    return read_run_file(folder).run


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
    before, now = stored.training.steps, asked.training.steps
    if before is not None and now is not None and now < before:
        raise UserError(f"--steps may only grow on resume: was {before}, now {now}")
    return [f"{k}: {old.get(k)} -> {new.get(k)}" for k in sorted(changed)]


def check_same_circumstances(stored: RunFile, now: RunFile) -> None:
    """Refuse to go on with other data or another number of processes, which would silently be another run.

    Raises:
        UserError: names what changed.
    """
    if stored.data_fingerprint != now.data_fingerprint:
        raise UserError(f"cannot resume: {now.run.data} no longer holds the examples this run began with; begin a new run")
    if stored.processes != now.processes:
        raise UserError(f"cannot resume: the run was begun by {stored.processes} processes, now there are {now.processes}")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


__all__ = [
    "MLPConfig", "Run", "RunFile", "UNetConfig", "check_resumable", "check_same_circumstances", "flatten", "made_with",
    "read_run", "read_run_file", "write_run",
]  # fmt: skip
