"""Families as models of scaled data: their draws are the integers they drew, their likelihoods their own."""

import math

import pytest
import torch
from torch import Tensor

from scorefield.baselines import (
    CLOSED_FORM,
    AutoregressiveConfig,
    Baseline,
    BaselineConfig,
    Drawing,
    EvidenceBound,
    IndependentPixelsConfig,
    SoftmaxPatchesConfig,
    TrainingImagesConfig,
    VAEConfig,
)
from scorefield.data.scaling import Scaling
from scorefield.experiment.sample import arrays
from scorefield.interfaces import Score
from scorefield.models import ModelSpec
from scorefield.randomness import keyed_generator
from scorefield.samplers import CHUNK, generate

SHAPE, LEVELS = (1, 4, 4), 17
SPEC = ModelSpec(SHAPE, scaling=Scaling((4.883,), (6.016,), LEVELS))
CONFIGS: tuple[BaselineConfig, ...] = (
    IndependentPixelsConfig(),
    SoftmaxPatchesConfig(),
    TrainingImagesConfig(),
    AutoregressiveConfig(width=8, heads=2, blocks=1),
    VAEConfig(latents=(3,), width=16),
    VAEConfig(latents=(4, 2), width=16),
)
EXACT, BOUNDED = CONFIGS[:4], CONFIGS[4:]
by_kind = pytest.mark.parametrize("config", CONFIGS, ids=["pixels", "patches", "copies", "autoregressive", "vae", "vae2"])


def integers(n: int, seed: int = 0) -> Tensor:
    return torch.randint(LEVELS, (n, *SHAPE), generator=torch.Generator().manual_seed(seed))


def model(config: BaselineConfig, spec: ModelSpec = SPEC) -> Baseline:
    """Fitted, or with weights that make it far from uniform."""
    torch.manual_seed(0)
    found = Baseline(config, spec)
    if isinstance(config, CLOSED_FORM):
        found.family.fit(integers(50))  # type: ignore[operator]
    for p in found.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return found.eval().requires_grad_(False)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@by_kind
def test_draws_decode_to_exactly_the_integers_that_were_drawn(config: BaselineConfig) -> None:
    found = model(config)
    drawn, own = found.draw(40, generator=stream(3)), found.family.sample(40, generator=stream(3))  # type: ignore[operator]
    assert drawn.dtype == torch.float32
    assert own.unique().numel() > 8  # from end to end of the levels
    assert torch.equal(SPEC.scaling.decode(drawn), own.float())
    torch.testing.assert_close(drawn, ((own - 4.883) / 6.016).float(), rtol=1e-6, atol=1e-6)
    assert not torch.equal(drawn, found.draw(40, generator=stream(4)))


@pytest.mark.parametrize("levels", [2, 256, 1000])
def test_no_number_of_levels_is_lost_to_rounding(levels: int) -> None:
    scaling = Scaling((levels / 3,), (levels / 7,), levels)
    found = Baseline(TrainingImagesConfig(), ModelSpec((levels,), scaling=scaling))
    found.family.fit(torch.arange(levels)[None])  # type: ignore[operator]
    assert scaling.decode(found.draw(1)).tolist() == [list(range(levels))]


@pytest.mark.parametrize("config", EXACT, ids=lambda config: config.kind)
def test_the_bound_of_an_exact_family_is_its_log_density(config: BaselineConfig) -> None:
    found, x = model(config), integers(20)
    assert found.exact
    expected = found.family.log_density(x)  # type: ignore[operator]
    for draws in (1, 7):
        assert torch.equal(found.log_density_bound(x, draws, generator=stream()), expected)


@pytest.mark.parametrize("config", BOUNDED, ids=lambda config: str(config.latents))
def test_the_bound_of_a_vae_is_importance_weighted(config: VAEConfig) -> None:
    """log of the mean weight of draws that follow each other, by the one term each of them has."""
    found, x = model(config), integers(6)
    assert not found.exact
    generator = stream(5)
    logs = torch.stack([-found.family.terms(x, generator=generator).total() for _ in range(4)])  # type: ignore[operator]
    expected = [math.log(sum(math.exp(v - max(column)) for v in column) / 4) + max(column) for column in logs.T.tolist()]
    assert found.log_density_bound(x, 4, generator=stream(5)).tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(found.log_density_bound(x, generator=stream(5)), logs[0])


@pytest.mark.parametrize("config", [CONFIGS[3], CONFIGS[4]], ids=lambda config: config.kind)
def test_they_are_learnt_by_their_likelihood(config: BaselineConfig) -> None:
    found, x = model(config).requires_grad_(True), integers(5)
    loss = EvidenceBound(draws=3)(found, x, generator=stream(1))
    assert torch.equal(loss.value, -found.log_density_bound(x, 3, generator=stream(1)))
    assert loss.sigma is None
    loss.value.sum().backward()
    assert [name for name, p in found.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@by_kind
def test_drawing_stands_where_a_sampler_does(config: BaselineConfig) -> None:
    """Chunks with a stream each: the first of 70 are the 3 one gets alone, and one state is all there is."""
    found, seen = model(config), []
    whole = torch.cat([*generate(found, Drawing(), 70, SHAPE, seed=2, watch=lambda k, state: seen.append(float(state.sigma)))])  # type: ignore[arg-type]
    (alone,) = generate(found, Drawing(), 3, SHAPE, seed=2)  # type: ignore[arg-type]
    assert seen == [0.0, 0.0]  # a state for each of two chunks
    assert torch.equal(whole[:3], alone)
    for chunk, part in enumerate(whole.split(CHUNK)):
        own = found.family.sample(CHUNK, generator=keyed_generator(2, "samples", chunk))  # type: ignore[operator]
        assert torch.equal(SPEC.scaling.decode(part), own[: len(part)].float())
    pixels = arrays(whole, SPEC)
    assert pixels.shape == (70, 4, 4)
    assert set(pixels.ravel().tolist()) <= {round(255 * level / 16) for level in range(17)}
    assert (Drawing().states, Drawing().nfe) == (1, 1)


@by_kind
def test_they_are_for_integers_without_classes_and_have_no_score(config: BaselineConfig) -> None:
    with pytest.raises(ValueError, match=f"{config.kind} is a model of integers, and this data is continuous"):
        Baseline(config, ModelSpec(SHAPE))
    with pytest.raises(ValueError, match=f"{config.kind} knows no classes: leave --conditional out"):
        Baseline(config, ModelSpec(SHAPE, scaling=SPEC.scaling, classes=("a", "b")))
    found = model(config)
    assert (found.sigma_range, found.event_shape) == ((0.0, 0.0), SHAPE)
    assert not isinstance(found, Score)
    with pytest.raises(ValueError, match="expected integer levels"):
        found.log_density_bound(torch.zeros(2, *SHAPE))
    with pytest.raises(ValueError, match="row 1 has a level outside 0 … 16"):
        found.log_density_bound(torch.stack([torch.zeros(SHAPE), torch.full(SHAPE, 17.0)]).long())


def test_events_that_a_family_is_not_for_are_refused() -> None:
    with pytest.raises(ValueError, match=r"need images of even sides, got events of shape \(1, 3, 4\)"):
        Baseline(SoftmaxPatchesConfig(), ModelSpec((1, 3, 4), scaling=SPEC.scaling))
