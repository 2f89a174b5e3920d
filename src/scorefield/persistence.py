"""A model as a folder one can publish: `config.json` (plain values) and `model.safetensors` (the averaged weights).

Loading never executes code: networks of scorefield's own are rebuilt from their configuration, anybody else's is passed in.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, TypeVar

import dacite
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from scorefield.baselines import Baseline, BaselineConfig
from scorefield.errors import UserError
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, ScoreModel
from scorefield.networks import NetworkConfig
from scorefield.system import write_durably

FORMAT_VERSION = 1
Model = ScoreModel | EnergyModel
AnyModel = Model | Baseline
Architecture = NetworkConfig | BaselineConfig
"""the network of a score or an energy, or a family that is neither"""
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything about a model but its weights; `network` None stands for a network that is not scorefield's."""

    spec: ModelSpec
    network: Architecture | None
    energy: bool = False

    def build(self, network: nn.Module | None = None) -> AnyModel:
        """A model with fresh weights, around `network` if one is given."""
        if network is None:
            if self.network is None:
                raise UserError("this model has a network of its own: load it with load(path, network=my_module)")
            if isinstance(self.network, BaselineConfig):
                return Baseline(self.network, self.spec)
            network = self.network.build(self.spec.event_shape, len(self.spec.classes))
            network = InnerProduct(network) if self.energy else network
        return EnergyModel(network, self.spec) if self.energy else ScoreModel(network, self.spec)


def save_model(model: AnyModel, network: Architecture | None, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` into an existing folder, each atomically."""
    config = ModelConfig(model.spec, network, isinstance(model, EnergyModel))
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    write_durably(folder / "model.safetensors", save(weights))
    write_durably(folder / "config.json", to_json(config))


def load(path: str | Path, *, network: nn.Module | None = None, device: str | torch.device = "cpu") -> AnyModel:
    """A trained model from a folder, or from a Hugging Face repository `owner/name`; in evaluation mode.

    Args:
        network: your own module, for models whose network is not one of scorefield's.

    Raises:
        UserError: nothing there, a damaged or foreign file, a newer format, or weights that do not fit.
    """
    folder = Path(path)
    if folder.is_file():
        raise UserError(f"{folder} is a file: give a run folder, a model folder or a Hugging Face name owner/model")
    if not folder.is_dir():
        folder = download(str(path))
    config = read_config(folder / "config.json")
    try:
        model = config.build(network)
    except UserError:
        raise
    except (ValueError, RuntimeError) as error:  # fields valid one by one that do not go together
        raise UserError(f"{folder / 'config.json'} is not valid: {' '.join(str(error).split())}") from error
    weights = read_weights(folder / "model.safetensors")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{folder / 'model.safetensors'} does not fit config.json: {' '.join(str(error).split())}") from error
    return model.to(device).eval().requires_grad_(False)


def load_score(path: str | Path, *, device: str | torch.device = "cpu", many_levels: bool = True) -> Model:
    """The same of a score or an energy; with `many_levels` of one that answers for many noise levels.

    Raises:
        UserError: as `load`, and for other families, and for a model of one level if it must have many.
    """
    model = load(path, device=device)
    if isinstance(model, Baseline):
        raise UserError(f"{path} holds a model of another family, which has no score: use sample or evaluate, or train a score")
    low, high = model.sigma_range
    if many_levels and low == high:
        raise UserError(f"{path} holds a model of one noise level, and this needs many: train one by denoising")
    return model


def read_config(path: Path) -> ModelConfig:
    """The model's configuration; errors as in `load`."""
    return from_json(ModelConfig, path)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; a pickle, a truncated or missing file is a `UserError`."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: a model folder holds config.json and model.safetensors") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a complete safetensors file ({error}); it was not loaded") from error


def download(name: str) -> Path:
    """The folder of a Hugging Face repository's model, downloaded into the hub's own cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"no model at {name}: give a run folder or a Hugging Face name owner/model")
    try:
        return Path(snapshot_download(name, allow_patterns=["config.json", "model.safetensors"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"no folder {name}, and Hugging Face does not give a model of that name: {reason}") from error


def to_json(value: Any) -> str:
    """A dataclass tree as JSON with its format version."""
    return json.dumps({"format_version": FORMAT_VERSION, **dataclasses.asdict(value)}, indent=2) + "\n"


def from_json(kind: type[T], path: Path) -> T:
    """A dataclass tree from JSON, every field checked.

    Raises:
        UserError: missing, damaged, of a newer format, or with fields that are unknown, missing or of a wrong type.
    """
    try:
        fields = json.loads(path.read_text())
        version = fields.pop("format_version")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not a scorefield configuration ({type(error).__name__}: {error})") from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        newest = f"this scorefield reads up to {FORMAT_VERSION}: upgrade scorefield"
        raise UserError(f"{path} has format version {version}, {newest}")
    try:
        return dacite.from_dict(kind, migrate(fields, version), dacite.Config(strict=True, cast=[tuple]))
    except (dacite.DaciteError, ValueError) as error:
        raise UserError(f"{path} is not valid: {error}") from error


def migrate(fields: dict[str, Any], version: int) -> dict[str, Any]:
    """Fields of an older format in today's form; version 1 is the first."""
    if version < 1:
        raise ValueError(f"unknown format version {version}")
    return fields
