"""Classes by name and number, as the command line takes them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield import ClassifierFreeGuidance, UserError, generate, load
from scorefield.cli import main
from scorefield.experiment import class_labels, in_precision
from scorefield.experiment.sample import arrays
from scorefield.samplers import Heun

ANIMALS = ("cat", "dog", "2", "all but ants")


def test_names_come_before_numbers() -> None:
    assert class_labels("dog", ANIMALS, 3).item() == 1
    assert class_labels("2", ANIMALS, 1).item() == 2
    assert class_labels("2", ("2", "1", "0"), 1).item() == 0
    assert class_labels("3", ANIMALS, 1).item() == 3
    assert class_labels("all", ANIMALS, 6).tolist() == [0, 1, 2, 3, 0, 1]
    assert class_labels("all", ("all", "none"), 2).item() == 0


def test_unknown_classes() -> None:
    with pytest.raises(UserError, match=r"unknown class 'Cat': choose one of cat, dog, 2, all but ants, a number from 0 to 3"):
        class_labels("Cat", ANIMALS, 1)
    for name in ("4", "-1", "", "1.0", "٣"):
        with pytest.raises(UserError, match="unknown class"):
            class_labels(name, ANIMALS, 1)
    many = tuple(f"class {k}" for k in range(1000))
    with pytest.raises(UserError, match=r"class 18, class 19, …, a number from 0 to 999, or all") as caught:
        class_labels("x", many, 1)
    assert len(str(caught.value)) < 300


def test_sampling_a_class(tiny_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files hold what Python gives for the same class, weight and seed."""
    monkeypatch.chdir(tmp_path)
    flags = ["sample", str(tiny_classes), "--steps", "4", "--seed", "5", "-n", "12"]
    model = load(tiny_classes)
    score = in_precision(model, "auto", torch.device("cpu"))
    for arguments, weight, labels in (
        (["--class", "3"], 1.0, torch.full((12,), 3)),
        (["--class", "3", "--guidance", "7.5"], 7.5, torch.full((12,), 3)),
        (["--class", "all", "--guidance", "7.5"], 7.5, torch.arange(12) % 10),
        ([], 1.0, None),
    ):
        assert main([*flags, *arguments, "--out", "x.npz", "--overwrite"]) == 0
        chunks = generate(ClassifierFreeGuidance(score, weight), Heun(4), 12, (1, 8, 8), seed=5, cond=labels)
        np.testing.assert_array_equal(np.load("x.npz")["samples"], arrays(torch.cat(list(chunks)), model.spec))


def test_every_class_has_a_column(tiny_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x.png", "x.gif", "x.npz"):
        assert main(["sample", str(tiny_classes), "--steps", "4", "-n", "30", "--class", "all", "--out", name]) == 0
    grid = np.asarray(Image.open("x.png"))
    assert grid.shape == (3 * 50 - 2, 10 * 50 - 2)  # 8×8 pixels sixfold, and gaps of 2
    assert Image.open("x.gif").size == (10 * 50 - 2, 3 * 50 - 2)
    np.testing.assert_array_equal(grid[50 : 50 + 48 : 6, 100 : 100 + 48 : 6], np.load("x.npz")["samples"][12])
