"""Features `(n, k)` in which distributions are compared: the data's own principal components, or any network's output."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class Features(Protocol):
    """Any map from scaled data `(n, *event)` to features `(n, k)`, float64, with a name for the report."""

    @property
    def name(self) -> str: ...

    def __call__(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class PixelPCA:
    """Coordinates along the principal components of flattened training data: no network, no download.

    They are orthonormal, so distances keep the unit of the data.
    """

    name: str
    mean: Tensor
    """`(d,)`"""
    axes: Tensor
    """`(k, d)`, by falling variance"""

    @classmethod
    def fit(cls, train: Tensor, components: int = 64) -> "PixelPCA":
        """The first `components` principal components of `train` `(n, *event)`; fewer if n or d is smaller."""
        from sklearn.decomposition import PCA  # slow to import, and not every command needs it

        x = train.flatten(1).double().cpu()
        k = min(components, *x.shape)
        pca = PCA(k, random_state=0).fit(x.numpy())
        images = train.ndim > 2
        name = "coordinates" if k == x.shape[1] and not images else f"{k} principal components{' of pixels' * images}"
        return cls(name, torch.from_numpy(pca.mean_), torch.from_numpy(pca.components_))

    def __call__(self, x: Tensor) -> Tensor:
        """`(n, *event)` to `(n, k)`, float64."""
        return (x.flatten(1).double().cpu() - self.mean) @ self.axes.T


@dataclass(frozen=True)
class NetworkFeatures:
    """The flattened output of any network of yours (say a classifier without its last layer), run where its weights are."""

    network: nn.Module
    name: str
    batch_size: int = 256

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """`(n, *event)` to `(n, k)`, float64 on the CPU; the network is in eval mode meanwhile, then as before."""
        device = next(self.network.parameters(), x).device
        was_training = self.network.training
        self.network.eval()
        try:
            parts = [self.network(part.to(device)).flatten(1).double().cpu() for part in x.split(self.batch_size)]
        finally:
            self.network.train(was_training)
        return torch.cat(parts)
