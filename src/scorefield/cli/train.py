"""scorefield train: learn the score field of a data set."""

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from scorefield.baselines import CLOSED_FORM
from scorefield.cli.display import say, tracked, training_bar
from scorefield.cli.parse import Given, with_kinds
from scorefield.data import Data
from scorefield.errors import UserError
from scorefield.experiment import Run, Trained, read_run, train
from scorefield.persistence import AnyModel
from scorefield.recipes import recipe, recipe_for
from scorefield.training import Training
from scorefield.training.loop import Watcher


@dataclass(frozen=True)
class Train:
    """Learn the score field of DATA by multi-scale denoising score matching and write a run folder.

    A recipe gives every setting, flags change them. A run that was interrupted or killed goes on with --resume, bit
    for bit as if it had not been.

    Examples: `scorefield train digits --out runs/digits`, `scorefield train photos/ --out runs/photos --reading.size 32
    --skip-bad --minutes 30`, `scorefield train points.npy --out runs/points --steps 5000`.
    """

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """digits, fashion-mnist, hf:owner/name, a folder of images, or a .npy, .npz or idx file"""
    out: Annotated[Path, arg(metavar="RUN")]
    """the run folder; must be new or empty, unless --resume"""
    recipe: Annotated[str | None, arg(metavar="NAME")] = None
    """digits, digits-classes, digits-energy, fashion-mnist, images or vectors, by default the one that fits DATA; or another
    family: autoregressive, vae, hierarchical-vae, softmax-patches, independent-pixels, training-images, energy-likelihood"""
    resume: bool = False
    """go on with the run in RUN"""
    run: Annotated[Run, arg(name="")] = Run()

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "Train":
        """The defaults of all flags: the stored run's on --resume, else the recipe's.

        Raises:
            UserError: an unknown recipe or kind, no run to resume, or both --steps and --minutes.
        """
        given = Given(cls, arguments)
        if "--steps" in given and "--minutes" in given:
            raise UserError("--steps and --minutes are two ways to end a run: give one of them")
        name, out = given.value("--recipe"), given.value("--out")
        if "--resume" in given and out is not None:
            run = read_run(Path(out))
            run = replace(run, recipe=name or run.recipe)
            if "--steps" in given:
                run = replace(run, training=replace(run.training, steps=Training.steps, minutes=None))
        else:
            run = recipe(name) if name is not None else recipe_for("".join(given.positional[:1]))
        return cls(tyro.MISSING, tyro.MISSING, run=with_kinds(run, given))

    def __call__(self) -> int:
        run = replace(self.run, data=self.data)
        with ExitStack() as stack:

            def started(resolved: Run, data: Data, model: AnyModel) -> Watcher:
                describe(resolved, data, model)
                return stack.enter_context(training_bar(resolved.training))

            done = train(run, self.out, resume=self.resume, progress=tracked, started=started)
        if not done.main_process:
            return 0
        return report(done, self.data, self.out)


def describe(run: Run, data: Data, model: AnyModel) -> None:
    """Say what is about to be trained."""
    rows = len(data.splits["train"].x)
    weights = sum(p.numel() for p in model.parameters()) / 1e6
    t = run.training
    classes = f" of {len(model.spec.classes)} classes" if model.spec.classes else ""
    shape = data.event_shape
    say(f"{data.source}: {rows} training examples{classes} of shape {shape}; {len(data.skipped)} unreadable left out")
    say(
        f"{run.network.kind} of {weights:.2f} M weights, recipe {run.recipe}, {t.precision}, {t.threads} threads, seed {t.seed}"
    )


def report(done: Trained, data: str, folder: Path) -> int:
    """Say how training ended; the exit code."""
    outcome, batch = done.outcome, done.run.training.batch_size
    for change in done.changes:
        say(f"changed on resume: {change}")
    if outcome.signal_number is not None:
        again = shlex.join(["scorefield", "train", data, "--out", str(folder), "--resume"])
        say(f"interrupted after step {outcome.step}; go on with: {again}")
        return 128 + outcome.signal_number
    if outcome.step == outcome.started_at:
        minutes = done.run.training.minutes
        spent, flag = ("", "--steps") if minutes is None else (f" in {minutes:g} minutes", "--minutes")
        say(f"{folder} is finished already: {outcome.step} steps{spent}; give {flag} a larger number to go on")
        return 0
    steps = outcome.step - outcome.started_at
    rate = steps * batch / outcome.seconds
    if isinstance(done.run.network, CLOSED_FORM):
        say(f"{done.run.network.kind}: counted {len(done.data.splits['train'].x)} training examples in {outcome.seconds:.2g} s")
    else:
        say(f"{outcome.step} steps, {outcome.step * batch} images seen; {outcome.seconds:.0f} s, {rate:.0f} images/s")
    for name in ("run.json", "log.jsonl", "checkpoints", "config.json", "model.safetensors"):
        if (folder / name).exists():
            say(f"wrote {folder / name}")
    return 0
