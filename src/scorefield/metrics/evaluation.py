"""All two-sample metrics at once, as records."""

import torch
from torch import Tensor

from scorefield.metrics.features import Features
from scorefield.metrics.neighbours import memorisation_ratio, precision_recall_density_coverage
from scorefield.metrics.record import Record
from scorefield.metrics.two_sample import frechet_distance, frechet_standard_error, kernel_distance

FEWEST = 20


def evaluate_samples(samples: Tensor, train: Tensor, held_out: Tensor, features: Features, *, seed: int) -> list[Record]:
    """Records on `samples` against `held_out` data, with real training data beside them as the line to reach.

    Distances are between equally many examples of each kind, as their bias depends on the number. All `(n, *event)` in scaled
    data units.

    Raises:
        ValueError: fewer than 20 examples of one kind.
    """
    n = min(len(samples), len(train), len(held_out))
    if n < FEWEST:
        raise ValueError(f"at least {FEWEST} samples, training and held-out examples are needed to compare them, got {n}")
    fake, real, reference = (features(x[:n]) for x in (samples, train, held_out))
    space = features.name

    def distances(a: Tensor, whose: str) -> list[Record]:
        kernel, se = kernel_distance(a, reference)
        frechet = frechet_distance(a, reference)
        return [
            Record(
                f"Fréchet distance, {whose}",
                frechet,
                frechet_standard_error(a, reference),
                n,
                f"squared distance in {space}",
                seed,
            ),
            Record(f"kernel distance, {whose}", kernel, se, n, f"squared MMD in {space}", seed),
        ]

    manifold = precision_recall_density_coverage(reference, fake)
    ratio, ratio_se = memorisation_ratio(samples[:n], train, held_out[:n], seed=seed)
    shares = [
        Record(name, value, binomial_se(name, value, n), n, f"in {space}", seed) for name, value in manifold._asdict().items()
    ]
    copies = Record("memorisation ratio", ratio, ratio_se, n, "nearest training example: samples / held-out data", seed)
    return [*distances(fake, "samples"), *distances(real, "real training data"), *shares, copies]


def binomial_se(name: str, value: float, n: int) -> float | None:
    """√(p(1−p)/n) for shares; density is none."""
    return None if name == "density" else float(torch.tensor(value * (1 - value) / n).clamp(min=0).sqrt())
