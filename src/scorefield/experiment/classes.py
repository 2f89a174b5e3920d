"""Classes as a user names them."""

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.guidance import ClassifierFreeGuidance
from scorefield.interfaces import Score

ALL = "all"
SHOWN = 20
"""most names that a message lists"""


def class_labels(name: str, classes: tuple[str, ...], n: int) -> Tensor:
    """The label `()` of the class of that name, or else number; of `all` every class in turn, `(n,)`.

    Raises:
        UserError: a model without classes, or no such class.
    """
    if not classes:
        raise UserError("the model knows no classes: leave --class out, or train one with --conditional")
    if name == ALL and ALL not in classes:
        return torch.arange(n) % len(classes)
    numbers = {str(k): k for k in range(len(classes))} | {known: k for k, known in enumerate(classes)}
    if name not in numbers:
        shown = ", ".join(classes[:SHOWN]) + (", …" if len(classes) > SHOWN else "")
        raise UserError(f"unknown class {name!r}: choose one of {shown}, a number from 0 to {len(classes) - 1}, or {ALL}")
    return torch.tensor(numbers[name])


def guided(model: Score, weight: float, cond: Tensor | None) -> Score:
    """`model` guided towards the classes `cond`; itself for weight 1.

    Raises:
        UserError: a weight that is not finite, or one without a class to lead to.
    """
    if weight == 1:
        return model
    if cond is None:
        raise UserError("--guidance leads towards a class: give --class, too")
    try:
        return ClassifierFreeGuidance(model, weight)
    except ValueError as error:
        raise UserError(f"--guidance: {error}") from error
