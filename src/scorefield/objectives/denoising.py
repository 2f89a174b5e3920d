"""Denoising score matching: the score of noised data is what removes the noise.

    DSM(σ) = ½ E‖s(x₀ + σz, σ) + z/σ‖² = ½ F(p_σ‖q) + const        one level, Vincent 2011, eq. 11
    E_σ [ w(σ) ‖D(x, σ) − x₀‖² ],  D = x + σ² s                    many levels

With D − x₀ = σ (σ s + z) the second is computed without the cancellation that D − x₀ would suffer at small σ.

As σ → 0 the variance of both grows like 1/σ², since s is compared with the noise z/σ itself. What has mean zero can be taken
away: ‖σ s + z‖² less 2σ zᵀ s(x₀, σ) + ‖z‖² − d is ‖σ s‖² + 2σ zᵀ (s − s(x₀, σ)) + d, in which the noise meets only
differences of s.

An energy has a derivative by the level too, and it has a target of the same kind: σ ∂ log p_σ(x)/∂σ = E[‖z‖² − d | x]. Scores
alone say nothing of what one mode weighs beside another far from it, so that at each small level an energy's may drift; to be
right by the derivative carries the weights down from the large levels, where modes overlap. A constant for each level is free:
what is compared is the difference of two examples at one level.

Reference: Vincent 2011, Neural Computation 23(7); Song & Ermon 2019, arXiv:1907.05600 (eq. 5–6);
Karras et al. 2022, arXiv:2206.00364 (eq. 8, table 1); Wang et al. 2020, arXiv:2002.07501 (control variates);
Choi et al. 2022, arXiv:2111.11010, and Guth et al. 2025, arXiv:2506.05310 (the derivative by the level).
"""

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from scorefield.interfaces import Density, Field, Loss, Score, check_scalar
from scorefield.objectives.batch import check_batch
from scorefield.tensors import expand, sum_event


class NoiseDistribution(Protocol):
    """How noise levels are drawn in training."""

    def quantile(self, u: Tensor, sigma_range: tuple[float, float]) -> Tensor:
        """σ at the quantiles `u` in [0, 1], inside `sigma_range`."""
        ...


@dataclass(frozen=True)
class LogNormal:
    """log σ ~ N(mean, std²), cut to the range (Karras et al. 2022, table 1; σ in units of standard deviation 1).

    Raises:
        ValueError: `mean` is not finite, or `std` not positive and finite.
    """

    kind: Literal["lognormal"] = field(default="lognormal", kw_only=True)
    mean: float = -0.5
    """mean of log σ"""
    std: float = 1.2
    """standard deviation of log σ"""

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean) or not 0 < self.std < math.inf:
            raise ValueError(f"a log-normal needs a finite mean and a positive std, got {self.mean} and {self.std}")

    def quantile(self, u: Tensor, sigma_range: tuple[float, float]) -> Tensor:
        low, high = (0.5 * math.erfc((self.mean - math.log(s)) / self.std / math.sqrt(2)) for s in sigma_range)
        z = torch.special.ndtri(low + (high - low) * u.double())
        return (self.mean + self.std * z).exp().clamp(*sigma_range).to(u.dtype)


@dataclass(frozen=True)
class LogUniform:
    """log σ uniform over the range."""

    kind: Literal["loguniform"] = field(default="loguniform", kw_only=True)

    def quantile(self, u: Tensor, sigma_range: tuple[float, float]) -> Tensor:
        low, high = sigma_range
        return (low * (high / low) ** u).clamp(low, high)


@dataclass(frozen=True)
class Geometric:
    """NCSN's ladder: `count` levels in geometric progression from one end of the range to the other, equally likely."""

    kind: Literal["geometric"] = field(default="geometric", kw_only=True)
    count: int = 10
    """number of levels"""

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ValueError(f"a geometric ladder needs at least 2 levels, got {self.count}")

    def quantile(self, u: Tensor, sigma_range: tuple[float, float]) -> Tensor:
        low, high = sigma_range
        rung = (u * self.count).floor().clamp(max=self.count - 1) / (self.count - 1)
        return (low * (high / low) ** rung).clamp(low, high)


Noise = LogNormal | LogUniform | Geometric


@dataclass(frozen=True)
class EDMWeighting:
    """w(σ) = (σ² + σ_d²)/(σ σ_d)²: the network's own error counts equally at every level (Karras et al. 2022)."""

    kind: Literal["edm"] = field(default="edm", kw_only=True)
    sigma_data: float = 1.0
    """standard deviation of the scaled data"""

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(f"sigma_data must be positive, got {self.sigma_data}")

    def __call__(self, sigma: Tensor) -> Tensor:
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2


@dataclass(frozen=True)
class PowerWeighting:
    """w(σ) = σ^exponent; −2 is NCSN's λ(σ) = σ² on ‖s + z/σ‖², −4 is λ = 1, 0 counts ‖D − x₀‖² itself."""

    kind: Literal["power"] = field(default="power", kw_only=True)
    exponent: float = -2.0
    """power of σ"""

    def __post_init__(self) -> None:
        if not math.isfinite(self.exponent):
            raise ValueError(f"exponent must be finite, got {self.exponent}")

    def __call__(self, sigma: Tensor) -> Tensor:
        return sigma**self.exponent


Weighting = EDMWeighting | PowerWeighting


@dataclass(frozen=True)
class DenoisingScoreMatching:
    """w(σ) ‖D(x₀ + σz, σ) − x₀‖² per example, summed over coordinates, at σ drawn afresh for each.

    With `across_levels` = λ two neighbours share a level and get λ w(σ) σ² ½(e₁ − e₂)² besides, e = σ ∂ log f/∂σ − ‖z‖² + d.

    Raises:
        ValueError: settings out of range or that exclude each other; when called, those of `objectives.batch`, and a model
            without log-density if its derivative by the level is asked for.
    """

    kind: Literal["denoising"] = field(default="denoising", kw_only=True)
    noise: Noise = field(default_factory=LogNormal)
    weighting: Weighting = field(default_factory=EDMWeighting)
    """w(σ); in Python any function of σ `(b,)` will do"""
    control_variate: bool = False
    """less variance at small σ, for one more forward pass"""
    across_levels: float = 0.0
    """energies: weight of the error of the derivative by the level, which makes the log-densities of all levels agree (0.25:
    half as much as the scores' part at first)"""

    def __post_init__(self) -> None:
        if not 0 <= self.across_levels < math.inf:
            raise ValueError(f"across_levels must be at least 0 and finite, got {self.across_levels}")
        if self.across_levels and self.control_variate:
            raise ValueError("across_levels and control_variate exclude each other: give one of them")

    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Loss:
        check_batch(x)
        sigma, z = self.draw(x, model.sigma_range, generator)
        return self.at(model, x, sigma, z, cond)

    def draw(
        self, x: Tensor, sigma_range: tuple[float, float], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Noise levels `(b,)`, one uniform draw in each of b equal strata (less variance), and noise z like `x`.

        With `across_levels` two neighbours share a level, and there are half as many strata.

        Raises:
            ValueError: a model whose range of levels begins at 0 or has no end.
        """
        low, high = sigma_range
        if not 0 < low <= high < math.inf:
            raise ValueError(f"many noise levels need a sigma_range with 0 < low <= high < inf, got ({low:g}, {high:g})")
        each = 2 if self.across_levels else 1
        n = -(-len(x) // each)
        jitter = torch.rand(n, generator=generator, device=x.device, dtype=x.dtype)
        strata = torch.randperm(n, generator=generator, device=x.device)
        sigma = self.noise.quantile((strata + jitter) / n, sigma_range).repeat_interleave(each)[: len(x)]
        return sigma, torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)

    def at(self, model: Score, x: Tensor, sigma: Tensor, z: Tensor, cond: Tensor | None = None) -> Loss:
        """The loss at given noise levels `(b,)` and noise z like `x`: a deterministic function.

        With `across_levels` raises `ValueError` for neighbours at different levels.
        """
        if self.across_levels and not torch.equal(sigma[: len(sigma) // 2 * 2 : 2], sigma[1::2]):
            raise ValueError("with across_levels every two neighbours must share a level")
        weight = self.weighting(sigma) * sigma**2
        if not self.across_levels:
            return Loss(weight * noise_error(model, x, sigma, z, cond, self.control_variate), sigma, {})
        error, slip = noise_and_level_errors(model, x, sigma, z, cond)
        spread = weight * half_squared_differences(slip)
        return Loss(weight * error + self.across_levels * spread, sigma, {"across_levels": spread.detach().mean()})


@dataclass(frozen=True)
class DenoisingAt:
    """½‖s(x₀ + σz, σ) + z/σ‖² per example at one level σ, so that its mean is ½F(p_σ‖q) + const."""

    sigma: float
    """the noise level, in scaled data units"""
    control_variate: bool = False
    """less variance at small σ, for one more forward pass"""

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma must be positive, got {self.sigma}: denoising needs noise")

    def __call__(
        self, model: Score, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Loss:
        check_batch(x)
        sigma = x.new_full((len(x),), self.sigma)
        z = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        error = noise_error(model, x, sigma, z, cond, self.control_variate)
        return Loss(error / (2 * self.sigma**2), sigma, {})


def noise_error(
    model: Score, x: Tensor, sigma: Tensor, z: Tensor, cond: Tensor | None, control_variate: bool = False
) -> Tensor:
    """‖σ s(x + σz, σ) + z‖² per example, `(b,)`: the squared error of the noise that the score predicts.

    With `control_variate` another number of the same mean, which does not blow up when divided by σ² as σ → 0.
    """
    s = expand(sigma, x)
    field = Field(model, sigma, cond)
    scaled = s * field.score(x + s * z)
    if not control_variate:
        return sum_event((scaled + z) ** 2)
    clean = s * field.score(x)
    return sum_event(scaled**2 + 2 * z * (scaled - clean) + 1)


def noise_and_level_errors(model: Score, x: Tensor, sigma: Tensor, z: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
    """‖σ s + z‖² and σ ∂ log f/∂σ − (‖z‖² − d), `(b,)` each, from one gradient of log f by x and σ at x + σz.

    Raises:
        ValueError: a model without log-density, or one that does not depend on x and σ.
    """
    if not isinstance(model, Density):
        raise ValueError("across_levels is for energies: a direct score has no log-density whose derivative could be taken")
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        noisy, level = (x + expand(sigma, x) * z).requires_grad_(), sigma.clone().requires_grad_()
        log_density = check_scalar(model.log_density(noisy, level, cond), x)
        s, slope = torch.autograd.grad(log_density.sum(), (noisy, level), create_graph=differentiable, allow_unused=True)
    if s is None or slope is None:
        raise ValueError(f"the log-density of {type(model).__name__} does not depend on its {'x' if s is None else 'level'}")
    return sum_event((expand(sigma, x) * s + z) ** 2), sigma * slope - sum_event(z**2 - 1)


def half_squared_differences(values: Tensor) -> Tensor:
    """½(a − b)² for a, b of every two neighbours, to both, `(b,)`; its mean is their variance. An odd last one gets 0."""
    pairs = values[: len(values) // 2 * 2].unflatten(0, (-1, 2))
    halves = ((pairs[:, 0] - pairs[:, 1]) ** 2 / 2).repeat_interleave(2)
    return torch.cat([halves, torch.zeros_like(values[len(halves) :])])
