"""The README's Python sessions run as written, and its commands are those of the Makefile and of the command line."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SESSIONS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_first_session_has_at_most_fifteen_lines_and_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(SESSIONS[0].splitlines()) <= 15
    found: dict = {}
    exec(compile(SESSIONS[0], "README.md", "exec"), found)
    assert found["digits"].shape == (16, 1, 8, 8)
    assert set(found["digits"].unique().tolist()) <= set(range(17))
    # 50 steps make no digits, but already dark borders: the two outer columns of real digits are nearly always empty
    outer = found["digits"][..., [0, -1]].mean().item()
    assert outer < found["digits"][..., 2:6].mean().item() / 2
    assert found["score"].shape == found["x"].shape


def test_the_session_with_a_network_of_ones_own_learns_eight_gaussians(tmp_path: Path) -> None:
    found: dict = {}
    exec(compile(SESSIONS[1], "README.md", "exec"), found)
    radius = found["samples"].norm(dim=1)
    assert abs(radius.mean().item() - 1.4) < 0.15  # noise of the data's scale would give 1.25, with a std of 0.65
    assert radius.std().item() < 0.4


def test_the_session_on_energies_normalises_what_it_learns() -> None:
    found: dict = {}
    exec(compile(SESSIONS[2], "README.md", "exec"), found)
    mean = found["normalised"].mean().item()
    assert -2.5 < mean < -1.0  # the best Gaussian has −2.7
    assert abs(found["objective"].log_z.item() - found["log_z"].log_z) < 0.2
    spread = found["draws"].x.flatten(0, 1).var(0) / found["data"].var(0)
    assert (spread - 1).abs().max() < 0.3


def test_the_session_on_walks_finds_z() -> None:
    found: dict = {}
    exec(compile(SESSIONS[3], "README.md", "exec"), found)
    z = found["found"]
    assert z.trustworthy
    assert abs(z.log_z) < 3.5 * z.se
    inside = found["Ring"](1.3, 0.1).log_density(found["x"]) > -6
    assert inside.double().mean() > 0.95  # of both, the ring is the narrower


def test_the_session_on_closed_forms_fits(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict = {}
    exec(compile(SESSIONS[4], "README.md", "exec"), found)
    printed = capsys.readouterr().out
    assert "x⁴" in printed
    assert "Graph(3 edges between 4 columns)" in printed
    torch.testing.assert_close(found["draws"].norm(dim=1), torch.ones(len(found["draws"]), dtype=torch.float64))
    grid = torch.linspace(-4, 5, 2000, dtype=torch.float64)[:, None]
    shares = found["fit"].log_density(grid).softmax(0)
    assert abs(float(shares[grid[:, 0] < 0.2].sum()) - 0.3) < 0.1  # of the left hump


def test_the_session_on_clean_data_lowers_the_implicit_loss() -> None:
    found: dict = {}
    exec(compile(SESSIONS[5], "README.md", "exec"), found)
    trained = found["score"].square().sum(1) / 2 + found["laplacian"]
    assert trained.mean().item() < -1.5  # N(0, I), which the confinement alone gives, has −1


def test_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", README)) - {"good"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def made(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make` where nothing is installed yet."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_pytorch_from_another_index_brings_nothing_else_from_there(tmp_path: Path) -> None:
    """That index has old versions of what PyTorch needs, against the constraints: the rest comes from PyPI afterwards."""
    shown = made(tmp_path, "--dry-run", "demo", "TORCH_INDEX=https://index").stdout.splitlines()
    pytorch = [line for line in [*shown, *README.splitlines()] if "--index-url" in line]
    assert len(pytorch) == 2
    assert all("--no-deps" in line for line in pytorch)
    assert not [line for line in shown if "--editable" in line and "--no-deps" in line]


def test_a_python_without_virtual_environments_is_told_what_to_install(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    result = made(tmp_path, "--silent", ".venv/installed", f"PYTHON={python}")
    assert result.returncode == 2
    assert "cannot make a virtual environment: on Debian and Ubuntu install it by apt install python3-venv" in result.stderr
    assert not (tmp_path / ".venv").exists()
