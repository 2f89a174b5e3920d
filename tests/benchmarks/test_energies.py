"""What maximum likelihood and noise contrast make of eight Gaussians: within 0.1 nats of the truth on held-out points."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

SPEC = importlib.util.spec_from_file_location("bench_energies", Path(__file__).parents[2] / "benchmarks" / "energies.py")
assert SPEC is not None
assert SPEC.loader is not None
energies = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = energies
SPEC.loader.exec_module(energies)


def test_the_shortfall_of_the_truth_is_nothing_and_of_a_gaussian_what_it_is() -> None:
    assert abs(energies.shortfall(energies.TRUTH)) < 1e-4
    assert energies.shortfall(energies.NOISE) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("words", ["persistent", "binary", "ranking"])
def test_within_a_tenth_of_a_nat(words: str) -> None:
    name = next(name for name in energies.OBJECTIVES if words in name)
    with torch.random.fork_rng():
        model, _ = energies.train(energies.OBJECTIVES[name](), 1000, 0)
    assert energies.shortfall(model) < 0.1
