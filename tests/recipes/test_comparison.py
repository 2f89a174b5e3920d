"""The families of a comparison: in the order of the table, each for the data at hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scorefield.errors import UserError
from scorefield.recipes import FAMILIES, families_of, recipe

ORDER = [
    "independent-pixels", "softmax-patches", "training-images", "autoregressive", "vae", "hierarchical-vae",
    "energy-likelihood", "energy-denoising", "score",
]  # fmt: skip


def test_all_families_in_the_order_of_the_table() -> None:
    runs = families_of([], "digits")
    assert list(runs) == list(FAMILIES) == ORDER
    for name in ORDER[:7]:
        assert runs[name] == recipe(name)
        assert runs[name].recipe == name
    assert runs["score"] == recipe("digits")
    assert runs["energy-denoising"] == replace(recipe("digits"), energy=True)


def test_some_families_keep_that_order() -> None:
    assert list(families_of(["score", "vae", "vae", "training-images"], "digits")) == ["training-images", "vae", "score"]


def test_scores_are_for_their_kind_of_data(tmp_path: Path) -> None:
    np.save(tmp_path / "points.npy", np.ones((3, 2)))
    np.save(tmp_path / "photos.npy", np.ones((3, 4, 4), np.uint8))
    for source, name in (("points.npy", "vectors"), ("photos.npy", "images")):
        runs = families_of(["energy-denoising", "score"], str(tmp_path / source))
        assert runs == {"energy-denoising": replace(recipe(name), energy=True), "score": recipe(name)}


def test_an_unknown_family_is_told_all_that_there_are() -> None:
    with pytest.raises(UserError) as error:
        families_of(["vae", "gan"], "digits")
    assert str(error.value) == f"unknown family 'gan': choose from {', '.join(ORDER)}"
