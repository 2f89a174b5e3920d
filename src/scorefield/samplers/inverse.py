"""Inverse problems: samples of x₀ given a measurement y = A x₀ of it, by a score that was learnt without any measurement.

A is linear, A⁺ its pseudo-inverse; x + A⁺(y − A x) is the point nearest to x that has been measured as y, its *projection*.

RePaint puts x after each step where the measurement would have it, noised to the level of the step,

    x ← x + A⁺(y + σ A z − A x)

which tells the rest of x about y only in the next step; so it goes back up and down again, `resample` times, until both agree.

DPS follows ∇ log p_σ(x | y) = ∇ log p_σ(x) + ∇ log p_σ(y | x) instead. With x₀ given x taken for N(D(x), r² I) the last term is

    (∂D/∂x)ᵀ A⁺(y − A D(x)) / r²            r² = σ²/(1 + σ²), exact for white data of variance 1

a gradient of ‖y − A D(x)‖² through the denoiser. Chung et al. give it a length that is tuned for each kind of problem;
the variance r² is Song et al.'s and leaves nothing to tune.

Reference: Lugmayr et al. 2022, arXiv:2201.09865 (algorithm 1, appendix A); Chung et al. 2023, arXiv:2209.14687;
Song, Vahdat, Mardani & Kautz 2023, Pseudoinverse-guided diffusion models for inverse problems (ICLR).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from scorefield.interfaces import Score, State
from scorefield.models import denoise
from scorefield.samplers.descent import Descent, Step, noise_like
from scorefield.samplers.exponential import ddim_step, step_towards
from scorefield.samplers.levels import check_counts, check_positive


class LinearOperator(ABC):
    """A linear map A of events to measurements, `(b, *event)` to `(b, *measured)`."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A x."""

    @abstractmethod
    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """A⁺ y: of all x with A x = y the smallest."""

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """x + A⁺(y − A x): of all with A x = y the nearest to x."""
        return x + self.pseudo_inverse(y - self(x))


@dataclass(frozen=True, eq=False)
class Mask(LinearOperator):
    """Knows the coordinates where `known` is true: A x = x there and 0 elsewhere.

    Raises:
        ValueError: `known` is not boolean, or not of the shape of an event or of its last axes, as `(h, w)` for `(c, h, w)`.
    """

    known: Tensor

    def __post_init__(self) -> None:
        if self.known.dtype != torch.bool:
            raise ValueError(f"a mask is boolean, true where a value is known, got {self.known.dtype}")

    def __call__(self, x: Tensor) -> Tensor:
        if self.known.ndim >= x.ndim or self.known.shape != x.shape[x.ndim - self.known.ndim :]:
            raise ValueError(f"a mask of shape {tuple(self.known.shape)} does not fit events of shape {tuple(x.shape[1:])}")
        return torch.where(self.known, x, 0)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return self(y)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """y where it is known, to the last bit, and x elsewhere."""
        return torch.where(self.known, y, x)


@dataclass(frozen=True)
class BlockAverage(LinearOperator):
    """Images `(b, c, h, w)` at lower resolution: means over blocks of factor × factor pixels; A⁺ repeats each pixel.

    Raises:
        ValueError: `factor` < 1, or sides that it does not divide.
    """

    factor: int

    def __post_init__(self) -> None:
        check_counts(factor=self.factor)

    def __call__(self, x: Tensor) -> Tensor:
        if any(side % self.factor for side in x.shape[-2:]):
            raise ValueError(f"blocks of {self.factor}×{self.factor} do not divide images of {x.shape[-1]}×{x.shape[-2]}")
        return F.avg_pool2d(x, self.factor)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)


@dataclass(frozen=True, eq=False)
class InverseSampler(Descent):
    """Ancestral sampling with a measurement in mind, with which the last state agrees: the projection of what σ_min leaves.

    Raises:
        ValueError: when called, a measurement that is not of the operator's shape.
    """

    steps: int = 100
    operator: LinearOperator = field(kw_only=True)
    """A"""
    measurement: Tensor = field(kw_only=True)
    """y, `(*measured)` or one for each example, `(b, *measured)`; in scaled data units"""

    @torch.no_grad()
    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Iterator[State]:
        shape = self.operator(x).shape
        if self.measurement.shape not in (shape[1:], (1, *shape[1:]), shape):
            one, got = tuple(shape[1:]), tuple(self.measurement.shape)
            raise ValueError(f"the measurement must be of shape {one}, or one for each example, {tuple(shape)}; got {got}")
        for state in super().__call__(model, x, cond, generator=generator):
            yield state if state.sigma > 0 else state._replace(x=self.operator.project(state.x, self.measurement))


@dataclass(frozen=True, eq=False)
class RePaint(InverseSampler):
    """Ancestral steps, each followed by the measurement noised to its level; stretches of levels are walked several times.

    With `resample` 1 it is plain replacement (Song et al. 2021, arXiv:2011.13456, appendix I.2), whose samples have the
    measured values but do not go with them; the bias falls about as 1/resample.

    Raises:
        ValueError: `resample` or `jump` < 1.
    """

    resample: int = 10
    """how often each stretch is walked"""
    jump: int = 1
    """levels in a stretch"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(resample=self.resample, jump=self.jump)

    @property
    def nfe(self) -> int:
        stretches = (self.steps - 1) // self.jump
        return self.steps - 1 + stretches * self.jump * (self.resample - 1) + self.to_zero

    def stepper(self, model: Score, levels: list[float], cond: Tensor | None, generator: torch.Generator | None) -> Step:
        def down(i: int, x: Tensor) -> Tensor:
            x = ddim_step(model, x, levels[i], levels[i + 1], 1.0, cond, generator)
            noise = self.operator(noise_like(x, generator))
            return self.operator.project(x, self.measurement + levels[i + 1] * noise)

        def step(i: int, x: Tensor) -> Tensor:
            x = down(i, x)
            if (i + 1) % self.jump == 0:
                first = i + 1 - self.jump
                for _ in range(self.resample - 1):
                    x = x + math.sqrt(levels[first] ** 2 - levels[i + 1] ** 2) * noise_like(x, generator)
                    for k in range(first, i + 1):
                        x = down(k, x)
            return x

        return step


@dataclass(frozen=True, eq=False)
class DPS(InverseSampler):
    """Ancestral steps towards D(x) + ζ σ²/r² (∂D/∂x)ᵀ A⁺(y − A D(x)); each costs an evaluation of the score and a gradient.

    Raises:
        ValueError: a strength that is not positive and finite.
    """

    strength: float = 1.0
    """ζ"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(strength=self.strength)

    def stepper(self, model: Score, levels: list[float], cond: Tensor | None, generator: torch.Generator | None) -> Step:
        def step(i: int, x: Tensor) -> Tensor:
            sigma = levels[i]
            denoised, pullback = torch.func.vjp(lambda y: denoise(model, y, sigma, cond), x)  # type: ignore[misc]  # as in interfaces
            (gradient,) = pullback(self.operator.project(denoised, self.measurement) - denoised)
            corrected = denoised + self.strength * (1 + sigma**2) * gradient
            return step_towards(corrected, x, sigma, levels[i + 1], 1.0, generator)

        return step
