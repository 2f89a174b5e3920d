"""One run, from its configuration to its pictures."""

from scorefield.experiment.classes import class_labels, guided
from scorefield.experiment.config import Run, read_run
from scorefield.experiment.evaluate import LIKELIHOOD_ROWS, check_data, evaluate
from scorefield.experiment.inpaint import Incomplete, complete, completer, read_incomplete, write_completions
from scorefield.experiment.likelihood import Effort, LogDensities, log_densities
from scorefield.experiment.logprob import logprob
from scorefield.experiment.sample import arrays_of, check_output, draw, write_picture, write_samples
from scorefield.experiment.samplers import SamplerOptions, in_precision, levels_walked, sampler_name, sampler_named
from scorefield.experiment.train import Trained, train

__all__ = [
    "LIKELIHOOD_ROWS", "Effort", "Incomplete", "LogDensities", "Run", "SamplerOptions", "Trained", "arrays_of", "check_data",
    "check_output", "class_labels", "complete", "completer", "draw", "evaluate", "guided", "in_precision", "levels_walked",
    "log_densities", "logprob", "read_incomplete", "read_run", "sampler_name", "sampler_named", "train", "write_completions",
    "write_picture", "write_samples",
]  # fmt: skip
