"""Every step that the benchmark of objectives times is a training step, and each has a cell in its table."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

PATH = Path(__file__).parents[2] / "benchmarks" / "objectives.py"
SPEC = importlib.util.spec_from_file_location("benchmark_of_objectives", PATH)
assert SPEC is not None
assert SPEC.loader is not None
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)

NAMES = ["floor", "explicit", "exact", "sliced", "sliced, variance reduced", "finite difference", "denoising"]
PEERS = {"torchebm": benchmark.torchebm_steps, "ebmkit": benchmark.ebmkit_steps}


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Tiny batches; and the networks that the benchmark builds, in order."""
    built: list[nn.Module] = []
    build = benchmark.mlp
    monkeypatch.setattr(benchmark, "BATCH", 4)
    monkeypatch.setattr(benchmark, "mlp", lambda d, out: built.append(build(d, out)) or built[-1])
    return built


def changes(step: benchmark.Step, network: nn.Module) -> list[bool]:
    """Which parameters the step changes."""
    before: list[Tensor] = [p.detach().clone() for p in network.parameters()]
    step()
    return [not torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True)]


@pytest.mark.parametrize("energy", [True, False], ids=["energy", "direct"])
def test_every_step_trains_its_network(energy: bool, networks: list[nn.Module]) -> None:
    steps = benchmark.ours(2, torch.randn(4, 2), energy, False)
    assert list(steps) == NAMES
    for (name, step), network in zip(steps.items(), networks, strict=True):
        *changed, last_bias = changes(step, network)
        assert all(changed), name
        assert last_bias or (energy and name != "floor"), name  # a constant of log p has no gradient


@pytest.mark.parametrize("package", PEERS)
def test_the_peers_steps_train_theirs(package: str, networks: list[nn.Module]) -> None:
    pytest.importorskip({"torchebm": "torchebm", "ebmkit": "ebm"}[package])
    steps = PEERS[package](2, torch.randn(4, 2))
    for (name, step), network in zip(steps.items(), networks, strict=True):
        assert all(changes(step, network)[:-1]), name


def test_the_table_has_a_ratio_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in PEERS:
        monkeypatch.setattr(benchmark, f"{package}_steps", lambda d, x: {})
    rows = benchmark.measure(2, 1, False)
    lines = benchmark.table(rows).splitlines()
    assert len(rows) == len(lines) - 2 == 2 * len(NAMES)
    cells = {(kind, name): cell for _, kind, name, cell in ([c.strip() for c in line.split("|")[1:-1]] for line in lines[2:])}
    assert cells.keys() == {(kind, name) for kind in ("energy", "direct") for name in NAMES}
    for (_, name), cell in cells.items():
        assert cell.endswith(" ms") if name == "floor" else float(cell) > 0
