"""Score matching in closed form: exponential families, graphs and kernel families beside what else does their work.

    python benchmarks/closed_forms.py ../shared/data/tables --out closed_forms.jsonl [--parts time graphs kernels song]
        [--seeds 0 1 2 3 4]

    time      processor seconds of `ExponentialFamily.fit` against n and d, beside a loop over rows with
              torch.autograd.functional and torch.func for all at once; seconds and peak memory of a Nyström kernel family
    graphs    F1 of the edges found by `GraphicalModel`, by sklearn's GraphicalLassoCV, and by a graphical lasso with the
              criterion of the first, 20 seeds
    kernels   error of the score by every kernel estimator and by a KernelDensity (`closed_forms_kernels`), three seeds
    song      a kernel family beside energies by sliced and by denoising score matching (`closed_forms_song`), five seeds

The folder of tables is for `song` alone, and `--seeds` chooses seeds of all parts but `time`. A line of JSON is appended for
each cell; cells that the file has are not computed again. Ends with the tables in Markdown.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import closed_forms_kernels
import closed_forms_song
import numpy as np
import torch
from scipy.special import ndtr, ndtri
from sklearn.covariance import GraphicalLassoCV, graphical_lasso
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from scorefield.densities.exponential import ExponentialFamily, GraphicalModel, gaussian, orthant, reals
from scorefield.densities.kernel import KernelExponentialFamily
from scorefield.randomness import derive_seed, keyed_generator

Cell = dict[str, Any]
Jobs = Iterator[tuple[Cell, Callable[[], Cell]]]
"""what names a cell, and what measures the rest of it"""


# ── time ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

ROWS, AT_D = (1000, 3000, 10_000, 30_000, 100_000), 10
COLUMNS, AT_N = (2, 4, 8, 16, 32), 3000
LOOPS = ((5, 1000), (10, 200))
"""d and n of the loop over rows"""
ROUNDS, LONG = 3, 5.0
NYSTROM = {"n": 20_000, "d": 10, "inducing": 500}


def users(x: Tensor) -> Tensor:
    """A statistic as a user writes it: squares, and log cosh of weighted sums of neighbours, `(b, 2d)`."""
    return torch.cat([x**2, torch.cosh(x + 0.5 * x.roll(1, 1)).log()], 1)


FAMILIES: dict[str, Callable[[int], ExponentialFamily]] = {"Gaussian": gaussian, "user": lambda d: ExponentialFamily(users)}


def time_jobs(seeds: list[int]) -> Jobs:
    for family in FAMILIES:
        for d, n in dict.fromkeys([*((AT_D, n) for n in ROWS), *((d, AT_N) for d in COLUMNS)]):
            yield {"task": "fit", "family": family, "d": d, "n": n}, partial(timed_fit, family, d, n)
        for d, n in LOOPS:
            yield {"task": "loop", "family": family, "d": d, "n": n}, partial(timed_loop, family, d, n)
            yield {"task": "at once", "family": family, "d": d, "n": n}, partial(timed_loop, family, d, n, at_once)
    yield {"task": "Nyström", "family": "kernel", **NYSTROM}, in_child


def correlated(n: int, d: int) -> Tensor:
    """Gaussian rows, neighbours correlated."""
    z = torch.randn(n, d, generator=keyed_generator(0, "rows", n, d), dtype=torch.float64)
    return (z + 0.5 * z.roll(1, 1)) / math.sqrt(1.25)


def seconds_of(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Of the processor, since the machine has other work, in the fastest of some rounds; one is enough where it takes long."""
    found: list[float] = []
    while len(found) < rounds and not any(seconds > LONG for seconds in found):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def timed_fit(family: str, d: int, n: int) -> Cell:
    x, model = correlated(n, d), FAMILIES[family](d)
    model.fit(x[: 2 * d * d + 10])  # the first call pays for imports
    return {"components": len(model.fit(x).coef), "seconds": seconds_of(lambda: model.fit(x))}


def timed_loop(family: str, d: int, n: int, peer: Callable[..., Tensor] | None = None) -> Cell:
    """The loop, or another peer, and the fit on the same rows, and the largest difference of their coefficients."""
    x, model = correlated(n, d), FAMILIES[family](d)
    coef = model.fit(x).coef
    fit = seconds_of(lambda: model.fit(x))
    began = time.process_time()
    found = (peer or row_by_row)(model.statistic, x)
    loop = time.process_time() - began
    return {
        "components": len(coef), "seconds": fit, "loop seconds": loop, "ratio": loop / fit,
        "difference": float((found - coef).abs().max()),
    }  # fmt: skip


def row_by_row(statistic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Coefficients by A = E[∇T ∇Tᵀ], b = E[ΔT], a Jacobian of T and a Hessian of each component for every row."""
    p = statistic(x[:1]).shape[1]
    gram, linear = x.new_zeros(p, p), x.new_zeros(p)
    for row in x:
        slope = jacobian(lambda y: statistic(y[None])[0], row)
        gram += slope @ slope.T
        for k in range(p):
            linear[k] += hessian(lambda y, k=k: statistic(y[None])[0, k], row).trace()
    return -torch.linalg.solve(gram, linear)


def at_once(statistic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The same with torch.func, all rows and components at once: whole Hessians, in memory of n p d² numbers."""
    slopes = torch.func.vmap(torch.func.jacfwd(lambda y: statistic(y[None])[0]))
    curvatures = torch.func.vmap(torch.func.hessian(lambda y: statistic(y[None])[0]))
    slope = slopes(x)
    gram = torch.einsum("npi,nqi->pq", slope, slope)
    return -torch.linalg.solve(gram, curvatures(x).diagonal(dim1=2, dim2=3).sum((0, 2)))


def in_child() -> Cell:
    """Nyström's fit in a process of its own, so that the peak of its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(nystrom_fit)


def nystrom_fit() -> Cell:
    torch.set_num_threads(1)
    x = correlated(NYSTROM["n"], NYSTROM["d"])
    settings = KernelExponentialFamily(inducing=NYSTROM["inducing"])
    settings.fit(x[:200])
    before = peak_memory()
    return {"seconds": seconds_of(lambda: settings.fit(x), 1), "MB before": before, "MB at the peak": peak_memory()}


def peak_memory() -> float:
    """MB that were resident at most. Not getrusage's, which a process inherits from the one that began it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def time_shown(cells: list[Cell]) -> str:
    lines = ["| family | d | n | components | seconds |", "|---|---|---|---|---|"]
    fits = [c for c in cells if c["task"] == "fit"]
    for c in sorted(fits, key=lambda c: (c["family"], c["n"] == AT_N and c["d"] != AT_D, c["d"], c["n"])):
        lines.append(f"| {c['family']} | {c['d']} | {c['n']:,} | {c['components']} | {c['seconds']:.4f} |")
    lines += ["", "| family | log time by | slope | of the last two |", "|---|---|---|---|"]
    for family in FAMILIES:
        for axis, other, at in (("n", "d", AT_D), ("d", "n", AT_N)):
            points = sorted((c[axis], c["seconds"]) for c in fits if c["family"] == family and c[other] == at)
            x, y = np.log(points).T
            last = (y[-1] - y[-2]) / (x[-1] - x[-2])
            lines.append(f"| {family} | log {axis} ({other} = {at:,}) | {np.polyfit(x, y, 1)[0]:.2f} | {last:.2f} |")
    lines += ["", "| family | d | n | beside | fit, s | it, s | ratio | coefficients differ by |", "|---" * 8 + "|"]
    lines += [
        f"| {c['family']} | {c['d']} | {c['n']:,} | {c['task']} | {c['seconds']:.4f} | {c['loop seconds']:.3g} "
        f"| {c['ratio']:,.3g} | {c['difference']:.0e} |"
        for c in cells if c["task"] in ("loop", "at once")
    ]  # fmt: skip
    lines += [
        f"\nNyström, n = {c['n']:,}, d = {c['d']}, m = {c['inducing']}: {c['seconds']:.1f} s, "
        f"{c['MB before']:.0f} MB before, {c['MB at the peak']:.0f} MB at the peak"
        for c in cells if c["task"] == "Nyström"
    ]  # fmt: skip
    return "\n".join(lines)


# ── graphs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

GRAPH_N, GRAPH_D, SHARE, SWEEPS = 3000, 15, 0.15, 200
LAWS = ("Gaussian", "truncated")
OURS, LASSO, LASSO_BIC = "GraphicalModel", "GraphicalLassoCV", "graphical lasso, EBIC"
GRAPH_METHODS = (OURS, LASSO, LASSO_BIC)


def graphs_jobs(seeds: list[int]) -> Jobs:
    for law in LAWS:
        for seed in range(20) if seeds == [*range(5)] else seeds:
            for method in GRAPH_METHODS:
                yield {"law": law, "seed": seed, "method": method}, partial(recovered, law, seed, method)


def recovered(law: str, seed: int, method: str) -> Cell:
    """Precision, recall and F1 of the edges."""
    rng = np.random.default_rng(derive_seed(seed, "graph"))
    precision = sparse_precision(rng)
    x = truncated(precision, rng) if law == "truncated" else rng.multivariate_normal(
        np.zeros(GRAPH_D), np.linalg.inv(precision), GRAPH_N
    )  # fmt: skip
    began = time.perf_counter()
    if method in (LASSO, LASSO_BIC):
        z = (x - x.mean(0)) / x.std(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            found = np.abs(GraphicalLassoCV().fit(z).precision_) > 1e-10 if method == LASSO else lasso_by_criterion(z)
    else:
        domain = orthant() if law == "truncated" else reals()
        found = GraphicalModel(domain).fit(x).adjacency.numpy()
    seconds, upper = time.perf_counter() - began, np.triu_indices(GRAPH_D, 1)
    said, true = found[upper], precision[upper] != 0
    both = int((said & true).sum())
    return {
        "F1": 2 * both / max(1, said.sum() + true.sum()), "precision": both / max(1, said.sum()),
        "recall": both / max(1, true.sum()), "edges": int(said.sum()), "true edges": int(true.sum()), "seconds": seconds,
    }  # fmt: skip


def sparse_precision(rng: np.random.Generator) -> np.ndarray:
    """K `(d, d)`: pairs joined at random, |K_ij| in [0.2, 0.4], and more than their sum on the diagonal."""
    upper = np.triu(rng.random((GRAPH_D, GRAPH_D)) < SHARE, 1)
    values = upper * rng.uniform(0.2, 0.4, upper.shape) * rng.choice([-1.0, 1.0], upper.shape)
    k = values + values.T
    return k + np.diag(np.abs(k).sum(1) + 0.3)


def truncated(k: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of N(0, K⁻¹) that are positive: Gibbs sampling, a chain for each."""
    x = np.abs(rng.standard_normal((GRAPH_N, GRAPH_D)))
    for _ in range(SWEEPS):
        for j in range(GRAPH_D):
            std = 1 / math.sqrt(k[j, j])
            mean = x[:, j] - x @ k[j] / k[j, j]
            tail = ndtr(mean / std)  # the probability of being positive
            x[:, j] = np.maximum(mean - std * ndtri((1 - rng.random(GRAPH_N)) * tail), 1e-12)
    return x


def lasso_by_criterion(z: np.ndarray) -> np.ndarray:
    """Edges of the graphical lasso chosen as `GraphicalModel` chooses them: each set fitted again, extended BIC, γ = ½."""
    (n, d), s = z.shape, z.T @ z / len(z)
    best, least = np.eye(d, dtype=bool), math.inf
    for penalty in np.geomspace(1, 0.01, 40) * np.abs(s - np.diag(np.diag(s))).max():
        joined = np.abs(graphical_lasso(s, penalty)[1]) > 1e-10
        edges = (joined.sum() - d) / 2
        criterion = n * np.linalg.slogdet(likeliest(s, joined))[1] + edges * (math.log(n) + 2 * math.log(d))
        if criterion < least:
            best, least = joined, criterion
    return best


def likeliest(s: np.ndarray, joined: np.ndarray) -> np.ndarray:
    """The covariance of maximum likelihood with these edges (Hastie et al. 2009, algorithm 17.1)."""
    w = s.copy()
    for _ in range(100):
        before = w.copy()
        for j in range(len(s)):
            others = np.arange(len(s)) != j
            near = joined[j] & others
            beta = np.linalg.solve(w[np.ix_(near, near)], s[near, j])
            w[others, j] = w[j, others] = w[np.ix_(others, near)] @ beta
        if np.abs(w - before).max() < 1e-8:
            break
    return w


def graphs_shown(cells: list[Cell]) -> str:
    columns = ("F1", "precision", "recall", "edges", "true edges", "seconds")
    lines = [f"| law | method | {' | '.join(columns)} | F1 of {OURS} less this |", "|---" * (len(columns) + 3) + "|"]
    for law in LAWS:
        f1 = {(c["method"], c["seed"]): c["F1"] for c in cells if c["law"] == law}
        for method in GRAPH_METHODS:
            own = [c for c in cells if c["law"] == law and c["method"] == method]
            less = ""
            if method != OURS:
                pairs = [f1[OURS, c["seed"]] - c["F1"] for c in own if (OURS, c["seed"]) in f1]
                less = "{:+.3f} ± {:.3f}".format(*mean_and_error(pairs))
            shown = " | ".join("{:.3f} ± {:.3f}".format(*mean_and_error([c[column] for c in own])) for column in columns)
            lines.append(f"| {law} | {method} | {shown} | {less} |")
    return "\n".join(lines)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """And the standard error of the mean."""
    if len(values) < 2:
        return (values or [math.nan])[0], math.nan
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


# ── all ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Part(NamedTuple):
    jobs: Callable[..., Jobs]
    shown: Callable[[list[Cell]], str]


PARTS = {
    "time": Part(time_jobs, time_shown),
    "graphs": Part(graphs_jobs, graphs_shown),
    "kernels": Part(closed_forms_kernels.jobs, closed_forms_kernels.shown),
    "song": Part(closed_forms_song.jobs, closed_forms_song.shown),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of tables, for song")
    parser.add_argument("--out", type=Path, default=Path("closed_forms.jsonl"))
    parser.add_argument("--parts", nargs="+", default=[*PARTS], choices=[*PARTS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(5)])
    options = parser.parse_args()
    if "song" in options.parts and options.folder is None:
        parser.error("song needs the folder of tables")
    torch.set_num_threads(1)
    cells = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    for name in options.parts:
        extra = (options.folder,) if name == "song" else ()
        for key, measure in PARTS[name].jobs(options.seeds, *extra):
            named = {"part": name, **key}
            if any(named.items() <= cell.items() for cell in cells):
                continue
            cell = named | measure()
            cells.append(cell)
            with options.out.open("a") as file:
                file.write(json.dumps(cell, ensure_ascii=False) + "\n")
            print(json.dumps(cell, ensure_ascii=False), flush=True)
    for name in options.parts:
        print(f"\n## {name}\n\n" + PARTS[name].shown([c for c in cells if c["part"] == name]))


if __name__ == "__main__":
    main()
