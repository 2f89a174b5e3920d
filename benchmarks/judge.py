"""A fixed classifier that judges samples, outside the repository: a Python file with a folder of weights beside it.

It has `real(name, folder) -> (train, held out, reference)`, `load(name, side) -> classifier`, `features(classifier, x)` and
`frechet(a, b)`, for images `(n, 1, h, w)` between −1 and 1.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Judge:
    """Judges uint8 images `(n, h, w)`, 0 black … 255 white.

    Leaves with a message where there is no judge.
    """

    def __init__(self, path: Path, name: str, folder: str = "") -> None:
        if not path.exists():
            sys.exit(f"there is no judge at {path}: nothing to measure with")
        self.name = name
        spec = importlib.util.spec_from_file_location("judge", path)
        assert spec is not None
        assert spec.loader is not None
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        reference = self.module.real(name, folder)[2]
        self.net = self.module.load(name, reference.shape[-1])
        self.reference = self.module.features(self.net, reference)

    @torch.no_grad()
    def probabilities(self, pixels: np.ndarray) -> Tensor:
        """Of each class `(n, classes)`."""
        return self.net(scaled(pixels)).softmax(1)

    def frechet(self, pixels: np.ndarray) -> float:
        """The Fréchet distance to the reference images in the classifier's features."""
        return self.module.frechet(self.module.features(self.net, scaled(pixels)), self.reference)


def scaled(pixels: np.ndarray) -> Tensor:
    """As the classifier takes them, `(n, 1, h, w)`."""
    return torch.from_numpy(pixels)[:, None].float() / 127.5 - 1
