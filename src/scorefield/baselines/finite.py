"""Softmax over a finite set: the solved case, and what becomes of it when the set is all images.

    p(x) = e^{θ_x} / Σ_y e^{θ_y}      maximum likelihood makes p the observed frequencies

Over the sixteen patterns of binarised patches of 2×2 pixels that is exact and complete (`densities.FiniteSoftmax`). With a
class for each training image it is the training set: every other image has probability 0, log-likelihood −∞. Between the two
stand products of many small ones: of each pixel's own softmax, which knows no two pixels together, and of the patches'.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

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
        self.log_p.copy_(shares(frequencies(self.flat(x), self.levels, pseudocount)).log())
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

    def __init__(self, event_shape: tuple[int, ...], levels: int) -> None:
        super().__init__(event_shape, levels)
        self.register_buffer("images", torch.zeros(0, self.d, dtype=smallest_dtype(levels)))

    def fit(self, x: Tensor) -> "TrainingImages":
        """Take `x` `(n, *event)` as the set; raises `ValueError` for none, and for what `flat` refuses."""
        if not len(x):
            raise ValueError("a softmax over no images has no classes")
        self.images = self.flat(x).to(self.images)
        return self

    def check_fitted(self) -> None:
        """Raises `ValueError` if there are no images yet."""
        if not len(self.images):
            raise ValueError("a softmax over no images has no classes: fit it first")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """A stored set may have any number of images."""
        stored = state_dict.get(f"{prefix}images")
        if stored is not None and stored.ndim == 2:
            self.images = self.images.new_zeros(len(stored), self.d)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p(x), nats, `(b,)`, float64; −∞ for every event that is not in the set."""
        check_level_zero(sigma)
        self.check_fitted()
        rows = self.flat(x).to(self.images.dtype)
        seen = torch.stack([(self.images == row).all(1).sum() for row in rows]) if len(rows) else rows.new_zeros(0)
        return (seen.double() / len(self.images)).log()

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Training events, drawn with replacement."""
        self.check_fitted()
        picked = torch.randint(len(self.images), (n,), generator=generator, device=self.images.device)
        return self.shaped(self.images[picked].long())


class SoftmaxPatches(IntegerModel):
    """p(x) = ∏ p_k(b_k) ∏ᵢ p(xᵢ | bᵢ): of each 2×2 patch a softmax over the sixteen ways in which its pixels are dark or
    bright, and of each pixel one over the levels that are so. Frequencies all of them; starts uniform.

    Raises:
        ValueError: events that are no images of an even number of rows and columns.
    """

    log_patch: Tensor
    log_level: Tensor

    def __init__(self, event_shape: tuple[int, ...], levels: int) -> None:
        super().__init__(event_shape, levels)
        if len(event_shape) != 3 or event_shape[1] % PATCH or event_shape[2] % PATCH:
            raise ValueError(f"patches of {PATCH}×{PATCH} pixels need images of even sides, got events of shape {event_shape}")
        bits = PATCH**2
        self.register_buffer("log_patch", torch.full((self.d // bits, 2**bits), -bits * math.log(2), dtype=torch.float64))
        self.register_buffer("log_level", torch.zeros(self.d, levels, dtype=torch.float64))
        self.set_levels(torch.ones(self.d, levels, dtype=torch.float64))

    def fit(self, x: Tensor, pseudocount: float = 0.5) -> "SoftmaxPatches":
        """Take the frequencies of `x` `(n, *event)`, every patch and every level counted `pseudocount` times more.

        Raises:
            ValueError: a pseudocount that is not positive, no rows, or what `flat` refuses.
        """
        if not 0 < pseudocount < math.inf or not len(x):
            raise ValueError(f"frequencies need rows and a positive pseudocount, got {len(x)} rows and {pseudocount}")
        self.log_patch.copy_(shares(frequencies(self.patches(x), 2**PATCH**2, pseudocount)).log())
        self.set_levels(frequencies(self.flat(x), self.levels, pseudocount))
        return self

    def set_levels(self, counts: Tensor) -> None:
        """p(level | dark or bright) from counts of each pixel's levels `(d, levels)`."""
        bright = 2 * torch.arange(self.levels, device=counts.device) >= self.levels
        self.log_level.copy_((shares(counts * bright) + shares(counts * ~bright)).log())

    def patches(self, x: Tensor) -> Tensor:
        """The number of every patch's pattern, `(b, d/4)`."""
        bits = binary_patches(self.flat(x).unflatten(1, self.event_shape), self.levels)
        return (bits * place_values(PATCH**2, 2, x.device)).sum(1).reshape(len(x), self.d // PATCH**2)

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p(x), nats, `(b,)`, float64."""
        check_level_zero(sigma)
        return self.log_patch.gather(1, self.patches(x).T).sum(0) + self.log_level.gather(1, self.flat(x).T).sum(0)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Events `(n, *event)`, int64: the patches, then the level of each pixel."""
        numbers = torch.multinomial(self.log_patch.exp(), n, replacement=True, generator=generator).T
        bits = numbers[:, :, None] // place_values(PATCH**2, 2, numbers.device) % 2
        c, h, w = self.event_shape
        tiles = bits.reshape(n, c, h // PATCH, w // PATCH, PATCH, PATCH)
        bright = tiles.transpose(3, 4).reshape(n, self.d)
        middle = -(-self.levels // 2)  # the first bright level
        drawn = [
            torch.multinomial(part.exp(), n, replacement=True, generator=generator).T
            for part in (self.log_level[:, :middle], self.log_level[:, middle:])
        ]
        return self.shaped(torch.where(bright > 0, drawn[1] + middle, drawn[0]))


def frequencies(rows: Tensor, states: int, pseudocount: float) -> Tensor:
    """How often each of `states` is seen in each column of `rows` `(n, k)`: `(k, states)`, float64, and so much more."""
    return torch.stack([torch.bincount(column, minlength=states) for column in rows.T]).double() + pseudocount


def shares(counts: Tensor) -> Tensor:
    """Counts as shares of their rows."""
    return counts / counts.sum(1, keepdim=True)


def smallest_dtype(levels: int) -> torch.dtype:
    """The least integer type for levels 0 … levels − 1."""
    return torch.uint8 if levels <= 256 else torch.int32


@dataclass(frozen=True)
class IndependentPixelsConfig:
    """A softmax for each pixel alone, in closed form."""

    kind: Literal["independent-pixels"] = field(default="independent-pixels", kw_only=True)

    def build(self, event_shape: tuple[int, ...], levels: int) -> IndependentPixels:
        """The model, uniform."""
        return IndependentPixels(event_shape, levels)


@dataclass(frozen=True)
class SoftmaxPatchesConfig:
    """A softmax over sixteen patterns for each patch of 2×2 pixels, in closed form."""

    kind: Literal["softmax-patches"] = field(default="softmax-patches", kw_only=True)

    def build(self, event_shape: tuple[int, ...], levels: int) -> SoftmaxPatches:
        """The model, uniform; raises `ValueError` for events it is not for."""
        return SoftmaxPatches(event_shape, levels)


@dataclass(frozen=True)
class TrainingImagesConfig:
    """A class for each training image."""

    kind: Literal["training-images"] = field(default="training-images", kw_only=True)

    def build(self, event_shape: tuple[int, ...], levels: int) -> TrainingImages:
        """The model of an empty set."""
        return TrainingImages(event_shape, levels)


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
