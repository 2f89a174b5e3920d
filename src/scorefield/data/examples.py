"""What a source hands to the cache: examples one at a time, so that nothing need fit in memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from scorefield.data.splits import HeldOut

T = TypeVar("T")


class Example(NamedTuple):
    """One raw example: an image `(c, h, w)` uint8 or uint16, or a vector `(d,)` float; its class, or −1."""

    x: np.ndarray
    label: int = -1
    held_out: HeldOut = ""
    """the split the source itself puts it in, if not for training"""
    name: str = ""
    """of its file, below the folder"""


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


class Progress(Protocol):
    """progress(items, label, total) gives the items unchanged and may draw a bar."""

    def __call__(self, items: Iterable[T], label: str, total: int | None, /) -> Iterable[T]: ...


def silent(items: Iterable[T], label: str, total: int | None) -> Iterable[T]:
    """No bar."""
    return items
