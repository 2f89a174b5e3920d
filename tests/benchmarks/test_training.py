"""The floor of the training benchmark is the run's network, on its device, in its precision, compiled if it is."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scorefield.networks import UNetConfig
from scorefield.recipes import recipe

PATH = Path(__file__).parents[2] / "benchmarks" / "training.py"
SPEC = importlib.util.spec_from_file_location("benchmark_of_training", PATH)
assert SPEC is not None
assert SPEC.loader is not None
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("compiled", ["on", "off"])
def test_the_floor_computes_as_the_run_does(
    precision: str, dtype: torch.dtype, compiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: calls.append("compiled"))
    run = replace(recipe("digits"), network=UNetConfig(channels=8, multipliers=(1,), blocks=1))
    run = replace(run, training=replace(run.training, precision=precision, compile=compiled, batch_size=4))
    floor = benchmark.Floor(run, (1, 8, 8), torch.device("cpu"))
    seen: list[torch.dtype] = []
    floor.network.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    assert floor.steps(3) > 0
    assert seen == [dtype] * 3
    assert calls == ["compiled"] * (compiled == "on")


def test_the_floor_lies_on_the_runs_device_and_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device `meta` stands for one that is not the CPU."""
    floor = benchmark.Floor(recipe("digits"), (1, 8, 8), torch.device("meta"))
    tensors = [floor.u, floor.target, floor.c_noise, *floor.network.parameters()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    benchmark.finished(torch.device("cuda", 1))
    assert waited == [torch.device("cuda", 1)]
    benchmark.finished(torch.device("cpu"))
    assert len(waited) == 1


def test_it_measures_a_run(tmp_path: Path) -> None:
    run = replace(recipe("digits"), network=UNetConfig(channels=8, multipliers=(1,), blocks=1))
    settings = replace(run.training, steps=50, batch_size=16, precision="float32", threads=1)
    found = benchmark.measure(replace(run, training=settings), tmp_path / "run")
    assert (found["recipe"], found["precision"], found["compile"], found["threads"]) == ("digits", "float32", "off", 1)
    assert found["quartiles"][0] <= found["ratio"] <= found["quartiles"][2]
