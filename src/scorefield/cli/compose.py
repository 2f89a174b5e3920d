"""scorefield compose: new examples from several trained models together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from scorefield.cli.display import sampling_bar, say
from scorefield.errors import UserError
from scorefield.experiment import check_output, write_samples
from scorefield.experiment.compose import ChainOptions, chains_named, composed
from scorefield.interfaces import State
from scorefield.persistence import load_score
from scorefield.samplers.levels import levels_of
from scorefield.system import default_device

IMMOBILE = 0.2
"""mean acceptance below which users are warned"""


@dataclass(frozen=True)
class Compose:
    """Draw examples that all of the models in RUN … find likely, and write them to a file or a folder.

    The log-densities are added up, a product of experts; --exponents gives each a weight, and a negative one takes away what
    that model finds likely. Energies (train with --energy) are sampled by Markov chains with a Metropolis test at every noise
    level, direct scores by Langevin dynamics without. All runs must have the same shape of data and scale it alike: train them
    on parts of the same data by --reading.only.

    Examples: `scorefield compose runs/loops runs/even --out both.png`,
    `scorefield compose runs/digits runs/even --exponents 2 -1 --out odd.png`.
    """

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    """run folders, model folders, or Hugging Face names owner/model"""
    out: Annotated[Path, arg(metavar="FILE")]
    """FILE.png: a grid; FILE.npz: the array `samples`; FILE.gif: a film; no suffix: a folder of PNGs"""
    exponents: tuple[float, ...] = ()
    """the weight of each run's log-density (1 each)"""
    n: Annotated[int, arg(aliases=("-n",))] = 64
    """how many"""
    options: Annotated[ChainOptions, arg(name="")] = ChainOptions()
    seed: int = 0
    """all randomness follows from it"""
    overwrite: bool = False
    """replace FILE if it exists"""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "Compose":
        return cls(tyro.MISSING, tyro.MISSING)

    def __call__(self) -> int:
        device = default_device()
        models = [load_score(run, device=device) for run in self.runs]
        if not models:
            raise UserError("nothing to compose: give two runs or more")
        together, sampler = composed(models, self.exponents), chains_named(self.options, models)
        spec = models[0].spec
        check_output(self.out, self.n, spec, self.overwrite)
        try:
            low, high = levels_of(sampler, together)
        except ValueError as error:
            raise UserError(str(error)) from error
        acceptances: list[float] = []
        with sampling_bar(sampler, self.n) as tick:

            def watch(chunk: int, state: State) -> None:
                if "acceptance" in state.info:
                    acceptances.append(float(state.info["acceptance"].mean()))
                tick(chunk, state)

            write_samples(
                together, spec, sampler, self.n, self.out,
                seed=self.seed, overwrite=self.overwrite, device=device, watch=watch,
            )  # fmt: skip
        kernel = type(sampler.kernel).__name__
        mean = sum(acceptances) / len(acceptances)
        how = f"accepting {mean:.0%} of their moves" if sampler.kernel.aim is not None else "without a Metropolis test"
        say(
            f"wrote {self.out}: {self.n} samples by {kernel} chains at {sampler.steps} levels from {high:g} to {low:g}, {how}, "
            f"seed {self.seed}"
        )
        if sampler.kernel.aim is not None and mean < IMMOBILE:
            say("chains that hardly move have not found the composition: take more --steps, or smaller --exponents")
        return 0
