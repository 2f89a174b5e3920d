"""Softmax over a finite set: the solved case, and what becomes of it when the set is all images.

    p(x) = e^{θ_x} / Σ_y e^{θ_y}      maximum likelihood makes p the observed frequencies

Over sixteen binarised patches of 2×2 pixels that is exact and complete (`densities.FiniteSoftmax`). With a class for each
training image it is the training set: every other image has probability 0, log-likelihood −∞. Between the two stands the
product of each pixel's own softmax, which knows no two pixels together.
"""

import math

import torch
from torch import Tensor

from scorefield.baselines.integers import IntegerModel, check_integers, check_level_zero
from scorefield.densities import FiniteSoftmax
from scorefield.densities.discrete import check_states, place_values

PATCH = 2


class IndependentPixels(IntegerModel):
    """p(x) = ∏ᵢ pᵢ(xᵢ), each a table of frequencies; starts uniform."""

    log_p: Tensor

    def __init__(self, event_shape: tuple[int, ...], levels: int) -> None:
        super().__init__(event_shape, levels)
        self.register_buffer("log_p", torch.full((self.d, levels), -math.log(levels), dtype=torch.float64))

    def fit(self, x: Tensor, pseudocount: float = 0.5) -> "IndependentPixels":
        """Take the frequencies of `x` `(n, *event)`, each level counted `pseudocount` times more than it is seen.

        Raises:
            ValueError: a negative pseudocount, no rows, or what `flat` refuses.
        """
        if not 0 <= pseudocount < math.inf or not len(x):
            raise ValueError(f"frequencies need rows and a pseudocount of at least 0, got {len(x)} rows and {pseudocount}")
        rows = self.flat(x)
        counts = torch.stack([torch.bincount(column, minlength=self.levels) for column in rows.T]).double() + pseudocount
        self.log_p.copy_((counts / counts.sum(1, keepdim=True)).log())
        return self

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p(x), nats, `(b,)`, float64; −∞ for what was never seen and has no pseudocount."""
        check_level_zero(sigma)
        return self.log_p.gather(1, self.flat(x).T).sum(0)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Events `(n, *event)`, int64."""
        return self.shaped(torch.multinomial(self.log_p.exp(), n, replacement=True, generator=generator).T)


class TrainingImages(IntegerModel):
    """A class for each event of a training set `(n, *event)`: p(x) = (how often x is in it)/n."""

    images: Tensor

    def __init__(self, images: Tensor, levels: int) -> None:
        super().__init__(tuple(images.shape[1:]), levels)
        if not len(images):
            raise ValueError("a softmax over no images has no classes")
        self.register_buffer("images", self.flat(images))

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p(x), nats, `(b,)`, float64; −∞ for every event that is not in the set."""
        check_level_zero(sigma)
        rows = self.flat(x)
        seen = torch.stack([(self.images == row).all(1).sum() for row in rows]) if len(rows) else rows.new_zeros(0)
        return (seen.double() / len(self.images)).log()

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Training events, drawn with replacement."""
        picked = torch.randint(len(self.images), (n,), generator=generator, device=self.images.device)
        return self.shaped(self.images[picked])


def binary_patches(x: Tensor, levels: int) -> Tensor:
    """All 2×2 patches, without overlap, of images `(b, c, h, w)`: `(patches, 4)` of 0 and 1, 1 from half of the levels on.

    A last odd row or column is left out.

    Raises:
        ValueError: events that are no images, are smaller than a patch, or are no integers from 0 to levels − 1.
    """
    if x.ndim != 4 or min(x.shape[2:]) < PATCH:
        raise ValueError(f"patches of {PATCH}×{PATCH} pixels need images (b, c, h, w), got {tuple(x.shape)}")
    high = (check_integers(x, levels) * 2 >= levels).long()
    return high.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).reshape(-1, PATCH**2)


def fitted_softmax(rows: Tensor, states: int = 2) -> FiniteSoftmax:
    """The softmax whose probabilities are the frequencies of `rows` `(n, d)`: the maximum of the likelihood, in closed form.

    Raises:
        ValueError: no rows, or rows that are not int64 from 0 to states − 1.
    """
    if not len(rows):
        raise ValueError("frequencies need at least one row")
    check_states(rows, states)
    model = FiniteSoftmax(rows.shape[1], states).double()
    numbers = (rows * place_values(rows.shape[1], states, rows.device)).sum(1)
    counts = torch.bincount(numbers, minlength=len(model.logits)).double()
    with torch.no_grad():
        model.logits.copy_((counts / counts.sum()).log())
    return model
