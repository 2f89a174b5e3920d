"""From a run's configuration to a trained model in its folder."""

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from scorefield.baselines import CLOSED_FORM
from scorefield.data import Batches, Data, Progress, open_data, random_rows
from scorefield.errors import RunError, UserError
from scorefield.experiment.config import (
    Run,
    RunFile,
    check_resumable,
    check_same_circumstances,
    made_with,
    read_run_file,
    write_run,
)
from scorefield.interfaces import Objective
from scorefield.models import ModelSpec
from scorefield.persistence import AnyModel, ModelConfig, save_model
from scorefield.randomness import derive_seed, keyed_generator
from scorefield.system import remove_leftovers
from scorefield.training import Outcome, Training, fit
from scorefield.training.loop import Watcher
from scorefield.training.state import checkpoints

VALIDATION_ROWS = 1000


@dataclass(frozen=True)
class Trained:
    """What `train` did."""

    run: Run
    """as it was carried out, every `auto` resolved"""
    data: Data
    outcome: Outcome
    changes: list[str]
    """what --resume was allowed to change, a line each"""
    main_process: bool
    """False in all but one of several processes, which should say nothing"""


def train(
    run: Run,
    folder: str | Path,
    *,
    resume: bool = False,
    progress: Progress = lambda items, label, total: items,
    started: Callable[[Run, Data, AnyModel], Watcher] = lambda run, data, model: lambda step, fields: None,
) -> Trained:
    """Train `run` into `folder` (new or empty; with `resume`, one that holds the same run).

    Args:
        started: called once everything is ready, with the resolved run; returns the watcher of the loop.

    Raises:
        UserError: data that cannot be read, does not fit the network or has no classes to condition on; a used folder; on
            `resume` another configuration, other data or another number of processes.
        RunError: a loss that is not finite; a full disk; too little memory.
    """
    folder, changes = Path(folder), []
    stored = read_run_file(folder) if resume else None
    if stored is not None:
        run = replace(run, training=inherit_resolved(run.training, stored.run.training))
        changes = check_resumable(stored.run, run)
    elif folder.exists() and (not folder.is_dir() or any(p.suffix != ".part" for p in folder.iterdir())):
        raise UserError(f"{folder} is already used: give another --out, or --resume to go on with the run there")

    counted = isinstance(run.network, CLOSED_FORM)
    if resume and not counted and (folder / "model.safetensors").exists() and not checkpoints(folder / "checkpoints"):
        raise UserError(
            f"{folder} holds a model and no checkpoint to go on from: put its checkpoints/ back, or train into another --out"
        )
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")  # Step does the mixing
    rank, processes = accelerator.process_index, accelerator.num_processes
    with accelerator.main_process_first():
        data = open_data(run.data, run.reading, progress=progress)
    run = replace(run, training=run.training.resolved(accelerator.device, energy=run.energy or run.of_integers))
    file = RunFile(run, data.fingerprint, processes, made_with(str(accelerator.device)))
    if stored is not None:
        check_same_circumstances(stored, file)
    batches = Batches(data.splits["train"], run.training.batch_size, run.training.seed, rank, processes)

    def encode(raw: Tensor, *key: int) -> Tensor:
        return run.encode(raw, data.scaling, keyed_generator(run.training.seed, "dequantise", *key))

    def batch(step: int) -> tuple[Tensor, Tensor | None]:
        raw, labels = batches.at(step)
        x = encode(raw, step, rank)
        if not run.conditional or labels is None:
            return x, None
        return x, dropped(labels, run.label_dropout, keyed_generator(run.training.seed, "labels", step, rank))

    model, objective = build_model(run, data), run.loss(data.event_shape)
    if not counted:
        probe(model, run.loss(data.event_shape), encode(batches.at(0)[0][:2]))
    if accelerator.is_main_process:
        make_folder(folder)
        remove_leftovers(folder)
        if stored is None or stored.run != run:
            write_run(file, folder)
    accelerator.wait_for_everyone()
    if counted:
        return fitted(run, data, model, folder, changes, accelerator)

    held_out = data.splits["validation"]
    rows = validation_halves(len(held_out.x))[0][:VALIDATION_ROWS]
    labels = torch.from_numpy(held_out.labels[rows]) if run.conditional and held_out.labels is not None else None
    state, outcome = fit(
        model,
        objective,
        batch,
        run.training,
        folder,
        accelerator=accelerator,
        validation=(encode(torch.from_numpy(held_out.x[rows])), labels),
        watch=started(run, data, model) if accelerator.is_main_process else lambda step, fields: None,
    )
    if accelerator.is_main_process:
        save_model(state.chosen, run.network, folder)  # type: ignore[arg-type]
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return Trained(run, data, outcome, changes, accelerator.is_main_process)


def fitted(run: Run, data: Data, model: AnyModel, folder: Path, changes: list[str], accelerator: Accelerator) -> Trained:
    """A model that is fitted by counting the training rows, in one step."""
    began = time.monotonic()
    if accelerator.is_main_process:
        model.family.fit(torch.from_numpy(np.array(data.splits["train"].x)))  # type: ignore[union-attr, operator]
        save_model(model, run.network, folder)
    accelerator.wait_for_everyone()
    outcome = Outcome(0, 1, time.monotonic() - began, None)
    return Trained(run, data, outcome, changes, accelerator.is_main_process)


def validation_halves(total: int) -> tuple[np.ndarray, np.ndarray]:
    """Validation rows in random order, halved: on the first half the loss is watched, the second calibrates anomaly scores."""
    rows = random_rows(total, total, purpose="validation")
    return rows[: max(1, total // 2)], rows[total // 2 :]


def build_model(run: Run, data: Data) -> AnyModel:
    """The run's model with fresh weights, a function of the seed; leaves the global random state as it was.

    Raises:
        UserError: the network does not take such events, or there are no classes to condition on.
    """
    if run.conditional and (not data.classes or any(data.splits[name].labels is None for name in ("train", "validation"))):
        raise UserError(f"--conditional needs the class of every example, and {data.source} does not tell it: leave it out")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(run.training.seed, "weights"))
        try:
            classes = data.classes if run.conditional else ()
            levels = (0.0, 0.0) if run.of_integers else run.sigma_range
            spec = ModelSpec(data.event_shape, run.parameterisation, levels, data.scaling, classes)
            return ModelConfig(spec, run.network, run.energy).build()
        except ValueError as error:
            raise UserError(str(error)) from error


def dropped(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Labels `(b,)`, a random share of them replaced by −1, no class (Ho & Salimans 2022, arXiv:2207.12598, algorithm 1)."""
    return torch.where(torch.rand(len(labels), generator=generator) < share, -1, labels)


def probe(model: AnyModel, objective: Objective, x: Tensor) -> None:
    """One loss and gradient, forgotten at once: what cannot be trained fails here, before anything is written."""
    loss = objective(model, x, generator=keyed_generator(0, "probe")).value.sum()  # type: ignore[arg-type]
    loss.backward()
    model.zero_grad(set_to_none=True)


def inherit_resolved(asked: Training, stored: Training) -> Training:
    """`auto` and open choices as the stored run resolved them."""
    return replace(
        asked,
        precision=stored.precision if asked.precision == "auto" else asked.precision,
        compile=stored.compile if asked.compile == "auto" else asked.compile,
        threads=asked.threads or stored.threads,
    )


def make_folder(folder: Path, hint: str = "give another --out") -> None:
    """Create a folder; `UserError` with a hint where that is not possible, `RunError` if the disk is full."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (RunError if full else UserError)(f"cannot create {folder}: {error}; {hint}") from error
