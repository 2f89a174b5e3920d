"""How likely, and how unusual, each of given examples is under a trained model.

    typicality    |log p(x) − m|, m the median of log p over held-out reference rows
    p-value       (1 + number of calibration rows at least as atypical)/(1 + number of calibration rows)

High density alone does not make an example normal: a model of clothes gives digits, which are smoother, a higher density
than clothes (Nalisnick et al. 2019, arXiv:1810.09136). Typical examples have a typical density, neither low nor high
(arXiv:1906.02994). The p-value is conformal: of examples drawn like the data, a share of at most α has p ≤ α, whatever the
model (Vovk et al. 2005, Algorithmic Learning in a Random World). For that its calibration rows, half of the validation
split, serve no other purpose; the reference rows are of the other half.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from scorefield.data import Data
from scorefield.errors import UserError
from scorefield.experiment.likelihood import Effort, LogDensities, check_finite, log_densities
from scorefield.experiment.sample import check_place
from scorefield.experiment.train import make_folder, validation_halves
from scorefield.likelihood import bits_per_dim
from scorefield.models import ModelSpec
from scorefield.persistence import Model
from scorefield.plots import to_pixels
from scorefield.system import written_aside

REFERENCE_ROWS = 200
"""most rows of each half of the validation split that are used"""
FORMATS = (".parquet", ".csv")


def logprob(
    model: Model,
    own: Data,
    raw: np.ndarray,
    *,
    effort: Effort = Effort(draws=0),
    seed: int = 0,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    watch: Callable[[int], None] = lambda rows: None,
) -> pd.DataFrame:
    """A table with a row for each of the raw examples `(n, *event)`; its columns are those of `scorefield logprob`.

    Rows whose log-density is not finite, being too far out for the arithmetic, are as unusual as can be.

    Args:
        own: the data that the model was trained on, whose validation split says what is typical.
        cache: a folder for what is computed already.
        watch: called with the number of rows done; there are `rows_to_compute` in all.

    Raises:
        UserError: too few validation rows to calibrate with.
        RunError: a validation row whose log-density is not finite.
    """
    if cache is not None:
        make_folder(cache, "what is computed is kept there: make the run's folder writable")

    def densities(rows: np.ndarray, name: str) -> LogDensities:
        place = None if cache is None else cache / f"{name}.jsonl"
        return log_densities(model, rows, effort, seed=seed, purpose=name, device=device, cache=place, watch=watch)

    reference, calibration = (np.array(own.splits["validation"].x[rows]) for rows in halves(own))
    middle = np.median(check_finite(densities(reference, "reference")).log_density)
    ordinary = np.abs(check_finite(densities(calibration, "calibration")).log_density - middle)
    found = densities(raw, "rows")
    atypical = np.where(np.isfinite(found.log_density), np.abs(found.log_density - middle), np.inf)
    table = {"log_density": found.log_density, "se": found.se, "refinement": found.refinement}
    if len(found.bound):
        table |= {"bound": found.bound, "bound_se": found.bound_se}
    if own.levels is not None:
        table["bits_per_dim"] = bits_per_dim(torch.from_numpy(found.log_density), own.event_shape).numpy()
    return pd.DataFrame({**table, "typicality": atypical, "p_value": conformal_p_values(atypical, ordinary)})


def conformal_p_values(scores: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """(1 + #{calibration ≥ score})/(1 + #calibration) for each score; large scores are unusual."""
    below = np.searchsorted(np.sort(calibration), scores, side="left")
    return (1 + len(calibration) - below) / (1 + len(calibration))


def halves(own: Data) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the validation split: reference rows, of the half that training watches, and calibration rows."""
    total = len(own.splits["validation"].x)
    if total < 20:
        raise UserError(f"{own.source} has {total} validation rows, too few to calibrate anomaly scores: give 20 or more")
    reference, calibration = validation_halves(total)
    return reference[:REFERENCE_ROWS], calibration[:REFERENCE_ROWS]


def smallest_p_value(own: Data) -> float:
    """What the most unusual of examples gets: calibration rows are few."""
    return 1 / (1 + len(halves(own)[1]))


def in_levels_of(spec: ModelSpec, images: np.ndarray, levels: int | None) -> tuple[np.ndarray, int | None]:
    """Images 0 … 255 as `scorefield sample` writes those of a model of fewer levels, in the levels of the model.

    Anything that is not exactly such an image comes back as it was.
    """
    mine = spec.scaling.levels
    if levels == 256 and mine is not None and mine < levels and images.dtype == np.uint8:
        raw = np.rint(images * ((mine - 1) / 255)).astype(np.uint8)
        if np.array_equal(to_pixels(torch.from_numpy(raw), mine), to_pixels(torch.from_numpy(images), levels)):
            return raw, mine
    return images, levels


def rows_to_compute(own: Data, raw: np.ndarray) -> int:
    """How many log-densities `logprob` computes."""
    return sum(len(rows) for rows in halves(own)) + len(raw)


def check_table(path: Path, overwrite: bool) -> None:
    """Refuses a file that could not be written, before anything is computed."""
    if path.suffix not in FORMATS:
        raise UserError(f"cannot write {path}: a table is a {' or a '.join(FORMATS)} file")
    check_place(path, overwrite)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """The table as Parquet or CSV, by the suffix, whole or not at all."""
    with written_aside(path) as aside:
        if path.suffix == ".csv":
            table.to_csv(aside, index_label="row")
        else:
            table.rename_axis("row").reset_index().to_parquet(aside, index=False)
