"""scorefield data: what is in a data source."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from tyro.conf import Positional, arg

from scorefield.cli.display import say, tracked
from scorefield.data import Data, Reading, open_data, random_rows
from scorefield.errors import UserError
from scorefield.experiment import arrays_of, write_picture
from scorefield.system import written_aside

SHOWN = 100
OWN = Path("contact-sheet.png")


@dataclass(frozen=True)
class DataCommand:
    """Read DATA as training would, say what was found, and draw a contact sheet of a hundred training examples.

    Examples: `scorefield data digits`, `scorefield data photos/ --reading.size 32 --out photos.png`.
    """

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """digits, fashion-mnist, hf:owner/name, a folder of images, or a .npy, .npz or idx file"""
    out: Annotated[Path | None, arg(metavar="FILE.png")] = None
    """where the contact sheet goes; if not given, contact-sheet.png, in the place of an earlier one"""
    overwrite: bool = False
    """replace FILE.png if it exists"""
    reading: Reading = field(default_factory=Reading)

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "DataCommand":
        return cls(tyro.MISSING)

    def __call__(self) -> int:
        out = self.out or OWN
        if out.suffix != ".png":
            raise UserError(f"cannot write {out}: a contact sheet is a .png")
        if self.out is not None and out.exists() and not self.overwrite:
            raise UserError(f"cannot write {out}: it exists already; give another --out, or --overwrite")
        data = open_data(self.data, self.reading, progress=tracked)
        for line in description(data):
            print(line)
        x = data.splits["train"].x
        some = torch.from_numpy(np.array(x[random_rows(len(x), SHOWN)]))
        with written_aside(out) as aside:
            write_picture(aside, arrays_of(some, data.levels))
        say(f"wrote {out}")
        return 0


def description(data: Data) -> list[str]:
    """What was found, a line a fact."""
    sizes = {name: len(split.x) for name, split in data.splits.items()}
    values = "continuous values" if data.levels is None else f"{data.levels} integer levels, 0 … {data.levels - 1}"
    origin = f"{' and '.join(data.official)} as in the source" if data.official else "by a hash of each example"
    lines = [
        f"{data.source}: {sum(sizes.values())} {data.kind} of shape {data.event_shape}, {values}",
        f"split: {', '.join(f'{n} {name}' for name, n in sizes.items())} ({origin})",
    ]
    if data.classes:
        lines.append(f"classes: {', '.join(data.classes)}")
    if data.kind == "vectors":
        columns = zip(data.scaling.shift, data.scaling.scale, strict=True)
        lines += [f"column {i}: mean {m:.4g}, std {s:.4g}" for i, (m, s) in enumerate(columns)]
    lines += [f"left out: {name}" for name in data.skipped]
    lines.append(f"cached in {data.folder}")
    return lines
