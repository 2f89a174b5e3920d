"""scorefield inpaint: complete images of which a part is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from scorefield.cli.display import sampling_bar, say
from scorefield.experiment import complete, completer, in_precision, read_incomplete, write_completions
from scorefield.experiment.inpaint import CHUNK, Method, check_completions
from scorefield.persistence import load_score
from scorefield.system import default_device
from scorefield.training.config import Precision


@dataclass(frozen=True)
class Inpaint:
    """Fill in what is missing of IMAGE by the model in RUN, in several ways; what is known stays as it is, pixel for pixel.

    MASK is white where IMAGE is known and black where it is to be filled in (an array: not 0, and 0).

    Examples: `scorefield inpaint runs/photos torn.png --mask mask.png --out mended.png`,
    `scorefield inpaint runs/digits digits.npz --mask mask.npy -n 1 --out completed.npz`.
    """

    model: Annotated[Positional[str], arg(metavar="RUN")]
    """a run folder, a model folder, or a Hugging Face name owner/model"""
    image: Annotated[Positional[str], arg(metavar="IMAGE")]
    """an image file, or a .npz or .npy file of images as `scorefield sample` writes it; of the size that the model makes"""
    mask: Annotated[Path, arg(metavar="MASK")]
    """an image or a .npy or .npz file of the same height and width, white or not 0 where the image is known"""
    out: Annotated[Path, arg(metavar="FILE")]
    """FILE.png: in each row an image, what is known of it, and completions; FILE.npz: the array `samples` of completions"""
    n: Annotated[int, arg(aliases=("-n",))] = 8
    """completions of each image"""
    method: Method = "dps"
    """dps: posterior sampling, a gradient a step; repaint: known pixels put back at each level, which is walked ten times"""
    steps: int | None = None
    """noise levels to walk (100)"""
    seed: int = 0
    """all randomness follows from it"""
    precision: Precision = "auto"
    """arithmetic of the network: bf16 where the machine computes in it, else float32"""
    overwrite: bool = False
    """replace FILE if it exists"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "Inpaint":
        return cls(tyro.MISSING, tyro.MISSING, tyro.MISSING, tyro.MISSING)

    def __call__(self) -> int:
        device = default_device()
        model = load_score(self.model, device=device)
        incomplete = read_incomplete(self.image, self.mask, model.spec)
        images = len(incomplete.pixels)
        check_completions(self.out, images, self.n, model.spec, self.overwrite)
        sampler = completer(self.method, self.steps, incomplete, model.spec, device)
        score = in_precision(model, self.precision, device)
        with sampling_bar(sampler, images * self.n, CHUNK) as watch:
            chunks = complete(score, model.spec, incomplete, sampler, self.n, seed=self.seed, watch=watch)
            write_completions(self.out, incomplete, chunks, self.n)
        filled = 1 - incomplete.known.double().mean().item()
        what = f"{self.n} completion{'s' * (self.n > 1)} of {images} image{'s' * (images > 1)}, {filled:.0%} filled in"
        say(f"wrote {self.out}: {what}, by {self.method}, seed {self.seed}")
        return 0
