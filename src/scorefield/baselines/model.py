"""Families of integer events as models of scaled data: what a run folder holds of them, and how one draws from it.

They answer for σ = 0 alone and have no score: a probability of integers has no gradient.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scorefield.baselines.autoregressive import AutoregressiveConfig
from scorefield.baselines.finite import IndependentPixelsConfig, SoftmaxPatchesConfig, TrainingImagesConfig
from scorefield.baselines.latent import HierarchicalVAE, VAEConfig
from scorefield.interfaces import State
from scorefield.models import ModelSpec

BaselineConfig = (
    IndependentPixelsConfig | SoftmaxPatchesConfig | TrainingImagesConfig | AutoregressiveConfig | VAEConfig
)  # fmt: skip
CLOSED_FORM = (IndependentPixelsConfig, SoftmaxPatchesConfig, TrainingImagesConfig)
"""those that are fitted by counting, not trained"""


class Baseline(nn.Module):
    """A family with the scaling of its data.

    Raises:
        ValueError: data without integer levels, a model with classes, or events the family is not for.
    """

    sigma_range = (0.0, 0.0)

    def __init__(self, config: BaselineConfig, spec: ModelSpec) -> None:
        super().__init__()
        if spec.scaling.levels is None:
            raise ValueError(f"{config.kind} is a model of integers, and this data is continuous")
        if spec.classes:
            raise ValueError(f"{config.kind} knows no classes: leave --conditional out")
        self.spec = spec
        self.family = config.build(spec.event_shape, spec.scaling.levels)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.spec.event_shape

    @property
    def exact(self) -> bool:
        """Whether its likelihood is exact; else it is a bound."""
        return not isinstance(self.family, HierarchicalVAE)

    def log_density_bound(self, x: Tensor, draws: int = 1, *, generator: torch.Generator | None = None) -> Tensor:
        """log-probability of integers `(b, *event)`, nats, `(b,)`, or a lower bound on it by so many importance samples."""
        if isinstance(self.family, HierarchicalVAE):
            return self.family.log_density_bound(x, draws, generator=generator)
        return self.family.log_density(x)

    def draw(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Samples in scaled data units, `(n, *event)`."""
        return self.spec.scaling.encode(self.family.sample(n, generator=generator)).float()


@dataclass(frozen=True)
class Drawing:
    """Exact draws of a model that has them, in the place of a sampler: one state, at σ = 0."""

    steps: int = 1
    states: int = 1
    nfe: int = 1

    def start(self, model: object, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Only the shape counts."""
        return torch.zeros(shape, device=None if generator is None else generator.device)

    def __call__(
        self, model: object, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Iterator[State]:
        drawn: Tensor = model.draw(len(x), generator=generator)  # type: ignore[attr-defined]
        yield State(drawn, drawn.new_zeros(()), {})
