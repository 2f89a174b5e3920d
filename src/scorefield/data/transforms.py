"""From the rows of a table to vectors whose columns are about normal, and back, with the Jacobian.

Each modelled column is made a number (dates: seconds; categories: their place in the order of frequency), discrete ones get
noise as wide as their resolution, and then a monotone function, in float64:

    positive   log x         bounded   log (x − a)/(b − x)         then (x − shift)/scale, Yeo–Johnson with λ, and that again

    log p(x) = log p(z) + Σ log dz/dx        nats, in the units of the table

Beyond the values of the table the function goes on as a straight line, towards an infinite end, on which one unit of z is at
most half of the range that was seen: a z that is a little larger than all others is an x a little larger, not one a thousand
times as large. Samples of integers and dates stay within what was seen.

Reference: Yeo & Johnson 2000, doi:10.1093/biomet/87.4.954.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from scorefield.data.columns import Column, as_numbers, check_single, kept, plain
from scorefield.errors import UserError
from scorefield.randomness import derive_seed

STRONGEST = 3.0
"""of Yeo–Johnson's λ − 1 either way"""


@dataclass(frozen=True)
class Warp:
    """The monotone function of one column: ends, location and scale, λ, then straight outside `seen`."""

    ends: tuple[float, float] = (-math.inf, math.inf)
    shift: float = 0.0
    scale: float = 1.0
    power: float = 1.0
    """λ; 1 changes nothing"""
    centre: float = 0.0
    spread: float = 1.0
    """location and scale of the power, so that z has mean 0 and variance 1"""
    seen: tuple[float, float] = (-math.inf, math.inf)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z and log dz/dx, both like `x`."""
        inside = np.clip(x, *self.seen)
        z, slope = self._curve(inside)
        slope = np.where(x == inside, slope, np.maximum(slope, self._least))
        return z + (x - inside) * np.exp(slope), slope

    @property
    def _least(self) -> float:
        """log dz/dx outside, at least."""
        low, high = (seen if math.isfinite(seen) else end for seen, end in zip(self.seen, self.ends, strict=True))
        return -math.log((high - low) / 2) if high > low else -math.inf

    def _curve(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same, not straightened."""
        low, high = self.ends
        if low == -math.inf:
            y, slope = x, np.zeros_like(x)
        elif high == math.inf:
            y = np.log(x - low)
            slope = -y
        else:
            y = np.log(x - low) - np.log(high - x)
            slope = math.log(high - low) - np.log(x - low) - np.log(high - x)
        y = (y - self.shift) / self.scale
        z, stretch = yeo_johnson(y, self.power)
        return (z - self.centre) / self.spread, slope + stretch - math.log(self.scale * self.spread)

    def slope_of_slope(self, x: np.ndarray) -> np.ndarray:
        """d/dx log dz/dx, like `x`."""
        straight = (x < self.seen[0]) | (x > self.seen[1])
        x = np.clip(x, *self.seen)
        low, high = self.ends
        if low == -math.inf:
            y, first, second = x, np.ones_like(x), np.zeros_like(x)
        elif high == math.inf:
            y, first, second = np.log(x - low), 1 / (x - low), -1 / (x - low)
        else:
            y = np.log(x - low) - np.log(high - x)
            first, second = 1 / (x - low) + 1 / (high - x), 1 / (high - x) - 1 / (x - low)
        y = (y - self.shift) / self.scale
        return np.where(straight, 0.0, second + (self.power - 1) / (1 + np.abs(y)) * first / self.scale)

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """x of z; what no x has is taken to the nearest z that has one."""
        limits = [(math.copysign(math.inf, end), 0.0) if math.isinf(end) else self._at(end) for end in self.seen]
        inside = np.clip(z, limits[0][0], limits[1][0])
        slopes = np.where(z < inside, limits[0][1], limits[1][1])
        return self._back(inside) + (z - inside) * np.exp(-slopes)

    def _at(self, x: float) -> tuple[float, float]:
        """z at an end of what was seen, and log dz/dx beyond."""
        z, slope = self._curve(np.array([x]))
        return float(z[0]), max(float(slope[0]), self._least)

    def _back(self, z: np.ndarray) -> np.ndarray:
        """`_curve`'s inverse."""
        y = inverse_yeo_johnson(self.centre + self.spread * z, self.power)
        y = self.shift + self.scale * y
        low, high = self.ends
        if low == -math.inf:
            return y
        if high == math.inf:
            x = low + np.exp(np.minimum(y, 700.0))
        else:
            x = low + (high - low) / (1 + np.exp(-np.clip(y, -700, 700)))
        return np.clip(x, np.nextafter(low, math.inf), np.nextafter(high, low))  # rounding may reach an end, which no value has


def fitted_warp(x: np.ndarray, ends: tuple[float, float] = (-math.inf, math.inf)) -> Warp:
    """The warp under which `x` `(n,)` is most nearly normal: λ by maximum likelihood."""
    start = Warp(ends)
    y, _ = start.forward(x)
    low, middle, high = np.quantile(y, (0.25, 0.5, 0.75))
    scale = (high - low) / 1.349 or y.std() or 1.0
    y = (y - middle) / scale

    def loss(power: float) -> float:
        z, stretch = yeo_johnson(y, power)
        return math.log(z.std() + 1e-12) - float(stretch.mean())

    found = minimize_scalar(loss, bounds=(1 - STRONGEST, 1 + STRONGEST), method="bounded")
    power = float(found.x) if loss(float(found.x)) < loss(1.0) else 1.0
    z, _ = yeo_johnson(y, power)
    seen = (
        -math.inf if math.isfinite(ends[0]) else float(x.min()),
        math.inf if math.isfinite(ends[1]) else float(x.max()),
    )
    return Warp(ends, float(middle), float(scale), power, float(z.mean()), float(z.std()) or 1.0, seen)


def yeo_johnson(y: np.ndarray, power: float) -> tuple[np.ndarray, np.ndarray]:
    """The transform and the logarithm of its slope, (λ − 1) sign(y) log(1 + |y|)."""
    log = np.log1p(np.abs(y))
    slope = (power - 1) * np.sign(y) * log
    return np.where(y >= 0, grown(log, power), -grown(log, 2 - power)), slope


def grown(log: np.ndarray, power: float) -> np.ndarray:
    """((1 + |y|)^λ − 1)/λ from log(1 + |y|); the logarithm itself for λ = 0."""
    return log if abs(power) < 1e-12 else np.expm1(power * log) / power


def inverse_yeo_johnson(z: np.ndarray, power: float) -> np.ndarray:
    """y of z; beyond the range that the transform reaches, its last number."""
    size = np.abs(z)
    exponent = np.where(z >= 0, power, 2 - power)
    small = np.abs(exponent) < 1e-12
    safe = np.where(small, 1.0, exponent)
    inner = np.maximum(safe * size, -1 + 1e-12)
    log = np.where(small, size, np.log1p(inner) / safe)
    return np.sign(z) * np.expm1(np.minimum(log, 700.0))


@dataclass(frozen=True)
class Encoding:
    """How the rows of a table become vectors `(n, d)`, float64, NaN where a value is missing."""

    columns: tuple[Column, ...]
    warps: tuple[Warp, ...]
    """of the modelled columns, in their order"""

    @property
    def modelled(self) -> tuple[Column, ...]:
        """Columns that are neither constant nor copies of others."""
        return tuple(c for c in self.columns if c.kind != "constant" and not c.copy_of)

    def numbers(self, frame: pd.DataFrame) -> np.ndarray:
        """The modelled columns as numbers `(n, d)`, without noise.

        Raises:
            UserError: columns that are missing, or values that the columns cannot have, with the row.
        """
        self.check_present(frame.columns)
        for column in self.columns:
            if column.kind == "constant":
                check_constant(frame[column.name], column)
            elif column.copy_of:
                check_copy(frame, column)
                known = frame[column.copy_of]
                frame = frame.assign(**{column.copy_of: known.where(known.notna(), frame[column.name])})
        return np.stack([numbers_of(frame[c.name], c) for c in self.modelled], 1)

    def check_present(self, names: Collection[str]) -> None:
        """Raises `UserError` for a column that is not among the names."""
        lacking = [c.name for c in self.columns if c.name not in names]
        if lacking:
            known = ", ".join(c.name for c in self.columns)
            raise UserError(f"column {lacking[0]!r} is missing: the model was fitted on {known}")

    @property
    def widths(self) -> np.ndarray:
        """Of the noise that each modelled column gets `(d,)`; 0 for continuous ones."""
        return np.array([c.resolution for c in self.modelled])

    def dequantised(self, numbers: np.ndarray, seed: int = 0, draw: int = 0) -> np.ndarray:
        """The same with noise on discrete columns, a function of (seed, draw, the row's own numbers): for scoring.

        Equal rows get equal noise, so a density must not be fitted to them: `noised` is for that.
        """
        return numbers + self.widths * (row_noise(numbers, seed, draw) - 0.5) if self.widths.any() else numbers

    def noised(self, numbers: np.ndarray, seed: int, purpose: str, *key: int) -> np.ndarray:
        """The same with noise that differs from row to row, a function of the key: for fitting."""
        rng = np.random.default_rng(derive_seed(seed, purpose, *key))
        return numbers + self.widths * (rng.random(numbers.shape) - 0.5) if self.widths.any() else numbers

    def encode(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z `(n, d)` and log |dz/dx| of each value, like z; NaN stays."""
        found = [warp.forward(column) for warp, column in zip(self.warps, numbers.T, strict=True)]
        return np.stack([z for z, _ in found], 1), np.stack([slope for _, slope in found], 1)

    def slope_of_slope(self, numbers: np.ndarray) -> np.ndarray:
        """d/dx log dz/dx of each value, like `numbers`."""
        return np.stack([warp.slope_of_slope(column) for warp, column in zip(self.warps, numbers.T, strict=True)], 1)

    def unwarped(self, z: np.ndarray) -> np.ndarray:
        """Numbers of the modelled columns from z `(n, d)`, not rounded."""
        return np.stack([warp.inverse(column) for warp, column in zip(self.warps, z.T, strict=True)], 1)

    def decode(self, z: np.ndarray) -> pd.DataFrame:
        """Rows of the table from z `(n, d)`: discrete columns at values, none beyond those seen, nor beyond an atom that is an
        end; constants and copies put back.
        """
        x = self.unwarped(z)
        for values, column, warp in zip(x.T, self.modelled, self.warps, strict=True):
            low, high = (end if column.resolution or end in column.atoms else None for end in warp.seen)
            if low is not None or high is not None:
                np.clip(values, low, high, out=values)
        numbers = dict(zip((c.name for c in self.modelled), x.T, strict=True))
        out: dict[str, object] = {}
        for column in self.columns:
            if column.kind == "constant":
                value = column.categories[0]
                out[column.name] = [pd.Timestamp(value) if column.dated else value] * len(z)
            elif column.copy_of:
                out[column.name] = out[column.copy_of]
            else:
                out[column.name] = decoded(numbers[column.name], column)
        return pd.DataFrame(out)


def fitted_encoding(frame: pd.DataFrame, columns: Sequence[Column], seed: int = 0) -> Encoding:
    """The encoding whose warps suit a frame."""
    plain = Encoding(tuple(columns), ())
    x = plain.noised(plain.numbers(frame), seed, "warps")
    warps = tuple(fitted_warp(v[~np.isnan(v)], c.ends) for c, v in zip(plain.modelled, x.T, strict=True))
    return Encoding(tuple(columns), warps)


def numbers_of(values: pd.Series, column: Column) -> np.ndarray:
    """A column as numbers `(n,)`, NaN where missing; errors as in `Encoding.numbers`."""
    out = np.full(len(values), np.nan)
    known = values.dropna()
    check_single(known)
    if column.kind in ("binary", "categorical"):
        places = {value: i for i, value in enumerate(column.categories)}
        for row, value in known.items():
            if value not in places:
                shown = ", ".join(map(str, column.categories[:5])) + (", …" if len(places) > 5 else "")
                raise UserError(f"column {column.name!r}, row {row}: {value!r} was not seen in fitting; known are {shown}")
        found = known.map(places).to_numpy(np.float64)
    else:
        found = as_numbers(known, column.name)
        low, high = column.ends
        outside = ~((found > low) & (found < high))
        if outside.any():
            row = known.index[outside][0]
            raise UserError(
                f"column {column.name!r}, row {row}: {plain(known[row])!r} is outside ({low:g}, {high:g}), where this "
                f"{column.kind} column lies"
            )
    out[values.notna().to_numpy()] = found
    return out


def check_constant(values: pd.Series, column: Column) -> None:
    """Raises `UserError` for another value than the constant."""
    known, always = values.dropna(), column.categories[0]
    other = known[known.map(kept) != always]
    if len(other):
        row, value = other.index[0], kept(other.iloc[0])
        raise UserError(f"column {column.name!r}, row {row}: {value!r}, but it was always {always!r} in fitting")


def check_copy(frame: pd.DataFrame, column: Column) -> None:
    """Raises `UserError` where a column that was a copy of another is not; gaps are no difference."""
    own, other = frame[column.name], frame[column.copy_of]
    different = np.flatnonzero((own.notna() & other.notna() & (own != other)).to_numpy(bool))
    if len(different):
        row = different[0]
        raise UserError(
            f"column {column.name!r}, row {row}: {plain(own.iloc[row])!r} is not what {column.copy_of!r} has, "
            f"{plain(other.iloc[row])!r}, as it always was in fitting"
        )


def decoded(x: np.ndarray, column: Column) -> object:
    """Numbers of a column as its values."""
    if column.kind in ("binary", "categorical"):
        places = np.clip(np.round(x), 0, len(column.categories) - 1).astype(int)
        return [column.categories[i] for i in places]
    if column.kind == "continuous" or column.resolution == 0:
        return x
    rounded = column.origin + np.round((x - column.origin) / column.resolution) * column.resolution
    if column.kind == "datetime":
        moments = pd.to_datetime(np.round(rounded * 1e6), unit="us")
        return moments.tz_localize("UTC").tz_convert(column.zone) if column.zone else moments
    whole = float(column.resolution).is_integer() and float(column.origin).is_integer()
    return rounded.astype(np.int64) if whole else np.round(rounded, 12)


def row_noise(numbers: np.ndarray, seed: int, draw: int) -> np.ndarray:
    """Uniform noise like `numbers`, each row's a function of (seed, draw, row): one row alone gets what it gets in a batch."""
    out = np.empty_like(numbers)
    for i, row in enumerate(np.ascontiguousarray(numbers)):
        key = blake2b(row.tobytes(), digest_size=8, salt=f"{seed}/{draw}".encode()[:16]).digest()
        out[i] = np.random.default_rng(int.from_bytes(key)).random(len(row))
    return out
