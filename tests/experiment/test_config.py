"""A run refuses settings that do not go together, by the flags a user would give."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from scorefield.baselines import (
    AutoregressiveConfig,
    BaselineConfig,
    EvidenceBound,
    IndependentPixelsConfig,
    SoftmaxPatchesConfig,
    TrainingImagesConfig,
    VAEConfig,
)
from scorefield.data.scaling import Scaling
from scorefield.errors import UserError
from scorefield.experiment import Run
from scorefield.experiment.config import RunFile, check_resumable, read_run, write_run
from scorefield.networks import MLPConfig, UNetConfig
from scorefield.objectives import DenoisingScoreMatching, PersistentChains, PersistentContrastiveDivergence
from scorefield.recipes import FAMILIES, RECIPES, recipe
from scorefield.training import Training

FAMILY_CONFIGS = (
    IndependentPixelsConfig(),
    SoftmaxPatchesConfig(),
    TrainingImagesConfig(),
    AutoregressiveConfig(),
    VAEConfig(),
)
CHAINS = PersistentChains(chains=256, steps=2)


def refusal(**settings: object) -> str:
    """The one line with which a run is refused."""
    with pytest.raises(UserError) as caught:
        Run(**settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_a_share_of_labels_that_leaves_one_score_unlearnt(share: float) -> None:
    assert refusal(label_dropout=share) == f"--label-dropout must be between 0 and 1, got {share}"


@pytest.mark.parametrize("network", FAMILY_CONFIGS, ids=lambda c: c.kind)
@pytest.mark.parametrize("objective", [DenoisingScoreMatching(), CHAINS], ids=lambda o: o.kind)
def test_other_families_are_not_learnt_by_denoising_or_chains(network: BaselineConfig, objective: object) -> None:
    line = refusal(network=network, objective=objective)
    assert line.startswith(f"--network.kind {network.kind} cannot be learnt by --objective.kind {objective.kind}: ")  # type: ignore[attr-defined]
    assert "other families by likelihood" in line


@pytest.mark.parametrize("network", [UNetConfig(), MLPConfig()], ids=lambda c: c.kind)
def test_scores_are_not_learnt_by_likelihood(network: object) -> None:
    line = refusal(network=network, objective=EvidenceBound())
    assert line.startswith(f"--network.kind {network.kind} cannot be learnt by --objective.kind likelihood: ")  # type: ignore[attr-defined]
    assert "scores and energies are learnt by denoising or persistent-chains" in line


@pytest.mark.parametrize("network", FAMILY_CONFIGS, ids=lambda c: c.kind)
@pytest.mark.parametrize("flag", ["energy", "conditional"])
def test_other_families_are_no_energies_and_know_no_classes(network: BaselineConfig, flag: str) -> None:
    line = refusal(network=network, objective=EvidenceBound(), **{flag: True})
    assert line == f"--energy and --conditional are for scores, and {network.kind} is none: leave them out"


def test_agreement_across_levels_is_for_energies() -> None:
    objective = DenoisingScoreMatching(across_levels=0.25)
    assert refusal(objective=objective) == "--objective.across-levels is for energies: give --energy as well"
    assert Run(objective=objective, energy=True).energy


@pytest.mark.parametrize(
    "levels", [(0.4, 0.4), (0.0, 1.0), (0.0, 0.0), (2.0, 1.0), (-1.0, 1.0), (0.1, math.inf), (math.nan, 1.0), (0.1, math.nan)]
)
def test_denoising_needs_levels_above_zero_and_more_than_one(levels: tuple[float, float]) -> None:
    low, high = levels
    expected = f"--sigma-range must satisfy 0 < low < high < inf, got {low:g} {high:g}"
    assert refusal(sigma_range=levels) == refusal(sigma_range=levels, energy=True) == expected


def test_chains_are_for_energies_without_classes() -> None:
    def line(**settings: object) -> str:
        return refusal(objective=CHAINS, sigma_range=(0.4, 0.4), **settings)

    assert line() == line(conditional=True) == "--objective.kind persistent-chains is for energies: give --energy as well"
    classes = "--objective.kind persistent-chains knows no classes: leave --conditional out"
    assert line(conditional=True, energy=True) == classes
    few = "--objective.chains must be at least --batch-size 300, got 256"
    assert line(energy=True, training=Training(batch_size=300)) == few


@pytest.mark.parametrize("levels", [(0.3, 0.4), (0.0, 0.0), (math.inf, math.inf), (math.nan, math.nan), (-1.0, -1.0)])
def test_chains_live_at_one_level_above_zero(levels: tuple[float, float]) -> None:
    expected = f"persistent chains live at one level: give --sigma-range LEVEL LEVEL, got {levels[0]:g} {levels[1]:g}"
    assert refusal(objective=CHAINS, energy=True, sigma_range=levels) == expected


def test_what_goes_together_is_taken_and_knows_what_it_is_of(tmp_path: Path) -> None:
    """And comes back from run.json as it was."""
    runs = [Run(network=network, objective=EvidenceBound(draws=2)) for network in FAMILY_CONFIGS]
    assert all(run.of_integers for run in runs)
    runs += [Run(), Run(energy=True), Run(network=MLPConfig(), objective=CHAINS, energy=True, sigma_range=(0.4, 0.4))]
    assert not any(run.of_integers for run in runs[-3:])
    for run in runs:
        write_run(RunFile(run, "fingerprint", 1, {}), tmp_path)
        assert read_run(tmp_path) == run


def test_every_recipe_and_family_is_a_run_that_can_be_stored(tmp_path: Path) -> None:
    runs = [recipe(name) for name in RECIPES] + [
        build(source) for build in FAMILIES.values() for source in ("digits", "photos")
    ]
    for run in runs:
        write_run(RunFile(run, "", 1, {}), tmp_path)
        assert read_run(tmp_path) == run
    assert all(recipe(name).recipe == name for name in RECIPES)


def test_a_run_file_with_settings_that_do_not_go_together_is_refused_in_one_line(tmp_path: Path) -> None:
    write_run(RunFile(Run(network=VAEConfig(), objective=EvidenceBound()), "", 1, {}), tmp_path)
    fields = json.loads((tmp_path / "run.json").read_text())
    fields["run"]["energy"] = True
    (tmp_path / "run.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match="--energy and --conditional are for scores, and vae is none"):
        read_run(tmp_path)


def test_models_of_integers_see_them_as_they_are() -> None:
    raw, scaling = torch.tensor([[0, 3], [16, 8]], dtype=torch.uint8), Scaling((8.0,), (5.0,), 17)
    integers = Run(network=VAEConfig(), objective=EvidenceBound()).encode(raw, scaling, torch.Generator())
    assert integers.dtype == torch.int64
    assert integers.tolist() == raw.tolist()
    bare = Run(dequantise=False).encode(raw, scaling, torch.Generator())
    assert bare.tolist() == [[pytest.approx(v) for v in row] for row in [[-1.6, -1.0], [1.6, 0.0]]]
    noised = Run().encode(raw, scaling, torch.Generator().manual_seed(0))
    assert 0.02 < float((noised - bare).abs().max()) <= 0.1  # half a level
    assert noised.dtype == torch.float32


def test_a_run_has_an_objective_with_chains_of_its_events_where_it_needs_them() -> None:
    run = Run(network=MLPConfig(), objective=CHAINS, energy=True, sigma_range=(0.4, 0.4))
    built = run.loss((1, 4, 4))
    assert isinstance(built, PersistentContrastiveDivergence)
    assert built.replay.shape == (256, 1, 4, 4)
    assert built.steps == 2
    assert torch.equal(built.replay, run.loss((1, 4, 4)).replay)  # type: ignore[attr-defined]  # begun anew, alike
    assert Run().loss((3,)) == DenoisingScoreMatching()


def test_the_choice_of_weights_cannot_change_on_resume() -> None:
    stored = Run(training=Training(steps=10, keep_best=True))
    longer = dataclasses.replace(stored, training=dataclasses.replace(stored.training, steps=20, validate_every=5))
    assert check_resumable(stored, longer) == ["training.steps: 10 -> 20", "training.validate_every: 250 -> 5"]
    other = dataclasses.replace(stored, training=dataclasses.replace(stored.training, keep_best=False))
    with pytest.raises(UserError, match=r"another configuration: training\.keep_best was True, now False"):
        check_resumable(stored, other)
