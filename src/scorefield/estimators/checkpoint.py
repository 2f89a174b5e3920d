"""An interrupted training of a table, in one file."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from scorefield.errors import UserError
from scorefield.estimators.residual import MixtureParameters
from scorefield.system import write_durably
from scorefield.training.state import TrainState


class Checkpoint:
    """The bases, the state of the training on the first of them, and rows whose gaps are filled, of a training that is known by
    its fingerprint.

    Raises:
        UserError: a file that is no checkpoint, or that of another training.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        self.bases: list[MixtureParameters] = []
        self._tensors: dict[str, Tensor] = {}
        self._facts: dict[str, Any] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        try:
            with safe_open(self.path, "pt") as file:
                self._facts = json.loads(file.metadata()["training"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            said = self._facts["fingerprint"]
            for i in range(self._facts["bases"]):
                self.bases.append(MixtureParameters(*(tensors.pop(f"base.{i}.{name}") for name in MixtureParameters._fields)))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path} is no checkpoint of a table's training: {error}") from error
        if said != self.fingerprint:
            raise UserError(f"{self.path} belongs to other rows or settings: remove it, or go back to those")
        self._tensors = tensors

    def restore(self, state: TrainState, filled: Tensor | None) -> Tensor | None:
        """Take the state back, and rows as they were filled, if there are any; else `filled`."""
        if not self._tensors:
            return filled
        state.load_tensors(self._tensors)
        state.step, state.best_step, state.best_loss = (self._facts[k] for k in ("step", "best_step", "best_loss"))
        return self._tensors.get("filled", filled)

    def save(self, state: TrainState, filled: Tensor | None) -> None:
        """Write all of it, atomically."""
        tensors = {} if filled is None else {"filled": filled}
        tensors |= {f"base.{i}.{name}": part for i, base in enumerate(self.bases) for name, part in base._asdict().items()}
        own = {name: value.detach().cpu().clone() for name, value in (tensors | state.tensors()).items()}
        facts = {
            "fingerprint": self.fingerprint, "bases": len(self.bases),
            "step": state.step, "best_step": state.best_step, "best_loss": state.best_loss,
        }  # fmt: skip
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(self.path, save(own, {"training": json.dumps(facts)}))
