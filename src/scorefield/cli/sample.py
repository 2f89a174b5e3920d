"""scorefield sample: new examples from a trained model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from scorefield.cli.display import sampling_bar, say
from scorefield.experiment import (
    SamplerOptions,
    check_output,
    class_labels,
    guided,
    in_precision,
    levels_walked,
    sampler_name,
    sampler_named,
    write_samples,
)
from scorefield.persistence import load
from scorefield.system import default_device
from scorefield.training.config import Precision


@dataclass(frozen=True)
class Sample:
    """Draw new examples from the model in RUN and write them to a file or a folder.

    The same seed gives the same samples, and the first 64 of 10,000 are the 64 you get alone.

    Examples: `scorefield sample runs/digits --out digits.png`, `scorefield sample runs/digits -n 2000 --out digits.npz`,
    `scorefield sample runs/digits --sampler dpm-solver-2m --nfe 10 --out quick.png`,
    `scorefield sample runs/digits --sampler annealed-langevin --out film.gif`,
    `scorefield sample runs/digits-classes --class 3 --guidance 1.5 --out threes.png`.
    """

    model: Annotated[Positional[str], arg(metavar="RUN")]
    """a run folder, a model folder, or a Hugging Face name owner/model"""
    out: Annotated[Path, arg(metavar="FILE")]
    """FILE.png: a grid; FILE.npz: the array `samples`; FILE.gif: a film; no suffix: a folder of PNGs"""
    n: Annotated[int, arg(aliases=("-n",))] = 64
    """how many"""
    class_: Annotated[str | None, arg(name="class", metavar="CLASS")] = None
    """draw from this class only, given by name or number; all: every class in turn, a column each in FILE.png"""
    guidance: float = 1.0
    """classifier-free guidance: above 1 the class is exaggerated, at the price of variety (and twice the computation)"""
    options: Annotated[SamplerOptions, arg(name="")] = SamplerOptions()
    seed: int = 0
    """all randomness follows from it"""
    precision: Precision = "auto"
    """arithmetic of the network: bf16 where the machine computes in it, else float32"""
    overwrite: bool = False
    """replace FILE if it exists"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "Sample":
        return cls(tyro.MISSING, tyro.MISSING)

    def __call__(self) -> int:
        device = default_device()
        model = load(self.model, device=device)
        sampler = sampler_named(self.options, model)
        check_output(self.out, self.n, model.spec, self.overwrite)
        classes = model.spec.classes
        cond = None if self.class_ is None else class_labels(self.class_, classes, self.n)
        score = guided(in_precision(model, self.precision, device, sampler), self.guidance, cond)
        columns = len(classes) if self.class_ == "all" else None
        with sampling_bar(sampler, self.n) as watch:
            write_samples(
                score, model.spec, sampler, self.n, self.out,
                seed=self.seed, cond=cond, columns=columns, overwrite=self.overwrite, device=device, watch=watch,
            )  # fmt: skip
        walked = levels_walked(sampler, model)
        of_class = "" if self.class_ is None else f" of class {self.class_}, guidance {self.guidance:g},"
        say(f"wrote {self.out}: {self.n} samples{of_class} by {sampler_name(self.options, model)} ({walked}), seed {self.seed}")
        return 0
