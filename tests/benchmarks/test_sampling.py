"""Every run that the benchmark of samplers times is that sampler on that network, and each has a cell in its table."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

PATH = Path(__file__).parents[2] / "benchmarks" / "sampling.py"
SPEC = importlib.util.spec_from_file_location("benchmark_of_sampling", PATH)
assert SPEC is not None
assert SPEC.loader is not None
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)


def test_our_runs_take_the_steps_asked_for() -> None:
    network = benchmark.MLP()
    runs = benchmark.ours(network, torch.randn(4, 2), 5)
    assert tuple(runs) == benchmark.SAMPLERS
    assert [benchmark.evaluations(network, run) for run in runs.values()] == [9, 5, 5]


@pytest.mark.parametrize(("package", "expected"), [("azula", [10, 5, 5]), ("diffusers", [9, 5, 5])])
def test_the_peers_take_as_many(package: str, expected: list[int]) -> None:
    pytest.importorskip(package)
    network = benchmark.MLP()
    runs = benchmark.PEERS[package](network, torch.randn(4, 2), 5)
    assert tuple(runs) == benchmark.SAMPLERS
    assert [benchmark.evaluations(network, run) for run in runs.values()] == expected


@pytest.mark.parametrize("label", ["mlp", "unet"])
def test_the_bare_passes_are_those_of_the_sampler(label: str) -> None:
    """Same network, same shapes, no gradients."""
    seen: list[tuple[torch.Size, torch.Size, bool]] = []

    class Spy(nn.Module):
        def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
            seen.append((u.shape, c_noise.shape, torch.is_grad_enabled()))
            return 0 * u

    name, _, x = benchmark.problems([label])[0]
    benchmark.measure(name, Spy(), x, 2, 1)
    assert set(seen) == {(x.shape, torch.Size([len(x)]), False)}


def test_the_table_has_a_ratio_for_each_and_names_who_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "find_spec", lambda package: None)
    rows = benchmark.measure("tiny", benchmark.MLP(), torch.randn(4, 2), 2, 1)
    lines = benchmark.table(rows).splitlines()
    assert len(lines) == 2 + len(benchmark.SAMPLERS)
    for line, sampler in zip(lines[2:], benchmark.SAMPLERS, strict=True):
        label, forward, name, ratio, *peers = [cell.strip() for cell in line.split("|")[1:-1]]
        assert (label, name, peers) == ("tiny", sampler, ["not installed"] * len(benchmark.PEERS))
        assert forward.endswith(" ms")
        assert float(ratio.split()[0]) > 0
