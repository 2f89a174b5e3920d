"""Training: one loop, exact resume."""

from scorefield.training.config import Training
from scorefield.training.log import read_log
from scorefield.training.loop import Outcome, fit
from scorefield.training.state import Step, TrainState

__all__ = ["Outcome", "Step", "TrainState", "Training", "fit", "read_log"]
