"""A VAE's levels by quadrature, a diffusion's against Gaussians where every expectation is known."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from scorefield.baselines import Baseline, HierarchicalVAE, IndependentPixelsConfig, VAEConfig
from scorefield.data.scaling import Scaling
from scorefield.experiment.levels import DRAWS, Levels, diffusion_levels, vae_levels
from scorefield.likelihood import ELBO, dequantise
from scorefield.models import ModelSpec
from scorefield.randomness import keyed_generator

VARIANCE = 0.49
ENDS = (0.05, 20.0)
VECTORS = Scaling((1.0, -3.0), (2.0, 0.5))
PIXELS = Scaling((8.0,), (4.0,), levels=17)
RAW = np.random.default_rng(0).normal(VECTORS.shift, 0.7 * np.array(VECTORS.scale), (2000, 2))


class Exact:
    """N(0, v I) in scaled units, with its own score."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec, self.sigma_range = spec, spec.sigma_range

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        total = VARIANCE + torch.as_tensor(sigma) ** 2
        return -x / total.reshape(-1, *[1] * (x.ndim - 1))


def exact(scaling: Scaling, *shape: int) -> Exact:
    return Exact(ModelSpec(shape, sigma_range=ENDS, scaling=scaling))


def found(steps: int, raw: np.ndarray = RAW, scaling: Scaling = VECTORS, seed: int = 0) -> Levels:
    return diffusion_levels(exact(scaling, *raw.shape[1:]), raw, steps, seed=seed)  # type: ignore[arg-type]


def ladder(steps: int) -> list[float]:
    return np.geomspace(*ENDS, steps + 1).tolist()


def noise_missed(sigma: float, x: np.ndarray) -> tuple[float, float]:
    """Mean over rows of E‖z − ẑ‖², z − ẑ = a z − b x, and the standard deviation of that mean over z."""
    total, squares = VARIANCE + sigma**2, (x**2).sum(1)
    a, b, d = VARIANCE / total, sigma / total, x.shape[1]
    spread = 2 * d * a**4 + 4 * a**2 * b**2 * squares
    return float((d * a**2 + b**2 * squares).mean()), float(spread.sum() ** 0.5 / len(x))


# ── a diffusion ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("steps", [2, 7, 100])
def test_every_level_of_a_diffusion_is_that_of_a_gaussian(steps: int) -> None:
    """L_t = ½ (σ_t²/σ_{t−1}² − 1) E‖z − ẑ‖² of the very rows, so that only z is random."""
    levels, x = found(steps), (RAW - VECTORS.shift) / VECTORS.scale
    edges = ladder(steps)
    assert levels.sigma == pytest.approx(edges[1:])
    for told, (low, high) in zip(levels.per_level, pairwise(edges), strict=True):
        weight = (high**2 / low**2 - 1) / 2
        mean, sd = noise_missed(high, x)
        assert abs(told - weight * mean) < 4.5 * weight * sd
    mean, sd = noise_missed(ENDS[0], x)
    last = math.log(2 * math.pi * ENDS[0] ** 2) + mean / 2 + np.log(VECTORS.scale).sum()
    assert abs(levels.parts[0].value - last) < 4.5 * sd / 2 / steps**0.5  # L_0 is drawn anew with each level


def test_the_priors_part_is_a_divergence() -> None:
    x = torch.from_numpy((RAW - VECTORS.shift) / VECTORS.scale)
    normal = torch.distributions.Normal
    q, p = normal(x, ENDS[1]), normal(torch.zeros_like(x), math.sqrt(1 + ENDS[1] ** 2))
    each = torch.distributions.kl_divergence(q, p).sum(1)
    levels = found(3)
    assert levels.names[-1] == "L_T: the prior"
    assert levels.parts[-1].value == pytest.approx(float(each.mean()), rel=1e-3)  # a difference of logarithms in float32
    assert levels.parts[-1].se == pytest.approx(float(each.std()) / len(RAW) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("steps", [2, 30])
def test_the_parts_sum_to_minus_the_bound_of_vectors(steps: int) -> None:
    model, levels = exact(VECTORS, 2), found(steps, seed=5)
    x = torch.from_numpy((RAW - VECTORS.shift) / VECTORS.scale).float()
    generator = keyed_generator(5, "levels", steps)
    bound = ELBO(steps, draws=steps)(model, x, generator=generator).log_density_bound.double()  # type: ignore[arg-type]
    each = -(bound - np.log(VECTORS.scale).sum())
    assert levels.unit == "nats"
    assert levels.total.value == pytest.approx(float(each.mean()), rel=1e-5)
    assert levels.total.se == pytest.approx(float(each.std()) / len(RAW) ** 0.5, rel=1e-4)
    assert sum(part.value for part in levels.parts) == pytest.approx(levels.total.value)


def test_the_parts_sum_to_minus_the_bound_of_integers_in_bits() -> None:
    """Every row with uniform noise of its own, of a width of one level."""
    raw = np.random.default_rng(1).integers(0, 17, (50, 1, 2, 3), dtype=np.uint8)
    levels = found(12, raw, PIXELS, seed=3)
    x = (dequantise(torch.from_numpy(raw), keyed_generator(3, "levels, dequantise", 0)) - 8) / 4
    generator = keyed_generator(3, "levels", 12)
    bound = ELBO(12, draws=12)(exact(PIXELS, 1, 2, 3), x, generator=generator).log_density_bound  # type: ignore[arg-type]
    each = -(bound.double() - 6 * math.log(4)) / (6 * math.log(2))
    assert levels.unit == "bits/dim"
    assert levels.total.value == pytest.approx(float(each.mean()), rel=1e-5)
    assert levels.total.se == pytest.approx(float(each.std()) / 50**0.5, rel=1e-4)
    assert sum(part.value for part in levels.parts) == pytest.approx(levels.total.value)


def test_the_bound_falls_with_the_levels_towards_the_cross_entropy() -> None:
    """Of the very rows both are closed forms; with a thousand levels the bound is 0.026 nats above −log p."""
    raw = RAW[:400]
    x, totals, expected = (raw - VECTORS.shift) / VECTORS.scale, [], []
    log_scale, squares, (low, high) = np.log(VECTORS.scale).sum(), (((raw - VECTORS.shift) / VECTORS.scale) ** 2).sum(1), ENDS
    prior = (squares.mean() - 2) / (2 * (1 + high**2)) + math.log(1 + high**-2)
    last, last_sd = noise_missed(low, x)
    ends = prior + math.log(2 * math.pi * low**2) + last / 2 + log_scale
    for steps in (2, 10, 100, 1000):
        totals.append(found(steps, raw).total.value)
        between = [((b / a) ** 2 / 2 - 0.5, *noise_missed(b, x)) for a, b in pairwise(ladder(steps))]
        expected.append(ends + sum(weight * mean for weight, mean, _ in between))
        sd = math.hypot(last_sd / 2 / steps**0.5, *(weight * sd for weight, _, sd in between))
        assert abs(totals[-1] - expected[-1]) < 4.5 * sd
    entropy = math.log(2 * math.pi * VARIANCE) + squares.mean() / (2 * VARIANCE) + log_scale
    assert totals[0] > totals[1] > totals[2] > totals[3]
    assert 0 < expected[3] - entropy < 0.03
    assert abs(totals[3] - entropy) < 0.03 + 4.5 * sd


@pytest.mark.parametrize("steps", [2, 10, 100])
def test_levels_are_summed_into_ten_rows_named_by_their_ends(steps: int) -> None:
    levels = found(steps, RAW[:20])
    rows = min(10, steps)
    size, edges = steps // rows, ladder(steps)[:: steps // rows]
    assert levels.chain == f"diffusion, T = {steps}"
    assert levels.names == (
        "L_0: x given x_1", *(f"σ from {low:.3g} to {high:.3g}" for low, high in pairwise(edges)), "L_T: the prior",
    )  # fmt: skip
    assert len(levels.parts) == rows + 2
    for row, part in enumerate(levels.parts[1:-1]):
        assert part.value == pytest.approx(sum(levels.per_level[row * size : (row + 1) * size]))


def test_a_chain_needs_steps() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        found(0)


# ── a VAE ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def vae(*latents: int) -> tuple[Baseline, HierarchicalVAE]:
    """With random weights, encoders included, so that no part is 0."""
    torch.manual_seed(0)
    spec = ModelSpec((1, 2, 2), sigma_range=(0.0, 0.0), scaling=Scaling((1.5,), (1.0,), levels=4))
    model = Baseline(VAEConfig(latents, width=8), spec).requires_grad_(False)
    assert isinstance(model.family, HierarchicalVAE)
    for encoder in model.family.encoders:
        encoder[-1].weight.normal_(0, 0.3)  # type: ignore[index, operator, union-attr]
        encoder[-1].bias.normal_(0, 0.5)  # type: ignore[index, operator, union-attr]
    return model, model.family


def test_the_levels_of_a_vae_are_its_terms_in_bits() -> None:
    model, family = vae(3, 2)
    raw = np.random.default_rng(0).integers(0, 4, (30, 1, 2, 2), dtype=np.uint8)
    levels = vae_levels(model, raw, seed=7)
    drawn = [family.terms(torch.from_numpy(raw), generator=keyed_generator(7, "levels", i)) for i in range(DRAWS)]
    by_hand = torch.stack([torch.stack([d.reconstruction, *d.levels]) for d in drawn]).double().mean(0) / (4 * math.log(2))
    assert levels.chain == "VAE of 2 levels"
    assert levels.names == ("L_0: x given z_1", "L_1: z_1", "L_2: z_2")
    assert (levels.unit, levels.sigma, levels.per_level) == ("bits/dim", (), ())
    for part, rows in zip([*levels.parts, levels.total], [*by_hand, by_hand.sum(0)], strict=True):
        assert part.value == pytest.approx(float(rows.mean()), rel=1e-6)
        assert part.se == pytest.approx(float(rows.std()) / 30**0.5, rel=1e-5)
    assert sum(part.value for part in levels.parts) == pytest.approx(levels.total.value)


def test_the_levels_of_a_vae_by_quadrature() -> None:
    """One latent, one image many times, so that the standard errors are those of the draws alone; L_1 is a divergence."""
    model, family = vae(1)
    image = torch.tensor([[[[0, 3], [2, 1]]]])
    levels = vae_levels(model, image.expand(3000, 1, 2, 2).numpy())
    mean, log_std = family.encoders[0](family.likelihood.seen(image, torch.float32)).double()[0].tolist()
    z = mean + math.exp(log_std) * torch.linspace(-8, 8, 2001, dtype=torch.float64)
    weights = torch.distributions.Normal(mean, math.exp(log_std)).log_prob(z).exp()
    log_p = family.likelihood.log_density(family.decoders[0](z.float()[:, None]), image.expand(2001, 1, 2, 2)).double()
    reconstruction = -float(torch.trapezoid(weights * log_p, z))
    divergence = (math.exp(2 * log_std) + mean**2 - 1) / 2 - log_std
    unit = 4 * math.log(2)
    assert divergence / unit > 0.01
    for part, nats in zip(
        [*levels.parts, levels.total], [reconstruction, divergence, reconstruction + divergence], strict=True
    ):
        assert part.se is not None
        assert abs(part.value - nats / unit) < 4.5 * part.se < 0.01
    joint = log_p + torch.distributions.Normal(0.0, 1.0).log_prob(z)
    surprise = -float(torch.logsumexp(joint + math.log(float(z[1] - z[0])), 0))  # −log p(x), which the bound exceeds
    assert levels.total.value > surprise / unit


def test_other_families_have_no_levels() -> None:
    spec = ModelSpec((1, 2, 2), sigma_range=(0.0, 0.0), scaling=Scaling((1.5,), (1.0,), levels=4))
    with pytest.raises(ValueError, match="only latent-variable models have levels"):
        vae_levels(Baseline(IndependentPixelsConfig(), spec), np.zeros((2, 1, 2, 2), np.uint8))
