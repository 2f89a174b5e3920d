"""The score of a table: that of a Gaussian mixture, which is exact at every level, and a network's correction, 0 at first.

    s(x, σ) = ∇ log p_mixture,σ(x) + F(x/√(1 + σ²), ¼ log σ) / (σ √(1 + σ²))

What the mixture knows need not be learnt again, and at large σ, where both densities are nearly one, it is the whole of it: so
p_σmax may be the mixture's own at a σ_max of a few standard deviations.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scorefield.densities import GaussianMixture
from scorefield.interfaces import Field, TraceEstimate, check_event
from scorefield.jacobian_trace import Exact
from scorefield.models import ModelSpec, ScoreModel
from scorefield.networks import MLPConfig


class MixtureParameters(NamedTuple):
    """Weights `(k,)`, means `(k, d)` and covariances `(k, d, d)`, float64."""

    weights: Tensor
    means: Tensor
    covariances: Tensor


class Correction(ScoreModel):
    """The network's part as a score: no skip."""

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """F/(σ √(1 + σ²)), like `x`."""
        whole = super().score(x, sigma, cond)
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, *[1] * (x.ndim - 1))
        return whole + x / (1 + level**2)  # less the EDM row's skip, −x/(1 + σ²)


class MixtureResidual(nn.Module):
    """The sum; `event_shape` is `(d,)`, all in standardised units."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def __init__(self, mixture: MixtureParameters, network: MLPConfig, sigma_range: tuple[float, float]) -> None:
        super().__init__()
        self.event_shape = tuple(mixture.means.shape[1:])
        self.correction = Correction(network.build(self.event_shape), ModelSpec(self.event_shape, sigma_range=sigma_range))
        for name, values in mixture._asdict().items():
            self.register_buffer(name, values.double())
        self._mixture: GaussianMixture | None = None

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.correction.sigma_range

    @property
    def mixture(self) -> GaussianMixture:
        """The mixture as a density."""
        if self._mixture is None:
            self._mixture = GaussianMixture(self.weights, self.means, self.covariances)
        return self._mixture

    @property
    def untouched(self) -> bool:
        """Whether the network is still 0, and the density the mixture."""
        return not bool(self.correction.network.leave.weight.any())  # type: ignore[union-attr, operator]

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """∇ log p_σ(x), like `x`."""
        check_event(x, self.event_shape)
        return self.mixture.score(x, sigma) + self.correction.score(x, sigma)

    def _load_from_state_dict(self, *arguments: object) -> None:
        self._mixture = None
        super()._load_from_state_dict(*arguments)


class ClosedForm:
    """tr ∇s of a mixture."""

    def __call__(self, field: Field, x: Tensor, *, generator: torch.Generator | None = None) -> TraceEstimate:
        assert isinstance(field.model, GaussianMixture)
        return TraceEstimate(*field.model.score_and_laplacian(x, field.sigma), None)


class MixtureTrace:
    """tr ∇s with the mixture's part in closed form, the network's exactly."""

    def __call__(self, field: Field, x: Tensor, *, generator: torch.Generator | None = None) -> TraceEstimate:
        model = field.model
        assert isinstance(model, MixtureResidual)
        score, trace = model.mixture.score_and_laplacian(x, field.sigma)
        own = Exact()(Field(model.correction, field.sigma), x)
        return TraceEstimate(score + own.score, trace + own.trace, None)
