"""The families that `scorefield compare` sets side by side, each a run on the same data."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from scorefield.errors import UserError
from scorefield.experiment import Run
from scorefield.recipes import families
from scorefield.recipes.registry import recipe_for


def energy_denoising(source: str) -> Run:
    """The recipe of the data, for an energy."""
    return replace(recipe_for(source), energy=True)


def for_any(recipe: Callable[[], Run]) -> Callable[[str], Run]:
    """A recipe that is the same for all data."""
    return lambda source: recipe()


FAMILIES: dict[str, Callable[[str], Run]] = {
    "independent-pixels": for_any(families.independent_pixels),
    "softmax-patches": for_any(families.softmax_patches),
    "training-images": for_any(families.training_images),
    "autoregressive": for_any(families.autoregressive),
    "vae": for_any(families.vae),
    "hierarchical-vae": for_any(families.hierarchical_vae),
    "energy-likelihood": for_any(families.energy_likelihood),
    "energy-denoising": energy_denoising,
    "score": recipe_for,
}
"""from a data source to a run, in the order of the table"""


def families_of(names: Sequence[str], source: str) -> dict[str, Run]:
    """The runs of some families, of all if no names are given, in the order of the table.

    Raises:
        UserError: an unknown name, with all that there are.
    """
    for name in names:
        if name not in FAMILIES:
            raise UserError(f"unknown family {name!r}: choose from {', '.join(FAMILIES)}")
    return {name: build(source) for name, build in FAMILIES.items() if not names or name in names}
