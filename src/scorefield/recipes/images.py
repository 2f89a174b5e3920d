"""Image recipes: an EDM-preconditioned U-Net trained by multi-scale denoising score matching."""

from scorefield.experiment import Run
from scorefield.networks import UNetConfig
from scorefield.objectives import DenoisingScoreMatching, LogNormal
from scorefield.training import Training


def digits() -> Run:
    """8×8 handwritten digits: `scorefield train digits --out runs/digits`."""
    return Run(
        data="digits",
        recipe="digits",
        network=UNetConfig(channels=64, multipliers=(1, 2), blocks=1, fold=1, attention=True),
        objective=DenoisingScoreMatching(LogNormal(mean=-0.5, std=1.2)),
        training=Training(steps=3125, batch_size=64, learning_rate=1e-3, beta2=0.99, decay_after=800),
    )


def fashion_mnist() -> Run:
    """28×28 pictures of clothes: `scorefield train fashion-mnist --out runs/fashion`."""
    return Run(
        data="fashion-mnist",
        recipe="fashion-mnist",
        network=UNetConfig(channels=64, multipliers=(1, 2), blocks=1, fold=2),
        objective=DenoisingScoreMatching(LogNormal(mean=-0.5, std=1.2)),
        training=Training(steps=1172, batch_size=128, learning_rate=2e-3, beta2=0.99, decay_after=300),
    )


def images() -> Run:
    """Any images up to 64×64, where no recipe of their own exists: `scorefield train FOLDER --out runs/mine --steps 20000`."""
    return Run(
        recipe="images",
        network=UNetConfig(channels=64, multipliers=(1, 2, 2), blocks=1, fold=2),
        objective=DenoisingScoreMatching(LogNormal(mean=-0.5, std=1.2)),
        training=Training(steps=10_000, batch_size=128, learning_rate=2e-3, beta2=0.99, decay_after=1000),
    )
