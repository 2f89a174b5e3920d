"""The README's Python sessions run as written, and its commands are those of the Makefile and of the command line."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
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


def test_commands_exist() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", README)) - {"good"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
