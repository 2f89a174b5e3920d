"""Kernels and expansions against autograd of plain formulas."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from scorefield.densities.kernel import Expansion, Gaussian, InverseMultiquadric, Kernel, RationalQuadratic, median_bandwidth
from scorefield.densities.kernel import expansion as expansion_module
from scorefield.densities.kernel.kernels import squared_distances

KERNELS = {
    "gaussian": (Gaussian(1.3), lambda u: (-u / 2).exp()),
    "rational quadratic": (RationalQuadratic(0.8, 2.5), lambda u: (1 + u / 5) ** -2.5),
    "inverse multiquadric": (InverseMultiquadric(1.7), lambda u: (1 + u) ** -0.5),
}
each = pytest.mark.parametrize("name", KERNELS)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(name: str, x: Tensor, z: Tensor) -> Tensor:
    """φ(‖x − z‖²/ℓ²) of two points, without the code under test."""
    kernel, phi = KERNELS[name]
    return phi(((x - z) ** 2).sum() / kernel.bandwidth**2)


def trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@each
def test_the_kernel_and_four_derivatives_in_half_the_squared_distance(name: str) -> None:
    kernel, phi = KERNELS[name]
    half = torch.linspace(0, 6, 13, dtype=torch.float64)
    expected = [lambda t: phi(2 * t / kernel.bandwidth**2)]
    for _ in range(4):
        expected.append(torch.func.grad(expected[-1]))
    for order, actual in enumerate(kernel.derivatives(2 * half, 4)):
        close(actual, torch.stack([expected[order](t) for t in half]))
    x, z = normal(5, 3), normal(4, 3, seed=1)
    close(kernel(x, z), torch.stack([torch.stack([plain(name, a, b) for b in z]) for a in x]))
    assert float(kernel.derivatives(torch.zeros(1).double(), 1)[1]) == pytest.approx(-1 / kernel.bandwidth**2, rel=1e-12)


@each
@pytest.mark.parametrize("missing", [None, "values", "slopes", "curvatures"])
def test_expansions_and_their_derivatives(name: str, missing: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """f by autograd of the plain kernel in zₘ, then ∇f and Δf by autograd of f; and blocks do not matter."""
    x, z = normal(6, 3), normal(5, 3, seed=1)
    x[0] = z[0]  # where a distance is 0
    parts = {"values": normal(5, seed=2), "slopes": normal(5, 3, seed=3), "curvatures": normal(5, seed=4)}
    if missing:
        parts[missing] = torch.zeros_like(parts[missing])

    def f(row: Tensor) -> Tensor:
        def term(centre: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            def kernel(at: Tensor) -> Tensor:
                return plain(name, row, at)

            slope, curvature = torch.func.grad(kernel)(centre), torch.func.hessian(kernel)(centre)
            return a * kernel(centre) + b @ slope + c * curvature.trace()

        return torch.func.vmap(term)(z, *parts.values()).sum()

    given = {key: None if key == missing else part for key, part in parts.items()}
    expansion = Expansion(KERNELS[name][0], z, **given)
    rows = torch.func.vmap
    value, gradient, laplacian = rows(f)(x), rows(torch.func.grad(f))(x), trace(rows(torch.func.hessian(f))(x))
    for block in (2**18, 7):  # all rows, or one at a time
        monkeypatch.setattr(expansion_module, "BLOCK", block)
        close(expansion.value(x), value)
        close(expansion.gradient(x), gradient)
        close(expansion.laplacian(x), laplacian)
    hessians = rows(torch.func.hessian(lambda row: expansion.value(row[None])[0]))(x)
    close(trace(hessians), laplacian)


def test_distances_keep_their_digits_far_from_the_origin() -> None:
    """The centred product loses about ε of the squared spread, here 30 of them at most; uncentred it would lose ε·1e12."""
    x, z = 1e6 + normal(20, 3), 1e6 + normal(10, 3, seed=1)
    torch.testing.assert_close(squared_distances(x, z), ((x[:, None] - z) ** 2).sum(2), rtol=0, atol=1e-13)


def test_the_median_bandwidth() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 10.0]])  # distances 5, 10, and √45
    assert median_bandwidth(x) == pytest.approx(math.sqrt(45), rel=1e-12)
    line = torch.linspace(0, 1, 6001, dtype=torch.float64)[:, None]  # |u − v| of two uniform numbers has median 1 − 1/√2
    assert median_bandwidth(line) == pytest.approx(1 - math.sqrt(0.5), abs=1e-3)
    with pytest.raises(ValueError, match="at least two rows, got 1"):
        median_bandwidth(x[:1])
    with pytest.raises(ValueError, match="most rows are equal"):
        median_bandwidth(torch.ones(5, 2))


@pytest.mark.parametrize("kernel", [Gaussian, RationalQuadratic, InverseMultiquadric])
@pytest.mark.parametrize(
    ("bandwidth", "words"),
    [
        (0.0, "0.0"),
        (-1.0, "-1.0"),
        (math.inf, "inf"),
        (math.nan, "nan"),
        ("wide", "wide"),
        (None, "None"),
        (torch.tensor(-2.0), "-2.0"),
        (torch.tensor(1j), "1j"),
        (torch.ones(2), r"a tensor of shape \(2,\)"),
        (torch.ones(1), r"a tensor of shape \(1,\)"),
    ],
)
def test_bandwidths_must_be_positive(kernel: type[Kernel], bandwidth: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^the bandwidth of a kernel must be positive and finite, got {words}$"):
        kernel(bandwidth)


@pytest.mark.parametrize("exponent", [0.0, math.inf, "2"])
def test_exponents_must_be_positive(exponent: Any) -> None:
    with pytest.raises(ValueError, match=f"^the exponent of a kernel must be positive and finite, got {exponent}$"):
        RationalQuadratic(1.0, exponent)
