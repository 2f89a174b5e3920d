"""U-Nets on any side: zero at initialisation, every weight in use, padding and folding that keep pixels in place."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scorefield.networks import UNet, UNetConfig
from scorefield.networks.unet import Attention

SIDES = [7, 8, 13, 28, 32, 64]


def images(side: int, channels: int = 2, n: int = 2) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, channels, side, side, generator=g), torch.linspace(-1.5, 1.0, n)


def perturbed(net: nn.Module, size: float = 0.05) -> nn.Module:
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += size * torch.randn(parameter.shape, generator=g)
    return net


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("fold", [1, 2])
@pytest.mark.parametrize("attention", [False, True], ids=["plain", "attention"])
def test_zero_at_first_and_every_weight_is_reached(side: int, fold: int, attention: bool) -> None:
    torch.manual_seed(0)
    net = UNetConfig(channels=8, multipliers=(1, 2), blocks=1, fold=fold, attention=attention).build((2, side, side))
    x, level = images(side)
    assert torch.equal(net(x, level), torch.zeros_like(x))
    y = perturbed(net)(x, level)
    assert y.shape == x.shape
    assert y.isfinite().all()
    y.square().sum().backward()
    unused = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert unused == []


@pytest.mark.parametrize("multipliers", [(1,), (1, 2, 2)], ids=str)
def test_any_depth_and_oblong_images(multipliers: tuple[int, ...]) -> None:
    net = perturbed(UNetConfig(channels=8, multipliers=multipliers, blocks=2).build((1, 9, 14)))
    x = torch.randn(2, 1, 9, 14, generator=torch.Generator().manual_seed(0))
    assert net(x, torch.zeros(2)).shape == x.shape


@pytest.mark.parametrize("fold", [1, 2])
def test_pixels_stay_in_place(fold: int) -> None:
    """A pixel moves the answer around itself, exactly as far as the convolutions reach."""
    torch.manual_seed(0)
    net = UNetConfig(channels=8, multipliers=(1,), blocks=1, fold=fold).build((1, 28, 28)).double()
    perturbed(net)
    level = torch.zeros(1, dtype=torch.float64)
    x = torch.zeros(1, 1, 28, 28, dtype=torch.float64)
    x[..., 5, 22] = 1
    change = (net(x, level) - net(0 * x, level)).abs()[0, 0]
    rows, columns = (change > 1e-12).nonzero().T
    reach = 10  # 3×3 convolutions in a row: enter, two in each of four blocks, leave; in folded pixels
    assert (int(rows.min()), int(rows.max())) == (0, fold * (5 // fold + reach) + fold - 1)
    assert (int(columns.min()), int(columns.max())) == (fold * (22 // fold - reach), 27)


def test_padding_is_invisible_to_even_sides() -> None:
    """What lies beyond the border is zero, so an image embedded in zeros gives near its middle the same answer."""
    torch.manual_seed(0)
    net = perturbed(UNetConfig(channels=8, multipliers=(1, 2), blocks=1).build((1, 7, 7))).double()
    x = torch.randn(1, 1, 7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    level = torch.zeros(1, dtype=torch.float64)
    padded = nn.functional.pad(x, (0, 1, 0, 1))
    torch.testing.assert_close(net(x, level), net(padded, level)[..., :7, :7])


def test_the_level_matters() -> None:
    net = perturbed(UNetConfig(channels=8, blocks=1).build((2, 8, 8)))
    x, _ = images(8)
    low, high = net(x, torch.full((2,), -1.5)), net(x, torch.full((2,), 1.0))
    assert (low - high).norm() > 1e-3 * low.norm()


def test_labels() -> None:
    torch.manual_seed(0)
    net = perturbed(UNetConfig(channels=8, blocks=1).build((2, 8, 8), classes=3))
    x, level = images(8, n=1)
    answers = [net(x, level, torch.tensor([label])) for label in range(3)] + [net(x, level)]
    for i, a in enumerate(answers):
        for b in answers[:i]:
            assert (a - b).norm() > 1e-4 * a.norm()
    assert torch.equal(answers[3], net(x, level, torch.tensor([-1])))
    assert net.labels is not None
    assert net.labels.weight.shape[0] == 4
    without = UNetConfig(channels=8, blocks=1).build((2, 8, 8))
    assert without.labels is None
    with pytest.raises(ValueError, match="this network knows no classes: leave cond out"):
        without(x, level, torch.tensor([0]))


def test_it_computes_in_channels_last_memory() -> None:
    net = UNetConfig(channels=8, blocks=1).build((2, 8, 8))
    assert net.enter.weight.is_contiguous(memory_format=torch.channels_last)
    seen: list[bool] = []
    net.leave.register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last)))
    net(*images(8))
    assert seen == [True]


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"network unet takes images of shape \(c, h, w\), got .*\(5,\): use mlp"):
        UNetConfig().build((5,))
    assert isinstance(UNetConfig().build((1, 8, 8)), UNet)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"channels": -4}, "channels must be at least 1, got -4"),
        ({"blocks": -1}, "blocks must be at least 1, got -1"),
        ({"fold": 0}, "fold must be at least 1, got 0"),
        ({"multipliers": ()}, r"multipliers must be one or more numbers of at least 1, got \(\)"),
        ({"multipliers": (1, 0)}, r"multipliers must be one or more numbers of at least 1, got \(1, 0\)"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNetConfig(**settings)


@pytest.mark.parametrize("width", [32, 64, 50], ids=lambda w: f"{w} features")
def test_attention_is_that_of_its_definition(width: int) -> None:
    """Heads of 32 features, or one: a weighted mean of values, by the softmax of ⟨query, key⟩ over the root of their size."""
    torch.manual_seed(0)
    attention = perturbed(Attention(width).double(), 0.3)
    x = torch.randn(2, width, 3, 4, dtype=torch.float64)
    heads = width // 32 if width % 32 == 0 else 1
    q, k, v = attention.qkv(attention.norm(x)).reshape(2, 3, heads, width // heads, 12).unbind(1)
    seen = torch.zeros(2, heads, width // heads, 12, dtype=torch.float64)
    for i in range(12):
        weight = (torch.einsum("bhc,bhcj->bhj", q[..., i], k) / (width // heads) ** 0.5).softmax(-1)
        seen[..., i] = torch.einsum("bhj,bhcj->bhc", weight, v)
    torch.testing.assert_close(attention(x, torch.zeros(2)), x + attention.leave(seen.reshape(2, width, 3, 4)))


def test_a_network_with_attention_is_differentiable_twice() -> None:
    """As the training of an energy does; in x and in a weight behind the attention, against finite differences in float64."""
    torch.manual_seed(0)
    net = perturbed(UNetConfig(channels=4, multipliers=(1, 2), blocks=1, attention=True).build((1, 4, 4)), 0.3).double()
    level = torch.zeros(1, dtype=torch.float64)
    name = "middle.1.qkv.weight"

    def scalar(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(net, {name: weight}, (x, level)).square().sum()

    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = net.get_parameter(name).detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(scalar, (x, weight))
    assert torch.autograd.gradgradcheck(scalar, (x, weight))


def test_an_energy_with_attention_trains(tiny_flags: list[str], tmp_path: Path) -> None:
    from scorefield.cli import main

    assert main(["train", "digits", "--energy", "--out", str(tmp_path / "run"), *tiny_flags]) == 0
