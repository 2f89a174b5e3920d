"""One run, from its configuration to its pictures."""

from scorefield.experiment.config import Run, read_run
from scorefield.experiment.evaluate import evaluate
from scorefield.experiment.sample import check_output, draw, write_samples
from scorefield.experiment.train import Trained, train

__all__ = ["Run", "Trained", "check_output", "draw", "evaluate", "read_run", "train", "write_samples"]
