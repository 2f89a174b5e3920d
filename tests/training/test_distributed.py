"""Two processes under torchrun give the gradient that one process gives on both batches."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scorefield import DenoisingScoreMatching

SCRIPT = Path(__file__).parent / "two_processes.py"
spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
assert spec is not None
assert spec.loader is not None
two = importlib.util.module_from_spec(spec)
spec.loader.exec_module(two)


@pytest.mark.parametrize("kind", ["direct", "energy"])
def test_gradient_of_two_processes_is_that_of_the_whole_batch(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "gradient.pt"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launch, str(SCRIPT), kind, str(out)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[:4000]

    model, objective = two.build(kind == "energy"), DenoisingScoreMatching()
    drawn = [objective.draw(two.batch(rank), model.sigma_range, two.noise(rank)) for rank in (0, 1)]
    sigma, z = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    x = torch.cat([two.batch(0), two.batch(1)])
    (objective.at(model, x, sigma, z).value.mean() / 3).backward()

    gradient = torch.load(out, weights_only=True)
    assert set(gradient) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(gradient[name], parameter.grad, rtol=1e-6, atol=1e-12, msg=name)
    assert max(g.abs().max() for g in gradient.values()) > 0.1


def test_each_process_has_chains_of_its_own_and_resumes_them(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = SCRIPT.with_name("two_processes_chains.py")
    done = subprocess.run([*launch, str(script), str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[:4000]
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for found in ranks:
        assert all(found["parts"][name].equal(value) for name, value in found["whole"].items())
    one, other = (found["whole"] for found in ranks)
    mine, theirs = (part["model.objective.replay"].flatten(0, 1) for part in (one, other))
    assert not (mine == theirs).flatten(1).all(1).any()  # nor are those that the last step left alone handed around
    for name in one:
        if name.startswith("model.model."):
            torch.testing.assert_close(one[name], other[name])
