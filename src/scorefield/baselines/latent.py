"""Latent-variable models: a variational autoencoder with any number of stochastic levels, one of which is the usual VAE.

    down    z_T ~ N(0, I),  z_{l−1} | z_l ~ N(m_l(z_l), s_l(z_l)²),  x | z₁ ~ a likelihood        the model p
    up      z₁ | x,  z_l | z_{l−1} ~ N(…)                                                        the encoder q
    −log p(x) ≤ L_T + Σ_l L_l + L_0,  L_0 = E[−log p(x|z₁)],  L_l = E[log q(z_l|z_{l−1})/p(z_l|z_{l+1})]
    log p(x) ≥ E log (1/k) Σ w_i,  w = p(x, z)/q(z|x)                                        importance-weighted

A diffusion model is the same with a fixed encoder, adding noise, and very many levels: `likelihood.ELBO` has its losses.

Reference: Kingma & Welling 2014, arXiv:1312.6114; Rezende et al. 2014, arXiv:1401.4082; Burda et al. 2016, arXiv:1509.00519
(the importance-weighted bound, which rises with k to log p).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from scorefield.baselines.integers import IntegerModel
from scorefield.interfaces import Loss

LARGEST_LOG = 5.0
"""of a log standard deviation, beyond which exp would drown what is learnt"""


class Normal(NamedTuple):
    """Independent normal laws, `(b, k)` each."""

    mean: Tensor
    log_std: Tensor

    def log_density(self, z: Tensor) -> Tensor:
        """Nats, `(b,)`."""
        standardised = (z - self.mean) * (-self.log_std).exp()
        return (-(standardised**2) / 2 - self.log_std - math.log(2 * math.pi) / 2).sum(1)

    def sample(self, generator: torch.Generator | None) -> Tensor:
        """Differentiable by mean and deviation."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + self.log_std.exp() * noise


class Likelihood(Protocol):
    """p(x | z₁) and how a network sees x."""

    def seen(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """What the first encoder is given, `(b, d)`, in its dtype."""
        ...

    def log_density(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Nats, `(b,)`."""
        ...

    def sample(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor: ...


class SoftmaxPixels(IntegerModel):
    """Each pixel has a softmax of its own over the levels: parameters are logits `(b, d · levels)`."""

    def seen(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return 2 * self.flat(x).to(dtype) / (self.levels - 1) - 1

    def log_density(self, parameters: Tensor, x: Tensor) -> Tensor:
        log_p = parameters.unflatten(1, (self.d, self.levels)).log_softmax(2)
        return log_p.gather(2, self.flat(x)[:, :, None]).sum((1, 2))

    def sample(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        p = parameters.unflatten(1, (self.d, self.levels)).softmax(2)
        return self.shaped(torch.multinomial(p.flatten(0, 1), 1, generator=generator).reshape(-1, self.d))


class Terms(NamedTuple):
    """The losses of one draw of the latents, nats, `(b,)` each, whose sum is at least −log p(x) on average."""

    reconstruction: Tensor
    """L_0"""
    levels: tuple[Tensor, ...]
    """L_1 … L_T"""

    def total(self) -> Tensor:
        """−log w, `(b,)`."""
        return self.reconstruction + sum(self.levels)


class HierarchicalVAE(nn.Module):
    """Encoders x → z₁ → … → z_T, decoders z_T → … → z₁ → x, and a likelihood.

    Args:
        encoders: the l-th gives mean and log standard deviation of z_l side by side, `(b, 2k_l)`.
        decoders: the first gives the likelihood's parameters from z₁, the l-th the same two of z_{l−1} from z_l.
        latents: k₁ … k_T.

    Raises:
        ValueError: numbers of networks that differ, or none.
    """

    def __init__(
        self, encoders: Sequence[nn.Module], decoders: Sequence[nn.Module], latents: Sequence[int], likelihood: Likelihood
    ) -> None:
        super().__init__()
        if not len(encoders) == len(decoders) == len(latents) >= 1:
            raise ValueError(
                f"each level needs an encoder, a decoder and a width, got {len(encoders)}, {len(decoders)} and {len(latents)}"
            )
        self.encoders, self.decoders = nn.ModuleList(encoders), nn.ModuleList(decoders)
        self.latents, self.likelihood = tuple(latents), likelihood

    def terms(self, x: Tensor, *, generator: torch.Generator | None = None) -> Terms:
        """The losses with one draw of all latents."""
        drawn, given = [], []
        below = self.likelihood.seen(x, next(self.parameters()).dtype)
        for encoder in self.encoders:
            given.append(halves(encoder(below)))
            below = given[-1].sample(generator)
            drawn.append(below)
        levels = []
        for level, (z, law) in enumerate(zip(drawn, given, strict=True)):
            top = level + 1 == len(drawn)
            prior = standard(z) if top else halves(self.decoders[level + 1](drawn[level + 1]))
            levels.append(law.log_density(z) - prior.log_density(z))
        return Terms(-self.likelihood.log_density(self.decoders[0](drawn[0]), x), tuple(levels))

    def log_density_bound(self, x: Tensor, draws: int = 1, *, generator: torch.Generator | None = None) -> Tensor:
        """The importance-weighted bound of so many draws, nats, `(b,)`; with one it is the evidence lower bound.

        Raises:
            ValueError: no draws, or data that the likelihood refuses.
        """
        if draws < 1:
            raise ValueError(f"a bound needs at least 1 draw, got {draws}")
        log_weights = torch.stack([-self.terms(x, generator=generator).total() for _ in range(draws)])
        return log_weights.logsumexp(0) - math.log(draws)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Events, from the top down."""
        like = next(self.parameters())
        z = torch.randn(n, self.latents[-1], generator=generator, device=like.device, dtype=like.dtype)
        for decoder in self.decoders[:0:-1]:
            z = halves(decoder(z)).sample(generator)
        return self.likelihood.sample(self.decoders[0](z), generator)


def halves(parameters: Tensor) -> Normal:
    """Mean and log standard deviation, side by side in `(b, 2k)`."""
    mean, log_std = parameters.chunk(2, 1)
    return Normal(mean, log_std.clamp(-LARGEST_LOG, LARGEST_LOG))


def standard(like: Tensor) -> Normal:
    """N(0, I) of that shape."""
    return Normal(torch.zeros_like(like), torch.zeros_like(like))


class Bounded(Protocol):
    """A model with a lower bound on its log-density, or the log-density itself."""

    def log_density_bound(self, x: Tensor, draws: int = 1, *, generator: torch.Generator | None = None) -> Tensor: ...


@dataclass(frozen=True)
class EvidenceBound:
    """−(importance-weighted) evidence lower bound, nats per example; −log p of models whose likelihood is exact."""

    kind: Literal["likelihood"] = field(default="likelihood", kw_only=True)
    draws: int = 1
    """importance samples"""

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"a bound needs at least 1 draw, got {self.draws}")

    def __call__(
        self, model: Bounded, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Loss:
        return Loss(-model.log_density_bound(x, self.draws, generator=generator), None, {})


@dataclass(frozen=True)
class VAEConfig:
    """A variational autoencoder of integer events by multilayer perceptrons, one stochastic level or more.

    Raises:
        ValueError: a number below 1, or no latents.
    """

    kind: Literal["vae"] = field(default="vae", kw_only=True)
    latents: tuple[int, ...] = (16,)
    """dimensions of z₁, z₂, …"""
    width: int = 256
    """features of hidden layers"""

    def __post_init__(self) -> None:
        if not self.latents or min(self.latents) < 1 or self.width < 1:
            raise ValueError(f"latents and width must be at least 1, got {self.latents} and {self.width}")

    def build(self, event_shape: tuple[int, ...], levels: int) -> HierarchicalVAE:
        """The model with fresh weights."""
        likelihood = SoftmaxPixels(event_shape, levels)
        below = [likelihood.d, *self.latents[:-1]]
        encoders = [perceptron(b, 2 * k, self.width) for b, k in zip(below, self.latents, strict=True)]
        for encoder in encoders:  # begin at N(0, I)
            nn.init.zeros_(encoder[-1].weight)  # type: ignore[arg-type]
        outs = [likelihood.d * levels, *(2 * k for k in self.latents[:-1])]
        decoders = [perceptron(k, out, self.width) for k, out in zip(self.latents, outs, strict=True)]
        return HierarchicalVAE(encoders, decoders, self.latents, likelihood)


def perceptron(inputs: int, outputs: int, width: int) -> nn.Sequential:
    """Two hidden layers."""
    last = nn.Linear(width, outputs)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(inputs, width), nn.SiLU(), nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.LayerNorm(width), last
    )
