"""Guidance where every score is known: a mixture of two Gaussians whose components are the classes."""

import math

import pytest
import torch
from torch import Tensor

from scorefield.densities import GaussianMixture, gaussian
from scorefield.guidance import AutoGuidance, ClassifierFreeGuidance
from scorefield.interfaces import Score, check_sigma
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, ScoreModel
from scorefield.networks import MLPConfig, UNetConfig
from scorefield.samplers import Heun, generate

SHAPES = [(2,), (1, 2, 2)]


class TwoClasses:
    """Σ wₖ N(μₖ, vₖ I), or N(μₖ, vₖ I) where the class is k; counts its evaluations."""

    sigma_range = (0.0, math.inf)

    def __init__(self, shape: tuple[int, ...], spread: float = 1.0) -> None:
        d = math.prod(shape)
        means = torch.stack([torch.full((d,), -1.0), torch.linspace(0.5, 2, d)]).reshape(2, *shape).double()
        self.weights, variances = torch.tensor([0.3, 0.7]), spread * torch.tensor([0.5, 0.2])
        self.parts = [gaussian(m, v.item()) for m, v in zip(means, variances, strict=True)]
        self.whole = GaussianMixture(self.weights, means, variances)
        self.means, self.calls, self.rows = means, 0, 0

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        s = check_sigma(sigma, x, self.sigma_range)
        answers = torch.stack([*(p.score(x, s) for p in self.parts), self.whole.score(x, s)])
        labels = torch.full((len(x),), -1) if cond is None else cond
        return answers[labels, torch.arange(len(x))]  # −1 is the last: all together


def batch(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(6, *shape, generator=g, dtype=torch.float64)
    return x, torch.linspace(0, 3, 6, dtype=torch.float64), torch.tensor([0, 1, 1, 0, -1, 1])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("weight", [-1.0, 0.0, 0.5, 1.0, 2.0, 7.5])
def test_classifier_free_guidance_is_the_class_against_all_classes(shape: tuple[int, ...], weight: float) -> None:
    """s(x | c) = s(x) + ∇ log p(c | x), so it is s(x) + w ∇ log p(c | x), with p(c | x) by Bayes' rule."""
    x, sigma, cond = batch(shape)
    model = TwoClasses(shape)

    def log_posterior(y: Tensor) -> Tensor:
        joint = torch.stack([w.log() + p.log_density(y, sigma) for w, p in zip(model.weights, model.parts, strict=True)])
        chosen = joint.log_softmax(0)[cond, torch.arange(6)]
        return torch.where(cond < 0, 0, chosen).sum()

    expected = model.whole.score(x, sigma) + weight * torch.func.grad(log_posterior)(x)
    torch.testing.assert_close(ClassifierFreeGuidance(model, weight).score(x, sigma, cond), expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_an_evaluation_costs(shape: tuple[int, ...]) -> None:
    x, sigma, cond = batch(shape)
    for weight, label, rows in ((1.0, cond, 6), (0.0, cond, 6), (2.0, cond, 12), (2.0, None, 6)):
        model = TwoClasses(shape)
        guided = ClassifierFreeGuidance(model, weight).score(x, sigma, label)
        assert (model.calls, model.rows) == (1, rows)
        if rows == 6:
            assert torch.equal(guided, model.score(x, sigma, cond if weight == 1 else None))
    model, weaker = TwoClasses(shape), TwoClasses(shape, spread=2.0)
    assert torch.equal(AutoGuidance(model, weaker, 1.0).score(x, sigma, cond), model.score(x, sigma, cond))
    assert weaker.calls == 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_autoguidance_leads_away_from_the_weaker_model(shape: tuple[int, ...], weight: float) -> None:
    """For Gaussians of equal mean: −(x − μ) (w/(v + σ²) + (1 − w)/(v' + σ²))."""
    x, sigma, cond = batch(shape)
    cond = cond.clamp(min=0)
    guided = AutoGuidance(TwoClasses(shape), TwoClasses(shape, spread=2.0), weight).score(x, sigma, cond)
    v, means = torch.tensor([0.5, 0.2]).double()[cond], TwoClasses(shape).means[cond]
    precision = weight / (v + sigma**2) + (1 - weight) / (2 * v + sigma**2)
    torch.testing.assert_close(guided, -(x - means) * precision.reshape(-1, *[1] * len(shape)))


def test_guidance_reaches_the_class_through_a_sampler() -> None:
    """w = 1 gives the class; w = 3 the class without the part that other classes could claim."""
    model, n = TwoClasses((2,), spread=6.0), 2000  # overlapping
    sampler = Heun(20, sigma_range=(0.02, 80.0))

    def claimed(weight: float) -> Tensor:
        score = ClassifierFreeGuidance(model, weight)
        x = torch.cat(list(generate(score, sampler, n, (2,), cond=0))).double()
        joint = torch.stack([w.log() + p.log_density(x) for w, p in zip(model.weights, model.parts, strict=True)])
        return joint.softmax(0)[0]

    exact = model.parts[0].sample(n, generator=torch.Generator().manual_seed(0))
    joint = torch.stack([w.log() + p.log_density(exact) for w, p in zip(model.weights, model.parts, strict=True)])
    expected = joint.softmax(0)[0]
    once, thrice = claimed(1.0), claimed(3.0)
    assert (once.mean() - expected.mean()).abs() < 4.5 * expected.std() * (2 / n) ** 0.5
    assert thrice.mean() > expected.mean() + 10 * expected.std() / n**0.5


def learnt(kind: str) -> tuple[Score, tuple[int, ...]]:
    torch.manual_seed(0)
    shape = (1, 4, 4) if kind == "unet" else (2,)
    spec = ModelSpec(shape, classes=("a", "b"))
    network = (
        UNetConfig(channels=8, multipliers=(1,), blocks=1).build(shape, 2)
        if kind == "unet"
        else MLPConfig(width=16, blocks=1).build(shape, 2)
    )
    with torch.no_grad():
        for p in network.parameters():
            p += 0.1 * torch.randn(p.shape)
    return (EnergyModel(InnerProduct(network), spec) if kind == "energy" else ScoreModel(network, spec)), shape


@pytest.mark.parametrize("kind", ["mlp", "energy", "unet"])
def test_learned_models_are_guided_too(kind: str) -> None:
    model, shape = learnt(kind)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    cond, sigma = torch.tensor([0, 1, 1]), torch.tensor([0.5, 1.0, 2.0])
    by_hand = 3 * model.score(x, sigma, cond) - 2 * model.score(x, sigma)
    torch.testing.assert_close(ClassifierFreeGuidance(model, 3.0).score(x, sigma, cond), by_hand, rtol=1e-4, atol=1e-5)
    assert (by_hand - model.score(x, sigma, cond)).norm() > 1e-2 * by_hand.norm()


def test_levels_are_those_that_all_models_have() -> None:
    narrow, wide, apart = (
        ScoreModel(MLPConfig(width=8, blocks=1).build((2,)), ModelSpec((2,), sigma_range=ends))
        for ends in ((0.1, 50.0), (0.01, 20.0), (60.0, 90.0))
    )
    assert ClassifierFreeGuidance(narrow, 2.0).sigma_range == (0.1, 50.0)
    assert AutoGuidance(narrow, wide, 2.0).sigma_range == (0.1, 20.0)
    with pytest.raises(ValueError, match=r"no noise level in common: \(0.1, 50.0\), \(60.0, 90.0\)"):
        AutoGuidance(narrow, apart, 2.0)


def test_weights_that_are_no_numbers_are_refused() -> None:
    model = TwoClasses((2,))
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="the guidance weight must be finite"):
            ClassifierFreeGuidance(model, value)
        with pytest.raises(ValueError, match="the guidance weight must be finite"):
            AutoGuidance(model, model, value)
