"""Chunks of samples as functions of (seed, index), and the grids of levels."""

import pytest
import torch
from torch import Tensor

from scorefield.densities import gaussian
from scorefield.interfaces import State
from scorefield.models import ModelSpec, ScoreModel
from scorefield.networks import MLPConfig
from scorefield.samplers import CHUNK, AnnealedLangevin, Euler, Geometric, Heun, Karras, Langevin, generate

NORMAL = gaussian(torch.zeros(2), 1.0)
SAMPLERS = [Langevin(4, 0.1), AnnealedLangevin(4, 1, sigma_range=(0.1, 9.0)), Heun(4, sigma_range=(0.1, 9.0))]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_more_samples_begin_with_the_same_ones(sampler: Langevin | AnnealedLangevin | Heun) -> None:
    few = torch.cat(list(generate(NORMAL, sampler, 10, (2,), seed=3)))
    many = list(generate(NORMAL, sampler, 2 * CHUNK + 1, (2,), seed=3))
    assert [len(chunk) for chunk in many] == [CHUNK, CHUNK, 1]
    assert torch.equal(torch.cat(many)[:10], few)
    assert not torch.equal(many[0], many[1])
    assert not torch.equal(torch.cat(list(generate(NORMAL, sampler, 10, (2,), seed=4))), few)


def test_every_state_of_every_chunk_is_watched() -> None:
    seen: list[tuple[int, float]] = []

    def watch(chunk: int, state: State) -> None:
        seen.append((chunk, float(state.sigma)))

    sampler = Heun(3, sigma_range=(0.5, 8.0))
    samples = list(generate(NORMAL, sampler, CHUNK + 1, (2,), watch=watch))
    assert len(samples) == 2
    assert [chunk for chunk, _ in seen] == [0] * sampler.states + [1] * sampler.states
    assert seen[0][1] == pytest.approx(8.0)
    assert seen[-1][1] == 0


class Means:
    """Class k is N(10 k, 1): the score tells which class a row was given."""

    sigma_range = (0.0, float("inf"))

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        mean = 0 if cond is None else 10 * cond[:, None]
        return (mean - x) / (1 + sigma**2)


def test_every_sample_has_its_class() -> None:
    n, sampler = CHUNK + 10, Heun(20, sigma_range=(0.01, 80.0))
    labels = torch.arange(n) % 7
    x = torch.cat(list(generate(Means(), sampler, n, (2,), cond=labels)))
    assert torch.equal((x.mean(1) / 10).round().long(), labels)
    few = torch.cat(list(generate(Means(), sampler, 10, (2,), cond=labels[:10])))
    assert torch.equal(few, x[:10])
    for one in (3, torch.tensor(3)):
        x = torch.cat(list(generate(Means(), sampler, 10, (2,), cond=one)))
        assert ((x.mean(1) / 10).round() == 3).all()
    with pytest.raises(ValueError, match="10 samples need as many conditions, or one, got 7"):
        list(generate(Means(), sampler, 10, (2,), cond=labels[:7]))


def test_at_least_one_sample() -> None:
    with pytest.raises(ValueError, match="number of samples must be at least 1, got 0"):
        list(generate(NORMAL, SAMPLERS[0], 0, (2,)))


def test_grids() -> None:
    ladder = Geometric()(4, (1.0, 27.0))
    assert ladder == pytest.approx([27, 9, 3, 1])
    levels = Karras()(18, (0.002, 80.0))
    assert len(levels) == 18
    assert (levels[0], levels[-1]) == (pytest.approx(80.0, rel=1e-12), pytest.approx(0.002, rel=1e-12))
    roots = torch.tensor([s ** (1 / 7) for s in levels], dtype=torch.float64).diff()
    torch.testing.assert_close(roots, roots[:1].expand_as(roots))
    assert Karras(1.0)(3, (1.0, 5.0)) == pytest.approx([5, 3, 1])


@pytest.mark.parametrize("shift", [0.0, 1e-9], ids=["exact", "rounded"])
def test_levels_reach_the_ends_of_a_models_range_exactly(shift: float) -> None:
    """The grids' rounding must not step outside what the model answers for."""
    for low, high in ((0.002, 80.0), (0.01 + shift, 50.0), (0.0123, 77.7)):
        model = ScoreModel(MLPConfig(width=8, blocks=1).build((2,)), ModelSpec((2,), sigma_range=(low, high)))
        for sampler in (Euler(5), Heun(5), AnnealedLangevin(5, 1), Langevin(2)):
            states = list(sampler(model, torch.zeros(3, 2)))
            assert len(states) == sampler.states


@pytest.mark.parametrize("kind", [Euler, Heun, AnnealedLangevin])
def test_levels_the_model_was_not_trained_on_are_refused(kind: type) -> None:
    model = ScoreModel(MLPConfig(width=8, blocks=1).build((2,)), ModelSpec((2,), sigma_range=(0.01, 50.0)))
    for pair in ((0.001, 50.0), (0.01, 51.0), (5.0, 1.0)):
        with pytest.raises(ValueError, match=r"must lie in the model's sigma_range \[0.01, 50\]"):
            next(iter(kind(sigma_range=pair)(model, torch.zeros(3, 2))))


@pytest.mark.parametrize("kind", [Euler, Heun, AnnealedLangevin])
@pytest.mark.parametrize("ends", [None, (0.0, 5.0), (0.1, float("inf"))], ids=str)
def test_levels_without_an_end_must_be_given_one(kind: type, ends: tuple[float, float] | None) -> None:
    """An analytic density answers for every level; walking from ∞ or to 0 would give NaN."""
    sampler = kind(sigma_range=ends)
    with pytest.raises(ValueError, match=r"cannot be walked: give the sampler a sigma_range like \(0.002, 80\)"):
        list(generate(NORMAL, sampler, 1, (2,)))


def test_a_chain_that_would_not_move_is_refused() -> None:
    with pytest.raises(ValueError, match=r"smallest level is 0, .* give sigma or step_size"):
        list(generate(NORMAL, Langevin(2), 1, (2,)))
    (x,) = generate(NORMAL, Langevin(2, step_size=0.1), 1, (2,))  # at the level 0 itself, of which the density has a score
    assert x.isfinite().all()


def test_where_samplers_start() -> None:
    g = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    z = torch.randn(2000, 2, generator=g())
    assert torch.equal(Langevin(sigma=0.1).start(NORMAL, (2000, 2), g()), z)
    for kind in (Euler, Heun, AnnealedLangevin):
        assert torch.equal(kind(sigma_range=(0.1, 8.0)).start(NORMAL, (2000, 2), g()), 8 * z)


def test_settings_out_of_range_are_refused() -> None:
    for make in (lambda: Euler(1), lambda: Heun(1), lambda: AnnealedLangevin(1), lambda: Langevin(0)):
        with pytest.raises(ValueError, match="steps must be at least"):
            make()
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        AnnealedLangevin(5, 0)
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="step_size must be positive"):
            Langevin(step_size=value)
        with pytest.raises(ValueError, match="sigma must be positive"):
            Langevin(sigma=value)
        with pytest.raises(ValueError, match="step_ratio must be positive"):
            AnnealedLangevin(step_ratio=value)
        with pytest.raises(ValueError, match="rho must be positive"):
            Karras(value)
    for value in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature must be at least 0"):
            Langevin(temperature=value)


def test_defaults_follow_the_level() -> None:
    """One Langevin step from 0 of N(0, 1 − σ²) smoothed by σ is √(2h) z with h = σ²/10."""
    p = gaussian(torch.zeros(2), 0.75)
    x: Tensor = torch.zeros(3, 2, dtype=torch.float64)
    *_, state = Langevin(1, 0.5)(p, x, generator=torch.Generator().manual_seed(0))
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(state.x, (2 * 0.025) ** 0.5 * z)
    assert float(state.sigma) == 0.5
