"""A small classifier of the training split, for want of features that suit any data; distances are taken in its last layer."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from scorefield.metrics.copies import Rows
from scorefield.metrics.features import NetworkFeatures
from scorefield.randomness import derive_seed, keyed_generator

FEATURES, BATCH = 32, 128
EPOCHS, MOST_STEPS = 30, 2000
"""passes through the rows, as far as so many steps allow"""
NOISE = 0.1
"""added to what is seen in training, scaled units"""


class Classifier(NamedTuple):
    """Features, and how often the classifier is right on rows it has not seen."""

    features: NetworkFeatures
    accuracy: float


def fit_classifier(
    train: Rows, labels: np.ndarray, test: Rows, test_labels: np.ndarray, classes: int, *, seed: int = 0
) -> Classifier:
    """Train it on scaled rows `(n, *event)`, images or vectors; a function of its arguments."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "classifier"))
        body = body_for(tuple(train[:1].shape[1:]))
        head = nn.Linear(FEATURES, classes)
    steps = min(MOST_STEPS, math.ceil(EPOCHS * len(train) / BATCH))
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        generator = keyed_generator(seed, "classifier", step)
        rows = torch.randint(len(train), (BATCH,), generator=generator).numpy()
        x = train[rows]
        x = x + NOISE * torch.randn(x.shape, generator=generator)
        loss = nn.functional.cross_entropy(head(body(x)), torch.from_numpy(labels[rows]).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    features = NetworkFeatures(body.eval(), f"last layer of a classifier of the {classes} classes")
    with torch.no_grad():
        right = head(features(test[: len(test)]).float()).argmax(1) == torch.from_numpy(test_labels)
    return Classifier(features, right.double().mean().item())


def body_for(event_shape: tuple[int, ...]) -> nn.Sequential:
    """All but the last layer: two convolutions for images, two layers for vectors."""
    if len(event_shape) != 3:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(event_shape), 128), nn.SiLU(), *bottleneck(128))
    c, h, w = event_shape
    folded = 64 * -(-h // 4) * -(-w // 4)
    return nn.Sequential(
        nn.Conv2d(c, 32, 3, 2, 1), nn.SiLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.SiLU(), nn.Flatten(), *bottleneck(folded)
    )  # fmt: skip


def bottleneck(width: int) -> tuple[nn.Module, ...]:
    """The features themselves."""
    return nn.Linear(width, FEATURES), nn.Tanh()
