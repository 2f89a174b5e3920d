"""From rows to vectors and back: the Jacobian against differences, densities against closed forms."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.preprocessing import PowerTransformer

from scorefield.data.columns import Column, infer
from scorefield.data.transforms import Encoding, Warp, fitted_encoding, fitted_warp, inverse_yeo_johnson, row_noise, yeo_johnson
from scorefield.errors import UserError

RNG = np.random.default_rng(0)
WARPS = [
    Warp(),
    Warp(shift=1.0, scale=2.0, power=0.3, centre=-0.2, spread=1.5),
    Warp(power=2.5, shift=-1.0),
    Warp(power=0.0),
    Warp(power=2.0),
    Warp(ends=(0.0, math.inf), power=-0.5, scale=0.7),
    Warp(ends=(-1.0, 3.0), power=1.4, shift=0.2, spread=0.5),
]


def inside(warp: Warp) -> np.ndarray:
    low, _ = warp.ends
    return np.linspace(-0.9, 2.9, 39) if low == -1 else np.geomspace(0.01, 50, 39) if low == 0 else np.linspace(-4, 4, 40)


@pytest.mark.parametrize("warp", WARPS, ids=str)
def test_the_slope_and_its_slope_are_those_of_differences(warp: Warp) -> None:
    x, eps = inside(warp), 1e-5
    z, slope = warp.forward(x)
    above, slope_above = warp.forward(x + eps)
    below, slope_below = warp.forward(x - eps)
    np.testing.assert_allclose(np.exp(slope), (above - below) / (2 * eps), rtol=1e-5)
    np.testing.assert_allclose(warp.slope_of_slope(x), (slope_above - slope_below) / (2 * eps), rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(warp.inverse(z), x, rtol=1e-9, atol=1e-11)


STRAIGHT = [
    Warp(shift=1.0, scale=0.7, power=0.3, centre=-0.2, spread=1.5, seen=(-3.0, 4.0)),
    Warp(power=1.5, shift=-1.0, seen=(-4.0, 2.0)),
    Warp(ends=(0.0, math.inf), power=1.5, scale=0.4, seen=(-math.inf, 9.0)),
    Warp(ends=(-1.0, 3.0), power=1.4, shift=0.2, spread=0.5),
]
"""finite where the column's end is not"""


@pytest.mark.parametrize(("warp", "side"), [(w, i) for w in STRAIGHT for i in (0, 1) if math.isfinite(w.seen[i])], ids=str)
def test_beyond_what_was_seen_it_is_a_straight_line(warp: Warp, side: int) -> None:
    end, way = warp.seen[side], 2 * side - 1
    x = end + way * np.geomspace(0.01, 1e9, 23)
    z, slope = warp.forward(x)
    at, slope_at = warp.forward(np.array([end]))
    assert (slope == slope_at).all()
    assert (warp.slope_of_slope(x) == 0).all()
    np.testing.assert_allclose(warp.inverse(z), x, rtol=1e-12)
    step = 0.5 * (x - end)
    np.testing.assert_allclose((warp.forward(x + step)[0] - z) / step, np.exp(slope), rtol=1e-9)
    # the curve ends where the line begins, with the same slope
    eps = 1e-6
    near, slope_near = warp.forward(end + eps * np.array([-1.0, 1.0]))
    np.testing.assert_allclose(near, at + eps * np.array([-1.0, 1.0]) * np.exp(slope_at), atol=1e-10)
    np.testing.assert_allclose(slope_near, slope_at[0], atol=1e-5)
    back = warp.inverse(at + eps * np.array([-1.0, 0.0, 1.0]))
    np.testing.assert_allclose(back, end + eps * np.exp(-slope_at) * [-1, 0, 1], rtol=1e-9)


@pytest.mark.parametrize(
    ("warp", "half"),
    [
        (Warp(power=-2.0, scale=0.1, seen=(-2.0, 8.0)), 5.0),  # the end's own slope would make 17,000 of a unit
        (Warp(ends=(0.0, math.inf), power=-2.0, shift=-6.0, seen=(-math.inf, 3.0)), 1.5),
    ],
)
def test_a_unit_beyond_what_was_seen_is_at_most_half_of_it(warp: Warp, half: float) -> None:
    at, slope_at = warp.forward(np.array([warp.seen[1]]))
    assert np.exp(-slope_at) > 20 * half
    steps = np.array([0.5, 1.0, 3.0])
    beyond = warp.inverse(at + steps)
    np.testing.assert_allclose(beyond, warp.seen[1] + half * steps, rtol=1e-12)
    z, slope = warp.forward(beyond)
    np.testing.assert_allclose(z, at + steps, rtol=1e-9)
    np.testing.assert_allclose(np.exp(-slope), half, rtol=1e-12)


def test_samples_of_whole_numbers_and_dates_stay_within_what_was_seen() -> None:
    days = pd.to_datetime("2024-01-01") + pd.to_timedelta(np.arange(300) % 50, unit="D")
    frame = pd.DataFrame({"count": np.arange(300) % 7, "day": days, "x": RNG.normal(size=300)})
    encoding = fitted_encoding(frame, infer(frame))
    drawn = encoding.decode(np.stack([np.linspace(-9, 9, 901)] * 3, 1))
    assert (drawn["count"].min(), drawn["count"].max()) == (0, 6)
    assert (drawn["day"].min(), drawn["day"].max()) == (days.min(), days.max())
    assert drawn["x"].max() > frame["x"].max() + 1
    for name in ("count", "day"):
        assert set(drawn[name]) == set(frame[name])


def test_samples_do_not_go_beyond_an_atom_at_an_end() -> None:
    spent = np.where(RNG.random(400) < 0.5, 0.0, RNG.exponential(size=400))
    encoding = fitted_encoding(frame := pd.DataFrame({"spent": spent}), infer(frame))
    assert encoding.columns[0].atoms == (0.0,)
    drawn = encoding.decode(np.linspace(-5, 5, 101)[:, None])["spent"]
    assert drawn.min() == 0
    assert drawn.max() > spent.max()


@pytest.mark.parametrize("warp", STRAIGHT, ids=str)
def test_every_z_comes_back_and_in_order(warp: Warp) -> None:
    z = np.linspace(-4, 40, 111) if warp.ends[0] == 0 else np.linspace(-8, 8, 111)
    x = warp.inverse(z)
    assert (np.diff(x) > 0).all()
    assert ((x > warp.ends[0]) & (x < warp.ends[1])).all()
    np.testing.assert_allclose(warp.forward(x)[0], z, rtol=1e-6, atol=1e-9)


def test_a_z_beyond_all_is_not_a_thousand_times_the_largest_value() -> None:
    x = np.random.default_rng(0).lognormal(0, 1, 3000)
    positive, plain = fitted_warp(x, (0.0, math.inf)), fitted_warp(x)
    assert (positive.seen, plain.seen) == ((-math.inf, x.max()), (x.min(), x.max()))
    # log x is normal: there dx/dz = x, 16 − z is below 13; exp(16) would be 9 million
    assert x.max() < float(positive.inverse(np.array([16.0]))[0]) < 20 * x.max()
    assert x.max() < float(plain.inverse(np.array([16.0]))[0]) < 50 * x.max()
    low = positive.inverse(np.array([-16.0, -5.0]))
    assert (low > 0).all()
    assert low[0] < low[1] < x.min()
    assert plain.inverse(np.array([-16.0]))[0] > -3 * x.std()


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 1.0, 2.0, 2.7])
def test_yeo_johnson_is_the_published_one(power: float) -> None:
    y = RNG.normal(size=50) * 2
    z, _ = yeo_johnson(y, power)
    np.testing.assert_allclose(z, stats.yeojohnson(y, lmbda=power), rtol=1e-12)
    np.testing.assert_allclose(inverse_yeo_johnson(z, power), y, rtol=1e-8)


def test_the_power_is_that_of_maximum_likelihood() -> None:
    x = RNG.gamma(2.0, size=3000)
    warp = fitted_warp(x)
    standard = ((x - warp.shift) / warp.scale)[:, None]
    assert warp.power == pytest.approx(float(PowerTransformer("yeo-johnson").fit(standard).lambdas_[0]), abs=1e-3)
    z, _ = warp.forward(x)
    assert (z.mean(), z.std()) == pytest.approx((0, 1), abs=1e-9)


def test_a_log_normal_column_becomes_normal_exactly() -> None:
    mu, sigma = 1.3, 0.6
    x = RNG.lognormal(mu, sigma, 4000)
    warp = Warp((0.0, math.inf), mu, sigma)
    z, slope = warp.forward(x)
    np.testing.assert_allclose(stats.norm.logpdf(z) + slope, stats.lognorm.logpdf(x, sigma, scale=math.exp(mu)), rtol=1e-10)


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "a": RNG.normal(3, 2, 300), "n": 5 + 10 * RNG.integers(0, 9, 300), "c": RNG.choice(["x", "y", "z"], 300),
            "k": "one", "d": pd.Timestamp("2021-03-04") + pd.to_timedelta(RNG.integers(0, 90, 300), unit="D"),
        }
    )  # fmt: skip


def test_rows_come_back_as_they_were() -> None:
    frame = table()
    encoding = fitted_encoding(frame, infer(frame))
    numbers = encoding.numbers(frame)
    noised = encoding.dequantised(numbers, seed=1)
    assert (np.abs(noised - numbers) <= np.array([0, 5, 0.5, 43200])).all()
    assert (noised != numbers)[:, 1:].all()
    back = encoding.decode(encoding.encode(noised)[0])
    assert list(back.columns) == list(frame.columns)
    np.testing.assert_allclose(back.pop("a"), frame.pop("a"), rtol=1e-9)
    assert back.astype({"d": "datetime64[ns]"}).equals(
        frame.astype({"d": "datetime64[ns]", "k": back.k.dtype, "c": back.c.dtype})
    )


def test_noise_is_a_function_of_the_row() -> None:
    numbers = RNG.integers(0, 3, (2000, 2)).astype(float)
    noise = row_noise(numbers, seed=0, draw=0)
    assert row_noise(numbers[5:6], 0, 0).tolist() == noise[5:6].tolist()
    assert row_noise(numbers, 0, 1).tolist() != noise.tolist()
    many = row_noise(RNG.normal(size=(20_000, 1)), 0, 0)
    assert stats.kstest(many[:, 0], "uniform").pvalue > 1e-4


def test_what_the_columns_cannot_have_is_refused_with_its_row() -> None:
    frame = table()
    encoding = fitted_encoding(frame, infer(frame))
    for column, value, words in (
        ("c", "w", "column 'c', row 2: 'w' was not seen in fitting; known are"),
        ("k", "two", "column 'k', row 2: 'two', but it was always 'one'"),
    ):
        other = frame[:5].copy()
        other.loc[2, column] = value
        with pytest.raises(UserError, match=words):
            encoding.numbers(other)
    with pytest.raises(UserError, match="column 'n' is missing: the model was fitted on a, n, c, k, d"):
        encoding.numbers(frame.drop(columns="n"))
    positive = Encoding((Column("p", "positive", ends=(0.0, math.inf)),), (Warp((0.0, math.inf)),))
    with pytest.raises(UserError, match=r"column 'p', row 1: .*-1.0.* is outside \(0, inf\), where this positive column lies"):
        positive.numbers(pd.DataFrame({"p": [1.0, -1.0]}))


@pytest.mark.parametrize("ends", [(0.0, math.inf), (0.0, 1.0)])
def test_no_value_is_drawn_on_an_end(ends: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    x = rng.gamma(0.3, size=1000) if ends[1] == math.inf else rng.beta(0.5, 0.5, size=1000)
    found = fitted_warp(x, ends).inverse(np.linspace(-20, 20, 81))
    assert (found > ends[0]).all()
    assert (found < ends[1]).all()
