"""The error of a sample's score by every kernel estimator; run by `closed_forms.py --parts kernels`.

E‖ŝ − s‖²/E‖s‖² on 1,000 fresh rows. The kernel families are tuned by themselves in Nyström's form, the others by the
score-matching loss of held-out fifths over a grid of bandwidths and of whatever else they have, on so many of the rows as make
5,000 numbers, 1,000 at most; KernelDensity's bandwidth by the likelihood of each row given the others. The full family is left
out where it would have more unknowns than it takes.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from scorefield.densities import Banana, GaussianMixture
from scorefield.densities.kernel import (
    CurlFreeTikhonov,
    Gaussian,
    KernelExponentialFamily,
    NuMethod,
    SpectralSteinEstimator,
    SteinEstimator,
    median_bandwidth,
    select,
)
from scorefield.densities.kernel.curl_free import DIRECT
from scorefield.interfaces import Score
from scorefield.randomness import keyed_generator

Cell = dict[str, Any]
SIZES, TEST, MOST = (100, 300, 1000, 3000), 1000, 1000
INDUCING = 300
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""of the median distance between rows"""
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
SHARES = (0.8, 0.9, 0.95, 0.99, 0.999, 0.9999)
ITERATIONS = (3, 10, 30, 100)


class BananaAndNoise:
    """A banana in the first two of ten coordinates, the others standard normal."""

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        noise = torch.randn(n, 8, generator=generator, dtype=torch.float64)
        return torch.cat([Banana().sample(n, generator=generator), noise], 1)

    def score(self, x: Tensor) -> Tensor:
        return torch.cat([Banana().score(x[:, :2]), -x[:, 2:]], 1)


LAWS: dict[str, Any] = {
    "mixture, 2-d": GaussianMixture(
        torch.tensor([0.4, 0.35, 0.25]),
        torch.tensor([[-1.2, -0.5], [1.2, -0.5], [0.0, 1.3]]),
        torch.tensor([[[0.3, 0.15], [0.15, 0.3]], [[0.3, -0.15], [-0.15, 0.3]], [[0.5, 0.0], [0.0, 0.15]]]),
    ),
    "banana, 10-d": BananaAndNoise(),
}


def tuned_family(x: Tensor, full: bool) -> tuple[Score, str]:
    settings = KernelExponentialFamily(inducing=INDUCING).tuned(x)
    assert settings.kernel is not None
    words = f"ℓ {float(settings.kernel.bandwidth):.2g}, λ {settings.ridge:.1g}, base {settings.base:.3g}"
    return (replace(settings, inducing=None) if full else settings).fit(x), words


def of_grid(x: Tensor, make: Callable[[Gaussian, Any], Any], values: tuple[Any, ...]) -> tuple[Score, str]:
    """The candidate that suits held-out rows best, fitted to all; those that cannot be solved are none."""
    few = x[: min(MOST, DIRECT // x.shape[1])]
    size = median_bandwidth(x)
    candidates = {}
    for factor, value in product(BANDWIDTHS, values):
        candidate = make(Gaussian(factor * size), value)
        candidates[candidate] = f"ℓ {factor * size:.2g}, {value:g}"
    best = select([*candidates], few)
    return best.fit(x), candidates[best]


class KernelDensityScore:
    """∇ log of a Gaussian KernelDensity."""

    def __init__(self, x: Tensor) -> None:
        self.x, squared = x, torch.cdist(x, x) ** 2
        squared.fill_diagonal_(math.inf)
        sizes = [median_bandwidth(x) * 2.0 ** (-k / 3) for k in range(16)]
        self.bandwidth = max(sizes, key=lambda h: float((-squared / (2 * h**2)).logsumexp(1).mean()) - x.shape[1] * math.log(h))

    def score(self, x: Tensor) -> Tensor:
        weights = (-(torch.cdist(x, self.x) ** 2) / (2 * self.bandwidth**2)).softmax(1)
        return (weights @ self.x - x) / self.bandwidth**2


def kernel_density(x: Tensor) -> tuple[Any, str]:
    model = KernelDensityScore(x)
    return model, f"h {model.bandwidth:.2g}"


class GaussianScore:
    """Of the Gaussian with the rows' moments: what no curvature gets."""

    def __init__(self, x: Tensor) -> None:
        self.mean, self.precision = x.mean(0), torch.linalg.inv(x.T.cov())

    def score(self, x: Tensor) -> Tensor:
        return (self.mean - x) @ self.precision


ESTIMATORS: dict[str, Callable[[Tensor], tuple[Any, str]]] = {
    "full family": lambda x: tuned_family(x, full=True),
    "Nyström family": lambda x: tuned_family(x, full=False),
    "Stein": lambda x: of_grid(x, SteinEstimator, RIDGES),
    "spectral Stein": lambda x: of_grid(x, SpectralSteinEstimator, SHARES),
    "Tikhonov": lambda x: of_grid(x, CurlFreeTikhonov, RIDGES),
    "ν-method": lambda x: of_grid(x, NuMethod, ITERATIONS),
    "KernelDensity": kernel_density,
    "one Gaussian": lambda x: (GaussianScore(x), ""),
}


def jobs(seeds: list[int]) -> Iterator[tuple[Cell, Callable[[], Cell]]]:
    for n, seed, law, name in product(SIZES, [s for s in seeds if s < 3], LAWS, ESTIMATORS):
        d = LAWS[law].sample(1, generator=keyed_generator(0, "shape")).shape[1]
        if name != "full family" or n * d <= DIRECT:
            yield {"law": law, "n": n, "seed": seed, "estimator": name}, partial(measured, law, n, seed, name)


def measured(law: str, n: int, seed: int, name: str) -> Cell:
    x = LAWS[law].sample(n, generator=keyed_generator(seed, f"rows of {law}"))
    fresh = LAWS[law].sample(TEST, generator=keyed_generator(seed, f"fresh rows of {law}"))
    began = time.perf_counter()
    model, words = ESTIMATORS[name](x)
    seconds, true = time.perf_counter() - began, LAWS[law].score(fresh)
    with torch.no_grad():
        error = float(((model.score(fresh) - true) ** 2).sum() / (true**2).sum())
    return {"error": error, "seconds": round(seconds, 2), "chosen": words}


def shown(cells: list[Cell]) -> str:
    """Means over seeds with half ranges, best of a column in bold, and the ranking by mean rank."""
    lines = []
    for law in LAWS:
        means: dict[tuple[str, int], float] = {}
        lines += [f"| {law} | " + " | ".join(f"n = {n:,}" for n in SIZES) + " | seconds at the largest |"]
        lines += ["|---" * (len(SIZES) + 2) + "|"]
        texts: dict[tuple[str, int], str] = {}
        for name, n in product(ESTIMATORS, SIZES):
            found = [c["error"] for c in cells if (c["law"], c["estimator"], c["n"]) == (law, name, n)]
            if found:
                means[name, n] = statistics.fmean(found)
                texts[name, n] = f"{means[name, n]:.3f} ± {(max(found) - min(found)) / 2:.3f}"
        for name in ESTIMATORS:
            shown = []
            for n in SIZES:
                text = texts.get((name, n), "")
                best = min((v for (_, m), v in means.items() if m == n), default=math.nan)
                shown.append(f"**{text}**" if means.get((name, n)) == best else text)
            largest = max((n for other, n in means if other == name), default=0)
            took = [c["seconds"] for c in cells if (c["law"], c["estimator"], c["n"]) == (law, name, largest)]
            lines.append(f"| {name} | {' | '.join(shown)} | {statistics.fmean(took or [math.nan]):.1f} |")
        lines.append("")
        for n in SIZES:
            order = sorted((v, name) for (name, m), v in means.items() if m == n)
            lines.append(f"n = {n:,}: " + " < ".join(name for _, name in order) + "\n")
    return "\n".join(lines)
