"""Everything a run must remember to go on exactly where it was: weights, their average, the optimiser's moments, the step.

One safetensors file a checkpoint, written aside, put on disk and renamed: `checkpoints/step-00000500.safetensors`.
Batches and noise need no memory, being functions of (seed, step).
"""

import json
import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from scorefield.errors import RunError
from scorefield.interfaces import Loss, Objective
from scorefield.system import write_durably
from scorefield.training.config import Training
from scorefield.training.muon import make_optimizer


class Step(nn.Module):
    """One training step's forward pass, in bf16 autocast if asked; the unit that distributed training wraps.

    Buffers that an objective names in `rank_local` belong to each process alone; others are shared.
    """

    def __init__(self, objective: Objective, model: nn.Module, bf16: bool = False) -> None:
        super().__init__()
        self.objective, self.model, self.bf16 = objective, model, bf16
        self.rank_local = [f"objective.{name}" for name in getattr(objective, "rank_local", ())]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, self.rank_local)

    def forward(self, x: Tensor, cond: Tensor | None, generator: torch.Generator | None) -> Loss:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            return self.objective(self.model, x, cond, generator=generator)  # type: ignore[arg-type]


@dataclass
class TrainState:
    """What training changes: `step` counts finished steps, `average` is the model that is sampled from.

    `seconds` is the time that the steps took, over all resumes.
    """

    train_step: Step
    average: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    best: nn.Module | None = None
    """the average when its validation loss was smallest, where that is asked for"""
    best_loss: float = math.inf
    best_step: int = 0
    """when that was"""

    @property
    def chosen(self) -> nn.Module:
        """The weights to keep: the best, or the last."""
        return self.average if self.best is None else self.best

    def judge(self, validation: float) -> None:
        """Remember the average if this is its smallest validation loss."""
        if validation < self.best_loss:
            self.best, self.best_loss, self.best_step = deepcopy(self.average), validation, self.step

    @classmethod
    def begin(cls, objective: Objective, model: nn.Module, training: Training) -> "TrainState":
        """A fresh state around a model that already lies on its device; `training` is resolved."""
        train_step = Step(objective, model, training.precision == "bf16")
        average = deepcopy(model).requires_grad_(False).eval()
        optimizer = make_optimizer(training.optimizer, train_step.parameters(), training.learning_rate, training.beta2)
        return cls(train_step, average, optimizer)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state under its name; those of this process alone have a first axis for processes."""
        local = self.train_step.rank_local
        named = {f"model.{k}": v[None] if k in local else v for k, v in self.train_step.state_dict().items()}
        named |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        if self.best is not None:
            named |= {f"best.{k}": v for k, v in self.best.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            named |= {f"optimizer.{index}.{k}": v for k, v in moments.items()}
        return named

    def of_all_processes(self, accelerator: Accelerator) -> dict[str, Tensor]:
        """The tensors that each process has for itself, of all of them, which must ask together."""
        buffers = dict(self.train_step.named_buffers())
        return {f"model.{name}": accelerator.gather(buffers[name][None]) for name in self.train_step.rank_local}

    def load_tensors(self, named: dict[str, Tensor], rank: int = 0) -> None:
        """Take every tensor back; the inverse of `tensors`."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}

        model = part("model.")
        self.train_step.load_state_dict({k: v[rank] if k in self.train_step.rank_local else v for k, v in model.items()})
        self.average.load_state_dict(part("average."))
        if best := part("best."):
            self.best = deepcopy(self.average)
            self.best.load_state_dict(best)
        parameters = list(self.train_step.parameters())
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in part("optimizer.").items():
            index, name = int(key.split(".")[0]), key.split(".")[1]
            like = parameters[index] if value.ndim else value  # fused Adam needs the parameter's own memory layout
            moments.setdefault(index, {})[name] = torch.empty_like(like, device=value.device).copy_(value)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})


def save_checkpoint(
    state: TrainState, folder: Path, log_bytes: int, keep: int, of_all_processes: dict[str, Tensor] | None = None
) -> Path:
    """Write the state atomically, then drop all but the newest `keep` checkpoints.

    Args:
        of_all_processes: tensors that take the place of this process's own.

    Raises:
        RunError: the disk is full; earlier checkpoints stay valid.
    """
    path = folder / f"step-{state.step:08d}.safetensors"
    tensors = {k: v.detach().cpu().contiguous() for k, v in (state.tensors() | (of_all_processes or {})).items()}
    note = {"step": state.step, "seconds": state.seconds, "log_bytes": log_bytes}
    if state.best is not None:
        note["best_loss"] = state.best_loss
    write_durably(path, save(tensors, {"scorefield": json.dumps(note)}))
    for old in checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def restore_newest(state: TrainState, folder: Path, rank: int = 0) -> int:
    """Load the newest checkpoint into `state`, if there is one; how long log.jsonl was at that moment, in bytes.

    Raises:
        RunError: the newest checkpoint cannot be read.
    """
    found = checkpoints(folder)
    if not found:
        return 0
    try:
        with safe_open(found[-1], "pt") as file:
            note = json.loads(file.metadata()["scorefield"])
            state.load_tensors({key: file.get_tensor(key) for key in file.keys()}, rank)  # noqa: SIM118
        state.step, state.seconds, log_bytes = note["step"], note["seconds"], note["log_bytes"]
        state.best_loss = note.get("best_loss", math.inf)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"checkpoint {found[-1]} cannot be read ({error}): remove it to resume from the one before") from error
    return int(log_bytes)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))
