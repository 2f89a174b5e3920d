"""Each rule for jets against derivatives taken twice by reverse mode, in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from scorefield.jets import Jet, NoRule

g = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64)


A, B, BIAS = normal(4, 6), normal(6, 6), normal(4)
KERNEL, KERNEL_BIAS = normal(3, 2, 3, 3), normal(3)
WEIGHT, SHIFT = normal(6), normal(6)
FIXED = normal(5, 6)
CHANNEL_WEIGHT, CHANNEL_SHIFT = normal(4), normal(4)


def attention(*parts: Tensor) -> Tensor:
    """Queries, keys and values `(b, c, h, w)`, as the U-Net mixes positions."""
    q, k, v = (x.reshape(*x.shape[:2], -1).transpose(-1, -2) for x in parts)
    return (q @ k.transpose(-1, -2) * 0.7).softmax(-1) @ v


VECTOR_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: F.linear(x, A, BIAS),
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": lambda x: x.tanh(),
    "softplus": F.softplus,
    "softplus with a scale": lambda x: F.softplus(x, beta=2.0),
    "gelu": F.gelu,
    "relu": F.relu,
    "exp": torch.exp,
    "sin": torch.sin,
    "cos": lambda x: x.cos(),
    "square": torch.square,
    "log": lambda x: (x**2 + 1).log(),
    "sqrt": lambda x: torch.sqrt(x**2 + 1),
    "rsqrt": lambda x: (1 + x**2).rsqrt(),
    "reciprocal": lambda x: 1 / (x**2 + 1),
    "cube": lambda x: x**3,
    "first power": lambda x: x**1 * x.sin(),
    "plus a constant": lambda x: x + FIXED,
    "constant minus": lambda x: FIXED - x,
    "minus a number": lambda x: x - 1.5,
    "times a constant": lambda x: FIXED * x * 0.3,
    "divided": lambda x: x / (FIXED**2 + 1),
    "quotient": lambda x: x.sin() / (x**2 + 1),
    "negative": lambda x: -x.sin(),
    "sum of functions": lambda x: x.sin() + torch.exp(x),
    "difference of functions": lambda x: x.sin() - torch.exp(x),
    "product of functions": lambda x: x.sin() * F.linear(x, B),
    "addcmul": lambda x: torch.addcmul(x, x.sin(), x.cos()),
    "addcmul with a factor": lambda x: torch.addcmul(FIXED, x.sin(), x.cos(), value=0.5),
    "concatenation": lambda x: torch.cat([x.sin(), FIXED, x], 1),
    "layer norm": lambda x: F.layer_norm(x, (6,), WEIGHT, SHIFT),
    "bare layer norm": lambda x: F.layer_norm(x.sin(), (6,)),
    "group norm": lambda x: F.group_norm(F.linear(x, A), 2, CHANNEL_WEIGHT, CHANNEL_SHIFT),
    "sum": lambda x: x.sin().sum(1),
    "mean": lambda x: x.exp().mean(1, keepdim=True),
    "index": lambda x: x.sin()[:, 1],
    "new axis": lambda x: x.exp()[..., None] * FIXED[0],
    "chunks": lambda x: x.sin().chunk(2, 1)[0] * x.chunk(2, 1)[1],
    "reshape": lambda x: x.exp().reshape(len(x), 2, 3).transpose(1, 2).flatten(1),
    "squeeze": lambda x: F.linear(x.sin(), A[:1]).squeeze(1),
    "unsqueeze": lambda x: x.exp().unsqueeze(1),
    "matrix": lambda x: x.sin() @ B,
    "row": lambda x: torch.matmul(x.sin(), B[0]),
    "matrix from the left": lambda x: A[:, :2] @ x.exp().reshape(len(x), 2, 3),
    "matrices": lambda x: x.sin().reshape(len(x), 2, 3) @ x.exp().reshape(len(x), 3, 2),
    "softmax": lambda x: (3 * x).softmax(-1),
    "softmax of rows": lambda x: F.softmax(x.exp().reshape(len(x), 2, 3), dim=1),
    "two layers": lambda x: F.linear(F.silu(F.linear(x, B)), A),
}
IMAGE_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "convolution": lambda x: F.conv2d(x.sin(), KERNEL, KERNEL_BIAS, padding=1),
    "strided": lambda x: F.conv2d(x.exp(), KERNEL, None, stride=2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x.sin(), 2),
    "pixel shuffle": lambda x: F.pixel_shuffle(torch.cat([x, x.sin()], 1), 2),
    "padding": lambda x: F.pad(x.sin(), (0, 1, 1, 0)),
    "padding with a number": lambda x: F.pad(x.sin(), (0, 1, 1, 0), value=1.5).square(),
    "reflection": lambda x: F.pad(x.sin(), (1, 1, 1, 1), mode="reflect"),
    "upsampling": lambda x: F.interpolate(x.sin(), scale_factor=2.0, mode="nearest"),
    "pooling": lambda x: F.avg_pool2d(x.sin(), 2),
    "group norm": lambda x: F.group_norm(x.sin(), 1, CHANNEL_WEIGHT[:2], CHANNEL_SHIFT[:2]),
    "attention": lambda x: attention(x, x.sin(), x.exp()),
    "channel norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (2,)).permute(0, 3, 1, 2),
}
CASES = [(name, f, (5, 6)) for name, f in VECTOR_FUNCTIONS.items()] + [(n, f, (5, 2, 4, 4)) for n, f in IMAGE_FUNCTIONS.items()]
each_case = pytest.mark.parametrize(("name", "f", "shape"), CASES, ids=[f"{n}-{len(s) - 1}d" for n, _, s in CASES])


def expected(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """∂f/∂v and ∂²f/∂v² by reverse mode over reverse mode."""
    zero = torch.zeros((), dtype=x.dtype)
    first = torch.func.jacrev(lambda t: f(x + t * v))
    return first(zero), torch.func.jacrev(first)(zero)


@each_case
def test_derivatives_along_each_direction(name: str, f: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
    x, v = normal(*shape), normal(3, *shape)
    out = f(Jet(x, v, torch.zeros_like(v)))  # type: ignore[arg-type]
    assert isinstance(out, Jet)
    torch.testing.assert_close(out.value, f(x), rtol=1e-12, atol=1e-12)
    firsts, seconds = zip(*[expected(f, x, direction) for direction in v], strict=True)
    torch.testing.assert_close(out.tangents.expand(3, *out.shape), torch.stack(firsts), rtol=1e-10, atol=1e-10)
    assert out.second is not None
    torch.testing.assert_close(out.second.expand(3, *out.shape), torch.stack(seconds), rtol=1e-10, atol=1e-10)


@each_case
def test_their_sum_at_the_price_of_one(name: str, f: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
    """Directions that are the same for all examples, as a basis is, and only the sum of second derivatives."""
    x, v = normal(*shape), normal(3, 1, *shape[1:])
    out = f(Jet(x, v, torch.zeros(1, *v.shape[1:], dtype=x.dtype), summed=True))  # type: ignore[arg-type]
    assert isinstance(out, Jet)
    firsts, seconds = zip(*[expected(f, x, direction.expand_as(x)) for direction in v], strict=True)
    torch.testing.assert_close(out.tangents.expand(3, *out.shape), torch.stack(firsts), rtol=1e-10, atol=1e-10)
    assert out.second is not None
    torch.testing.assert_close(out.second.expand(1, *out.shape)[0], torch.stack(seconds).sum(0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: torch.cumsum(x, 1),
        lambda x: F.silu(x, inplace=True),
        lambda x: FIXED.T @ x,
        lambda x: x.softmax(0),
        lambda x: torch.softmax(x, 1, dtype=torch.float32),
        lambda x: F.linear(FIXED, x),
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: x + FIXED.expand(2, 5, 6),
        lambda x: torch.cat([x, x]),
        lambda x: x.detach(),
        lambda x: torch.pow(2.0, x),
        lambda x: x[:, :1] + FIXED,
        lambda x: x**0,
        lambda x: x * (x != 0),
        lambda x: x.sin() if x.requires_grad else x,
        lambda x: x.sin() if x else x,
        lambda x: x @ x.T,
    ],
)
def test_what_has_no_rule_says_so(f: Callable[[Tensor], Tensor]) -> None:
    x = normal(5, 6)
    with pytest.raises(NoRule):
        f(Jet(x, x[None], x[None]))  # type: ignore[arg-type]
