"""All metrics of a sample at once, each beside the value that real data reaches."""

from torch import Tensor

from scorefield.data import random_rows
from scorefield.metrics.copies import Rows, memorisation_ratio
from scorefield.metrics.distances import frechet_distance, jackknife, kernel_distance
from scorefield.metrics.features import Features
from scorefield.metrics.neighbourhoods import precision_recall_density_coverage
from scorefield.metrics.record import Estimate, Record

REAL = ", real data"
"""ends the names of reference lines: the same metric, with training rows in the place of samples"""
NEIGHBOUR = 5


def evaluate_samples(
    samples: Tensor, train: Rows, held_out: Rows, features: Features, *, seed: int, memorisation: bool = True
) -> list[Record]:
    """Compare samples with held-out data, and as many training rows with the same held-out data; all scaled `(n, *event)`.

    Of each the same number of rows is used, the smallest of the three, since the Fréchet distance depends on it; data rows
    are chosen at random by `seed`. The memorisation ratio searches all training rows; it is left out where held-out rows
    are themselves copies of training rows.

    Args:
        memorisation: whether `train` is what the samples' model was trained on, so that copies of it would tell.

    Raises:
        ValueError: fewer than two rows of any.
    """
    n = min(len(samples), len(train), len(held_out))
    real = held_out[random_rows(len(held_out), n, seed, "real rows")]
    reference = train[random_rows(len(train), n, seed, "reference rows")]
    real_features = features(real)
    found = [Record(name, *e, n, unit, seed) for name, e, unit in compare(features(samples[:n]), real_features, features.name)]
    same = compare(features(reference), real_features, features.name)
    found += [Record(name + REAL, *e, n, unit, seed) for name, e, unit in same]
    ratio = memorisation_ratio(samples[:n], train, real, seed=seed) if memorisation else None
    if ratio is not None:
        found.append(Record("memorisation ratio", *ratio, n, "ratio of median distances to the nearest training row", seed))
    return found


def compare(fake: Tensor, real: Tensor, name: str) -> list[tuple[str, Estimate, str]]:
    """Metric, estimate and unit for two samples of features `(n, k)`."""
    k = min(NEIGHBOUR, len(real) - 1)
    shares = precision_recall_density_coverage(real, fake, k)
    frechet = Estimate(frechet_distance(fake, real), jackknife(frechet_distance, fake, real))
    near = f"{name}, {k} neighbours"
    return [
        ("Fréchet distance", frechet, f"squared scaled units, {name}; biased upwards, comparable at equal n only"),
        ("kernel distance", kernel_distance(fake, real), f"cubic kernel, {name}"),
        ("precision", shares.precision, f"share of samples, {near}"),
        ("recall", shares.recall, f"share of held-out rows, {near}"),
        ("density", shares.density, f"1 for equal distributions, {near}"),
        ("coverage", shares.coverage, f"share of held-out rows, {near}"),
    ]
