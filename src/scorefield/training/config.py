"""How a model is trained: plain values; `auto` is resolved once, by capability, and stored resolved."""

import math
import os
import shutil
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal

import torch

from scorefield.errors import UserError

Precision = Literal["auto", "float32", "bf16"]
Switch = Literal["auto", "on", "off"]
OptimizerName = Literal["adam", "muon"]


@dataclass(frozen=True)
class Training:
    """The training loop's settings.

    Raises:
        UserError: a value out of its range.
    """

    steps: int | None = 2000
    """optimiser steps; None if `minutes` are given, whatever was said"""
    minutes: float | None = None
    """minutes of training in all instead of a number of steps (such a run is not exactly repeatable)"""
    batch_size: int = 128
    """examples a step, over all processes together"""
    optimizer: OptimizerName = "adam"
    """adam, or muon: orthogonal momentum for the hidden layers' weights, which learns more from as many images"""
    learning_rate: float = 1e-3
    """learning rate after the warm-up"""
    warmup: int = 100
    """steps over which the learning rate rises from 0"""
    decay_after: int | None = None
    """from this step the learning rate falls as a power of the step (never if not given)"""
    decay_power: float = 0.5
    """that power: the learning rate falls as 1/step^power"""
    beta2: float = 0.999
    """Adam's decay of squared gradients"""
    clip: float = 1.0
    """largest gradient norm; longer gradients are shortened to it"""
    ema: float = 0.1
    """width of the weight average relative to the steps so far (0.02 … 0.25)"""
    seed: int = 0
    """all randomness of training follows from it"""
    precision: Precision = "auto"
    """bf16 where the device computes in it, else float32"""
    compile: Switch = "auto"
    """torch.compile for the network; auto: on GPUs with a compiler"""
    checkpoint_every: int = 500
    """steps between checkpoints"""
    keep: int = 2
    """checkpoints kept"""
    log_every: int = 20
    """steps between lines in log.jsonl"""
    validate_every: int = 250
    """steps between validation losses"""
    keep_best: bool = False
    """keep the weights of the smallest validation loss, among steps that are multiples of --validate-every, instead of the
    last ones: for models that learn their data by heart"""
    threads: int | None = None
    """CPU threads; PyTorch's own choice if not given"""

    def __post_init__(self) -> None:
        if self.minutes is not None:
            object.__setattr__(self, "steps", None)
        elif self.steps is None or self.steps < 1:
            raise UserError(f"--steps must be at least 1, got {self.steps}")
        for name in ("batch_size", "checkpoint_every", "keep", "log_every", "validate_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{_flag(name)} must be at least 1, got {getattr(self, name)}")
        for name in ("minutes", "learning_rate", "clip", "threads", "decay_after", "decay_power"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"{_flag(name)} must be positive, got {value}")
        for name, most in (("minutes", 10**7), ("batch_size", 2**20), ("threads", 1024)):
            value = getattr(self, name)
            if value is not None and value > most:
                raise UserError(f"{_flag(name)} must be at most {most}, got {value}")
        for name, low, high in (("warmup", 0, float("inf")), ("beta2", 0, 1), ("ema", 0.005, 0.28)):
            if not low <= getattr(self, name) < high:
                raise UserError(f"{_flag(name)} must be in [{low}, {high}), got {getattr(self, name)}")

    @property
    def limits(self) -> tuple[float, float]:
        """Steps and seconds of training that finish the run; one of them is infinite."""
        return self.steps or math.inf, 60 * self.minutes if self.minutes else math.inf

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of step 0, 1, …: a linear rise, a plateau, then a power law; no horizon in it.

        Reference: Karras et al. 2024, arXiv:2312.02696 (power ½).
        """
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        fall = 1.0 if self.decay_after is None else max(1.0, step / self.decay_after) ** -self.decay_power
        return self.learning_rate * rise * fall

    def resolved(self, device: torch.device, *, energy: bool) -> "Training":
        """Every `auto` and open choice settled for this device; energies train in float32.

        Raises:
            UserError: bf16 asked for an energy, whose gradient it would spoil; or compile without a compiler.
        """
        if energy and self.precision == "bf16":
            raise UserError("--precision bf16 is for direct scores only: an energy's gradient needs float32")
        if self.compile == "on" and not has_compiler(device):
            raise UserError("--compile on needs a C++ compiler (CPU) or Triton (GPU), and none was found")
        precision = self.precision
        if precision == "auto":
            precision = "bf16" if not energy and computes_in_bf16(device) else "float32"
        compile_ = self.compile
        if compile_ == "auto":
            compile_ = "on" if device.type == "cuda" and not energy and has_compiler(device) else "off"
        threads = self.threads or torch.get_num_threads()
        return replace(self, precision=precision, compile=compile_, threads=threads)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 arithmetic of its own, not an emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        flags = torch.cpu.get_capabilities()
        return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))
    return False


def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile can generate code for the device."""
    if device.type == "cuda":
        return find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (7, 0)
    return any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++"))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
