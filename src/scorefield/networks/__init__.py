"""Networks know nothing of noise or densities: net(u, c_noise, cond) -> like u, or a scalar `(b,)` for energies."""

from scorefield.networks.mlp import MLP, MLPConfig
from scorefield.networks.unet import UNet, UNetConfig

NetworkConfig = UNetConfig | MLPConfig

__all__ = ["MLP", "MLPConfig", "NetworkConfig", "UNet", "UNetConfig"]
