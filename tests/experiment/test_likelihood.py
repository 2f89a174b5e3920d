"""Log-densities of rows in chunks, what they must beat, and conformal p-values."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.data import open_data
from scorefield.data.scaling import Scaling
from scorefield.errors import RunError
from scorefield.experiment.likelihood import CHUNK, Effort, check_finite, independent_pixels, log_densities
from scorefield.experiment.logprob import conformal_p_values, in_levels_of, logprob, smallest_p_value
from scorefield.experiment.train import validation_halves
from scorefield.likelihood import ELBO
from scorefield.models import ModelSpec, ScoreModel
from scorefield.networks import MLPConfig
from scorefield.plots import to_pixels
from scorefield.randomness import keyed_generator

EFFORT = Effort(steps=3, probes=2, draws=2)


def model() -> ScoreModel:
    torch.manual_seed(0)
    spec = ModelSpec((3,), sigma_range=(0.1, 10.0), scaling=Scaling((1.0, 0.0, 2.0), (2.0, 1.0, 0.5)))
    return ScoreModel(MLPConfig(width=8, blocks=1).build((3,)), spec).requires_grad_(False)


def test_an_interrupted_computation_goes_on(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(2 * CHUNK + 5, 3)).astype(np.float32)
    whole = log_densities(model(), rows, EFFORT)
    cache = tmp_path / "rows.jsonl"

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log_densities(model(), rows, EFFORT, cache=cache, watch=stop)
    assert len(cache.read_text().splitlines()) == 2
    again = log_densities(model(), rows, EFFORT, cache=cache)
    for name in ("log_density", "se", "bound", "bound_se", "terms"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
        assert len(getattr(whole, name)) == len(rows)
    other = log_densities(model(), rows, Effort(steps=4, probes=2, draws=0), cache=cache)  # other settings: begun anew
    assert not np.array_equal(other.log_density, whole.log_density)
    assert len(other.bound) == len(other.terms) == 0


def test_the_terms_of_the_bound() -> None:
    """They add up to it; L_T is KL(N(x, σ²) ‖ N(0, 1 + σ²)), and the diffusion part is that of the same draws."""
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    score = model()
    found = log_densities(score, rows, Effort(steps=3, probes=1, draws=4))
    assert found.terms.shape == (6, 4 + 2)
    np.testing.assert_allclose(found.terms.sum(1), -found.bound, rtol=1e-6)
    x, total = (rows - [1, 0, 2]) / [2, 1, 0.5], 1 + 10.0**2
    prior = ((x**2 + 100) / total - 1 - np.log(100 / total)).sum(1) / 2
    np.testing.assert_allclose(found.terms[:, -1], prior, rtol=1e-5)
    bound = ELBO(draws=4)(score, torch.from_numpy(x).float(), generator=keyed_generator(0, "rows, bound", 0))
    np.testing.assert_allclose(found.terms[:, 1:-1].sum(1), bound.diffusion, rtol=1e-5)


def test_chunks_are_kept_where_their_rows_are_the_same(tmp_path: Path) -> None:
    """More rows: the full chunks are not computed again, and everything is as if it had been computed at once."""
    rows = np.random.default_rng(0).normal(size=(2 * CHUNK + 5, 3)).astype(np.float32)
    cache = tmp_path / "rows.jsonl"
    log_densities(model(), rows[: CHUNK + 5], EFFORT, cache=cache)
    head, first, _ = cache.read_text().splitlines()
    marked = {**json.loads(first), "log_density": [7.0] * CHUNK}  # would be seen if it were computed again
    cache.write_text(f"{head}\n{json.dumps(marked)}\n")
    again, whole = (log_densities(model(), rows, EFFORT, cache=place) for place in (cache, None))
    assert again.log_density[:CHUNK].tolist() == [7.0] * CHUNK
    np.testing.assert_array_equal(again.log_density[CHUNK:], whole.log_density[CHUNK:])
    rows[0] += 1
    assert log_densities(model(), rows, EFFORT, cache=cache).log_density[0] != 7


def test_what_half_the_steps_change() -> None:
    """Computed for all rows or for the first chunk; it is the difference to a run with half the steps and the same probes."""
    rows = np.random.default_rng(0).normal(size=(CHUNK + 2, 3)).astype(np.float32)
    every, first, half = (log_densities(model(), rows, Effort(steps, 3, 0, refine)) for steps, refine in
                          ((9, True), (9, False), (5, False)))  # fmt: skip
    np.testing.assert_allclose(every.refinement, every.log_density - half.log_density, atol=1e-4)
    np.testing.assert_array_equal(first.refinement[:CHUNK], every.refinement[:CHUNK])
    assert np.isnan(first.refinement[CHUNK:]).all()
    assert np.abs(every.refinement).max() > 1e-3


def test_rows_too_far_out_have_no_density_and_spoil_no_other() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    far = np.concatenate([rows, np.full((1, 3), 1e30, np.float32)])
    found = log_densities(model(), far, EFFORT)
    assert np.isfinite(found.log_density[:3]).all()
    assert not np.isfinite(found.log_density[3])
    with pytest.raises(RunError, match=r"held-out row 3 \(counted from 0\) is not finite"):
        check_finite(found)
    assert check_finite(log_densities(model(), rows, EFFORT)).log_density.shape == (3,)
    assert conformal_p_values(np.array([np.inf]), np.arange(19.0)).tolist() == [1 / 20]


def test_the_table_of_a_logprob(tmp_path: Path) -> None:
    """The statistic is the distance to the median of one half of the validation rows; ranks are among the other half."""
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(600, 3)).astype(np.float32))
    own, effort = open_data(str(tmp_path / "rows.npy")), Effort(steps=3, probes=2, draws=2)
    raw = np.concatenate([own.splits["test"].x[:4], np.full((1, 3), 3e38, np.float32)])
    table = logprob(model(), own, raw, effort=effort)
    reference, calibration = (own.splits["validation"].x[rows] for rows in validation_halves(len(own.splits["validation"].x)))
    middle = np.median(log_densities(model(), reference, effort, purpose="reference").log_density)
    ordinary = np.abs(log_densities(model(), calibration, effort, purpose="calibration").log_density - middle)
    found = log_densities(model(), raw, effort)
    np.testing.assert_array_equal(table.bound, found.bound)
    np.testing.assert_allclose(table.typicality[:4], np.abs(found.log_density[:4] - middle))
    assert table.p_value[:4].tolist() == [(1 + (ordinary >= t).sum()) / (1 + len(ordinary)) for t in table.typicality[:4]]
    assert np.isnan(found.log_density[4])
    assert table.typicality[4] == np.inf
    assert table.p_value[4] == smallest_p_value(own) == 1 / (1 + len(calibration))


def test_samples_as_they_are_written_become_levels_again() -> None:
    raw = torch.arange(17).reshape(1, 1, 1, 17)
    spec = ModelSpec((1, 1, 17), scaling=Scaling((8.0,), (6.0,), levels=17))
    written = to_pixels(raw, 17)[:, None]
    back, levels = in_levels_of(spec, written, 256)
    assert levels == 17
    np.testing.assert_array_equal(back, raw)
    for other in (written - (written == 16), np.array([[[[1]]]], np.uint8), raw.numpy().astype(np.uint16)):
        same, levels = in_levels_of(spec, other, 256)
        assert same is other
        assert levels == 256


def test_validation_rows_are_halved_at_random() -> None:
    """So that calibration rows are like the data even where the source is sorted, say by class."""
    watched, calibration = validation_halves(1001)
    assert sorted([*watched, *calibration]) == list(range(1001))
    assert len(watched) == 500
    share = (calibration[:200] < 500).mean()
    assert abs(share - 0.5) < 4.5 * 0.5 / 200**0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 1}, "--steps must be from 2 to 10000, got 1"),
        ({"steps": 10**9}, "--steps must be from 2 to 10000, got 1000000000"),
        ({"probes": 0}, "--probes must be from 1 to 1000, got 0"),
        ({"draws": -1}, "--draws must be from 0 to 10000, got -1"),
        ({"draws": 1}, "--draws must be 0 or at least 2, got 1"),
    ],
    ids=str,
)
def test_efforts_out_of_range(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Effort(**settings)  # type: ignore[arg-type]


def test_raw_units() -> None:
    """The same example in units ten times as small has a density ten times as high in each coordinate."""
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    one, other = model(), model()
    other.spec = ModelSpec((3,), sigma_range=(0.1, 10.0), scaling=Scaling((0.1, 0.0, 0.2), (0.2, 0.1, 0.05)))
    a, b = log_densities(one, rows, EFFORT), log_densities(other, rows / 10, EFFORT)
    np.testing.assert_allclose(b.log_density - a.log_density, 3 * np.log(10), rtol=1e-4)
    np.testing.assert_allclose(b.bound - a.bound, 3 * np.log(10), rtol=1e-4)


def test_independent_pixels() -> None:
    train = np.array([[0, 2], [0, 1], [1, 1]], np.uint8)
    bits = independent_pixels(train, np.array([[0, 1], [2, 2]], np.uint8), levels=3)
    np.testing.assert_allclose(bits, [-(np.log2(3 / 6) + np.log2(3 / 6)) / 2, -(np.log2(1 / 6) + np.log2(2 / 6)) / 2])


def test_conformal_p_values_are_valid() -> None:
    """P(p ≤ α) ≤ α over calibration and example together, and the ranks come out right."""
    np.testing.assert_allclose(conformal_p_values(np.array([0.5, 3.0, 2.0]), np.array([1.0, 2.0, 2.5])), [1, 1 / 4, 3 / 4])
    g = np.random.default_rng(0)
    p = np.array([conformal_p_values(g.exponential(size=1), g.exponential(size=19))[0] for _ in range(20_000)])
    for alpha in (0.05, 0.1, 0.5):
        assert abs((p <= alpha + 1e-12).mean() - alpha) < 4.5 * np.sqrt(alpha * (1 - alpha) / len(p))
