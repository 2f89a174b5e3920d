"""Other families than scores, on any integer data, and energies learnt by maximum likelihood: one recipe each."""

from scorefield.baselines import (
    AutoregressiveConfig,
    BaselineConfig,
    EvidenceBound,
    IndependentPixelsConfig,
    SoftmaxPatchesConfig,
    TrainingImagesConfig,
    VAEConfig,
)
from scorefield.experiment import Run
from scorefield.networks import MLPConfig
from scorefield.objectives import PersistentChains
from scorefield.training import Training


def counted(network: BaselineConfig) -> Run:
    """A family in closed form: one step, no matter how long it may take."""
    return Run(recipe=network.kind, network=network, objective=EvidenceBound(), training=Training(steps=1))


def independent_pixels() -> Run:
    """A histogram of each pixel: `scorefield train digits --recipe independent-pixels --out runs/pixels`."""
    return counted(IndependentPixelsConfig())


def softmax_patches() -> Run:
    """A softmax for each 2×2 patch: `scorefield train digits --recipe softmax-patches --out runs/patches`."""
    return counted(SoftmaxPatchesConfig())


def training_images() -> Run:
    """A class for each training image: `scorefield train digits --recipe training-images --out runs/copies`."""
    return counted(TrainingImagesConfig())


def autoregressive() -> Run:
    """A causal transformer, pixel after pixel: `scorefield train digits --recipe autoregressive --out runs/autoregressive`."""
    return Run(
        recipe="autoregressive",
        network=AutoregressiveConfig(),
        objective=EvidenceBound(),
        training=Training(steps=3000, batch_size=64, validate_every=100, keep_best=True),
    )


def vae() -> Run:
    """A variational autoencoder: `scorefield train digits --recipe vae --out runs/vae`."""
    return Run(
        recipe="vae",
        network=VAEConfig(),
        objective=EvidenceBound(),
        training=Training(steps=10_000, batch_size=64, learning_rate=3e-4, validate_every=100, keep_best=True),
    )


def hierarchical_vae() -> Run:
    """The same with two stochastic levels: `scorefield train digits --recipe hierarchical-vae --out runs/hierarchical`."""
    return Run(
        recipe="hierarchical-vae",
        network=VAEConfig(latents=(16, 8)),
        objective=EvidenceBound(),
        training=Training(steps=10_000, batch_size=64, learning_rate=3e-4, validate_every=100, keep_best=True),
    )


def energy_likelihood() -> Run:
    """An energy by maximum likelihood: `scorefield train digits --recipe energy-likelihood --out runs/persistent`.

    Of the data with noise of one level, 0.4 standard deviations, at which chains still get from mode to mode. One chain in 200
    begins anew from noise each time it moves: without such chains the energy forgets the way from noise to data, with one in
    20 what they meet on their way is pushed down faster than they leave it, and training runs away.
    """
    return Run(
        recipe="energy-likelihood",
        network=MLPConfig(width=256, blocks=2, frequencies=0),
        energy=True,
        sigma_range=(0.4, 0.4),
        objective=PersistentChains(chains=256, fresh=0.005, regularisation=5e-4),
        training=Training(steps=3000, batch_size=64, learning_rate=1e-4),
    )
