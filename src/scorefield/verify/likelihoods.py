"""Rows 13, 14 and 24: what a score says about densities.

13  log p_σmin(x) = log p_σmax(latent) − ∫ σ tr∇s dσ along the probability flow, in the time of any process
14  E[−ELBO_T] ≥ E[−log p_T] ≥ H(p); for N(0, v I) with its score every term is known, E‖z − ẑ‖² = d v/(v + σ²)
24  KL(p‖q) ≤ ½ ∫ g² F(p_t‖q_t) dt + KL(priors) for the density q that a reverse SDE makes;
    with the score of N(0, v I) multiplied by a both sides are integrals: the variance V of q follows
    −dV/dσ = 2σ (1 − 2a V/(v + σ²)), and the bound is ½ d (a − 1)² log((v + σ_T²)/(v + σ_1²))
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from scorefield.densities import gaussian
from scorefield.integrate import RK4, runge_kutta
from scorefield.interfaces import Score
from scorefield.jacobian_trace import Exact, Hutchinson
from scorefield.likelihood import ELBO, FlowLikelihood, prior_mismatch
from scorefield.objectives import DenoisingScoreMatching, LogUniform, PowerWeighting
from scorefield.processes import PROCESSES
from scorefield.samplers import Ancestral, DormandPrince, EulerMaruyama, Geometric, Karras
from scorefield.verify.families import Scaled, name, random_gaussian, random_mixture, shapes, size, stream
from scorefield.verify.record import Record, close, exact, ordered, sampled

ENDS = (0.05, 20.0)
SOLVER = DormandPrince(2, sigma_range=ENDS, rtol=1e-7, atol=1e-7)
VARIANCE = 0.49


def row_13(full: bool) -> Iterator[Record]:
    for shape in shapes(full):
        p, which = random_mixture(shape, stream(13)), name(shape)
        x = p.sample(4 if full else 2, ENDS[0], generator=stream(13, 1))
        for title, process in PROCESSES.items():
            found = FlowLikelihood(replace(SOLVER, process=process), Exact())(p, x, prior=p)
            pairs = zip(found.log_density.tolist(), p.log_density(x, ENDS[0]).tolist(), strict=True)
            left, right = max(pairs, key=lambda pair: abs(pair[0] - pair[1]))
            yield close(
                13, f"log p of the flow = log p, worst row, {title}: {which}, mixture [solver: 1e-4 nats]", left, right, 1e-4
            )
        if size(shape) > 2:
            g = random_gaussian(shape, stream(13, 3))
            point = g.sample(1, ENDS[0], generator=stream(13, 4)).expand(2000 if full else 500, *shape)
            several = FlowLikelihood(SOLVER, Hutchinson(2, "orthogonal"))(g, point, prior=g, generator=stream(13, 5))
            assert several.se is not None
            truth = g.log_density(point, ENDS[0])
            yield sampled(13, f"probes fixed along the path are unbiased: {which}, Gaussian", several.log_density, truth)
            errors = (several.log_density - truth) ** 2
            yield sampled(13, f"E[error²] = E[se²]: {which}, Gaussian", errors, several.se**2)
    mean, spread = torch.tensor([0.3, -0.6]).double(), torch.tensor([0.5, 1.4]).double()
    law, prior = gaussian(mean, spread.diag()), gaussian(torch.zeros(2).double(), 1.0)
    y = law.sample(100_000, 3.0, generator=stream(13, 6))
    lost = law.log_density(y, 3.0) - prior.log_density(y, 3.0)
    yield sampled(13, "E[log p_σmax − log prior] = the prior's mismatch: vector 2", lost, prior_mismatch(mean, spread, 3.0))


def row_14(full: bool) -> Iterator[Record]:
    for shape in shapes(full):
        d, p, which = size(shape), gaussian(torch.zeros(shape).double(), VARIANCE), name(shape)
        x = p.sample(20_000 if full else 4000, generator=stream(14))
        entropy = d / 2 * (math.log(2 * math.pi * VARIANCE) + 1)
        bounds = []
        for steps in (10, 100, 1000):
            levels = Geometric()(steps + 1, ENDS)
            bounds.append(lost_by_chain(levels, d))
            found = ELBO(steps, draws=4, sigma_range=ENDS)(p, x, generator=stream(14, steps))
            yield sampled(
                14, f"E[−ELBO_T] from random levels = its sum, T = {steps}: {which}", -found.log_density_bound, bounds[-1]
            )
            marginal = d / 2 * (math.log(2 * math.pi * chain_variance(levels)) + VARIANCE / chain_variance(levels))
            yield ordered(14, f"E[−ELBO_T] ≥ E[−log p_T], T = {steps}: {which}", bounds[-1], marginal)
            yield ordered(14, f"E[−log p_T] ≥ H(p), T = {steps}: {which}", marginal, entropy)
            yield sampled(
                14, f"the chain's variance is that of ancestral samples, T = {steps}: {which}",
                chain_samples(p, steps, shape) ** 2, chain_variance(levels),
            )  # fmt: skip
        limit = lost_by_chain(None, d)
        chain = [*zip(("T = 10", "T = 100", "T = 1000", "T = ∞", "H(p)"), (*bounds, limit, entropy), strict=True)]
        for (first, larger), (second, smaller) in pairwise(chain):
            yield ordered(14, f"the bound falls towards the entropy: {first} above {second}, {which}", larger, smaller)
        found = ELBO(draws=4, sigma_range=ENDS)(p, x, generator=stream(14, 1))
        yield sampled(14, f"the continuous bound from random levels = its integral: {which}", -found.log_density_bound, limit)
        other = lost_by_chain(Karras()(100_001, ENDS), d)
        yield close(14, f"another schedule with the same ends, T = 100,000 [O(1/T)]: {which}", other, limit, 2e-3 * d)


def row_24(full: bool) -> Iterator[Record]:
    low, high = ENDS
    for a in (0.8, 0.95, 1.0, 1.1, 1.5):
        levels = Geometric()(2001, ENDS)
        start = VARIANCE + high**2
        variance = torch.tensor([start], dtype=torch.float64)  # begun at p_σT itself: no mismatch of priors

        def rate(v: torch.Tensor, sigma: float, a: float = a) -> torch.Tensor:
            return -2 * sigma * (1 - 2 * a * v / (VARIANCE + sigma**2))

        for s, t in pairwise(levels):
            variance = runge_kutta(rate, variance, [s, (s + t) / 2, (s + t) / 2, t], t - s, RK4)
        ratio = (VARIANCE + low**2) / float(variance)
        divergence = (ratio - 1 - math.log(ratio)) / 2
        bound = (a - 1) ** 2 * math.log(start / (VARIANCE + low**2)) / 2
        if a == 1:
            yield exact(24, "the true score makes the true law", torch.tensor(ratio), 1.0, 1e-8)
            continue
        yield ordered(24, f"½ ∫ g² F dt ≥ KL(p‖q), score times {a}", bound, divergence)
        p, g = gaussian(torch.zeros(1).double(), VARIANCE), stream(24, round(100 * a))
        model = Scaled(p, torch.tensor([a], dtype=torch.float64), ENDS)
        x = p.sample(50_000, generator=g)
        loss = DenoisingScoreMatching(LogUniform(), PowerWeighting(-2))
        excess = [loss(m, x, generator=stream(24, 1)).value for m in (model, Scaled(p, torch.ones(1).double(), ENDS))]
        yield sampled(
            24, f"½ ∫ g² F dt = the likelihood-weighted loss less its least, score times {a}",
            math.log(high / low) * (excess[0] - excess[1]), bound,
        )  # fmt: skip
        noise = math.sqrt(start) * torch.randn(4000, 1, generator=g, dtype=torch.float64)
        *_, state = EulerMaruyama(1000, grid=Geometric(), sigma_range=ENDS, to_zero=False)(model, noise, generator=g)
        yield sampled(
            24, f"the variance of q is that of the reverse SDE's samples, score times {a}", state.x**2, float(variance)
        )


def chain_samples(p: Score, steps: int, shape: tuple[int, ...]) -> Tensor:
    """Draws of each coordinate from the chain of p's score, begun in the prior and ended by its last Gaussian step."""
    sampler, generator = Ancestral(steps + 1, grid=Geometric(), sigma_range=ENDS), stream(14, steps, 2)
    start = math.sqrt(1 + ENDS[1] ** 2) * torch.randn(4000, *shape, generator=generator, dtype=torch.float64)
    *_, state = sampler(p, start, generator=generator)
    return state.x.flatten(1)[:, 0] + ENDS[0] * torch.randn(len(start), generator=generator, dtype=torch.float64)


def lost_by_chain(levels: list[float] | None, d: int) -> float:
    """E[−ELBO] for N(0, v I) and its score over `levels` from large to small; None: the continuous bound."""
    v, (low, high) = VARIANCE, ENDS
    if levels is None:
        diffusion = math.log(high / low) - math.log((v + high**2) / (v + low**2)) / 2
    else:
        diffusion = math.fsum(((a / b) ** 2 - 1) / 2 * v / (v + a**2) for a, b in pairwise(levels))
    prior = (v - 1) / (2 * (1 + high**2)) + math.log(1 + high**-2) / 2
    return d * (prior + diffusion + math.log(2 * math.pi * low**2) / 2 + v / (v + low**2) / 2)


def chain_variance(levels: list[float]) -> float:
    """Variance of each coordinate of what the chain of that score makes."""
    v, law = VARIANCE, 1 + levels[0] ** 2
    for a, b in pairwise(levels):
        kept, shrunk = (b / a) ** 2, v / (v + a**2)
        law = law * (kept + (1 - kept) * shrunk) ** 2 + b**2 * (1 - kept)
    shrunk = v / (v + levels[-1] ** 2)
    return law * shrunk**2 + levels[-1] ** 2
