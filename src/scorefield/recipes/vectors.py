"""The recipe for vectors: an MLP on Fourier features of the coordinates."""

from scorefield.experiment import Run
from scorefield.networks import MLPConfig
from scorefield.objectives import DenoisingScoreMatching, LogNormal
from scorefield.training import Training


def vectors() -> Run:
    """Rows of numbers from a `.npy` file: `scorefield train points.npy --out runs/points`."""
    return Run(
        recipe="vectors",
        network=MLPConfig(width=256, blocks=3, frequencies=6),
        objective=DenoisingScoreMatching(LogNormal(mean=-1.2, std=1.5)),
        training=Training(steps=5000, batch_size=512, learning_rate=2e-3, beta2=0.99, decay_after=1000),
    )
