"""Densities of real tables: ScoreDensity beside KernelDensity, GaussianMixture and zuko's neural spline flow.

    python benchmarks/tables.py ../shared/data/tables --out tables.jsonl [--tables magic shuttle …] [--seeds 0 1 2]
        [--methods kernel mixture score flow] [--threads 2] [--minutes 3] [--device cpu]

`target` is left out, duplicates are dropped before rows are split, at most 10,000 rows are taken, and discrete columns get
uniform noise as wide as their resolution, once: all methods see the same numbers. Every method may choose between the columns
as they are and the warped ones (`data.transforms`), by validation. A line of JSON is appended for each (table, seed, method)
with the log-density of every test row, in the units of the table, beside it in a `.npz`; cells that the file has are not
computed again.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from scorefield.data.columns import infer
from scorefield.data.tables import read_table
from scorefield.data.transforms import Encoding, fitted_encoding
from scorefield.estimators import ScoreDensity
from scorefield.estimators.mixture import COUNTS, FLOOR
from scorefield.randomness import derive_seed

MOST = 10_000
PATIENCE = 30
"""epochs without a better validation likelihood, after which the flow stops"""
BANDWIDTHS = np.geomspace(0.05, 2.0, 16)
NUMERIC = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
"""of adult, whose other columns are codes"""
Cell = dict[str, Any]


class Split(NamedTuple):
    """Rows `(n, d)`, dequantised, in the units of the table."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Settings(NamedTuple):
    """Of the two that are trained."""

    minutes: float
    """of the flow"""
    device: str
    """of the score"""


def table(folder: Path, name: str, seed: int) -> Split:
    """A table's rows, split by the seed."""
    found = [p for p in folder.iterdir() if name in p.name]
    if not found:
        raise SystemExit(f"no table {name} in {folder}")
    if found[0].suffix == ".npz":
        values = np.load(found[0])
        frame = pd.DataFrame(values[values.files[0]])
        frame.columns = [f"x{i}" for i in range(frame.shape[1])]
    else:
        frame = read_table(found[0]).drop(columns="target")
    if name == "adult":
        frame = frame[[*NUMERIC]]
    frame = frame.drop_duplicates()
    rng = np.random.default_rng(derive_seed(seed, "rows"))
    frame = frame.iloc[rng.permutation(len(frame))[:MOST]].reset_index(drop=True)
    encoding = Encoding(tuple(infer(frame)), ())
    x = encoding.noised(encoding.numbers(frame), seed, "benchmark")
    n = len(x)
    return Split(x[: int(0.7 * n)], x[int(0.7 * n) : int(0.8 * n)], x[int(0.8 * n) :])


class Coordinates:
    """Columns standardised, or warped: z, and what to add to a log-density of z."""

    def __init__(self, train: np.ndarray, warped: bool) -> None:
        frame = named(train)
        self.encoding = fitted_encoding(frame, infer(frame, dict.fromkeys(frame.columns, "continuous"))) if warped else None
        self.shift, self.scale = train.mean(0), train.std(0)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.encoding is None:
            return (x - self.shift) / self.scale, np.full(len(x), -np.log(self.scale).sum())
        z, slope = self.encoding.encode(x)
        return z, slope.sum(1)


def named(x: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])


def by_validation(split: Split, fit: Callable[[np.ndarray, np.ndarray], tuple[Any, str]]) -> tuple[np.ndarray, str]:
    """Test log-densities of the better of both coordinates, and what was chosen."""
    best, best_score, chosen = None, -math.inf, ""
    for warped in (False, True):
        coordinates = Coordinates(split.train, warped)
        (train, _), (validation, add), (test, add_test) = (coordinates(x) for x in split)
        model, words = fit(train, validation)
        score = float((model(validation) + add).mean())
        if score > best_score:
            best, best_score, chosen = model(test) + add_test, score, f"{words}, {'warped' if warped else 'plain'}"
    assert best is not None
    return best, chosen


def kernel(split: Split, seed: int, settings: Settings) -> tuple[np.ndarray, str]:
    """KernelDensity, its bandwidth by validation."""

    def fit(train: np.ndarray, validation: np.ndarray) -> tuple[Any, str]:
        models = [KernelDensity(bandwidth=h).fit(train) for h in BANDWIDTHS]
        best = max(models, key=lambda m: m.score_samples(validation).mean())
        return best.score_samples, f"bandwidth {best.bandwidth:.2g}"

    return by_validation(split, fit)


def mixture(split: Split, seed: int, settings: Settings) -> tuple[np.ndarray, str]:
    """GaussianMixture with full covariances, components by validation up to 200."""

    def fit(train: np.ndarray, validation: np.ndarray) -> tuple[Any, str]:
        models = []
        for count in COUNTS:
            if count * (train.shape[1] + 1) > len(train):
                break
            models.append(GaussianMixture(count, reg_covar=FLOOR, random_state=seed, max_iter=200).fit(train))
            if len(models) > 2 and models[-1].score(validation) < models[-2].score(validation) < models[-3].score(validation):
                break
        best = max(models, key=lambda m: m.score(validation))
        return best.score_samples, f"{best.n_components} components"

    return by_validation(split, fit)


def score(split: Split, seed: int, settings: Settings) -> tuple[np.ndarray, str]:
    """ScoreDensity; it splits validation rows off itself, and no p-values are asked for."""
    frame = named(np.concatenate([split.train, split.validation]))
    model = ScoreDensity(
        columns=dict.fromkeys(frame.columns, "continuous"), calibration_fraction=0.0, random_state=seed, device=settings.device
    )
    model.fit(frame)
    words = f"{model.parts_.components} components{', untouched' if model.model_.untouched else ''}"
    return model.score_samples(named(split.test)), words


def flow(split: Split, seed: int, settings: Settings) -> tuple[np.ndarray, str]:
    """zuko's neural spline flow, stopped where validation is best."""
    import zuko

    def fit(train: np.ndarray, validation: np.ndarray) -> tuple[Any, str]:
        torch.manual_seed(seed)
        x, held_out = torch.from_numpy(train).float(), torch.from_numpy(validation).float()
        model = zuko.flows.NSF(x.shape[1], transforms=3, hidden_features=(128, 128))
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        best, best_loss, epochs, at, began = None, math.inf, 0, 0, time.monotonic()
        while time.monotonic() - began < 60 * settings.minutes and epochs - at < PATIENCE:
            for rows in torch.randperm(len(x)).split(256):
                loss = -model().log_prob(x[rows]).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
            epochs += 1
            with torch.no_grad():
                reached = float(-model().log_prob(held_out).mean())
            if reached < best_loss:
                best, best_loss, at = {k: v.clone() for k, v in model.state_dict().items()}, reached, epochs
        assert best is not None
        model.load_state_dict(best)

        @torch.no_grad()
        def log_density(z: np.ndarray) -> np.ndarray:
            return model().log_prob(torch.from_numpy(z).float()).double().numpy()

        return log_density, f"epoch {at} of {epochs}"

    return by_validation(split, fit)


METHODS: dict[str, Callable[[Split, int, Settings], tuple[np.ndarray, str]]] = {
    "kernel": kernel, "mixture": mixture, "score": score, "flow": flow,
}  # fmt: skip
TABLES = ("wine_quality_red", "wine_quality_white", "parkinsons", "cpu_act", "magic", "houses", "house_16H", "shuttle", "adult")


def measured(folder: Path, name: str, seed: int, method: str, settings: Settings, cache: Path) -> Cell:
    """One cell; the rows' log-densities go into `cache`."""
    split, began = table(folder, name, seed), time.monotonic()
    rows, words = METHODS[method](split, seed, settings)
    seconds = time.monotonic() - began
    cache.mkdir(exist_ok=True)
    np.savez(cache / f"{name}-{seed}-{method}.npz", log_density=rows)
    return {
        "table": name, "seed": seed, "method": method, "nats": rows.mean(), "se": rows.std() / math.sqrt(len(rows)),
        "rows": len(rows), "columns": split.test.shape[1], "seconds": round(seconds, 1), "chosen": words,
        "device": settings.device if method == "score" else "cpu",
    }  # fmt: skip


def shown(cells: list[Cell], cache: Path) -> str:
    """The table in Markdown: means over seeds, and the score less the mixture, row by row, with its standard error."""
    lines = ["| table | " + " | ".join(METHODS) + " | score less mixture |", "|---" * (len(METHODS) + 2) + "|"]
    for name in TABLES:
        own = [c for c in cells if c["table"] == name]
        if not own:
            continue
        means = []
        for method in METHODS:
            values = [c["nats"] for c in own if c["method"] == method]
            means.append(f"{np.mean(values):.2f}" if values else "")
        pairs = []
        for c in own:
            files = [cache / f"{name}-{c['seed']}-{m}.npz" for m in ("score", "mixture")]
            if c["method"] == "score" and all(f.exists() for f in files):
                pairs.append(np.subtract(*(np.load(f)["log_density"] for f in files)))
        gain = "" if not pairs else f"{np.mean([p.mean() for p in pairs]):+.3f} ± {spread(pairs):.3f}"
        lines.append(f"| {name} | " + " | ".join(means) + f" | {gain} |")
    return "\n".join(lines)


def spread(pairs: list[np.ndarray]) -> float:
    """Standard error of the mean of means: rows of a seed are independent."""
    return math.sqrt(sum(p.var() / len(p) for p in pairs)) / len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("tables.jsonl"))
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    parser.add_argument(
        "--minutes", type=float, default=3.0, help="of training for zuko's flow, in either coordinates, unless it stops early"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="of ScoreDensity; cells of the score name it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = Settings(options.minutes, options.device)
    cells = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done, cache = {(c["table"], c["seed"], c["method"]) for c in cells}, options.out.with_suffix("")
    for seed in options.seeds:
        for name in options.tables:
            for method in options.methods:
                if (name, seed, method) not in done:
                    cell = measured(options.folder, name, seed, method, settings, cache)
                    cells.append(cell)
                    with options.out.open("a") as file:
                        file.write(json.dumps(cell) + "\n")
                    print(json.dumps(cell), flush=True)
    print(shown(cells, cache))


if __name__ == "__main__":
    main()
