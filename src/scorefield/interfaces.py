"""The vocabulary every floor above shares, and the one gradient of a log-density.

Two verbs: `score(x, σ) = ∇ₓ log p_σ(x)` and `log_density(x, σ) = log p_σ(x) + const(σ)` in nats, where
p_σ = p ∗ N(0, σ²I) is the data density smoothed by Gaussian noise of standard deviation σ (in scaled data units; σ = 0
is the data itself). One sign everywhere: log-densities, never physics' energies.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from typing import NamedTuple, Protocol, TypeGuard, final, runtime_checkable

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from scorefield.tensors import noise_levels


@runtime_checkable
class Score(Protocol):
    """Anything with ∇ₓ log p_σ(x): `x` is `(b, *event)`, `sigma` a number or `(b,)`; the result is like `x`.

    `cond` is what the density is conditioned on, usually class labels `(b,)`: 0, 1, …, and −1 (or None for all) for no class.
    """

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Smallest and largest σ the score answers for; outside it raises `ValueError`."""
        ...

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class Density(Protocol):
    """Anything with log p_σ(x) + const(σ), nats, of shape `(b,)`."""

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class ScoredDensity(Score, Density, Protocol):
    """Anything with both verbs: an analytic density, a learned energy, or a composition of them."""


class Proposal(Density, Protocol):
    """A normalised density one can draw from."""

    def sample(self, n: int, sigma: float = 0.0, *, generator: torch.Generator | None = None) -> Tensor: ...


def value_and_gradient(log_density: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """A per-example log-density `(b, *event) -> (b,)` and its gradient ∇ₓ, like `x`: the only place where it is taken.

    Works in every grad mode and under forward-mode differentiation; the graph of the result is kept if and only if grad
    mode is on.

    Raises:
        ValueError: `log_density` does not return one number per example, shape `(b,)`; `x` of no floating-point numbers.
    """
    check_tensor(x)
    check_floating(x)
    if plain(x):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            value = check_scalar(log_density(leaf), x)
            gradient = torch.zeros_like(x)
            if value.requires_grad:
                gradient = torch.autograd.grad(value.sum(), leaf, allow_unused=True, materialize_grads=True)[0]
        return value.detach(), gradient
    value, pullback = torch.func.vjp(log_density, x)  # type: ignore[misc]  # its type allows for has_aux
    check_scalar(value, x)
    return value, pullback(torch.ones_like(value))[0]


def plain(x: Tensor) -> bool:
    """Whether nothing but numbers is asked of a gradient at x: no graph, no transformation, no tangents.

    Then autograd's own machinery does, which on small networks takes half the time of `torch.func.vjp`.
    """
    transformed = torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
    return type(x) is Tensor and not (transformed or torch.is_grad_enabled() or torch.is_inference_mode_enabled())


def grad_log_density(log_density: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """∇ₓ of a per-example log-density, as in `value_and_gradient`."""
    return value_and_gradient(log_density, x)[1]


def log_density_and_score(
    model: ScoredDensity, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Both verbs, `(b,)` and `(b, *event)`, in one pass where the model has one (energies and compositions do).

    Raises:
        ValueError: a log-density that is not one number per example, or a score that is not like `x`.
    """
    both = getattr(model, "log_density_and_score", None)
    if both is not None:
        value, score = both(x, sigma, cond)
    else:
        value, score = model.log_density(x, sigma, cond), model.score(x, sigma, cond)
    return check_scalar(value, x), check_score(score, x)


class Energy(nn.Module, ABC):
    """A learned log-density; its score is the gradient, so it is curl-free by construction."""

    @property
    @abstractmethod
    def sigma_range(self) -> tuple[float, float]:
        """Smallest and largest σ the energy answers for."""

    @abstractmethod
    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p_σ(x) + const(σ), nats, `(b,)`."""

    @final
    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """∇ₓ log p_σ(x), `(b, *event)`."""
        return grad_log_density(lambda y: self.log_density(y, sigma, cond), x)

    @final
    def log_density_and_score(
        self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """log p_σ(x) + const(σ) `(b,)` and its gradient `(b, *event)` for the price of the gradient."""
        return value_and_gradient(lambda y: self.log_density(y, sigma, cond), x)

    @final
    def energy(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """−log_density: the physicist's sign, and the only place that has it."""
        return -self.log_density(x, sigma, cond)


def home(model: object) -> Tensor:
    """An empty tensor of the dtype and on the device of a model's weights, or a mixture's means; else float64 on the CPU."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else getattr(model, "means", None)
    return torch.empty(0, dtype=torch.float64) if parameter is None else parameter.new_empty(0)


class Field(NamedTuple):
    """A score at a noise level and a condition, frozen: the vector field x ↦ ∇ log p_σ(x) of which traces are taken."""

    model: Score
    sigma: float | Tensor = 0.0
    cond: Tensor | None = None

    def score(self, x: Tensor) -> Tensor:
        """∇ₓ log p_σ(x), `(b, *event)`; raises `ValueError` if the model gives anything of another shape."""
        return check_score(self.model.score(x, self.sigma, self.cond), x)


class TraceEstimate(NamedTuple):
    """A score `(b, *event)`, the trace of its Jacobian `(b,)`, and the standard error of that trace `(b,)`.

    `se` is None where the trace is exact, and where a single probe leaves it unknown.
    """

    score: Tensor
    trace: Tensor
    se: Tensor | None


class JacobianTrace(Protocol):
    """tr ∇s = Δ log p_σ, with the score it is the divergence of; differentiable if and only if grad mode is on."""

    def __call__(self, field: Field, x: Tensor, *, generator: torch.Generator | None = None) -> TraceEstimate: ...


class Loss(NamedTuple):
    """One number per example, unreduced: `value` `(b,)`, the noise level of each, and anything worth logging."""

    value: Tensor
    sigma: Tensor | None
    info: dict[str, Tensor]


class Objective(Protocol):
    """A loss per example; `(model, x) -> Loss`."""

    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Loss: ...


class State(NamedTuple):
    """One state of a sampler: particles `x` `(b, *event)` that live at noise level `sigma` (a scalar tensor)."""

    x: Tensor
    sigma: Tensor
    info: dict[str, Tensor]


class Sampler(Protocol):
    """Yields states, the start included; progress bars, films and thinning are loops outside it."""

    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Iterator[State]: ...


def check_sigma(sigma: float | Tensor, x: Tensor, sigma_range: tuple[float, float]) -> Tensor:
    """σ as `(b,)`, after checking it against the range a model was trained on; errors as in `check_level`."""
    check_level(sigma, sigma_range)
    return noise_levels(sigma, x)


def check_level(sigma: float | Tensor, sigma_range: tuple[float, float]) -> None:
    """Refuses a number, or a tensor that holds one, outside the range a model was trained on.

    Raises:
        ValueError: a level outside `sigma_range` (a relative slack of 1e-5 allows for float32), infinite, or NaN.
    """
    low, high = sigma_range
    if isinstance(sigma, Tensor):
        ends = torch.stack(torch.aminmax(sigma.detach())).tolist() if sigma.numel() else []
    else:  # a number needs no tensor, whose values a device would have to be waited for
        ends = [float(sigma)]
    for value in ends:
        if not low * (1 - 1e-5) <= value <= high * (1 + 1e-5) or value == math.inf:
            allowed = f"{low:g}" if low == high else f"in [{low:g}, {high:g}{']' if high < math.inf else ')'}"
            raise ValueError(f"sigma must be {allowed}, got {value:g}: this model answers for no other level")


def check_score(value: Tensor, x: Tensor) -> Tensor:
    """`value`, which must be like `x`.

    Raises:
        ValueError: it is of another shape.
    """
    if value.shape != x.shape:
        raise ValueError(f"a score must be like x, of shape {tuple(x.shape)}, got {tuple(value.shape)}")
    return value


def check_scalar(value: Tensor, x: Tensor) -> Tensor:
    """`value`, which must be one number for each example of `x` `(b, *event)`: shape `(b,)`.

    Raises:
        ValueError: it is of another shape.
    """
    if value.shape != x.shape[:1]:
        raise ValueError(f"a log-density must have shape ({len(x)},), one number per example, got {tuple(value.shape)}")
    return value


def is_real(value: object) -> TypeGuard[float]:
    """Whether it is a real number, of Python or NumPy, and neither True nor False."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raises `ValueError` for what is not a whole number of at least `least`, such as 2.5 or 10.0."""
    if not (is_real(value) and isinstance(value, Integral) and value >= least):
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_tensor(x: Tensor) -> None:
    """Raises `ValueError` for what is no tensor and does not act like one, such as an array or a data frame."""
    if not hasattr(x, "is_floating_point"):
        raise ValueError(
            f"a tensor is expected, got {type(x).__name__}: torch.tensor(…) makes one, of a data frame's to_numpy()"
        )


def check_floating(x: Tensor) -> None:
    """Raises `ValueError` for integers, booleans and complex numbers."""
    if not x.is_floating_point():
        raise ValueError(f"x must hold floating-point numbers, got {x.dtype}: convert it first, for example x.double()")


def check_event(x: Tensor, event_shape: tuple[int, ...]) -> None:
    """Refuses a batch that is not `(b, *event_shape)` of real floating-point numbers; looks at no value.

    Raises:
        ValueError: events of another shape, or integers, booleans or complex numbers, or no tensor.
    """
    check_tensor(x)
    if x.shape[1:] != event_shape:
        raise ValueError(f"events of shape {tuple(event_shape)} expected, got {tuple(x.shape[1:])}")
    check_floating(x)
