"""Likelihoods without a probability flow, against counts by hand and normal laws: of integers, and of energies of one level."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from scorefield.baselines import Baseline, BaselineConfig, IndependentPixelsConfig, TrainingImagesConfig, VAEConfig
from scorefield.data.scaling import Scaling
from scorefield.errors import UserError
from scorefield.experiment import probability
from scorefield.experiment.logz import LogZOptions, best, held_out, log_partition
from scorefield.experiment.probability import energy_records, log_probabilities, probability_records
from scorefield.metrics.record import finite
from scorefield.models import EnergyModel, ModelSpec, Parameterisation
from scorefield.networks import MLP
from scorefield.randomness import keyed_generator

LEVELS, SHAPE = 5, (1, 2, 3)
SPEC = ModelSpec(SHAPE, scaling=Scaling((1.9,), (1.3,), LEVELS))


def integers(n: int, seed: int = 0) -> np.ndarray:
    """Images whose levels are not equally frequent."""
    return np.random.default_rng(seed).binomial(LEVELS - 1, 0.4, (n, *SHAPE)).astype(np.uint8)


def family(config: BaselineConfig, train: np.ndarray | None = None) -> Baseline:
    torch.manual_seed(0)
    model = Baseline(config, SPEC).requires_grad_(False)
    if train is not None:
        model.family.fit(torch.from_numpy(train))  # type: ignore[operator]
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def bits_by_hand(train: np.ndarray, row: np.ndarray, pseudocount: float) -> float:
    """Bits per dimension of one image by the frequencies of each pixel in the training images."""
    bits = 0.0
    for place in np.ndindex(SHAPE):
        seen = sum(int(other[place] == row[place]) for other in train)
        bits -= math.log2((seen + pseudocount) / (len(train) + LEVELS * pseudocount))
    return bits / math.prod(SHAPE)


# ── integers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_mean_is_that_of_a_count_by_hand_and_stands_beside_what_it_must_beat() -> None:
    train, rows, done = integers(40), integers(25, seed=1), []
    records = probability_records(family(IndependentPixelsConfig(), train), train, rows, 3, done.append)
    assert [r.metric for r in records] == [
        "bits per dimension, exact", "bits per dimension, independent pixels", "bits per dimension, uniform",
    ]  # fmt: skip
    for record, pseudocount in zip(records[:2], (0.5, 1.0), strict=True):
        bits = [bits_by_hand(train, row, pseudocount) for row in rows]
        assert record.value == pytest.approx(np.mean(bits), rel=1e-12)
        assert record.se == pytest.approx(np.std(bits, ddof=1) / 5, rel=1e-9)
    assert records[2].value == math.log2(5)
    assert {(r.n, r.unit) for r in records} == {(25, "bits/dim of 5 levels")}
    assert (records[0].seed, done) == (3, [25])


def test_infinite_bits_are_said_to_be_and_why() -> None:
    train = integers(40)
    held = np.concatenate([train[:3], np.full((1, *SHAPE), 4, np.uint8)])
    assert not (train == 4).all((1, 2, 3)).any()
    own = probability_records(family(TrainingImagesConfig(), train), train, held, 0, lambda n: None)[0]
    assert (own.value, own.se) == (math.inf, None)
    assert own.unit == "bits/dim of 5 levels; infinite: to some held-out rows it gives probability 0"
    assert json.loads(json.dumps(finite(asdict(own)), allow_nan=False))["value"] is None
    seen = probability_records(family(TrainingImagesConfig(), train), train, train[:3], 0, lambda n: None)[0]
    times = [sum((other == row).all() for other in train) for row in train[:3]]
    assert seen.value == pytest.approx(np.mean([-math.log2(k / 40) for k in times]) / 6, rel=1e-12)
    assert "infinite" not in seen.unit


def test_each_row_of_a_bound_is_a_function_of_the_seed_and_its_place() -> None:
    """Chunks of 64 with a stream each, watched as they are done."""
    model, rows, done = family(VAEConfig(latents=(2,), width=8)), integers(70), []
    whole = log_probabilities(model, rows, draws=5, seed=2, watch=done.append)
    assert whole.dtype == torch.float64
    assert done == [64, 6]
    assert torch.equal(log_probabilities(model, rows[:64], draws=5, seed=2), whole[:64])
    by_hand = model.log_density_bound(torch.from_numpy(rows[64:]), 5, generator=keyed_generator(2, "bound", 1))
    assert torch.equal(whole[64:], by_hand.double())
    assert not torch.equal(log_probabilities(model, rows, draws=5, seed=3), whole)


def test_the_bound_of_a_vae_is_called_one_and_more_draws_raise_it() -> None:
    """Each row's bound rises with the draws on average, 64 of them by more than chance."""
    model, rows = family(VAEConfig(latents=(2,), width=8)), integers(60)
    record = probability_records(model, integers(9), rows, 0, lambda n: None)[0]
    assert record.metric == "bits per dimension, bound of 64 importance samples"
    one, many = (log_probabilities(model, rows, draws=draws) for draws in (1, 64))
    assert record.value == pytest.approx(float(-many.mean()) / 6 / math.log(2), rel=1e-12)
    gain = many - one
    assert gain.mean() > 4 * gain.std() / 60**0.5


# ── energies of one level ──────────────────────────────────────────────────────────────────────────────────────────────


def normal(event_shape: tuple[int, ...], level: float, sigma_data: float = 1.0, scaling: Scaling = Scaling()) -> EnergyModel:
    """exp(−‖x‖²/2v) with v = σ_data² + level², whose network is 0: log Z is ½ d log 2πv."""
    spec = ModelSpec(event_shape, Parameterisation("edm", sigma_data), (level, level), scaling)
    return EnergyModel(MLP(math.prod(event_shape), 0, width=4, blocks=1), spec).requires_grad_(False)


def exact_log_z(d: int, variance: float) -> float:
    return d / 2 * math.log(2 * math.pi * variance)


@pytest.mark.parametrize("event_shape", [(3,), (1, 2, 4)], ids=str)
@pytest.mark.parametrize("level", [0.1, 0.7])
def test_log_z_of_the_law_that_the_walk_begins_at_is_exact(event_shape: tuple[int, ...], level: float) -> None:
    """Data of variance 1 with noise of the level: all weights are equal."""
    model, d = normal(event_shape, level).double(), math.prod(event_shape)
    seen: list[tuple[str, int, int]] = []
    found = log_partition(model, LogZOptions(particles=16, rungs=5), watch=lambda *news: seen.append(news))
    assert [p.method for p in found] == ["AIS", "SMC"]
    for p in found:
        assert p.log_z == pytest.approx(exact_log_z(d, 1 + level**2), abs=1e-6)
        assert p.se < 1e-6
        assert p.sigma == level
    assert [news for news in seen if news[1] == news[2]] == [("pilot", 5, 5), ("AIS", 5, 5), ("SMC", 5, 5)]


@pytest.mark.parametrize("sigma_data", [0.7, 1.2])
def test_log_z_of_another_normal_law_is_within_its_standard_error(sigma_data: float) -> None:
    """Narrower and wider than where the walk begins, whose own log Z is half a nat away or more."""
    exact, z = exact_log_z(4, sigma_data**2 + 0.3**2), []
    for seed in range(2):
        for p in log_partition(normal((4,), 0.3, sigma_data), LogZOptions(particles=128, rungs=20), seed=seed):
            assert 1e-3 < p.se < 0.1
            assert p.trustworthy
            z.append((p.log_z - exact) / p.se)
    assert max(map(abs, z)) < 4
    assert abs(exact - exact_log_z(4, 1 + 0.3**2)) > 0.5


def test_a_level_that_is_not_the_models_and_energies_without_a_z_are_refused() -> None:
    few = LogZOptions(particles=16, rungs=2)
    with pytest.raises(UserError, match=r"sigma must be 0\.4, got 0\.5: this model answers for no other level"):
        log_partition(normal((2,), 0.4), replace(few, sigma=0.5))
    spec = ModelSpec((2,), Parameterisation("noise"), (0.4, 0.4))
    with pytest.raises(UserError, match="Z may be infinite"):
        log_partition(EnergyModel(MLP(2, 0, width=4, blocks=1), spec), few)


def test_held_out_rows_of_one_level_have_no_flow_and_share_the_error_of_log_z() -> None:
    model, x = normal((3,), 0.4), np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    z, done = best(log_partition(model, LogZOptions(particles=32, rungs=3))), []
    assert z is not None
    rows = held_out(model, x, replace(z, se=0.7), watch=done.append)
    values = [-(row.astype(float) ** 2).sum() / 2 / 1.16 - exact_log_z(3, 1.16) for row in x]
    assert rows.energy.value == pytest.approx(np.mean(values), abs=1e-4)
    assert rows.energy.se == pytest.approx(math.hypot(np.std(values, ddof=1) / 40**0.5, 0.7), rel=1e-4)
    assert (rows.flow, rows.gap, rows.rows, sum(done)) == (None, None, 40, 40)


def test_columns_under_a_normal_energy_have_its_log_density_in_their_own_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probability, "RUNGS", 4)
    shift, scale = np.array([1.0, -2.0, 30.0]), np.array([0.5, 1.0, 8.0])
    raw = np.random.default_rng(1).normal(shift, scale, (50, 3))
    model = normal((3,), 0.4, scaling=Scaling(tuple(shift), tuple(scale)))
    (record,) = energy_records(model, raw, raw, 5, lambda n: None)
    variances = (1 + 0.4**2) * scale**2
    values = (-((raw - shift) ** 2) / 2 / variances - np.log(2 * math.pi * variances) / 2).sum(1)
    assert record.metric == "log-density, energy less log Z"
    assert record.value == pytest.approx(values.mean(), abs=1e-4)
    assert record.se == pytest.approx(values.std(ddof=1) / 50**0.5, rel=1e-3)
    assert (record.n, record.seed) == (50, 5)
    assert record.unit in {f"nats, at sigma 0.4; {method}, trustworthy" for method in ("AIS", "SMC")}


def test_integers_under_a_normal_energy_are_blurred_to_the_width_of_a_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """E (a + u)² = a² + 1/12 of uniform u, which has the variance a²/3 + 1/180."""
    monkeypatch.setattr(probability, "RUNGS", 4)
    rows, d, v = integers(200, seed=2), 6, 1 + 0.4**2
    model = normal(SHAPE, 0.4, scaling=SPEC.scaling)
    records = energy_records(model, integers(30), rows, 0, lambda n: None)
    assert [r.metric for r in records] == [
        "bits per dimension, energy less log Z", "bits per dimension, independent pixels", "bits per dimension, uniform",
    ]  # fmt: skip
    a, bits = rows.reshape(200, 6) - 1.9, 1 / (d * math.log(2))
    means = ((a**2 + 1 / 12) / 2 / (v * 1.3**2)).sum(1) + exact_log_z(d, v) + d * math.log(1.3)
    variances = ((a**2 / 3 + 1 / 180) / 4 / (v * 1.3**2) ** 2).sum(1)
    mean, spread = means.mean(), math.sqrt(variances.mean() / 200)
    assert abs(records[0].value - bits * mean) < 4 * bits * spread
    assert bits * spread < 0.01  # blurring itself adds more: 1/12 in place of 0
    assert (1 / 24 / (v * 1.3**2)) / math.log(2) > 4 * bits * spread
    assert records[0].se == pytest.approx(bits * math.sqrt((means.var() + variances.mean()) / 200), rel=4 / math.sqrt(2 * 200))
    assert records[0].unit.startswith("bits/dim of 5 levels, at sigma 0.4; ")


def test_a_walk_that_does_not_arrive_is_named_in_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """From variance 1 to 1/200 in 12 dimensions in two steps: weights of which few count."""
    monkeypatch.setattr(probability, "RUNGS", 2)
    raw = np.random.default_rng(1).normal(0, 0.05, (20, 12))
    (record,) = energy_records(normal((12,), 0.05, 0.05), raw, raw, 0, lambda n: None)
    assert "not trustworthy: " in record.unit
