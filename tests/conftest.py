"""Shared by all tests: a cache of their own, one thread, and one small trained run."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

TINY = [
    "--steps", "12", "--checkpoint-every", "4", "--batch-size", "32", "--log-every", "4", "--validate-every", "6",
    "--network.channels", "8", "--threads", "1", "--precision", "float32", "--compile", "off",
]  # fmt: skip
"""flags that make the digits recipe a matter of a second"""


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data cache of this test session, also for the processes it starts."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["SCOREFIELD_CACHE"] = str(folder)
    yield folder
    del os.environ["SCOREFIELD_CACHE"]


@pytest.fixture(scope="session")
def tiny_run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished digits run of 12 steps; copy it before changing anything."""
    from scorefield.cli import main

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "digits", "--out", str(folder), *TINY]) == 0
    return folder


@pytest.fixture(scope="session")
def tiny_classes(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished conditional digits run of 12 steps; copy it before changing anything."""
    from scorefield.cli import main

    folder = tmp_path_factory.mktemp("runs") / "classes"
    assert main(["train", "digits", "--out", str(folder), *TINY, "--conditional"]) == 0
    return folder


@pytest.fixture
def tiny_flags() -> list[str]:
    return list(TINY)
