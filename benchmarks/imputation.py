"""Missing values of real tables: ScoreDensity beside scikit-learn's chained equations, MissForest's and miceforest.

    OMP_NUM_THREADS=1 python benchmarks/imputation.py ../shared/data/tables --out imputation.jsonl [--tables magic shuttle …]
        [--mechanisms mcar mar] [--seeds 0 1 2] [--methods score linear forest mice median] [--rows 2000] [--draws 100]

Duplicates are dropped, and 70 % of the rows lose values: by `mcar` a fifth of all cells, by `mar` a fifth of one column's, with
a logistic probability in another's rank. `target` (the last column where none has that name) loses none, and imputers do not
see it. Over missing cells of columns of more than ten values, in standard deviations: the mean absolute error of points (the
median of draws; of `linear`, its mean), coverage and mean width of 90 % intervals from draws. `linear` and `mice` are fitted
anew for each of at most 20 draws; quantiles of draws are such that this is no handicap. `downstream` is R², or of classes F1
(macro), of gradient boosting trained on the imputed rows, on the remaining ones, which are complete; `complete` is trained on
rows without gaps.

A line of JSON is appended for each (table, mechanism, seed, method); cells that the file has are not computed again, so a trial
with other options needs another file.
"""

import argparse
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from anomaly import Cell, markdown, resumed
from scipy.stats import norm, rankdata
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # it is imported from below
from sklearn.impute import IterativeImputer
from sklearn.metrics import f1_score
from tables import NUMERIC, TABLES

from scorefield.data.tables import read_table
from scorefield.estimators import ScoreDensity
from scorefield.randomness import derive_seed

SHARE = 0.2
"""of missing cells"""
FITS = 20
"""draws of methods that are fitted anew for each; at least 19 make 90 % intervals"""
CLASSES = ("magic", "shuttle", "adult")
"""tables whose targets are classes; others' are numbers"""


class Imputed(NamedTuple):
    """Points `(n, d)`, and draws `(m, n, d)` of methods that have any."""

    points: np.ndarray
    draws: np.ndarray | None = None


def with_target(folder: Path, name: str, rows: int, seed: int) -> pd.DataFrame:
    """At most so many different rows of a table, drawn by the seed, `target` last."""
    path = next((p for p in folder.iterdir() if name in p.name), None)
    if path is None:
        raise SystemExit(f"no table {name} in {folder}")
    if path.suffix == ".npz":
        values = next(iter(np.load(path).values()))
        frame = pd.DataFrame(values, columns=[*(f"x{i}" for i in range(values.shape[1] - 1)), "target"])
    else:
        frame = read_table(path)
    frame = (frame[[*NUMERIC, "target"]] if name == "adult" else frame).drop_duplicates()
    order = np.random.default_rng(derive_seed(seed, "rows")).permutation(len(frame))
    return frame.iloc[order[:rows]].reset_index(drop=True)


def downstream(train: pd.DataFrame, test: pd.DataFrame, classes: bool, seed: int) -> float:
    """How well `target` is predicted on test rows by boosting fitted to others: R², or macro F1 of classes."""
    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    model = kind(random_state=seed).fit(train.drop(columns="target"), train["target"])
    x, y = test.drop(columns="target"), test["target"]
    return f1_score(y, model.predict(x), labels=y.unique(), average="macro", zero_division=0) if classes else model.score(x, y)


def mcar(x: np.ndarray, many: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which cells are missing: each by the same chance; a row keeps one of its values."""
    chances = rng.random(x.shape)
    return (chances < SHARE) & (chances < chances.max(1, keepdims=True))


def mar(x: np.ndarray, many: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cells of one column: logit P = 2 z + constant, z being another column's normal score."""
    own, other = rng.choice(np.flatnonzero(many), 2, replace=False)
    latent = 2 * norm.ppf(rankdata(x[:, other]) / (len(x) + 1)) + rng.logistic(size=len(x))
    gaps = np.zeros(x.shape, dtype=bool)
    gaps[:, own] = latent > np.quantile(latent, 1 - SHARE)
    return gaps


MECHANISMS = {"mcar": mcar, "mar": mar}


def score(frame: pd.DataFrame, seed: int, draws: int, steps: int | None) -> Imputed:
    model = ScoreDensity(random_state=seed, steps="auto" if steps is None else steps).fit(frame)
    found = np.stack([f.to_numpy(np.float64) for f in model.impute(frame, draws)])
    return Imputed(np.median(found, 0), found)


def linear(frame: pd.DataFrame, seed: int, draws: int, steps: int | None) -> Imputed:
    """Chained Bayesian ridge regressions."""
    seeds = range(seed * FITS, seed * FITS + min(draws, FITS))
    found = [IterativeImputer(sample_posterior=True, random_state=s).fit_transform(frame) for s in seeds]
    return Imputed(IterativeImputer(random_state=seed).fit_transform(frame), np.stack(found))


def forest(frame: pd.DataFrame, seed: int, draws: int, steps: int | None) -> Imputed:
    """As MissForest: chained random forests with √d columns a split."""
    trees = RandomForestRegressor(100, max_features="sqrt", random_state=seed)
    return Imputed(IterativeImputer(trees, max_iter=5, random_state=seed).fit_transform(frame))


def mice(frame: pd.DataFrame, seed: int, draws: int, steps: int | None) -> Imputed:
    """miceforest: chained LightGBM with mean matching, five rounds as is its custom."""
    from miceforest import ImputationKernel

    kernel = ImputationKernel(frame, num_datasets=min(draws, FITS), save_all_iterations_data=False, random_state=seed)
    kernel.mice(5, num_threads=1)
    found = np.stack([kernel.complete_data(i).to_numpy(np.float64) for i in range(kernel.num_datasets)])
    return Imputed(np.median(found, 0), found)


def median(frame: pd.DataFrame, seed: int, draws: int, steps: int | None) -> Imputed:
    """Each column's own."""
    return Imputed(frame.fillna(frame.median()).to_numpy())


METHODS: dict[str, Callable[[pd.DataFrame, int, int, int | None], Imputed]] = {
    "score": score, "linear": linear, "forest": forest, "mice": mice, "median": median,
}  # fmt: skip


def judged(found: Imputed, x: np.ndarray, cells: np.ndarray) -> Cell:
    """Error, coverage and width over `cells`, all `(n, d)`."""
    scale = np.broadcast_to(x.std(0), x.shape)[cells]
    cell = {"error": np.mean(np.abs(found.points - x)[cells] / scale), "coverage": None, "width": None}
    if found.draws is not None:
        low, high = np.quantile(found.draws[:, cells], (0.05, 0.95), axis=0, method="weibull")
        cell |= {"coverage": np.mean((low <= x[cells]) & (x[cells] <= high)), "width": np.mean((high - low) / scale)}
    return cell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("imputation.jsonl"))
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    parser.add_argument("--mechanisms", nargs="+", default=[*MECHANISMS], choices=[*MECHANISMS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    parser.add_argument("--rows", type=int, default=2000, help="at most, of a table")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--steps", type=int, help="of training ScoreDensity")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # IterativeImputer's, after as many rounds as it was given
    if "mice" in options.methods and find_spec("miceforest") is None:
        print("mice is left out: pip install --constraint constraints.txt --editable '.[benchmark]'")
        options.methods.remove("mice")

    def measure(table: str, mechanism: str, seed: int, method: str) -> Cell:
        frame = with_target(options.folder, table, options.rows, seed)
        n = int(0.7 * len(frame))
        train, test, classes = frame[:n], frame[n:], table in CLASSES
        features = train.drop(columns="target").astype(np.float64)
        x, many = features.to_numpy(), (features.nunique() > 10).to_numpy()
        gaps = MECHANISMS[mechanism](x, many, np.random.default_rng(derive_seed(seed, "gaps")))
        found = METHODS[method](features.mask(gaps), seed, options.draws, options.steps)
        imputed = pd.DataFrame(found.points, columns=features.columns).assign(target=train["target"])
        return judged(found, x, gaps & many) | {
            "downstream": downstream(imputed, test, classes, seed), "complete": downstream(train, test, classes, seed),
            "rows": n, "columns": x.shape[1],
        }  # fmt: skip

    keys = product(options.seeds, options.tables, options.mechanisms, options.methods)
    wanted = [{"table": t, "mechanism": k, "seed": s, "method": m} for s, t, k, m in keys]
    cells = resumed(options.out, wanted, measure)
    cells += [{k: c[k] for k in ("table", "mechanism")} | {"method": "complete", "downstream": c["complete"]} for c in cells]
    for mechanism, metric in product(options.mechanisms, ("error", "coverage", "width", "downstream")):
        own = [c for c in cells if c["mechanism"] == mechanism]
        print(f"{mechanism}:\n\n{markdown(own, metric, [*METHODS, 'complete'])}")


if __name__ == "__main__":
    main()
