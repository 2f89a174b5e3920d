"""Models as folders: the same bits come back, and nothing that is not a model is loaded or run."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from torch import Tensor, nn

from scorefield.baselines import (
    CLOSED_FORM,
    AutoregressiveConfig,
    Baseline,
    BaselineConfig,
    IndependentPixelsConfig,
    SoftmaxPatchesConfig,
    TrainingImagesConfig,
    VAEConfig,
)
from scorefield.data.scaling import Scaling
from scorefield.errors import UserError
from scorefield.models import EnergyModel, ModelSpec, Parameterisation, ScoreModel
from scorefield.networks import MLPConfig, UNetConfig
from scorefield.persistence import AnyModel, ModelConfig, load, load_score, save_model

MLP = MLPConfig(width=16, blocks=1)
UNET = UNetConfig(channels=8, multipliers=(1, 2, 2), blocks=1, fold=2, attention=True)
VECTOR = ModelSpec((3,), Parameterisation("v"), (0.01, 50.0), Scaling((1.0, 2.0, 3.0), (0.1, 1 / 3, 2.0)))
IMAGE = ModelSpec((1, 8, 8), Parameterisation("edm", 0.5), scaling=Scaling((8.0,), (5.0,), levels=17))
CONFIGS = {
    "mlp": ModelConfig(VECTOR, MLP),
    "unet": ModelConfig(IMAGE, UNET),
    "mlp-energy": ModelConfig(VECTOR, MLP, energy=True),
    "unet-energy": ModelConfig(IMAGE, UNET, energy=True),
}


def random_model(config: ModelConfig) -> AnyModel:
    model = config.build()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g))
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good model folder, to be damaged."""
    save_model(random_model(CONFIGS["mlp"]), MLP, tmp_path)
    return tmp_path


def refusal(folder: Path, **options: nn.Module) -> str:
    """The one line with which loading is refused."""
    with pytest.raises(UserError) as caught:
        load(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def rewrite(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_round_trip_bit_for_bit_even_after_a_move(config: ModelConfig, tmp_path: Path) -> None:
    model = random_model(config)
    (tmp_path / "here").mkdir()
    save_model(model, config.network, tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert sorted(p.name for p in (tmp_path / "there").iterdir()) == ["config.json", "model.safetensors"]
    again = load(tmp_path / "there")
    assert type(again) is type(model)
    assert again.spec == model.spec
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    state, expected = again.state_dict(), model.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[k], expected[k]) for k in expected)
    x = torch.randn(2, *config.spec.event_shape)
    assert torch.equal(again.score(x, 0.3), model.score(x, 0.3))


def test_saving_again_replaces(folder: Path) -> None:
    other = random_model(CONFIGS["mlp"])
    nn.init.ones_(other.network.leave.weight)  # type: ignore[union-attr, arg-type]
    save_model(other, MLP, folder)
    assert (load(folder).network.leave.weight == 1).all()  # type: ignore[union-attr]
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


class Own(nn.Module):
    """A user's network."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.layer(u)


class OwnScalar(Own):
    def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.layer(u).square().sum(1)


@pytest.mark.parametrize(("kind", "network"), [(ScoreModel, Own), (EnergyModel, OwnScalar)])
def test_a_network_of_ones_own(kind: type, network: type, tmp_path: Path) -> None:
    model = kind(network(), VECTOR)
    save_model(model, None, tmp_path)
    again = load(tmp_path, network=network())
    assert type(again) is kind
    x = torch.randn(4, 3)
    assert torch.equal(again.score(x, 0.3), model.score(x, 0.3))
    assert "load(path, network=my_module)" in refusal(tmp_path)
    assert "does not fit config.json" in refusal(tmp_path, network=network(4))


def test_the_configuration_is_plain_and_versioned(folder: Path) -> None:
    fields = json.loads((folder / "config.json").read_text())
    assert fields["format_version"] == 1
    assert fields["network"]["kind"] == "mlp"
    assert fields["spec"]["event_shape"] == [3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.update(format_version=2), "has format version 2, this scorefield reads up to 1: upgrade"),
        (lambda f: f.update(format_version="1"), "has format version 1"),
        (lambda f: f.update(format_version=0), "unknown format version 0"),
        (lambda f: f.pop("format_version"), "is not a scorefield configuration"),
        (lambda f: f.update(colour="red"), "colour"),
        (lambda f: f["spec"].update(colour="red"), "colour"),
        (lambda f: f["network"].update(colour="red"), "is not valid"),
        (lambda f: f.pop("spec"), "spec"),
        (lambda f: f["spec"].update(event_shape="three"), "event_shape"),
        (lambda f: f["spec"].update(event_shape=[3.5]), "event_shape"),
        (lambda f: f["spec"].update(sigma_range=[1.0]), "sigma_range"),
        (lambda f: f["spec"].update(sigma_range=[5.0, 1.0]), "sigma_range must satisfy"),
        (lambda f: f["spec"]["parameterisation"].update(name="x0"), "x0"),
        (lambda f: f["spec"]["scaling"].update(scale=[0.0, 0.0, 0.0]), "positive scales"),
        (lambda f: f["network"].update(width="wide"), "is not valid"),
        (lambda f: f["network"].update(kind="transformer"), "is not valid"),
        (lambda f: f.update(energy="yes"), "energy"),
        (lambda f: f["network"].update(width=32), "does not fit config.json"),
        (lambda f: f["spec"].update(event_shape=[4]), "does not fit config.json"),
        (lambda f: f["spec"].update(event_shape=[1, 8, 8]), "does not fit config.json"),
        (lambda f: f.update(network=asdict(UNET)), "config.json is not valid: network unet takes images"),
        (lambda f: f.update(network={"kind": "vae"}), "config.json is not valid: vae is a model of integers, and this data"),
        (lambda f: f["network"].update(width=-1), "config.json is not valid"),
        (lambda f: (f.update(energy=True), f["spec"]["parameterisation"].update(name="data")), "choose edm, v or flow"),
    ],
)
def test_a_damaged_configuration_is_refused_in_one_line(change: Callable[[dict], object], message: str, folder: Path) -> None:
    rewrite(folder, change)
    assert message in refusal(folder)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '"config"', "\x00\x01\xff"])
def test_other_files_are_no_configuration(text: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(text.encode("latin1"))
    assert "config.json is not a scorefield configuration" in refusal(folder)


def test_whole_numbers_do_where_fractions_are_meant(folder: Path) -> None:
    rewrite(folder, lambda f: f["spec"].update(sigma_range=[1, 50]))
    rewrite(folder, lambda f: f["spec"]["parameterisation"].update(sigma_data=1))
    spec = load(folder).spec
    assert spec.sigma_range == (1, 50)
    assert spec.parameterisation.sigma_data == 1


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files(name: str, folder: Path) -> None:
    (folder / name).unlink()
    assert f"{name} does not exist" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(keep: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "is not a complete safetensors file" in refusal(folder)


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("dump", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_is_refused_unopened(dump: Callable[[object, Path], object], folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    dump({"network.weight": Payload(trap)}, folder / "model.safetensors")
    assert "is not a complete safetensors file" in refusal(folder)
    assert not trap.exists()


def test_no_such_folder(tmp_path: Path) -> None:
    assert "give a run folder or a Hugging Face name owner/model" in refusal(tmp_path / "nothing" / "here")


def test_a_name_is_downloaded_from_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network here: `huggingface_hub.snapshot_download` is replaced by one that gives a local folder."""
    asked: list[tuple[str, list[str]]] = []

    def snapshot(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    again = load("owner/model.v-1")
    assert asked == [("owner/model.v-1", ["config.json", "model.safetensors"])]  # and nothing else, whatever lies there
    x = torch.randn(2, 3)
    assert torch.equal(again.score(x, 0.3), load(folder).score(x, 0.3))
    (folder / "model.safetensors").unlink()
    assert "model.safetensors does not exist" in refusal(Path("owner/model"))


@pytest.mark.parametrize(
    "error",
    [
        RepositoryNotFoundError(
            "404 Client Error.\n\nRepository Not Found", response=SimpleNamespace(headers={}, request=None)
        ),
        LocalEntryNotFoundError("no network\nand no cache"),
        HFValidationError("Repo id must be alphanumeric"),
        OSError(28, "No space left on device"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_hub_that_fails_is_told_in_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(name: str, **options: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    line = refusal(Path("owner/model"))
    assert line.startswith("no folder owner/model, and Hugging Face does not give a model of that name: ")
    assert str(error).split("\n")[0] in line


@pytest.mark.parametrize("name", ["model", "a/b/c", "owner/na me"])
def test_other_names_are_not_asked_of_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    assert f"no model at {name}: give a run folder or a Hugging Face name" in refusal(Path(name))


def test_the_wrong_network_for_the_events_is_refused() -> None:
    with pytest.raises(ValueError, match="network unet takes images"):
        ModelConfig(VECTOR, UNET).build()


# ── families that are no scores ────────────────────────────────────────────────────────────────────────────────────────

FAMILIES: dict[str, BaselineConfig] = {
    "independent-pixels": IndependentPixelsConfig(),
    "softmax-patches": SoftmaxPatchesConfig(),
    "training-images": TrainingImagesConfig(),
    "autoregressive": AutoregressiveConfig(width=8, heads=2, blocks=1),
    "vae": VAEConfig(latents=(3,), width=16),
    "hierarchical-vae": VAEConfig(latents=(4, 2), width=16),
}


def digits_like(n: int, seed: int = 0) -> Tensor:
    return torch.randint(17, (n, 1, 8, 8), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_families_give_the_same_log_probabilities_and_draws_again(config: BaselineConfig, tmp_path: Path) -> None:
    model = random_model(ModelConfig(IMAGE, config))
    assert isinstance(model, Baseline)
    if isinstance(config, CLOSED_FORM):
        model.family.fit(digits_like(30))  # type: ignore[operator]
    save_model(model, config, tmp_path)
    again = load(tmp_path)
    assert isinstance(again, Baseline)
    assert (again.spec, again.training, again.exact) == (model.spec, False, model.exact)
    assert not any(p.requires_grad for p in again.parameters())
    x = torch.cat([digits_like(30)[:3], digits_like(3, seed=1)])
    before, after = (m.log_density_bound(x, 5, generator=torch.Generator().manual_seed(2)) for m in (model, again))
    assert torch.equal(before, after)
    assert before[:3].isfinite().all()
    assert (before.std() > 0) if config.kind != "training-images" else (before[3:] == -torch.inf).all()
    drawn, drawn_again = (m.draw(5, generator=torch.Generator().manual_seed(3)) for m in (model, again))
    assert torch.equal(drawn, drawn_again)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields["network"]["kind"] == config.kind
    assert not fields["energy"]
    for many_levels in (True, False):
        with pytest.raises(UserError, match="holds a model of another family, which has no score: use sample or evaluate"):
            load_score(tmp_path, many_levels=many_levels)


@pytest.mark.parametrize("config", ["mlp", "mlp-energy"])
def test_scores_of_one_level_are_loaded_only_where_one_level_is_enough(config: str, tmp_path: Path) -> None:
    energy = config == "mlp-energy"
    save_model(random_model(ModelConfig(replace(VECTOR, sigma_range=(0.4, 0.4)), MLP, energy)), MLP, tmp_path)
    one = load_score(tmp_path, many_levels=False)
    assert one.sigma_range == (0.4, 0.4)
    x = torch.randn(3, 3)
    assert torch.equal(one.score(x, 0.4), load(tmp_path).score(x, 0.4))  # type: ignore[union-attr]
    with pytest.raises(UserError, match="of one noise level, and this needs many: train one by denoising"):
        load_score(tmp_path)
    save_model(random_model(ModelConfig(VECTOR, MLP, energy)), MLP, tmp_path)
    assert load_score(tmp_path).sigma_range == (0.01, 50.0)
