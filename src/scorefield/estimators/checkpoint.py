"""An interrupted training of a table, in one file."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from scorefield.errors import UserError
from scorefield.estimators.residual import MixtureParameters
from scorefield.system import write_durably
from scorefield.training.state import TrainState


class Checkpoint:
    """The bases, and the states of the trainings on them, of a training that is known by its fingerprint.

    Raises:
        UserError: a file that is no checkpoint, or that of another training.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        self.bases: list[MixtureParameters] = []
        self._states: list[tuple[dict[str, Tensor], int, float]] = []
        if path.exists():
            self._read()

    def _read(self) -> None:
        try:
            with safe_open(self.path, "pt") as file:
                facts = json.loads(file.metadata()["training"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            said = facts["fingerprint"]
            self.bases = [
                MixtureParameters(*(tensors[f"base.{i}.{name}"] for name in MixtureParameters._fields))
                for i in range(len(facts["steps"]))
            ]
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path} is no checkpoint of a table's training: {error}") from error
        if said != self.fingerprint:
            raise UserError(f"{self.path} belongs to other rows or settings: remove it, or go back to those")
        for i, (step, loss) in enumerate(zip(facts["steps"], facts["losses"], strict=True)):
            prefix = f"state.{i}."
            own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            self._states.append((own, step, loss))

    def restore(self, states: list[TrainState]) -> None:
        """Take the states back, if there are any."""
        for state, (tensors, step, loss) in zip(states, self._states, strict=bool(self._states)):
            state.load_tensors(tensors)
            state.step, state.best_loss = step, loss

    def save(self, states: list[TrainState]) -> None:
        """Write all of it, atomically."""
        tensors = {f"base.{i}.{name}": part for i, base in enumerate(self.bases) for name, part in base._asdict().items()}
        for i, state in enumerate(states):
            tensors |= {f"state.{i}.{name}": value for name, value in state.tensors().items()}
        facts = {
            "fingerprint": self.fingerprint,
            "steps": [state.step for state in states],
            "losses": [state.best_loss for state in states],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        own = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        write_durably(self.path, save(own, {"training": json.dumps(facts)}))

    def remove(self) -> None:
        """When it is not needed any more."""
        self.path.unlink(missing_ok=True)
