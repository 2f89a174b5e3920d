"""scorefield compose: products of trained models, and what cannot be composed."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.cli import main
from scorefield.data import Reading, open_data
from scorefield.densities import gaussian
from scorefield.errors import UserError
from scorefield.persistence import load
from scorefield.randomness import keyed_generator


@pytest.fixture(scope="module")
def runs(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An energy and a direct score of the same two normal columns, an energy of other ones, and one of three columns."""
    folder = tmp_path_factory.mktemp("compose")
    g = keyed_generator(0, "test compose")
    pair = gaussian(torch.tensor([3.0, -1.0]), torch.tensor([[1.0, 0.6], [0.6, 1.5]])).sample(3000, generator=g)
    np.save(folder / "pair.npy", pair.numpy())
    np.save(folder / "other.npy", 2 * pair.numpy())
    np.save(folder / "triple.npy", torch.randn(500, 3, generator=g, dtype=torch.float64).numpy())
    common = ["--sigma-range", "0.1", "10", "--network.width", "32", "--network.blocks", "1", "--threads", "1"]
    for name, data, flags in (
        ("energy", "pair", ["--energy", "--steps", "300"]), ("score", "pair", ["--steps", "300"]),
        ("other", "other", ["--energy", "--steps", "3"]), ("triple", "triple", ["--energy", "--steps", "3"]),
    ):  # fmt: skip
        assert main(["train", str(folder / f"{data}.npy"), *common, *flags, "--out", str(folder / name)]) == 0
    return folder


def moments(runs: Path, exponent: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of f^exponent, f the learned energy at its smallest level, by sums over a grid (data's units)."""
    model = load(runs / "energy")
    axis = torch.linspace(-6, 6, 241)
    grid = torch.cartesian_prod(axis, axis)
    weights = (exponent * model.log_density(grid, 0.1).double()).softmax(0)  # type: ignore[union-attr]
    raw = model.spec.scaling.decode(grid).double()
    mean = weights @ raw
    return mean.numpy(), ((raw - mean).T @ (weights[:, None] * (raw - mean))).numpy()


def check(x: np.ndarray, runs: Path, exponent: float) -> None:
    """512 independent chains: their mean and covariance within four standard errors, and a little for chains that are short."""
    mean, covariance = moments(runs, exponent)
    assert x.shape == (512, 2)
    assert np.abs((x.mean(0) - mean) / np.sqrt(covariance.diagonal())).max() < 4 / 512**0.5 + 0.1
    ratio = np.linalg.eigvalsh(np.linalg.solve(covariance, np.cov(x.T)))
    assert np.abs(ratio - 1).max() < 4 * (2 / 512) ** 0.5 + 0.1


@pytest.mark.parametrize("second", ["energy", "score"])
def test_a_product_with_itself_is_twice_as_sharp(
    runs: Path, second: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """N(m, C)² ∝ N(m, C/2), for what was learned; corrected for energies, not for scores, which are another model besides."""
    out = tmp_path / "x.npz"
    flags = ["--steps", "40", "--steps-per-level", "8" if second == "energy" else "25", "-n", "512", "--out", str(out)]
    assert main(["compose", str(runs / "energy"), str(runs / second), *flags]) == 0
    x = np.load(out)["samples"]
    if second == "energy":
        check(x, runs, 2.0)
    else:
        half = np.array([[0.5, 0.3], [0.3, 0.75]])
        assert np.abs(np.linalg.eigvalsh(np.linalg.solve(half, np.cov(x.T))) - 1).max() < 0.6
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert f"wrote {out}: 512 samples by {'HMC' if second == 'energy' else 'ULA'} chains at 40 levels from 10 to 0.1" in said
    assert ("of their moves" in said) is (second == "energy")
    assert ("without a Metropolis test" in said) is (second == "score")


def test_exponents_weigh(runs: Path, tmp_path: Path) -> None:
    """Three times the first less the second, the same again: twice as sharp; one run alone may be sharpened."""
    for names, exponents in ((["energy", "energy"], ["3", "-1"]), (["energy"], ["2"])):
        out = tmp_path / f"{len(names)}.npz"
        flags = ["--exponents", *exponents, "--steps", "40", "--steps-per-level", "8", "-n", "512", "--out", str(out)]
        assert main(["compose", *(str(runs / name) for name in names), *flags]) == 0
        check(np.load(out)["samples"], runs, 2.0)


def test_chains_that_do_not_move_are_warned_of(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--steps", "2", "--steps-per-level", "1", "-n", "8", "--exponents", "1e9", "1e9", "--out", str(tmp_path / "x.npz")]
    assert main(["compose", str(runs / "energy"), str(runs / "energy"), *flags]) == 0
    assert "chains that hardly move" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("names", "flags", "words"),
    [
        (["energy"], [], "nothing to compose"),
        (["energy", "other"], [], "scale data in the same way"),
        (["energy", "triple"], [], "events of one shape"),
        (["energy", "energy"], ["--exponents", "1"], "needs a number for each of 2 runs"),
        (["energy", "energy"], ["--exponents", "1", "-1"], "positive sum"),
        (["energy", "energy"], ["--exponents", "1", "nan"], "must be finite"),
        (["energy", "score"], ["--kernel", "mala"], "--kernel mala is for energies"),
        (["energy", "energy"], ["--steps", "1"], "--steps must be at least 2"),
        (["energy", "energy"], ["--sigma-range", "0.01", "5"], "must lie in the model's sigma_range"),
        (["energy", "absent"], [], "no model at"),
    ],
)
def test_what_it_refuses(
    runs: Path, names: list[str], flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compose", *(str(runs / name) for name in names), *flags, "--out", str(tmp_path / "x.png")]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x.png").exists()


def test_only_some_classes_with_the_scaling_of_all(cache: Path) -> None:
    whole, some = open_data("digits"), open_data("digits", Reading(only=("3", "8")))
    assert some.scaling == whole.scaling
    assert some.classes == whole.classes
    assert some.fingerprint != whole.fingerprint
    for name, split in some.splits.items():
        of_all = whole.splits[name]
        assert of_all.labels is not None
        rows = np.flatnonzero((of_all.labels == 3) | (of_all.labels == 8))
        np.testing.assert_array_equal(split.x, of_all.x[rows])
        np.testing.assert_array_equal(split.labels, of_all.labels[rows])
    with pytest.raises(UserError, match="unknown class 'three': choose among 0, 1"):
        open_data("digits", Reading(only=("three",)))
