"""scorefield logz on small energies: what it writes is what the library finds, and it says what cannot be trusted."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.cli import main
from scorefield.densities import gaussian
from scorefield.experiment.logz import best, disagreements
from scorefield.likelihood import Partition, quadrature
from scorefield.persistence import load
from scorefield.randomness import keyed_generator


@pytest.fixture(scope="module")
def energy(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An energy of two correlated normal columns, from noise 0.1 to 10."""
    folder = tmp_path_factory.mktemp("energy")
    covariance = torch.tensor([[1.0, 0.6], [0.6, 1.5]])
    x = gaussian(torch.tensor([3.0, -1.0]), covariance).sample(3000, generator=keyed_generator(0, "test energy"))
    np.save(folder / "columns.npy", x.numpy())
    flags = ["--energy", "--sigma-range", "0.1", "10", "--steps", "300", "--network.width", "32", "--network.blocks", "1"]
    assert main(["train", str(folder / "columns.npy"), *flags, "--threads", "1", "--out", str(folder / "run")]) == 0
    return folder / "run"


QUICK = ["--rungs", "60", "--particles", "128", "--flow-draws", "32", "--rows", "32"]


def test_methods_agree_and_rows_are_judged(energy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["logz", str(energy), *QUICK]) == 0
    out, err = capsys.readouterr()
    found = json.loads((energy / "logz.json").read_text())
    model = load(energy)
    exact = quadrature(model, (2,), 0.1).log_z  # type: ignore[arg-type]
    by_name = {e["method"]: e for e in found["estimates"]}
    assert list(by_name) == ["quadrature", "AIS", "SMC", "flow"]
    assert by_name["quadrature"]["log_z"] == pytest.approx(exact, abs=1e-4)
    for name in ("AIS", "SMC", "flow"):
        e = by_name[name]
        assert e["verdict"] == "trustworthy"
        assert abs(e["log_z"] - exact) < 4 * e["se"] + 1e-3
        assert e["sigma"] == 0.1
    assert found["log_z"]["method"] == "quadrature"
    assert found["disagreements"] == []
    # data of variance v, scaled to 1 and smoothed by 0.1: a normal law whose entropy is known
    data = np.load(energy.parent / "columns.npy")
    smoothed = np.cov(data.T) + np.diag((0.1 * data.std(0)) ** 2)
    entropy = np.linalg.slogdet(2 * math.pi * math.e * smoothed)[1] / 2
    for key in ("energy", "flow"):
        value, se = found["held_out"][key]
        assert abs(value + entropy) < 4 * se + 0.1
    gap = found["held_out"]["gap"]
    assert gap[0] == pytest.approx(found["held_out"]["energy"][0] - found["held_out"]["flow"][0], abs=1e-9)
    assert found["held_out"]["rows"] == 32
    for word in ("quadrature", "AIS", "SMC", "flow", "no upper bound"):
        assert word in re.sub(r"\s+", " ", out)
    assert "wrote" in err
    assert "gap, energy less flow" in err


def test_the_same_seed_gives_the_same_numbers(energy: Path) -> None:
    texts = []
    for seed in ("3", "3", "4"):
        assert main(["logz", str(energy), *QUICK[:-2], "--rows", "0", "--seed", seed]) == 0
        texts.append((energy / "logz.json").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_a_budget_that_is_too_small_says_so(energy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    least = ["--rungs", "2", "--particles", "16", "--leapfrog", "1", "--flow-draws", "2", "--rows", "0"]
    assert main(["logz", str(energy), *least]) == 0
    out = capsys.readouterr().out
    assert "AIS is not trustworthy: 16 weights are too few to judge their tail" in out
    assert "SMC is not trustworthy: islands of 2 particles are too small" in " ".join(out.split())
    assert "flow is not trustworthy" in out


def test_disagreement_is_flagged_among_the_trustworthy() -> None:
    one, other, bad = (
        Partition("one", 1.0, 0.1), Partition("other", 2.0, 0.2), Partition("bad", 9.0, 0.1, problems=("a reason",)),
    )  # fmt: skip
    assert disagreements([one, other, bad]) == ["one and other disagree: 1 nats, 4.5 combined standard errors"]
    assert disagreements([one, Partition("near", 1.2, 0.1)]) == []
    assert best([other, one, bad]) == one
    assert best([bad]) is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--particles", "8"], "--particles must be from 16 to 1000000, got 8"),
        (["--particles", "20"], "multiple of 8"),
        (["--rungs", "1"], "too small for one step"),
        (["--flow-draws", "-1"], "--flow-draws must be from 0"),
        (["--flow-draws", "1"], "too small for one step"),
        (["--sigma", "50"], r"sigma must be in [0.1, 10]"),
        (["--sigma", "10"], "--sigma must be below the model's largest level 10"),
        (["--rows", "1"], "--rows must be 0 or at least 2"),
    ],
)
def test_what_it_refuses(energy: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logz", str(energy), *flags]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_direct_score_has_no_log_z(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logz", str(tiny_run)]) == 2
    assert "direct score, which has no log-density" in capsys.readouterr().err


def test_an_energy_that_need_not_have_a_z_is_refused(energy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--energy", "--parameterisation.name", "noise", "--steps", "3", "--network.width", "16", "--threads", "1"]
    assert main(["train", str(energy.parent / "columns.npy"), *flags, "--out", str(tmp_path / "open")]) == 0
    capsys.readouterr()
    assert main(["logz", str(tmp_path / "open")]) == 2
    assert "Z may be infinite" in capsys.readouterr().err
