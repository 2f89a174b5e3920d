"""Which folders belong to tables. It imports nothing that is slow, for it is asked when Ctrl-C comes, too."""

import json
from collections.abc import Sequence
from pathlib import Path

CHECKPOINT = "training.safetensors"
"""what an interrupted training leaves"""


def is_table_run(arguments: Sequence[str]) -> bool:
    """Whether one of the arguments is a folder with the density of a table, or with an interrupted training of one."""
    folders = [Path(a) for a in arguments if not a.startswith("-")]
    return any((folder / CHECKPOINT).exists() or is_density(folder) for folder in folders)


def is_density(folder: Path) -> bool:
    """Whether `ScoreDensity.save` wrote into a folder."""
    try:
        found = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"encoding", "flow_steps"} <= found.keys()
