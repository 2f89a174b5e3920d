"""Recipes by name."""

from collections.abc import Callable

from scorefield.data import holds_vectors
from scorefield.errors import UserError
from scorefield.experiment import Run
from scorefield.recipes.families import (
    autoregressive,
    energy_likelihood,
    hierarchical_vae,
    independent_pixels,
    softmax_patches,
    training_images,
    vae,
)
from scorefield.recipes.images import digits, digits_classes, digits_energy, fashion_mnist, images
from scorefield.recipes.vectors import vectors

OWN = {"digits": digits, "fashion-mnist": fashion_mnist}
"""recipes of a named source"""
RECIPES: dict[str, Callable[[], Run]] = {
    **OWN,
    "digits-classes": digits_classes,
    "digits-energy": digits_energy,
    "images": images,
    "vectors": vectors,
    "independent-pixels": independent_pixels,
    "softmax-patches": softmax_patches,
    "training-images": training_images,
    "autoregressive": autoregressive,
    "vae": vae,
    "hierarchical-vae": hierarchical_vae,
    "energy-likelihood": energy_likelihood,
}


def recipe(name: str) -> Run:
    """The run a recipe stands for; `UserError` with the valid names for an unknown one."""
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]()


def recipe_for(source: str) -> Run:
    """The recipe for a data source when none is asked for: its own, or the one for its kind of data."""
    if source in OWN:
        return OWN[source]()
    return recipe("vectors" if holds_vectors(source) else "images")
