"""A U-Net for images of any side: residual blocks, each modulated by the noise level, at falling resolutions.

The image is first folded by pixel-unshuffling (`fold` = 2 turns 28×28×1 into 14×14×4), which buys speed for a little
detail, and padded with zeros to a side that halves evenly.

Reference: Ho et al. 2020, arXiv:2006.11239; Dhariwal & Nichol 2021, arXiv:2105.05233.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.networks.embedding import ClassEmbedding, NoiseEmbedding, with_class


@dataclass(frozen=True)
class UNetConfig:
    """A U-Net; for images of any side, in practice 8×8 to 64×64.

    Raises:
        ValueError: a number below 1, or no multipliers.
    """

    kind: Literal["unet"] = field(default="unet", kw_only=True)
    channels: int = 64
    """features at full resolution"""
    multipliers: tuple[int, ...] = (1, 2)
    """features at each resolution, as multiples of `channels`; each further entry halves the side"""
    blocks: int = 2
    """residual blocks at each resolution"""
    fold: int = 1
    """pixel-unshuffling: 2 makes each 2×2 patch one position"""
    attention: bool = False
    """self-attention at the lowest resolution"""

    def __post_init__(self) -> None:
        for name in ("channels", "blocks", "fold"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"multipliers must be one or more numbers of at least 1, got {self.multipliers}")

    def build(self, event_shape: tuple[int, ...], classes: int = 0) -> "UNet":
        """The network for images `(c, h, w)`; raises `ValueError` for other events."""
        if len(event_shape) != 3:
            raise ValueError(
                f"network unet takes images of shape (c, h, w), got events of shape {event_shape}: use mlp for vectors"
            )
        return UNet(event_shape[0], self.channels, self.multipliers, self.blocks, self.fold, self.attention, classes)


class UNet(nn.Module):
    """net(x `(b, c, h, w)`, c_noise `(b,)`, cond `(b,)` or None) -> like x; zero at initialisation."""

    def __init__(
        self,
        image_channels: int,
        channels: int = 64,
        multipliers: tuple[int, ...] = (1, 2),
        blocks: int = 2,
        fold: int = 1,
        attention: bool = False,
        classes: int = 0,
    ) -> None:
        super().__init__()
        embedded = 4 * channels
        widths = [channels * m for m in multipliers]
        folded = image_channels * fold**2
        self.fold, self.multiple = fold, fold * 2 ** (len(widths) - 1)
        self.noise = NoiseEmbedding(embedded)
        self.labels = ClassEmbedding(classes, embedded) if classes else None
        self.enter = nn.Conv2d(folded, channels, 3, padding=1)

        self.down, skips, width = nn.ModuleList(), [channels], channels
        for level, wide in enumerate(widths):
            if level:
                self.down.append(Downsample(width))
                skips.append(width)
            for _ in range(blocks):
                self.down.append(ResidualBlock(width, wide, embedded))
                skips.append(width := wide)

        self.middle = nn.ModuleList([ResidualBlock(width, width, embedded)])
        if attention:
            self.middle += [Attention(width), ResidualBlock(width, width, embedded)]

        self.up = nn.ModuleList()
        for level, wide in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(ResidualBlock(width + skips.pop(), wide, embedded))
                width = wide
            if level:
                self.up.append(Upsample(width))

        self.norm = ChannelNorm(width)
        self.leave = zeroed(nn.Conv2d(width, folded, 3, padding=1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in its type

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        level = with_class(self.noise(c_noise), cond, self.labels)
        height, width = x.shape[-2:]
        h = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        h = F.pixel_unshuffle(h, self.fold).contiguous(memory_format=torch.channels_last)
        skips = [h := self.enter(h)]
        for layer in self.down:
            skips.append(h := layer(h, level))
        for layer in self.middle:
            h = layer(h, level)
        for layer in self.up:
            h = layer(h if isinstance(layer, Upsample) else torch.cat([h, skips.pop()], 1), level)
        h = self.leave(F.silu(self.norm(h)))
        return F.pixel_shuffle(h, self.fold)[..., :height, :width]


class ResidualBlock(nn.Module):
    def __init__(self, inner: int, outer: int, embedded: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(inner)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.modulation = nn.Linear(embedded, 2 * outer)
        self.norm2 = ChannelNorm(outer)
        self.conv2 = zeroed(nn.Conv2d(outer, outer, 3, padding=1))
        self.skip = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.modulation(level)[:, :, None, None].chunk(2, 1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.skip(x) + self.conv2(F.silu(h))


class Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Attention(nn.Module):
    """Self-attention over positions, heads of 32 features (a single head if that does not divide the width), residual.

    Written out: PyTorch's fused kernels cannot be differentiated twice, as the training of an energy does, and at the few
    positions of these images they are no faster.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // 32 if width % 32 == 0 else 1
        self.norm = ChannelNorm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.leave = zeroed(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        h = (weights @ v).transpose(-1, -2).reshape(b, c, height, width)
        return x + self.leave(h)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the features of each position; in channels-last memory several times cheaper than group norm."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """`layer` with weights and biases of zero, so that its branch adds nothing at initialisation."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
