"""Recipes: each a function that returns one full run, with the command at its top and, where it was measured, the result."""

from scorefield.recipes.comparison import FAMILIES, families_of
from scorefield.recipes.images import digits
from scorefield.recipes.registry import RECIPES, recipe, recipe_for
from scorefield.recipes.vectors import vectors

__all__ = ["FAMILIES", "RECIPES", "digits", "families_of", "recipe", "recipe_for", "vectors"]
