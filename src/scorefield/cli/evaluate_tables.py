"""Judge the model of a table on rows: likelihood, samples beside rows, copies, and the oddest rows; files in the run folder."""

import json
from collections.abc import Callable
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from scorefield.cli.display import rows_bar, tracked
from scorefield.data import random_rows
from scorefield.data.columns import as_frame, plain
from scorefield.errors import UserError
from scorefield.estimators import ScoreDensity
from scorefield.estimators.flow import untrained
from scorefield.estimators.table import check_rows
from scorefield.metrics import Record
from scorefield.metrics.evaluation import REAL
from scorefield.metrics.record import finite, mean_estimate
from scorefield.metrics.tables import (
    FOLDS,
    Closeness,
    classifier_two_sample_test,
    closeness,
    copies_within,
    exact_copies,
    most_correlated,
    rank_correlations,
)
from scorefield.plots import figure_png
from scorefield.plots.tables import correlations, marginals, nearest_distances, pairs
from scorefield.randomness import derive_seed
from scorefield.system import write_durably

FEWEST = 10
"""rows"""
PART = 1024
"""rows between two ticks of a progress bar"""
MOST_PAIRED = 6
"""columns in the picture of pairs"""
ODDEST = 10
"""rows that are shown"""
STANDARD = "standard deviations of the encoded columns"

Values = dict[str, Any]


def evaluate_table(
    model: ScoreDensity, frame: pd.DataFrame, folder: Path, n: int, *, trained_on: pd.DataFrame | None = None, seed: int = 0
) -> tuple[list[Record], list[Path]]:
    """The records, and the files written into `folder`: evaluation.json and pictures.

    At most `n` rows, chosen at random, are compared with as many samples; all rows are looked at for odd ones, and copies are
    looked for among all rows, or among those of `trained_on`. Samples have no gaps, so those of the rows are filled by draws
    from the model: if it is true, and values are missing at random, filled rows follow its law.

    Raises:
        UserError: fewer than `FEWEST` rows, or rows that the model does not take.
    """
    encoding, frame = model.encoding_, as_frame(frame)
    numbers = checked_numbers(model, frame)
    known = numbers if trained_on is None else checked_numbers(model, trained_on)
    if len(frame) < FEWEST:
        raise UserError(f"at least {FEWEST} rows are needed to compare, got {len(frame)}")
    chosen = random_rows(len(frame), n, seed, "evaluated rows")
    densities = likelihoods(model, frame.iloc[chosen])
    samples = drawn(model, len(chosen), seed)
    odd = oddest_rows(model, frame)

    fake, full = encoding.numbers(samples), encoding.numbers(completed(model, frame, seed))
    of_trained = full if trained_on is None else encoding.numbers(completed(model, trained_on, seed))
    real, fake_z, base = (encoding.encode(x)[0] for x in (full[chosen], fake, of_trained))
    with rows_bar("classifier", FOLDS) as watch:
        test = classifier_two_sample_test(real, fake_z, seed=seed, watch=watch)
    near = closeness(fake_z, real, base, within=trained_on is None)
    of_real, of_fake = rank_correlations(full[chosen]), rank_correlations(fake)

    columns = encoding.modelled
    paired = most_correlated(of_real, MOST_PAIRED)
    figures = {
        "marginals.png": marginals(columns, numbers[chosen], fake),
        "nearest.png": nearest_distances(near.of_samples, near.of_real, near.near),
    }
    if len(columns) > 1:
        figures["pairs.png"] = pairs([columns[j] for j in paired], full[chosen][:, paired], fake[:, paired])
        figures["correlations.png"] = correlations([c.name for c in columns], of_real, of_fake)
    records = [
        *densities,
        Record("two-sample accuracy", test.accuracy, None, test.n, f"share; 95 % from {test.low:.3f} to {test.high:.3f}", seed),
        Record("largest difference of rank correlations", float(np.nanmax(np.abs(of_fake - of_real), initial=0.0)), None,
               len(chosen), "Spearman's ρ", seed),
        *copy_records(near, exact_copies(fake, known), copies_within(known), len(known), seed),
    ]  # fmt: skip
    for name, figure in figures.items():
        write_durably(folder / name, figure_png(figure))
    content = {
        "rows": len(frame), "compared": len(chosen), "columns": len(columns), "gaps": int(np.isnan(numbers).sum()),
        "trained_on": None if trained_on is None else len(trained_on), "paired": [columns[j].name for j in paired],
        "seed": seed, "two_sample_test": test._asdict(), "records": [asdict(r) for r in records], "oddest": odd,
    }  # fmt: skip
    write_durably(folder / "evaluation.json", json.dumps(finite(content), indent=2, allow_nan=False) + "\n")
    return records, [*(folder / name for name in figures), folder / "evaluation.json"]


def checked_numbers(model: ScoreDensity, frame: pd.DataFrame) -> np.ndarray:
    """Rows as numbers `(n, d)`; `UserError` for what the model does not take."""
    numbers = model.encoding_.numbers(as_frame(frame))
    check_rows(numbers)
    return numbers


def in_parts(label: str, function: Callable[[pd.DataFrame, int], Any], frame: pd.DataFrame) -> list[Any]:
    """`function` of each part of a frame, and of the part's number, with a bar."""
    parts = [frame.iloc[start : start + PART] for start in range(0, len(frame), PART)]
    return [function(part, i) for i, part in enumerate(tracked(parts, label, len(parts)))]


def likelihoods(model: ScoreDensity, frame: pd.DataFrame) -> list[Record]:
    """The mean log-density of rows, that without the model's network, and what the network gains."""
    whole = np.concatenate(in_parts("log-densities", lambda part, _: model.score_samples(part), frame))
    found = {"log-density": whole}
    if not model.model_.untouched:
        base = copy(model)
        base.model_ = untrained(model.model_)
        without = base.score_samples(frame)
        found |= {"log-density, without the network": without, "log-density, gained by the network": whole - without}
    unit = "nats a row, in the units of the table"
    return [Record(name, *mean_estimate(torch.from_numpy(v)), len(v), unit, None) for name, v in found.items()]


def drawn(model: ScoreDensity, n: int, seed: int) -> pd.DataFrame:
    """`n` new rows."""
    counts = [min(PART, n - start) for start in range(0, n, PART)]
    seeds = [derive_seed(seed, "evaluated samples", i) for i in range(len(counts))]
    draws = tracked(zip(counts, seeds, strict=True), "sampling", len(counts))
    return pd.concat([model.sample(count, own) for count, own in draws], ignore_index=True)


def completed(model: ScoreDensity, frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The frame with its gaps filled by one draw."""
    if not frame.isna().to_numpy().any():
        return frame

    def fill(part: pd.DataFrame, i: int) -> pd.DataFrame:
        return model.impute(part, random_state=derive_seed(seed, "evaluated gaps", i))[0]

    return pd.concat(in_parts("filling gaps", fill, frame), ignore_index=True)


def largest(parts: np.ndarray, most: int = 3) -> list[list[tuple[int, float]]]:
    """For each row of `(n, d)` the at most `most` places where it is largest, and how large; not those with NaN."""
    order = np.argsort(-np.nan_to_num(parts, nan=-1.0), axis=1, kind="stable")[:, :most]
    return [[(int(j), float(row[j])) for j in best if not np.isnan(row[j])] for row, best in zip(parts, order, strict=True)]


def oddest_rows(model: ScoreDensity, frame: pd.DataFrame) -> list[Values]:
    """The most anomalous rows, the oddest first: number, score, p-value, the columns that make them so, and all values."""
    scores = np.concatenate(in_parts("anomaly scores", lambda part, _: model.anomaly_score(part), frame))
    rows = np.argsort(-scores, kind="stable")[:ODDEST]
    odd, columns = frame.iloc[rows], model.encoding_.modelled
    parts = np.sqrt(model.anomaly_parts(odd))
    blamed = [[{"column": columns[j].name, "size": size} for j, size in b] for b in largest(parts)]
    values = [{name: shown(value) for name, value in row.items()} for row in odd.to_dict("records")]
    found = zip(rows.tolist(), scores[rows].tolist(), model.anomaly_pvalue(odd).tolist(), blamed, values, strict=True)
    return [dict(zip(("row", "score", "p_value", "because", "values"), each, strict=True)) for each in found]


def shown(value: Any) -> Any:
    """A value of a table as JSON has it."""
    value = plain(value)
    return None if pd.isna(value) else value if isinstance(value, bool | int | float | str) else str(value)


def copy_records(near: Closeness, copies: int, within: int, rows: int, seed: int) -> list[Record]:
    """The share of samples that are near a row, and exact copies, each beside real rows."""
    unit = f"share of rows at most {near.near:.3g} from the nearest row, in {STANDARD}"
    lines = []
    for share, distances, name in zip(near.shares, (near.of_samples, near.of_real), ("", REAL), strict=True):
        se = (share * (1 - share) / len(distances)) ** 0.5
        lines.append(Record("samples near a row" + name, share, se, len(distances), unit, seed))
    return [
        *lines,
        Record("exact copies", copies, None, len(near.of_samples), "samples that equal a row in every column", seed),
        Record("exact copies" + REAL, within, None, rows, "rows that equal another row in every column", seed),
    ]
