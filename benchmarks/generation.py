"""Synthetic rows of real tables, `target` among their columns: ScoreDensity beside copula, interpolation and ForestDiffusion.

    OMP_NUM_THREADS=1 python benchmarks/generation.py ../shared/data/tables --out generation.jsonl [--tables magic shuttle …]
        [--seeds 0 1 2] [--methods score copula smote real forest] [--rows 2000] [--levels 50] [--copies 20]

Half of a table's rows (duplicates are dropped) is learnt from, as many are generated, and the other half judges. In standard
deviations of the first half: `columns`, the Wasserstein distance of a column, averaged; `joint`, that of 500 rows. `downstream`
is R², or of classes F1 (macro), on the other half, of gradient boosting trained on what was generated. `novelty` is the median
distance of generated rows to the nearest learnt one, over that of the other half: near 0 they are copies. The method `real`
generates the rows learnt from: its `downstream` is what real rows give. A line of JSON is appended for each (table, seed,
method); cells that the file has are not computed again, so a trial with other options needs another file.

ForestDiffusion is taken only where --methods names it: it is slow (200 rows of red wine, 5 copies: 5 minutes of a core), and it
asks for hundreds of MB of packages that it does not need here:

    pip install --no-deps ForestDiffusion==1.0.6 xgboost==3.2.0 catboost==1.2.10 graphviz==0.21 six==1.17.0

It has 100 trees a column, noise level and class, as by default; its paper has 50 --levels and 100 --copies of a row.
"""

import argparse
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from anomaly import Cell, markdown, resumed
from imputation import CLASSES, downstream, with_target
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import norm, rankdata, wasserstein_distance
from sklearn.neighbors import NearestNeighbors
from tables import TABLES

from scorefield.estimators import ScoreDensity
from scorefield.randomness import derive_seed

MOST = 500
"""rows of the joint distance"""


def score(train: pd.DataFrame, classes: bool, seed: int, steps: int | None = None) -> pd.DataFrame:
    model = ScoreDensity(
        columns={"target": "categorical"} if classes else None, random_state=seed, steps="auto" if steps is None else steps
    )
    return model.fit(train).sample(len(train))


def copula(train: pd.DataFrame, classes: bool, seed: int) -> pd.DataFrame:
    """Columns' own values, their normal scores jointly Gaussian."""
    z = norm.ppf(rankdata(train, axis=0) / (len(train) + 1))
    rng = np.random.default_rng(derive_seed(seed, "copula"))
    u = norm.cdf(rng.multivariate_normal(np.zeros(z.shape[1]), np.corrcoef(z, rowvar=False), len(z)))
    return pd.DataFrame({c: np.quantile(train[c], u[:, i], method="inverted_cdf") for i, c in enumerate(train)})


def smote(train: pd.DataFrame, classes: bool, seed: int) -> pd.DataFrame:
    """Points between a row and one of its five nearest neighbours; a class is that of the closer end."""
    rng, x, n = np.random.default_rng(derive_seed(seed, "smote")), train.to_numpy(np.float64), len(train)
    near = NearestNeighbors(n_neighbors=5).fit(x / x.std(0)).kneighbors(return_distance=False)
    own, share = rng.integers(n, size=n), rng.random((n, 1))
    other = near[own, rng.integers(5, size=n)]
    made = pd.DataFrame(x[own] + share * (x[other] - x[own]), columns=train.columns)
    if classes:
        made["target"] = x[np.where(share[:, 0] < 0.5, own, other), -1]
    return made


def forest(train: pd.DataFrame, classes: bool, seed: int, levels: int = 50, copies: int = 20) -> pd.DataFrame:
    """ForestDiffusion's flow; of classes, one a class."""
    from ForestDiffusion import ForestDiffusionModel

    names, codes = np.unique(train["target"], return_inverse=True)
    x = (train.drop(columns="target") if classes else train).to_numpy(np.float64)
    whole = np.flatnonzero((x == np.round(x)).all(0)).tolist()
    labels = codes if classes else None
    model = ForestDiffusionModel(x, None, labels, n_t=levels, int_indexes=whole, duplicate_K=copies, n_jobs=1, seed=seed)
    made = pd.DataFrame(model.generate(len(x)), columns=train.columns)
    return made.assign(target=names[made["target"].astype(int)]) if classes else made


def real(train: pd.DataFrame, classes: bool, seed: int) -> pd.DataFrame:
    return train


METHODS: dict[str, Callable[[pd.DataFrame, bool, int], pd.DataFrame]] = {
    "score": score, "copula": copula, "smote": smote, "real": real, "forest": forest,
}  # fmt: skip


def judged(made: pd.DataFrame, train: pd.DataFrame, test: pd.DataFrame, classes: bool, seed: int) -> Cell:
    scale = train.to_numpy(np.float64).std(0)
    x, learnt, others = (frame.to_numpy(np.float64) / scale for frame in (made, train, test))
    rng, most = np.random.default_rng(derive_seed(seed, "judge")), min(MOST, len(x), len(others))
    costs = cdist(*(rng.permutation(rows)[:most] for rows in (x, others)))
    nearest = NearestNeighbors(n_neighbors=1).fit(learnt)
    return {
        "columns": np.mean([wasserstein_distance(a, b) for a, b in zip(x.T, others.T, strict=True)]),
        "joint": costs[linear_sum_assignment(costs)].mean(),
        "downstream": downstream(made, test, classes, seed),
        "novelty": np.divide(*(np.median(nearest.kneighbors(rows)[0]) for rows in (x, others))),
        "rows": len(train),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("generation.jsonl"))
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=[*METHODS][:-1], choices=[*METHODS])
    parser.add_argument("--rows", type=int, default=2000, help="at most, of a table; half of them are learnt from")
    parser.add_argument("--steps", type=int, help="of training ScoreDensity")
    parser.add_argument("--levels", type=int, default=50, help="of noise, in ForestDiffusion")
    parser.add_argument("--copies", type=int, default=20, help="of a row, with other noise, that ForestDiffusion sees")
    options = parser.parse_args()
    if "forest" in options.methods and find_spec("ForestDiffusion") is None:
        print("forest is left out: ForestDiffusion is not installed (see --help)")
        options.methods.remove("forest")
    methods = METHODS | {
        "score": partial(score, steps=options.steps),
        "forest": partial(forest, levels=options.levels, copies=options.copies),
    }

    def measure(table: str, seed: int, method: str) -> Cell:
        frame = with_target(options.folder, table, options.rows, seed)
        train, test = frame[: len(frame) // 2], frame[len(frame) // 2 :]
        train = train.loc[:, train.nunique() > 1]
        classes, test = table in CLASSES, test[train.columns]
        return judged(methods[method](train, classes, seed), train, test, classes, seed)

    keys = product(options.seeds, options.tables, options.methods)
    cells = resumed(options.out, [{"table": t, "seed": s, "method": m} for s, t, m in keys], measure)
    for metric in ("columns", "joint", "downstream", "novelty"):
        print(markdown(cells, metric, METHODS))


if __name__ == "__main__":
    main()
