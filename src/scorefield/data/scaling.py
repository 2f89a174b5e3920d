"""Scaled data units: raw data, shifted and divided so that its standard deviation is 1."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    """x = (raw − shift)/scale; one number for all coordinates (images), or one for each (vectors).

    `levels` is the number of integer levels of the raw data (digits 17, 8-bit images 256), None if it is continuous.
    """

    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    levels: int | None = None

    def __post_init__(self) -> None:
        if len(self.shift) != len(self.scale) or not all(s > 0 for s in self.scale):
            raise ValueError(f"scaling needs as many shifts as positive scales, got {len(self.shift)} and {self.scale}")

    def encode(self, raw: Tensor) -> Tensor:
        """Raw data to scaled units, float32 (float64 stays)."""
        dtype = torch.float64 if raw.dtype == torch.float64 else torch.float32
        return (raw.to(dtype) - raw.new_tensor(self.shift, dtype=dtype)) / raw.new_tensor(self.scale, dtype=dtype)

    def decode(self, x: Tensor) -> Tensor:
        """Scaled units back to raw ones; integer data is clipped and rounded to its levels (still a float tensor)."""
        raw = x * x.new_tensor(self.scale) + x.new_tensor(self.shift)
        return raw if self.levels is None else raw.round().clamp(0, self.levels - 1)


@dataclass(frozen=True)
class ScaledRows:
    """Raw rows as float32 in scaled units, read from disk as they are asked for: `rows[i:j]` or `rows[indices]`."""

    x: np.ndarray
    scaling: Scaling

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | np.ndarray) -> Tensor:
        return self.scaling.encode(torch.from_numpy(np.array(self.x[rows]))).float()
