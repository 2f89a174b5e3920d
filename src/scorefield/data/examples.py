"""What a source hands to the cache: examples one at a time, so that nothing need fit in memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np


class Example(NamedTuple):
    """One raw example: an image `(c, h, w)` uint8 or uint16, or a vector `(d,)` float; its class, or −1."""

    x: np.ndarray
    label: int = -1
    official_test: bool = False


@dataclass(frozen=True)
class Examples:
    """A source opened: facts about it, and a function that goes through its examples once."""

    kind: Literal["images", "vectors"]
    total: int
    """how many examples there are, unreadable ones included"""
    levels: int | None
    """integer levels 0 … levels − 1 of an image; None for vectors"""
    read: Callable[[], Iterator[Example]]
    classes: tuple[str, ...] = ()
    skipped: list[str] = field(default_factory=list)
    """names of unreadable examples, filled while reading"""


Progress = Callable[[Iterable[Example], str, int | None], Iterable[Example]]
"""progress(items, label, total) gives the items unchanged and may draw a bar."""
