"""What all models of integer images share: images `(b, *event)` of levels 0 … L − 1, in int64."""

import math

import torch
from torch import Tensor, nn


class IntegerModel(nn.Module):
    """A model of integer events; its log-densities are log-probabilities of events, nats.

    Raises:
        ValueError: fewer than 2 levels, or an event of no coordinates.
    """

    normalised = True

    def __init__(self, event_shape: tuple[int, ...], levels: int) -> None:
        super().__init__()
        if levels < 2 or not event_shape or min(event_shape) < 1:
            raise ValueError(
                f"integer events need coordinates and at least 2 levels, got shape {event_shape} and {levels} levels"
            )
        self.event_shape, self.levels = tuple(event_shape), levels

    @property
    def d(self) -> int:
        """Coordinates of an event."""
        return math.prod(self.event_shape)

    def flat(self, x: Tensor) -> Tensor:
        """Events as rows `(b, d)` in raster order, checked.

        Raises:
            ValueError: events of another shape, other numbers than integers, or levels out of range (with the first such row).
        """
        if x.shape[1:] != self.event_shape:
            raise ValueError(f"expected events of shape {self.event_shape}, got {tuple(x.shape[1:])}")
        return check_integers(x, self.levels).flatten(1)

    def shaped(self, rows: Tensor) -> Tensor:
        """Rows `(b, d)` as events."""
        return rows.unflatten(1, self.event_shape)


def check_integers(x: Tensor, levels: int) -> Tensor:
    """Events `(b, …)` as int64; raises `ValueError` for other numbers than integers, or levels out of range, with the row."""
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"expected integer levels 0 … {levels - 1}, got {x.dtype}")
    x = x.long()
    out = ((x < 0) | (x >= levels)).flatten(1).any(1)
    if out.any():
        raise ValueError(f"row {int(out.nonzero()[0])} has a level outside 0 … {levels - 1}")
    return x


def check_level_zero(sigma: float | Tensor) -> None:
    """Raises `ValueError` for a noise level: probabilities of integers are of the data itself."""
    if bool((torch.as_tensor(sigma) != 0).any()):
        raise ValueError(f"sigma must be 0 for a model of integers, got {sigma}")
