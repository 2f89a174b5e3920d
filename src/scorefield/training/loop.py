"""The training loop, to be read from top to bottom.

Step k draws batch k and noise k, both functions of (seed, k, rank); the only memory is `TrainState`, so a run that was killed
and resumed from a checkpoint equals one that was not, bit for bit (on the same machine, with as many threads).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from scorefield.errors import RunError
from scorefield.interfaces import Loss, Objective
from scorefield.randomness import keyed_generator
from scorefield.system import Interruption, remove_leftovers
from scorefield.tensors import event_size
from scorefield.training.config import Training
from scorefield.training.ema import update_average
from scorefield.training.log import Log, LossByLevel, disk_errors
from scorefield.training.state import Step, TrainState, checkpoints, restore_newest, save_checkpoint


class Batches(Protocol):
    """Batch k of this process in scaled units, a pure function of k."""

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]: ...


TIME_OVER = 1
"""the reason to stop beside signal numbers, which are larger"""
AGREE_EVERY = 10
"""steps between which several processes ask each other whether one of them was told to stop"""
Watcher = Callable[[int, dict[str, Any]], None]
"""Called after every step with the step and the newest log records' fields, to draw a progress display."""


@dataclass(frozen=True)
class Outcome:
    """How a call of `fit` ended."""

    started_at: int
    """the step it began with, 0 for a fresh run"""
    step: int
    """steps finished in all"""
    seconds: float
    """wall-clock time of this call"""
    signal_number: int | None
    """the signal that interrupted it, if one did"""


def fit(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    training: Training,
    folder: Path,
    *,
    accelerator: Accelerator,
    validation: tuple[Tensor, Tensor | None] | None = None,
    watch: Watcher = lambda step, fields: None,
) -> tuple[TrainState, Outcome]:
    """Train `model` until `training.steps` (or `.minutes`), from the newest checkpoint in `folder` if there is one.

    `folder` receives `log.jsonl` and `checkpoints/`. Ctrl-C and SIGTERM write a checkpoint and return.

    Raises:
        RunError: a loss or gradient that is not finite, with its step and σ; a full disk; too little memory.
    """
    training = training.resolved(accelerator.device, energy=hasattr(model, "log_density"))
    torch.set_num_threads(training.threads or torch.get_num_threads())
    model.to(accelerator.device).train()
    state = TrainState.begin(objective, model, training)
    with disk_errors(folder / "checkpoints"):
        (folder / "checkpoints").mkdir(exist_ok=True)
    if accelerator.is_main_process:
        remove_leftovers(folder / "checkpoints")
    log_bytes = restore_newest(state, folder / "checkpoints", accelerator.process_index)
    started_at = state.step
    if training.compile == "on":
        model.network.compile()  # type: ignore[union-attr]
    train_step, optimizer = accelerator.prepare(state.train_step, state.optimizer)

    main = accelerator.is_main_process
    log = Log(folder, log_bytes, state.step) if main else None
    recorder = Recorder(model, training, accelerator, folder / "checkpoints", state)
    parameters, averaged = list(model.parameters()), list(state.average.parameters())
    began, seconds_before = time.monotonic(), state.seconds
    last_step, last_second = training.limits
    saved_at = state.step if checkpoints(folder / "checkpoints") else None
    stop: int | None = TIME_OVER if state.seconds >= last_second else None

    def save() -> None:
        nonlocal saved_at
        recorder.check_finite()
        if saved_at != state.step:
            local = state.of_all_processes(accelerator)
            if log is not None:
                save_checkpoint(state, folder / "checkpoints", log.bytes_on_disk(), training.keep, local)
        saved_at = state.step

    try:
        with Interruption() as interruption:
            while state.step < last_step and not stop:
                x, cond = on_device(batches(state.step), accelerator.device)
                generator = keyed_generator(
                    training.seed, "noise", state.step, accelerator.process_index, device=accelerator.device
                )
                loss = train_step(x, cond, generator)
                accelerator.backward(loss.value.mean() / event_size(x))
                norm = accelerator.clip_grad_norm_(parameters, training.clip)
                for group in optimizer.param_groups:
                    group["lr"] = training.learning_rate_at(state.step)
                optimizer.step()
                optimizer.zero_grad()
                update_average(averaged, parameters, state.step + 1, training.ema)
                state.step, state.seconds = state.step + 1, seconds_before + time.monotonic() - began
                recorder.add(loss, norm, event_size(x))

                over = state.seconds >= last_second
                stop = agreed(interruption.signal_number or (TIME_OVER if over else 0), state.step, accelerator)
                last = stop or state.step == last_step
                fields: dict[str, Any] = {}
                if last or state.step % training.log_every == 0:
                    fields |= recorder.train_record()
                    if log is not None:
                        log.write(fields)
                if validation and (last or state.step % training.validate_every == 0):
                    record = recorder.validation_record(objective, validation)
                    fields["validation"] = record["loss"]
                    if training.keep_best and state.step % training.validate_every == 0:  # not where an interruption fell
                        state.judge(record["loss"])
                    if log is not None:
                        log.write(record)
                if state.step % training.checkpoint_every == 0:
                    save()
                watch(state.step, fields)
            save()
            stop = interruption.signal_number or stop  # one that came after the last step
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise RunError(f"out of memory in step {state.step + 1}: a smaller --batch-size or network needs less") from error
    finally:
        if log is not None:
            log.close()
    seconds = state.seconds - seconds_before
    return state, Outcome(started_at, state.step, seconds, stop if stop != TIME_OVER else None)


def on_device(batch: tuple[Tensor, Tensor | None], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The examples of a batch and, if there are any, their labels on `device`."""
    x, cond = batch
    return x.to(device, non_blocking=True), None if cond is None else cond.to(device, non_blocking=True)


def agreed(reason: int, step: int, accelerator: Accelerator) -> int | None:
    """The largest reason to stop of any process, None if there is none; several processes ask each other now and then."""
    if accelerator.num_processes > 1:
        if step % AGREE_EVERY:
            return None
        reason = int(accelerator.gather(torch.tensor([reason], device=accelerator.device)).max())
    return reason or None


def out_of_memory(error: Exception) -> bool:
    """Whether NumPy, the CPU's or the GPU's allocator (in this order) has no memory left."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class Recorder:
    """Keeps losses and gradient norms on the device between log lines, and stops the run when one of them is not finite."""

    def __init__(
        self, model: nn.Module, training: Training, accelerator: Accelerator, checkpoints: Path, state: TrainState
    ) -> None:
        self.training, self.accelerator, self.checkpoints, self.state = training, accelerator, checkpoints, state
        sigma_range: tuple[float, float] = model.sigma_range  # type: ignore[assignment]
        self.train = LossByLevel(sigma_range, accelerator.device)
        self.validation = LossByLevel(sigma_range, accelerator.device)
        self.pending: list[tuple[int, Loss, Tensor]] = []
        self.last_time, self.last_step = time.monotonic(), state.step

    def add(self, loss: Loss, norm: Tensor, dimensions: int) -> None:
        """Note the step just finished: its losses, and its gradient's norm before clipping."""
        self.pending.append((self.state.step, Loss(loss.value.detach(), loss.sigma, {}), norm))
        self.train.add(loss, dimensions)

    def check_finite(self) -> None:
        """Raises `RunError` naming the first bad step and its noise level since the last check."""
        if self.pending and not torch.stack([loss.value.sum() + norm for _, loss, norm in self.pending]).isfinite().all():
            raise RunError(self.complaint())
        self.pending.clear()

    def complaint(self) -> str:
        """What is not finite, where, and what to do."""
        step, loss = next((s, x) for s, x, norm in self.pending if not (x.value.sum() + norm).isfinite())
        bad = ~loss.value.isfinite()
        what = f"the loss is not finite in step {step}" if bad.any() else f"the gradient is not finite in step {step}"
        at = "" if loss.sigma is None or not bad.any() else f" at sigma {loss.sigma[bad][0]:.4g}"
        good = checkpoints(self.checkpoints)
        last = f"the last good checkpoint is {good[-1]}" if good else "there is no checkpoint before it"
        return f"{what}{at}; {last}; start again with a lower --learning-rate"

    def train_record(self) -> dict[str, Any]:
        """Mean loss, loss by σ and throughput since the last record; `trained_seconds` counts from the run's beginning."""
        self.check_finite()
        loss, by_sigma = self.train.take()
        now, step = time.monotonic(), self.state.step
        record = {
            "kind": "train", "step": step, "images": step * self.training.batch_size, "loss": loss,
            "images_per_s": (step - self.last_step) * self.training.batch_size / max(now - self.last_time, 1e-9),
            "learning_rate": self.training.learning_rate_at(step - 1), "seconds": now - self.last_time,
            "trained_seconds": self.state.seconds, "sigma": self.train.centres, "loss_by_sigma": by_sigma,
        }  # fmt: skip
        self.last_time, self.last_step = now, step
        return record

    @torch.no_grad()
    def validation_record(self, objective: Objective, batch: tuple[Tensor, Tensor | None]) -> dict[str, Any]:
        """The averaged model's loss on held-out examples, always with the same noise."""
        x, cond = batch
        state = self.state
        step = Step(objective, state.average, state.train_step.bf16)
        for index, part in enumerate(x.split(256)):
            labels = None if cond is None else cond[256 * index : 256 * index + len(part)]
            generator = keyed_generator(self.training.seed, "validation", index, device=self.accelerator.device)
            loss = step(*on_device((part, labels), self.accelerator.device), generator)
            self.validation.add(loss, event_size(x))
        loss_mean, by_sigma = self.validation.take()
        images = state.step * self.training.batch_size
        return {"kind": "validation", "step": state.step, "images": images, "loss": loss_mean,
                "sigma": self.validation.centres, "loss_by_sigma": by_sigma}  # fmt: skip
