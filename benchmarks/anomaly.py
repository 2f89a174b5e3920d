"""Anomalies in ADBench's tables: ScoreDensity's anomaly score beside the usual unsupervised detectors.

    OMP_NUM_THREADS=1 python benchmarks/anomaly.py ../shared/data/anomaly --out anomaly.jsonl [--sets 14_glass …]
        [--seeds 0 1 2] [--methods score forest neighbours lof ecod svm] [--rows 10000]

Every method is fitted to all rows without labels, as it is by default, and ranks the same rows. Peers get standardised columns,
ScoreDensity the table as it is; of large tables, rows are drawn by the seed. A line of JSON is appended for each (table, seed,
method); cells that the file has are not computed again, so a trial with other --steps or --rows needs another file.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata, skew
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from scorefield.estimators import ScoreDensity
from scorefield.randomness import derive_seed

Cell = dict[str, Any]


def score(x: np.ndarray, seed: int, steps: int | None = None, device: str = "cpu") -> np.ndarray:
    """ScoreDensity as it is by default, unless `steps` says otherwise."""
    return ScoreDensity(random_state=seed, steps="auto" if steps is None else steps, device=device).fit(x).anomaly_score(x)


def forest(x: np.ndarray, seed: int) -> np.ndarray:
    return -IsolationForest(random_state=seed).fit(x).score_samples(x)


def neighbours(x: np.ndarray, seed: int) -> np.ndarray:
    """The distance to the fifth nearest other row."""
    return NearestNeighbors(n_neighbors=5).fit(standardised(x)).kneighbors()[0][:, -1]


def lof(x: np.ndarray, seed: int) -> np.ndarray:
    return -LocalOutlierFactor(n_neighbors=20).fit(standardised(x)).negative_outlier_factor_


def ecod(x: np.ndarray, seed: int) -> np.ndarray:
    """Li et al. 2022, arXiv:2201.00382: the largest of three sums of −log tail probabilities over columns."""
    left, right = (-np.log(rankdata(side, "max", axis=0) / len(x)) for side in (x, -x))
    chosen = np.where(skew(x) < 0, left, right)
    return np.max([tails.sum(1) for tails in (left, right, chosen)], axis=0)


def svm(x: np.ndarray, seed: int) -> np.ndarray:
    return -OneClassSVM().fit(standardised(x)).score_samples(standardised(x))


def standardised(x: np.ndarray) -> np.ndarray:
    return StandardScaler().fit_transform(x)


METHODS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "score": score, "forest": forest, "neighbours": neighbours, "lof": lof, "ecod": ecod, "svm": svm,
}  # fmt: skip


def rows_of(path: Path, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most so many rows of a set, and which of them are anomalies."""
    file = np.load(path)
    x, y = file["X"].astype(np.float64), file["y"]
    kept = np.random.default_rng(derive_seed(seed, "rows")).permutation(len(x))[:most]
    return x[kept], y[kept]


def resumed(out: Path, wanted: Iterable[Cell], measure: Callable[..., Cell]) -> list[Cell]:
    """All cells of a file, after those wanted (named by their keys) that it lacks were measured and appended."""
    cells = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    for key in wanted:
        if any(key.items() <= cell.items() for cell in cells):
            continue
        began = time.monotonic()
        found = measure(**key)
        cells.append(key | found | {"seconds": round(time.monotonic() - began, 1)})
        with out.open("a") as file:
            file.write(json.dumps(cells[-1]) + "\n")
        print(json.dumps(cells[-1]), flush=True)
    return cells


def markdown(cells: list[Cell], metric: str, methods: Iterable[str]) -> str:
    """A metric's means over seeds in Markdown; below, over the tables that all methods have: means, and `score` less each,
    with standard errors.
    """
    means = pd.DataFrame(cells).pivot_table(index="table", columns="method", values=metric)
    means = means[[m for m in methods if m in means]]
    whole = means.dropna()
    lines = [f"| {metric} | " + " | ".join(means) + " |", "|---" * (len(means.columns) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join("" if np.isnan(v) else f"{v:.3f}" for v in row) + " |" for name, *row in means.itertuples()
    ]
    summaries = {f"mean of {len(whole)}": whole}
    if "score" in whole:
        summaries["score less it"] = -whole.sub(whole["score"], axis=0)
    for words, values in summaries.items():
        pairs = zip(values.mean(), values.sem().fillna(0.0), strict=True)
        lines.append(f"| {words} | " + " | ".join(f"{mean:.3f} ± {error:.3f}" for mean, error in pairs) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("anomaly.jsonl"))
    parser.add_argument("--sets", nargs="+", help="names of files without .npz; all of the folder by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    parser.add_argument("--rows", type=int, default=10_000, help="at most, of a set")
    parser.add_argument("--steps", type=int, help="of training ScoreDensity")
    parser.add_argument("--device", default="cpu", help="of ScoreDensity")
    options = parser.parse_args()
    methods = METHODS | {"score": partial(score, steps=options.steps, device=options.device)}
    sets = options.sets or sorted((p.stem for p in options.folder.glob("*.npz")), key=str.lower)

    def measure(table: str, seed: int, method: str) -> Cell:
        x, y = rows_of(options.folder / f"{table}.npz", options.rows, seed)
        found = methods[method](x, seed)
        return {
            "AUROC": roc_auc_score(y, found),
            "AP": average_precision_score(y, found),
            "rows": len(x),
            "columns": x.shape[1],
        }

    keys = product(options.seeds, sets, options.methods)
    cells = resumed(options.out, [{"table": t, "seed": s, "method": m} for s, t, m in keys], measure)
    for metric in ("AUROC", "AP"):
        print(markdown(cells, metric, METHODS))


if __name__ == "__main__":
    main()
