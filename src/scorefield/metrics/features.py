"""Feature spaces in which distances between sets of examples are measured; a distance is always named with its space."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class Features(Protocol):
    """A named map from examples `(n, *event)` to features `(n, k)`, float64."""

    @property
    def name(self) -> str: ...

    def __call__(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class PixelPCA:
    """Coordinates along the principal components of the flattened training data; for tiny images and vectors."""

    mean: Tensor
    components: Tensor
    """`(d, k)`, orthonormal columns, largest variance first"""

    @classmethod
    def fit(cls, train: Tensor, components: int = 64) -> "PixelPCA":
        """Components of `train` `(n, *event)`; all of them if there are fewer."""
        x = train.flatten(1).double()
        mean = x.mean(0)
        _, vectors = torch.linalg.eigh((x - mean).T @ (x - mean))
        return cls(mean, vectors.flip(1)[:, :components])

    @property
    def name(self) -> str:
        return f"{self.components.shape[1]} principal components"

    def __call__(self, x: Tensor) -> Tensor:
        return (x.flatten(1).double() - self.mean) @ self.components


@dataclass(frozen=True)
class NetworkFeatures:
    """The output of any network, flattened."""

    network: nn.Module
    name: str
    batch_size: int = 256

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        training = self.network.training
        self.network.eval()
        try:
            return torch.cat([self.network(part).flatten(1).double() for part in x.split(self.batch_size)])
        finally:
            self.network.train(training)
