"""Models: a network dressed as a score or as an energy by four numbers of σ.

    score = c_skip x + c_out net(c_in x, c_noise)
    log p_σ(x) = ½ c_skip ‖x‖² + (c_out / c_in) φ(c_in x, c_noise)      with exactly that score, φ a scalar network

The table below is the whole of parameterisation; c_noise = ¼ log σ in every row. All rows but `edm` assume data of
standard deviation 1 (scorefield scales all data so). For energies only the rows whose c_skip confines (edm, v, flow)
are sure to normalise.

Reference: Karras et al. 2022, arXiv:2206.00364 (table 1, eq. 7); Salimans & Ho 2022, arXiv:2202.00512 (v);
Liu et al. 2022, arXiv:2209.03003 (flow); Song & Ermon 2019, arXiv:1907.05600 (ncsn).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from scorefield.data.scaling import Scaling
from scorefield.interfaces import Energy, Score, check_event, check_level, check_scalar, check_score, check_sigma
from scorefield.tensors import expand, noise_levels, sum_event

Levels = float | Tensor
"""a number for all examples, or one for each, `(b,)`"""
ParameterisationName = Literal["edm", "noise", "data", "v", "flow", "ncsn"]


class Coefficients(NamedTuple):
    """The four numbers, numbers or `(b,)` as σ is."""

    skip: Levels
    out: Levels
    inner: Levels
    noise: Levels


@dataclass(frozen=True)
class Parameterisation:
    """One row of the table.

    Raises:
        ValueError: unknown `name`, or `sigma_data` ≤ 0.
    """

    name: ParameterisationName = "edm"
    """what the network predicts: edm (its F), noise, data, v, flow or ncsn"""
    sigma_data: float = 1.0
    """standard deviation of the scaled data (edm only)"""

    def __post_init__(self) -> None:
        if self.name not in ROWS:
            raise ValueError(f"unknown parameterisation {self.name!r}: choose one of {', '.join(ROWS)}")
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data must be positive, got {self.sigma_data}")

    def coefficients(self, sigma: Levels) -> Coefficients:
        """c_skip, c_out, c_in and c_noise at σ."""
        log = sigma.log() if isinstance(sigma, Tensor) else math.log(sigma)
        return Coefficients(*ROWS[self.name](sigma, self.sigma_data), log / 4)


def _edm(s: Levels, d: float) -> tuple[Levels, Levels, Levels]:
    total = s**2 + d**2
    return -1 / total, d / (s * total**0.5), total**-0.5


def _noise(s: Levels, d: float) -> tuple[Levels, Levels, Levels]:
    return 0 * s, -1 / s, (1 + s**2) ** -0.5


def _data(s: Levels, d: float) -> tuple[Levels, Levels, Levels]:
    return -1 / s**2, 1 / s**2, (1 + s**2) ** -0.5


def _v(s: Levels, d: float) -> tuple[Levels, Levels, Levels]:
    return -1 / (1 + s**2), -((1 + s**2) ** -0.5) / s, (1 + s**2) ** -0.5


def _flow(s: Levels, d: float) -> tuple[Levels, Levels, Levels]:
    return -1 / (s * (1 + s)), -1 / (s * (1 + s)), 1 / (1 + s)


def _ncsn(s: Levels, d: float) -> tuple[Levels, Levels, Levels]:
    return 0 * s, 1 / s, 0 * s + 1


ROWS: dict[str, Callable[[Levels, float], tuple[Levels, Levels, Levels]]] = {
    "edm": _edm, "noise": _noise, "data": _data, "v": _v, "flow": _flow, "ncsn": _ncsn,
}  # fmt: skip


@dataclass(frozen=True)
class ModelSpec:
    """What a model is apart from its network; together with the network's configuration it is the model's config.json.

    Raises:
        ValueError: `sigma_range` is not 0 < low ≤ high < ∞, nor (0, 0).
    """

    event_shape: tuple[int, ...]
    """shape of one example: (c, h, w) for images, (d,) for vectors"""
    parameterisation: Parameterisation = Parameterisation()
    sigma_range: tuple[float, float] = (0.002, 80.0)
    """the noise levels the model answers for, in scaled data units; a single one if both ends are equal, (0, 0) for a model of
    the data itself"""
    scaling: Scaling = Scaling()
    """how raw data becomes the scaled data the model lives on"""
    classes: tuple[str, ...] = ()
    """names of the classes it has a score for; none if it has one for all data together"""

    def __post_init__(self) -> None:
        low, high = self.sigma_range
        if not (0 < low <= high < float("inf") or low == high == 0):
            raise ValueError(f"sigma_range must satisfy 0 < low <= high < inf, or be 0 0, got ({low:g}, {high:g})")


def check_dressed(spec: ModelSpec) -> None:
    """Raises `ValueError` for level 0, at which the four numbers are not finite: `PlainScore` and `PlainEnergy` need none."""
    if not spec.sigma_range[0] > 0:
        raise ValueError("a parameterised model needs noise levels above 0: sigma_range must not be 0 0")


def check_classes(cond: Tensor | None, x: Tensor, classes: tuple[str, ...]) -> None:
    """Refuses labels that are not one class, or −1 for none, for each example; a model without classes takes any condition.

    Raises:
        ValueError: another shape, no integers, or a number that is no class.
    """
    if cond is None or not classes:
        return
    if cond.shape != x.shape[:1] or cond.is_floating_point():
        raise ValueError(f"classes must be integers of shape ({len(x)},), got {cond.dtype} of shape {tuple(cond.shape)}")
    for label in torch.stack(torch.aminmax(cond)).tolist() if len(cond) else []:
        if not -1 <= label < len(classes):
            raise ValueError(f"classes are numbers from 0 to {len(classes) - 1}, or -1 for none, got {label}")


def coefficients(spec: ModelSpec, sigma: float | Tensor, x: Tensor) -> Coefficients:
    """The four numbers at a checked σ, with c_noise as networks take it, `(b,)`.

    A number is calculated with as one: tensors of a few entries cost small networks up to a fifth of their time.
    """
    check_level(sigma, spec.sigma_range)
    c = spec.parameterisation.coefficients(noise_levels(sigma, x) if isinstance(sigma, Tensor) else sigma)
    return c._replace(noise=noise_levels(c.noise, x))


class ScoreModel(nn.Module):
    """A direct score: any `network(u, c_noise, cond) -> like u` dressed by a parameterisation.

    Your own `nn.Module` will do.
    """

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        check_dressed(spec)
        self.network, self.spec = network, spec

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.spec.sigma_range

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.spec.event_shape

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """∇ₓ log p_σ(x), `(b, *event)`, in the dtype of `x`.

        Raises:
            ValueError: σ outside `sigma_range`, events of another shape, integers, no such class, or a network whose output
                is not like x.
        """
        check_event(x, self.spec.event_shape)
        check_classes(cond, x, self.spec.classes)
        c = coefficients(self.spec, sigma, x)
        output = check_score(self.network(expand(c.inner, x) * x, c.noise, cond), x).to(x.dtype)
        return expand(c.skip, x) * x + expand(c.out, x) * output


class EnergyModel(Energy):
    """A learned log-density: any scalar `network(u, c_noise, cond) -> (b,)` dressed by a parameterisation.

    Raises:
        ValueError: parameterisation `data`, whose log-density loses nats to rounding at small σ.
    """

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        check_dressed(spec)
        if spec.parameterisation.name == "data":
            raise ValueError("parameterisation 'data' is not offered for energies: choose edm, v or flow")
        self.network, self.spec = network, spec

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.spec.sigma_range

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.spec.event_shape

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p_σ(x) + const(σ), nats, `(b,)`.

        Raises:
            ValueError: σ outside `sigma_range`, events of another shape, integers, no such class, or a network that is not
                scalar.
        """
        check_event(x, self.spec.event_shape)
        check_classes(cond, x, self.spec.classes)
        c = coefficients(self.spec, sigma, x)
        phi = scalar(self.network(expand(c.inner, x) * x, c.noise, cond), x).to(x.dtype)
        return c.skip * sum_event(x**2) / 2 + c.out / c.inner * phi


class PlainScore(nn.Module):
    """A direct score of the data itself, σ = 0: any `network(x) -> like x`, bare (`network(x, cond)` if conditions are given).

    For explicit, implicit, sliced and finite-difference score matching. With `event_shape` other events are refused.
    """

    sigma_range = (0.0, 0.0)

    def __init__(self, network: nn.Module, event_shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.network, self.event_shape = network, event_shape

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """∇ₓ log p(x), `(b, *event)`; raises `ValueError` for σ ≠ 0, integers, and a network whose output is not like `x`."""
        check_event(x, self.event_shape or x.shape[1:])
        check_sigma(sigma, x, self.sigma_range)
        return check_score(self.network(x) if cond is None else self.network(x, cond), x)


class PlainEnergy(Energy):
    """A log-density of the data itself, σ = 0: any `network(x) -> (b,)` or `(b, 1)`, less ½ confinement ‖x‖².

    Without confinement a network that grows is not normalisable; score matching does not mind, sampling and Z do. With
    `event_shape` other events are refused.

    Raises:
        ValueError: `confinement` < 0.
    """

    sigma_range = (0.0, 0.0)

    def __init__(self, network: nn.Module, confinement: float = 0.0, event_shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        if not 0 <= confinement < float("inf"):
            raise ValueError(f"confinement must be at least 0 and finite, got {confinement}")
        self.network, self.confinement, self.event_shape = network, confinement, event_shape

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p(x) + const, nats, `(b,)`; raises `ValueError` for σ ≠ 0, integers, and a network that is not scalar."""
        check_event(x, self.event_shape or x.shape[1:])
        check_sigma(sigma, x, self.sigma_range)
        output = scalar(self.network(x) if cond is None else self.network(x, cond), x)
        return output - self.confinement / 2 * sum_event(x**2) if self.confinement else output


def scalar(output: Tensor, x: Tensor) -> Tensor:
    """What a scalar network gives, `(b,)` or `(b, 1)`, as `(b,)`; raises `ValueError` for anything else."""
    return check_scalar(output.squeeze(1) if output.shape == (len(x), 1) else output, x)


class WithoutNoise(nn.Module):
    """A network of scorefield's own, `network(u, c_noise, cond)`, for models of the data itself: c_noise is 0."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.network(x, torch.zeros(len(x), dtype=x.dtype, device=x.device), cond)


class InnerProduct(nn.Module):
    """Any score network as a scalar one: φ(u) = ⟨u, net(u)⟩ / √d (Du et al. 2023, arXiv:2302.11552, section 4)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        return sum_event(u * self.network(u, c_noise, cond).to(u.dtype)) / u[0].numel() ** 0.5


def denoise(model: Score, x: Tensor, sigma: float | Tensor, cond: Tensor | None = None) -> Tensor:
    """E[x₀ given x₀ + σz = x] = x + σ² score: Tweedie's formula (Efron 2011)."""
    s = expand(noise_levels(sigma, x), x) if isinstance(sigma, Tensor) else sigma
    return x + s**2 * model.score(x, sigma, cond)


def predict_noise(model: Score, x: Tensor, sigma: float | Tensor, cond: Tensor | None = None) -> Tensor:
    """E[z given x₀ + σz = x] = −σ score."""
    return -expand(noise_levels(sigma, x), x) * model.score(x, sigma, cond)
