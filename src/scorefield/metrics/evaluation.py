"""All metrics of a sample at once, each beside the value that real data reaches."""

import torch
from torch import Tensor

from scorefield.metrics.copies import memorisation_ratio
from scorefield.metrics.distances import frechet_distance, jackknife, kernel_distance
from scorefield.metrics.features import Features
from scorefield.metrics.neighbourhoods import precision_recall_density_coverage
from scorefield.metrics.record import Estimate, Record
from scorefield.randomness import keyed_generator

REAL = ", real training data"
"""ends the names of reference lines: the same metric, with training rows in the place of samples"""
NEIGHBOUR = 5


def evaluate_samples(samples: Tensor, train: Tensor, held_out: Tensor, features: Features, *, seed: int) -> list[Record]:
    """Compare samples with held-out data, and as many training rows with the same held-out data; all scaled `(n, *event)`.

    Of each the same number of rows is used, the smallest of the three, since the Fréchet distance depends on it; data rows
    are chosen at random by `seed`. The memorisation ratio searches all training rows; it is left out where held-out rows
    are themselves copies of training rows.

    Raises:
        ValueError: fewer than two rows of any.
    """
    n = min(len(samples), len(train), len(held_out))
    real, reference = choose(held_out, n, seed, 0), choose(train, n, seed, 1)
    real_features = features(real)
    found = [Record(name, *e, n, unit, seed) for name, e, unit in compare(features(samples[:n]), real_features, features.name)]
    same = compare(features(reference), real_features, features.name)
    found += [Record(name + REAL, *e, n, unit, seed) for name, e, unit in same]
    ratio = memorisation_ratio(samples[:n], train, real, seed=seed)
    if ratio is not None:
        found.append(Record("memorisation ratio", *ratio, n, "ratio of median distances to the nearest training row", seed))
    return found


def choose(x: Tensor, n: int, seed: int, split: int) -> Tensor:
    """`n` rows at random, without replacement."""
    generator = keyed_generator(seed, "evaluation rows", split)
    return x[torch.randperm(len(x), generator=generator)[:n]]


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
