"""The score of a table: that of a Gaussian mixture, which is exact at every level, and a network's correction, 0 at first.

    s(x, σ) = ∇ log p_mixture,σ(x) + F(x/√(1 + σ²), ¼ log σ) / (σ √(1 + σ²))

What the mixture knows need not be learnt again, and at large σ, where both densities are nearly one, it is the whole of it: so
p_σmax may be the mixture's own at a σ_max of a few standard deviations.

Each coordinate of a row is in one of three states: *scored*, and noisy; *known*, and clean; or absent, which leaves it out. Of
a row the model gives ∇ log p_σ(scored given known). So one network serves complete rows (all scored), rows with gaps (those are
absent, the density is that of the rest) and imputation (the gaps are scored, the rest is known). Given known coordinates a
mixture is a mixture, with weights, means and covariances of its own:

    wₖ N(x_known; …)      μₖ + Σ_sk Σ_kk⁻¹ (x_known − μₖ)      Σ_ss − Σ_sk Σ_kk⁻¹ Σ_ks
"""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scorefield.densities import GaussianMixture
from scorefield.interfaces import Field, TraceEstimate, check_event
from scorefield.jacobian_trace import Exact
from scorefield.models import ModelSpec, ScoreModel
from scorefield.networks import MLPConfig
from scorefield.networks.embedding import CoordinateEmbedding, NoiseEmbedding
from scorefield.networks.mlp import ResidualBlock


class MixtureParameters(NamedTuple):
    """Weights `(k,)`, means `(k, d)` and covariances `(k, d, d)`, float64."""

    weights: Tensor
    means: Tensor
    covariances: Tensor


class States(NamedTuple):
    """What is asked of each row."""

    scored: Tensor
    """1 or 0 `(b, d)`"""
    known: Tensor
    """1 or 0 `(b, d)`; never where `scored` is 1"""
    values: Tensor
    """known values `(b, d)`, 0 elsewhere"""

    def of(self, rows: slice | Tensor) -> "States":
        """Those of some rows."""
        return States(*(part[rows] for part in self))


def observed_states(x: Tensor) -> States:
    """All that is there is scored."""
    here = (~x.isnan()).to(x.dtype)
    return States(here, torch.zeros_like(here), torch.zeros_like(here))


class RowMixtures:
    """The mixture of each row's scored coordinates given its known ones, at every σ: a density on `(b, d)` of which the other
    coordinates, 0, are no part.

    One eigendecomposition for each row and component; `GaussianMixture` is the case of rows that are all scored.
    """

    def __init__(self, mixture: MixtureParameters, states: States) -> None:
        scored, known, values = (part.double() for part in states)
        weights, means, covariances = (part.double() for part in mixture)
        within = known[:, None, :, None] * known[:, None, None, :] * covariances  # (b, k, d, d), 0 outside of what is known
        blank = torch.diag_embed(1 - known)[:, None]
        factor = torch.linalg.cholesky(within + blank)
        across = scored[:, None, :, None] * known[:, None, None, :] * covariances
        offset = known[:, None] * (values[:, None] - means)
        solved = torch.cholesky_solve(offset[..., None], factor)
        self.means = scored[:, None] * means + (across @ solved)[..., 0]
        reduced = scored[:, None, :, None] * scored[:, None, None, :] * covariances
        reduced = reduced - across @ torch.cholesky_solve(across.mT, factor)
        self.eigenvalues, self.rotations = torch.linalg.eigh(reduced + torch.diag_embed(1 - scored)[:, None])
        log_known = -((offset * solved[..., 0]).sum(-1) + 2 * factor.diagonal(0, -2, -1).log().sum(-1)) / 2
        self.log_weights = (weights.log() + log_known).log_softmax(1)
        self.scored = scored

    def parts(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets in the components' own axes, variances there, `(b, k, d)` both, and log-densities `(b, k)` with weights."""
        level = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).reshape(-1, 1, 1)
        offset = torch.einsum("bkij,bki->bkj", self.rotations, self.scored[:, None] * x.double()[:, None] - self.means)
        variances = self.eigenvalues + level**2
        others = (1 - self.scored).sum(1)[:, None] * (1 + level[..., 0] ** 2).log()  # coordinates that are no part
        squares = (offset**2 / variances + variances.log()).sum(-1) - others
        constant = self.scored.sum(1)[:, None] * math.log(2 * math.pi)
        return offset, variances, self.log_weights - (squares + constant) / 2

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log p_σ of the scored coordinates given the known ones, nats, `(b,)`."""
        return self.parts(x, sigma)[2].logsumexp(1).to(x.dtype)

    def score_and_laplacian(self, x: Tensor, sigma: float | Tensor = 0.0) -> tuple[Tensor, Tensor]:
        """Its gradient, like `x`, and the divergence of that, `(b,)`, by the scored coordinates."""
        offset, variances, log_joint = self.parts(x, sigma)
        r, own = log_joint.softmax(1), offset / variances
        score = -self.scored * torch.einsum("bk,bkij,bkj->bi", r, self.rotations, own)
        level = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).reshape(-1, 1)
        others = (1 - self.scored).sum(1)[:, None] / (1 + level**2)
        laplacian = (r * ((own**2).sum(-1) - ((1 / variances).sum(-1) - others))).sum(1) - (score**2).sum(1)
        return score.to(x.dtype), laplacian.to(x.dtype)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """Its gradient, like `x`."""
        return self.score_and_laplacian(x, sigma)[0]

    def sample(self, sigma: float, generator: torch.Generator | None = None) -> Tensor:
        """One draw for each row `(b, d)`, 0 where nothing is scored."""
        component = torch.multinomial(self.log_weights.exp(), 1, generator=generator)[:, 0]
        rows = torch.arange(len(component), device=component.device)
        z = torch.randn(self.scored.shape, generator=generator, dtype=torch.float64, device=component.device)
        lengths = (self.eigenvalues[rows, component] + sigma**2).sqrt()
        spread = torch.einsum("bij,bj->bi", self.rotations[rows, component], lengths * z)
        return self.scored * (self.means[rows, component] + spread)


def mixture_score(mixture: MixtureParameters, x: Tensor, sigma: Tensor, states: States) -> Tensor:
    """The score of `RowMixtures` at one level for each row `(b,)`, by a Cholesky factor instead: quicker for a single level.

    The gradient of log p(scored given known) by the scored is that of log p(scored, known), the known without noise.
    """
    scored, known, values = (part.double() for part in states)
    weights, means, covariances = (part.double() for part in mixture)
    seen = scored + known
    noise = scored * sigma.double()[:, None] ** 2 + (1 - seen)
    matrix = seen[:, None, :, None] * seen[:, None, None, :] * covariances + torch.diag_embed(noise)[:, None]
    offset = seen[:, None] * (scored * x.double() + values)[:, None] - seen[:, None] * means
    factor = torch.linalg.cholesky(matrix)
    solved = torch.cholesky_solve(offset[..., None], factor)[..., 0]
    log_joint = weights.log() - (offset * solved).sum(-1) / 2 - factor.diagonal(0, -2, -1).log().sum(-1)
    return -(scored * (log_joint.softmax(1)[..., None] * solved).sum(1)).to(x.dtype)


class StatesMLP(nn.Module):
    """net(u, c_noise `(b,)`, states) -> like u: an MLP on Fourier features that is told the states of all coordinates."""

    def __init__(self, d: int, config: MLPConfig) -> None:
        super().__init__()
        self.coordinates = CoordinateEmbedding(config.frequencies)
        self.noise = NoiseEmbedding(config.width)
        self.states = nn.Linear(2 * d, config.width)
        self.enter = nn.Linear(self.coordinates.features(d), config.width)
        self.enter_known = nn.Linear(self.coordinates.features(d), config.width)
        self.blocks = nn.ModuleList(ResidualBlock(config.width) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.leave = nn.Linear(config.width, d)
        for layer in (self.leave, self.states):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, u: Tensor, c_noise: Tensor, states: States | None = None) -> Tensor:
        if c_noise.stride() == (0,):  # one level for all rows: its features are computed once
            c_noise = c_noise[:1]
        level = self.noise(c_noise)
        if states is None:
            h = self.enter(self.coordinates(u))
        else:
            scored, known, values = (part.to(u.dtype) for part in states)
            level = level + self.states(torch.cat([1 - scored, known], 1))
            h = self.enter(self.coordinates(scored * u)) + self.enter_known(self.coordinates(values))
        for block in self.blocks:
            h = block(h, level)
        y = self.leave(nn.functional.silu(self.norm(h)))
        return y if states is None else states.scored.to(y.dtype) * y


class Correction(ScoreModel):
    """The network's part as a score, c_out F alone: what EDM's row of the table subtracts is the mixture's business."""

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """F/(σ √(1 + σ²)), like `x`."""
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1)
        inner = (1 + level**2).rsqrt()
        noise = level.log()[:, 0].expand(len(x)) / 4
        return self.network(inner * x, noise, cond) * (inner / level)


class MixtureResidual(nn.Module):
    """The sum; `event_shape` is `(d,)`, all in standardised units. `cond` may be the `States` of the rows."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def __init__(self, mixture: MixtureParameters, network: MLPConfig, sigma_range: tuple[float, float]) -> None:
        super().__init__()
        self.event_shape = tuple(mixture.means.shape[1:])
        d = self.event_shape[0]
        self.correction = Correction(StatesMLP(d, network), ModelSpec(self.event_shape, sigma_range=sigma_range))
        for name, values in mixture._asdict().items():
            self.register_buffer(name, values.double())
        self._mixture: GaussianMixture | None = None

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.correction.sigma_range

    @property
    def parameters_of_mixture(self) -> MixtureParameters:
        """As it was given."""
        return MixtureParameters(self.weights, self.means, self.covariances)

    @property
    def mixture(self) -> GaussianMixture:
        """The mixture as a density of complete rows."""
        if self._mixture is None:
            self._mixture = GaussianMixture(self.weights, self.means, self.covariances)
        return self._mixture

    def without(self, tails: int) -> "MixtureResidual":
        """The same network on the mixture without its last components, which are there for outliers."""
        plain = deepcopy(self)
        for name, part in self.parameters_of_mixture._asdict().items():
            setattr(plain, name, part[: len(part) - tails])
        plain._mixture = None
        return plain

    @property
    def untouched(self) -> bool:
        """Whether the network is still 0, and the density the mixture."""
        leave: nn.Linear = self.correction.network.leave  # type: ignore[assignment]
        return not bool(leave.weight.any() or leave.bias.any())

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | States | None = None) -> Tensor:
        """∇ log p_σ(x), like `x`; of the scored coordinates given the known ones, 0 elsewhere, if there are states."""
        check_event(x, self.event_shape)
        if cond is None:
            return self.mixture.score(x, sigma) + self.correction.score(x, sigma)
        assert isinstance(cond, States)
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
        return mixture_score(self.parameters_of_mixture, x, level, cond) + self.correction.score(x, sigma, cond)  # type: ignore[arg-type]

    def _load_from_state_dict(self, *arguments: object) -> None:
        self._mixture = None
        super()._load_from_state_dict(*arguments)

    def _apply(self, function: Callable[..., Tensor], recurse: bool = True) -> "MixtureResidual":
        self._mixture = None
        return super()._apply(function, recurse)  # type: ignore[no-untyped-call]


class OfRows(nn.Module):
    """The model for some rows whose states are fixed: a score of `(b, d)` for these b rows."""

    def __init__(self, model: MixtureResidual, states: States) -> None:
        super().__init__()
        self.model, self.states = model, states
        self.mixture = RowMixtures(model.parameters_of_mixture, states)

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.model.sigma_range

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """∇ log p_σ(scored given known), like `x`."""
        return self.mixture.score(x, sigma) + self.model.correction.score(x, sigma, self.states)  # type: ignore[arg-type]


class ClosedForm:
    """tr ∇s of a mixture."""

    def __call__(self, field: Field, x: Tensor, *, generator: torch.Generator | None = None) -> TraceEstimate:
        score, trace = field.model.score_and_laplacian(x, field.sigma)  # type: ignore[attr-defined]
        return TraceEstimate(score, trace, None)


class MixtureTrace:
    """tr ∇s with the mixture's part in closed form, the network's exactly."""

    def __call__(self, field: Field, x: Tensor, *, generator: torch.Generator | None = None) -> TraceEstimate:
        model = field.model
        assert isinstance(model, MixtureResidual | OfRows)
        states = model.states if isinstance(model, OfRows) else None
        correction = model.model.correction if isinstance(model, OfRows) else model.correction
        score, trace = model.mixture.score_and_laplacian(x, field.sigma)
        own = Exact()(Field(correction, field.sigma, states), x)  # type: ignore[arg-type]
        return TraceEstimate(score + own.score, trace + own.trace, None)
