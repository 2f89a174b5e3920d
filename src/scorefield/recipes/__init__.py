"""Recipes: each a function that returns one full run, with the command and the expected result at its top."""

from collections.abc import Callable

from scorefield.data import holds_vectors
from scorefield.errors import UserError
from scorefield.experiment import Run
from scorefield.recipes.images import digits, digits_classes, digits_energy, fashion_mnist, images
from scorefield.recipes.vectors import vectors

RECIPES: dict[str, Callable[[], Run]] = {
    "digits": digits,
    "digits-classes": digits_classes,
    "digits-energy": digits_energy,
    "fashion-mnist": fashion_mnist,
    "images": images,
    "vectors": vectors,
}


def recipe(name: str) -> Run:
    """The run a recipe stands for; `UserError` with the valid names for an unknown one."""
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]()


def recipe_for(source: str) -> Run:
    """The recipe for a data source when none is asked for: its own, or the one for its kind of data."""
    if source in RECIPES:
        return recipe(source)
    return recipe("vectors" if holds_vectors(source) else "images")


__all__ = ["RECIPES", "digits", "digits_classes", "digits_energy", "fashion_mnist", "images", "recipe", "recipe_for", "vectors"]
