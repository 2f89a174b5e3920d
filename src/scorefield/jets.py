"""Jets: a value with its directional derivatives, carried through a network in one forward pass.

Along directions vₖ a function y(x) has tangents Tₖ = ∂y/∂vₖ and second derivatives Sₖ = ∂²y/∂vₖ². Layer by layer,

    linear A:         A y      A Tₖ      A Sₖ
    elementwise f:    f(y)     f′ Tₖ     f′ Sₖ + f″ Tₖ²
    product:          y z      Tₖ z + y Uₖ      Sₖ z + 2 Tₖ Uₖ + y Rₖ            (of numbers or of matrices)

The rules are linear in (Sₖ, Tₖ²), so the sum Σₖ Sₖ — the Laplacian where the vₖ are a basis — is carried at the price of
one. All tangents pass a layer in one matrix product; there is no reverse pass inside, and so none to be differentiated again.

A `Jet` stands in for the input of any module: PyTorch's functions ask it (`__torch_function__`) and find the rules below. A
function without a rule raises `NoRule`, and the caller takes another way to the same numbers.

Reference: Li et al. 2024, arXiv:2307.08214 (forward Laplacian); Griewank & Walther 2008, chapter 13 (Taylor arithmetic).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class NoRule(Exception):
    """A function that jets cannot pass."""


class AllDerivatives(TorchFunctionMode):
    """Inside, normalisations are composed of elementary functions.

    PyTorch's own layer and instance norm have a right second derivative and, silently, a wrong third one (in 2.13); training
    an energy by the trace of its Hessian needs the third.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.layer_norm, F.layer_norm):
            return layer_norm(*args, **kwargs or {})
        if func in (torch.instance_norm, F.instance_norm):
            raise ValueError("instance norm has no right third derivative in PyTorch: use group norm with a group a channel")
        if func is F.batch_norm and (kwargs or {}).get("training", args[5] if len(args) > 5 else False):
            raise ValueError("batch norm makes an example's score depend on the batch: use group norm, or call model.eval()")
        return func(*args, **kwargs or {})


@dataclass(frozen=True, eq=False)
class Jet:
    """`value` `(b, *s)`, `tangents` `(k, b, *s)`, `second` `(k, b, *s)`, or `(1, b, *s)` if `summed`, or None.

    The batch of tangents and second derivatives is 1 where they are the same for every example.
    """

    value: Tensor
    tangents: Tensor
    second: Tensor | None = None
    summed: bool = False

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return apply(func.__name__.strip("_"), *args, **kwargs or {})

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "dtype", "device", "ndim", "is_cuda", "layout"):
            return getattr(self.value, name)
        if name in RULES:
            return partial(apply, name, self)
        if hasattr(Tensor, name) and not name.startswith(
            "__"
        ):  # whatever a network decides by it, a jet would decide otherwise
            raise NoRule(name)
        raise AttributeError(name)

    def __eq__(self, other: object) -> bool:
        raise NoRule("comparison")

    def __bool__(self) -> bool:
        raise NoRule("a condition")

    __hash__ = object.__hash__

    def __len__(self) -> int:
        return len(self.value)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Jet":
        """A function that is linear and acts on tangents as on values."""
        second = None if self.second is None else function(self.second)
        return Jet(function(self.value), function(self.tangents), second, self.summed)

    def squares(self) -> Tensor:
        """Tₖ², or their sum."""
        return self.times(self)

    def times(self, other: "Jet", product: Callable[[Tensor, Tensor], Tensor] = torch.mul) -> Tensor:
        """Tₖ Uₖ, or their sum."""
        found = product(self.tangents, other.tangents)
        return found.sum(0, keepdim=True) if self.summed else found


def apply(name: str, *args: Any, **kwargs: Any) -> Any:
    """The rule called `name`, with at least one jet among its arguments."""
    if name not in RULES or kwargs.get("inplace") or kwargs.get("out") is not None:
        raise NoRule(name)
    kwargs.pop("inplace", None)
    return RULES[name](*args, **kwargs)


def linear(x: Any, weight: Tensor, bias: Tensor | None = None) -> Jet:
    only_first(x, weight, bias)
    second = None if x.second is None else F.linear(x.second, weight)
    return Jet(F.linear(x.value, weight, bias), F.linear(x.tangents, weight), second, x.summed)


def convolution(x: Any, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Jet:
    only_first(x, weight, bias)
    bare = each(lambda y: F.conv2d(y, weight, None, *args, **kwargs), x)
    shift = 0 if bias is None else bias[:, None, None]
    return Jet(bare.value + shift, bare.tangents, bare.second, x.summed)


def padding(x: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Jet:
    bare: Jet = each(lambda y: F.pad(y, pad, mode), x)
    return Jet(F.pad(x.value, pad, mode, value), bare.tangents, bare.second, x.summed)


def elementwise(f: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]) -> Callable[..., Jet]:
    """The rule of a function given with its first two derivatives."""

    def rule(x: Jet, *args: Any, **kwargs: Any) -> Jet:
        value, first, curvature = f(x.value, *args, **kwargs)
        if x.summed and x.second is not None:
            tangents, second, _ = ChainRule.apply(first, curvature, x.tangents, x.second)  # type: ignore[no-untyped-call]
            return Jet(value, tangents, second, summed=True)
        second = None if x.second is None else first * x.second + curvature * x.squares()
        return Jet(value, first * x.tangents, second, x.summed)

    return rule


class ChainRule(torch.autograd.Function):
    """(f′, f″, Tₖ, Σ Sₖ) ↦ (f′ Tₖ, f′ Σ Sₖ + f″ Σ Tₖ²): the rule of an elementwise function, with a backward pass of its own.

    Its cost is that of moving the tangents through memory; this is half as many passes as PyTorch would make of it.
    """

    @staticmethod
    def forward(first: Tensor, curvature: Tensor, tangents: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        squares = sum_of_products(tangents, tangents)
        return first * tangents, first * second + curvature * squares, squares

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(*inputs, output[2])

    @staticmethod
    def backward(ctx: Any, of_tangents: Tensor, of_second: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        first, curvature, tangents, second, squares = ctx.saved_tensors
        to_tangents = (of_tangents * first).addcmul_(tangents, 2 * curvature * of_second)
        to_first = sum_of_products(of_tangents, tangents) + (of_second * second)[0]
        to_curvature = of_second[0] * squares
        to_second = first * of_second
        if len(tangents[0]) < len(first):  # the same for every example
            to_tangents = to_tangents.sum(1, keepdim=True)
        if len(second[0]) < len(first):
            to_second = to_second.sum(1, keepdim=True)
        return to_first, to_curvature, to_tangents, to_second


def sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """Σₖ aₖ bₖ, a direction at a time: the products never go to memory."""
    total = a[0] * b[0]
    for one, other in zip(a[1:], b[1:], strict=True):
        total.addcmul_(one, other)
    return total


def shape_rule(name: str) -> Callable[..., Any]:
    """A linear function that leaves the batch alone, by its name in `torch`, `Tensor` or `functional`."""
    function = next(getattr(place, name) for place in (Tensor, torch, F) if hasattr(place, name))

    def rule(x: Any, *args: Any, **kwargs: Any) -> Any:
        only_first(x, *args)
        return each(lambda y: function(y, *args, **kwargs), x)

    return rule


def each(function: Callable[[Tensor], Any], x: Jet) -> Any:
    """A linear function of batches applied to the value and to every tangent, whatever it does to shapes."""
    b = len(x.value)

    def over_directions(t: Tensor) -> Any:
        return torch.func.vmap(function)(t.expand(len(t), b, *t.shape[2:]))

    value, tangents = function(x.value), over_directions(x.tangents)
    second = None if x.second is None else over_directions(x.second)
    if isinstance(value, Tensor):
        return Jet(value, tangents, second, x.summed)
    seconds = [None] * len(value) if second is None else second
    return tuple(Jet(*parts, x.summed) for parts in zip(value, tangents, seconds, strict=True))


def add(a: Any, b: Any, *, alpha: float = 1) -> Jet:
    if not (isinstance(a, Jet) and isinstance(b, Jet)):
        jet, constant = (a, alpha * b) if isinstance(a, Jet) else (multiply(b, alpha), a)
        check_constant(jet, constant)
        value = jet.value + constant
        if value.shape != jet.value.shape:
            raise NoRule("broadcasting")
        return Jet(value, jet.tangents, jet.second, jet.summed)
    check_pair(a, b)
    second = None if a.second is None or b.second is None else a.second + alpha * b.second
    return Jet(a.value + alpha * b.value, a.tangents + alpha * b.tangents, second, a.summed)


def subtract(a: Any, b: Any, *, alpha: float = 1) -> Jet:
    return add(a, b, alpha=-alpha)


def bilinear(product: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Jet]:
    """The rule of a product, of numbers or of matrices."""

    def rule(a: Any, b: Any) -> Jet:
        if not isinstance(b, Jet):
            check_constant(a, b)
            return a.map(lambda y: product(y, b))
        if not isinstance(a, Jet):
            check_constant(b, a)
            return b.map(lambda y: product(a, y))
        check_pair(a, b)
        tangents = product(a.tangents, b.value) + product(a.value, b.tangents)
        second = None
        if a.second is not None and b.second is not None:
            second = product(a.second, b.value) + 2 * a.times(b, product) + product(a.value, b.second)
        return Jet(product(a.value, b.value), tangents, second, a.summed)

    return rule


multiply = bilinear(torch.mul)


def matmul(a: Any, b: Any) -> Jet:
    if isinstance(b, Jet) and b.value.ndim < 3:
        raise NoRule("a product of matrices that sums over the batch")
    return bilinear(torch.matmul)(a, b)


def softmax(x: Any, dim: int | None = None, *args: Any, dtype: Any = None, **kwargs: Any) -> Any:
    if dim is None or dim % x.ndim == 0 or dtype is not None:
        raise NoRule("softmax over the batch, or in another precision")
    e = (x - x.value.amax(dim, keepdim=True).detach()).exp()
    return e / e.sum(dim, keepdim=True)


def divide(a: Any, b: Any) -> Jet:
    return multiply(a, RULES["reciprocal"](b) if isinstance(b, Jet) else 1 / b)


def concatenate(jets: Sequence[Any], dim: int = 0) -> Jet:
    """Along an event's dimension; plain tensors among `jets` have tangents of zero."""
    first = next(x for x in jets if isinstance(x, Jet))
    at = dim if dim < 0 else dim - first.value.ndim
    if at in (0, -first.value.ndim):
        raise NoRule("concatenation of batches")
    b, jets = len(first.value), [x if isinstance(x, Jet) else constant_like(x, first) for x in jets]

    def joined(parts: list[Tensor]) -> Tensor:
        return torch.cat([p.expand(len(p), b, *p.shape[2:]) for p in parts], at)

    second = None if first.second is None else joined([x.second for x in jets])
    return Jet(torch.cat([x.value for x in jets], at), joined([x.tangents for x in jets]), second, first.summed)


def layer_norm(
    x: Any, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5, enable: bool = True
) -> Any:
    """Of a jet or a tensor, composed of functions whose every derivative is right (see `AllDerivatives`)."""
    dims = tuple(range(-len(shape), 0))
    centred = x - x.mean(dims, keepdim=True)
    y = centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def group_norm(x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    only_first(x, weight, bias)
    grouped = x.unflatten(1, (groups, -1))
    y = layer_norm(grouped, grouped.shape[2:], eps=eps).flatten(1, 2)
    along = (-1, *[1] * (x.ndim - 2))
    y = y if weight is None else y * weight.reshape(along)
    return y if bias is None else y + bias.reshape(along)


def power(x: Any, exponent: Any) -> Any:
    if isinstance(exponent, Jet | Tensor):
        raise NoRule("pow")
    if exponent in (1, 2):
        return x if exponent == 1 else RULES["square"](x)
    if exponent == 0:
        raise NoRule("pow")
    n = float(exponent)
    return elementwise(lambda v: (v**n, n * v ** (n - 1), n * (n - 1) * v ** (n - 2)))(x)


def only_first(x: Any, *others: Any) -> None:
    """Refuse jets anywhere but in the first place."""
    if not isinstance(x, Jet) or any(isinstance(o, Jet) for o in others):
        raise NoRule("a jet in another place than the first")


def check_constant(jet: Jet, constant: Any) -> None:
    if isinstance(constant, Tensor) and constant.ndim > jet.value.ndim:
        raise NoRule("broadcasting")


def check_pair(a: Jet, b: Jet) -> None:
    if a.value.ndim != b.value.ndim:
        raise NoRule("broadcasting")


def constant_like(x: Tensor, jet: Jet) -> Jet:
    """A tensor that does not depend on x, as a jet."""
    zero = x.new_zeros(()).expand(len(jet.tangents), 1, *x.shape[1:])
    return Jet(x, zero, None if jet.second is None else zero[: len(jet.second)], jet.summed)


def _silu(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    s = v.sigmoid()
    value = v * s
    slope = s * (1 - s)
    return value, s + value * (1 - s), slope * (2 + v - 2 * value)


def _sigmoid(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    s = v.sigmoid()
    first = s * (1 - s)
    return s, first, first * (1 - 2 * s)


def _tanh(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    t = v.tanh()
    first = 1 - t**2
    return t, first, -2 * t * first


def _softplus(v: Tensor, beta: float = 1.0, threshold: float = 20.0) -> tuple[Tensor, Tensor, Tensor]:
    s = (beta * v).sigmoid()
    return F.softplus(v, beta, threshold), s, beta * s * (1 - s)


def _gelu(v: Tensor, approximate: str = "none") -> tuple[Tensor, Tensor, Tensor]:
    if approximate != "none":
        raise NoRule("gelu's tanh approximation")
    below = torch.special.ndtr(v)
    density = (-(v**2) / 2).exp() / math.sqrt(2 * math.pi)
    return F.gelu(v), below + v * density, density * (2 - v**2)


def _relu(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    on = (v > 0).to(v.dtype)
    return v.relu(), on, torch.zeros_like(v)


def _rsqrt(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r = v.rsqrt()
    return r, -r / v / 2, 0.75 * r / v**2


def _sqrt(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r = v.sqrt()
    return r, 1 / (2 * r), -1 / (4 * r * v)


def _exp(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    e = v.exp()
    return e, e, e


def _reciprocal(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r = 1 / v
    return r, -(r**2), 2 * r**3


FUNCTIONS: dict[str, Callable[..., tuple[Tensor, Tensor, Tensor]]] = {
    "silu": _silu, "sigmoid": _sigmoid, "tanh": _tanh, "softplus": _softplus, "gelu": _gelu, "relu": _relu, "rsqrt": _rsqrt,
    "sqrt": _sqrt, "exp": _exp, "reciprocal": _reciprocal,
    "log": lambda v: (v.log(), 1 / v, -1 / v**2),
    "sin": lambda v: (v.sin(), v.cos(), -v.sin()),
    "cos": lambda v: (v.cos(), -v.sin(), -v.cos()),
    "square": lambda v: (v**2, 2 * v, torch.full_like(v, 2)),
}  # fmt: skip
SHAPES = (
    "avg_pool2d", "chunk", "flatten", "interpolate", "mean", "movedim", "permute", "pixel_shuffle",
    "pixel_unshuffle", "reshape", "split", "squeeze", "sum", "to", "transpose", "unbind", "unflatten", "unsqueeze", "view",
)  # fmt: skip
RULES: dict[str, Callable[..., Any]] = {
    **{name: elementwise(f) for name, f in FUNCTIONS.items()},
    **{name: shape_rule(name) for name in SHAPES},
    "getitem": lambda x, key: each(lambda y: y[key], x),
    "linear": linear, "conv2d": convolution, "cat": concatenate, "pad": padding,
    "layer_norm": layer_norm, "group_norm": group_norm,
    "add": add, "radd": add, "sub": subtract, "rsub": lambda a, b: subtract(b, a), "mul": multiply, "rmul": multiply,
    "matmul": matmul, "rmatmul": lambda a, b: matmul(b, a), "softmax": softmax,
    "div": divide, "truediv": divide, "rdiv": lambda a, b: divide(b, a), "rtruediv": lambda a, b: divide(b, a),
    "neg": lambda x: multiply(x, -1.0), "pow": power, "contiguous": lambda x, **layout: x,
    "double": lambda x: x.map(Tensor.double), "float": lambda x: x.map(Tensor.float),
    "addcmul": lambda a, b, c, *, value=1: add(a, multiply(b, c), alpha=value), "dim": lambda x: x.value.ndim,
    "size": lambda x, *dim: x.value.size(*dim), "numel": lambda x: x.value.numel(),
    "is_floating_point": lambda x: x.value.is_floating_point(),
}  # fmt: skip


def operator(name: str) -> Callable[..., Any]:
    return lambda *args: apply(name, *args)


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "neg", "pow", "getitem", "matmul", "rmatmul"):
    setattr(Jet, f"__{_name}__", operator(_name))
