"""Maximum likelihood of an energy, by what it says of data beside what it says of other points; and its Z as a by-product.

    likelihood    −∇_θ E_p[log p_θ] = −E_p[∇_θ log f] + E_{p_θ}[∇_θ log f]          the last from a Markov chain
    CD-k          the chain begins at the data and takes k steps: biased, quick
    persistent    it goes on where it ended, in a buffer of its own: unbiased once the energy changes slowly
    noise, binary      data or noise q?  G = log f(x) − c − log q(x) − log ν,  loss log(1 + e^−G(x)) + Σ_ν log(1 + e^G(x′))
    noise, ranking     which of these ν + 1 is the data?  loss −log softmax(log f − log q): needs no c

The optimum of NCE is f e^−c = p for any q that covers p, and the learned constant c is log Z.

Energies trained so can run away where nobody looks. What has gone wrong is said and stops the run; nothing is clipped.

Reference: Hinton 2002, doi:10.1162/089976602760128018 (CD); Tieleman 2008, doi:10.1145/1390156.1390290 (persistent);
Du & Mordatch 2019, arXiv:1903.08689 (replay, fresh chains); Gutmann & Hyvärinen 2010, PMLR 9:297; Ma & Collins 2018,
arXiv:1809.01812 (ranking).
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from scorefield.densities import DiscreteDensity
from scorefield.errors import RunError
from scorefield.interfaces import Density, Loss, Proposal, check_scalar
from scorefield.objectives.matching import noised
from scorefield.randomness import keyed_generator
from scorefield.samplers import MALA, Gibbs, Kernel, Target
from scorefield.samplers.levels import check_counts, check_positive, check_share
from scorefield.tensors import expand


def contrast(
    model: Density, x: Tensor, negatives: Tensor, sigma: float = 0.0, cond: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """log f of data and of negatives, `(b,)` each.

    With negatives from p_θ the gradient of their mean difference is that of the log-likelihood.
    """
    at_data, at_negatives = (check_scalar(model.log_density(y, sigma, cond), y) for y in (x, negatives))
    return at_data, at_negatives


def level_of(model: Density, sigma: float | None) -> float:
    """The noise level of the likelihood: the model's smallest if none is given."""
    lowest: float = model.sigma_range[0]  # type: ignore[attr-defined]  # continuous models have one
    return lowest if sigma is None else sigma


class ContrastiveDivergence(nn.Module):
    """CD-k: log f(x⁻) − log f(x) per example, x⁻ the end of a chain of k steps from x; of discrete data by Gibbs sweeps.

    Args:
        steps: k.
        kernel: of the chain; its step size is adapted to the acceptance it aims at, if it has one, and is part of the state.
        step_size: h, to begin with.
        sigma: the noise level; noise of it is added to the data. The model's smallest by default.
        hottest: the chain's temperature to begin with, which falls geometrically to 1 in the first half of its steps.
        from_noise: begin at N(0, I) instead of at the data.
        regularisation: α of α (log f(x)² + log f(x⁻)²), which keeps energies near 0 (Du & Mordatch).
        largest_gap: between the mean log f of data and negatives, nats, at which training stops.

    Raises:
        ValueError: a setting out of range; when called, as `objectives.batch`.
        RunError: energies that are not finite, chains that left the data's box, a gap that exploded.
    """

    rank_local: tuple[str, ...] = ("log_step",)
    log_step: Tensor

    def __init__(
        self,
        steps: int = 10,
        kernel: Kernel | Gibbs | None = None,
        step_size: float = 0.01,
        sigma: float | None = None,
        *,
        hottest: float = 1.0,
        from_noise: bool = False,
        regularisation: float = 0.0,
        largest_gap: float = 1e4,
    ) -> None:
        super().__init__()
        check_counts(steps=steps)
        check_positive(step_size=step_size, hottest=hottest, largest_gap=largest_gap)
        if not 0 <= regularisation < math.inf:
            raise ValueError(f"regularisation must be at least 0, got {regularisation}")
        self.steps, self.kernel, self.sigma = steps, kernel or MALA(), sigma
        self.hottest, self.from_noise = hottest, from_noise
        self.regularisation, self.largest_gap = regularisation, largest_gap
        self.register_buffer("log_step", torch.tensor(math.log(step_size), dtype=torch.float64))

    def forward(
        self, model: Density, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Loss:
        discrete, learning = isinstance(model, DiscreteDensity), torch.is_grad_enabled()
        sigma = 0.0 if discrete else level_of(model, self.sigma)
        if not discrete:
            x, _ = noised(x, sigma, generator)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            negatives = self.negatives(model, x, sigma, cond, generator, learning)
        at_data, at_negatives = contrast(model, x, negatives, sigma, cond)
        self.guard(x, negatives, at_data.detach(), at_negatives.detach())
        value = at_negatives - at_data
        if self.regularisation:
            value = value + self.regularisation * (at_data**2 + at_negatives**2)
        gap = (at_data - at_negatives).detach().mean()
        return Loss(value, None, {"gap": gap, "step_size": self.log_step.exp()})

    def negatives(
        self, model: Density, x: Tensor, sigma: float, cond: Tensor | None, generator: torch.Generator | None, learning: bool
    ) -> Tensor:
        """Where chains from the data, or from noise, end; only where it is `learning` may it change its state."""
        if self.from_noise and not x.is_floating_point():
            raise ValueError("from_noise is for continuous data: chains of discrete data begin at the data")
        start = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype) if self.from_noise else x
        return self.walk(model, start, sigma, cond, generator, learning)

    def walk(
        self, model: Density, x: Tensor, sigma: float, cond: Tensor | None, generator: torch.Generator | None, learning: bool
    ) -> Tensor:
        """k steps of every chain; while learning the step size moves towards the acceptance aimed at."""
        if isinstance(self.kernel, Gibbs):
            *_, state = replace(self.kernel, steps=self.steps, warmup=0)(model, x, cond, generator=generator)  # type: ignore[arg-type]
            return state.x
        point = None
        for i in range(self.steps):
            temperature = self.hottest ** max(0.0, 1 - 2 * i / self.steps)
            target = Target(model, sigma, cond, temperature)  # type: ignore[arg-type]  # it checks itself
            point = target.at(x) if point is None else point
            point, probability = self.kernel(target, point, float(self.log_step.exp()), generator)
            if learning and self.kernel.aim is not None:
                self.log_step += 0.1 * (float(probability.mean()) - self.kernel.aim)
        assert point is not None  # there is at least one step
        return point.x

    def guard(self, x: Tensor, negatives: Tensor, at_data: Tensor, at_negatives: Tensor) -> None:
        """Stops where an energy has run away, with the cause."""
        for what, values in (("data", at_data), ("negatives", at_negatives)):
            if not values.isfinite().all():
                raise RunError(f"energies diverge: the log-density of {what} is not finite; lower the learning rate")
        if x.is_floating_point():
            reach = 3 * x.abs().max() + 3
            outside = float((negatives.flatten(1).abs().amax(1) > reach).double().mean())
            if outside > 0.5:
                raise RunError(
                    f"chains leave the data's box: {outside:.0%} of them are further out than {reach:.3g}; give the energy a "
                    "confinement, or lower the learning rate"
                )
        gap = float((at_data - at_negatives).mean())
        if abs(gap) > self.largest_gap:
            raise RunError(
                f"the gap between data and negatives explodes: {gap:.3g} nats; take more steps of the chain, or lower the "
                "learning rate"
            )


class PersistentContrastiveDivergence(ContrastiveDivergence):
    """The same with chains that go on where they were left: a buffer of `size` states, b of which take k steps at each call.

    The buffer is part of the state, in checkpoints too; with several processes each has its own.

    Args:
        event_shape: of the data.
        size: of the buffer, at least as many as a batch.
        fresh: the share of chains that begin anew, from N(0, I), at each call; they find modes, and bias what is
            learned until they have mixed.

    Raises:
        ValueError: a batch larger than the buffer, or conditions, whose chains would have to be kept apart.
    """

    rank_local = ("log_step", "replay")
    replay: Tensor

    def __init__(
        self,
        event_shape: tuple[int, ...],
        size: int = 2048,
        fresh: float = 0.0,
        steps: int = 10,
        kernel: Kernel | None = None,
        step_size: float = 0.01,
        sigma: float | None = None,
        *,
        hottest: float = 1.0,
        regularisation: float = 0.0,
        largest_gap: float = 1e4,
    ) -> None:
        super().__init__(
            steps, kernel, step_size, sigma, hottest=hottest, regularisation=regularisation, largest_gap=largest_gap
        )
        check_counts(size=size)
        check_share(fresh=fresh)
        self.fresh = fresh
        self.register_buffer("replay", torch.randn(size, *event_shape, generator=keyed_generator(0, "replay")))

    def negatives(
        self, model: Density, x: Tensor, sigma: float, cond: Tensor | None, generator: torch.Generator | None, learning: bool
    ) -> Tensor:
        """Some chains of the buffer, k steps on; they are put back if it is `learning`."""
        if cond is not None:
            raise ValueError("persistent chains belong to one density: train with conditions by ContrastiveDivergence")
        if not x.is_floating_point() or x.shape[1:] != self.replay.shape[1:]:
            expected = f"floating-point events of shape {tuple(self.replay.shape[1:])}"
            raise ValueError(f"these persistent chains are of {expected}, got {x.dtype} of shape {tuple(x.shape[1:])}")
        if len(x) > len(self.replay) and learning:
            raise ValueError(f"a batch of {len(x)} needs a buffer of as many chains, got {len(self.replay)}")
        rows = torch.randperm(len(self.replay), generator=generator, device=x.device)
        rows = rows.repeat(-(-len(x) // len(rows)))[: len(x)]  # held-out data may be more than the chains
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        anew = torch.rand(len(x), generator=generator, device=x.device) < self.fresh
        start = torch.where(expand(anew, x), noise, self.replay[rows].to(x))
        end = self.walk(model, start, sigma, None, generator, learning)
        if learning:
            self.replay[rows] = end.to(self.replay)
        return end


@dataclass(frozen=True)
class PersistentChains:
    """Settings of `PersistentContrastiveDivergence` as plain values.

    Raises:
        ValueError: a setting out of range.
    """

    kind: Literal["persistent-chains"] = field(default="persistent-chains", kw_only=True)
    chains: int = 2048
    """in the buffer, at least as many as a batch"""
    steps: int = 20
    """of MALA, which a batch of them takes in each step of training"""
    fresh: float = 0.0
    """share of chains that begin anew from noise each time they move"""
    regularisation: float = 0.0
    """weight of the squared log-densities, which keeps them near 0"""

    def __post_init__(self) -> None:
        check_counts(chains=self.chains, steps=self.steps)
        check_share(fresh=self.fresh)
        if not 0 <= self.regularisation < math.inf:
            raise ValueError(f"regularisation must be at least 0, got {self.regularisation}")

    def build(self, event_shape: tuple[int, ...]) -> PersistentContrastiveDivergence:
        """The objective, its chains at N(0, I)."""
        return PersistentContrastiveDivergence(
            event_shape, self.chains, self.fresh, self.steps, regularisation=self.regularisation
        )


class NoiseContrastiveEstimation(nn.Module):
    """Tells data from draws of a known density; binary with a learned constant log Z, or by ranking.

    Args:
        noise: a normalised density that covers the data, with `sample` and `log_density`; nothing of it is learned.
        ratio: ν, draws of the noise for each example.
        kind: binary or ranking.
        sigma: the noise level; noise of it is added to the data. The model's smallest by default.

    Raises:
        ValueError: no draws, or an unknown kind; when called, as `objectives.batch`, and noise that is zero at an example.
    """

    def __init__(
        self, noise: Proposal, ratio: int = 1, kind: Literal["binary", "ranking"] = "binary", sigma: float | None = None
    ) -> None:
        super().__init__()
        check_counts(ratio=ratio)
        if kind not in ("binary", "ranking"):
            raise ValueError(f"unknown kind {kind!r}: choose binary or ranking")
        self.noise, self.ratio, self.kind, self.sigma = noise, ratio, kind, sigma
        self.log_z = nn.Parameter(torch.zeros(()), requires_grad=kind == "binary")

    def forward(
        self, model: Density, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Loss:
        sigma = level_of(model, self.sigma)
        x, _ = noised(x, sigma, generator)
        others = self.noise.sample(self.ratio * len(x), generator=generator).to(x)
        again = None if cond is None else cond.repeat(self.ratio)
        at_data = self.ratio_to_noise(model, x, sigma, cond)
        at_noise = self.ratio_to_noise(model, others, sigma, again).reshape(self.ratio, len(x))
        if not at_data.isfinite().all():
            row = int((~at_data.isfinite()).nonzero()[0])
            raise ValueError(f"row {row} of the data has no finite log f/q: noise must cover the data, and energies be finite")
        if self.kind == "ranking":
            return Loss(torch.cat([at_data[None], at_noise]).logsumexp(0) - at_data, None, {})
        offset = self.log_z + math.log(self.ratio)
        value = softplus(offset - at_data) + softplus(at_noise - offset).sum(0)
        return Loss(value, None, {"log_z": self.log_z.detach()})

    def ratio_to_noise(self, model: Density, x: Tensor, sigma: float, cond: Tensor | None) -> Tensor:
        """log f − log q, nats, `(b,)`."""
        return check_scalar(model.log_density(x, sigma, cond), x) - self.noise.log_density(x).detach().to(x)
