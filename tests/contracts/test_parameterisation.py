"""Every row of the parameterisation table: the optimal network gives the exact score, as a score and as an energy.

Data N(μ, τ²I) has E[x₀|x] = μ + τ²(x − μ)/(τ² + σ²) and E[z|x] = σ(x − μ)/(τ² + σ²), so the best answer to every row's
regression is known, and the score must be −(x − μ)/(τ² + σ²).
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from scorefield.models import EnergyModel, ModelSpec, Parameterisation, ScoreModel

LEVELS = torch.logspace(torch.tensor(0.002).log10(), torch.tensor(80.0).log10(), 9, dtype=torch.float64)
LEVELS[0], LEVELS[-1] = 0.002, 80.0
TAU = 0.7
SHAPES = [(3,), (2, 3, 4)]


@dataclass(frozen=True)
class Row:
    """One row as its paper states it, not as the package computes it (float64, σ broadcast against x)."""

    parameterisation: Parameterisation
    inner: Callable[[Tensor], Tensor]  # c_in
    target: Callable[[Tensor, Tensor, Tensor], Tensor]  # what the net predicts, of (x₀, z, σ); linear in x₀ and z
    denoised: Callable[[Tensor, Tensor, Tensor], Tensor]  # x₀ read back from (x, net's answer, σ)
    loss_of_digits: Callable[[float], float]  # how much larger the summands are than the score, as σ → 0

    @property
    def name(self) -> str:
        return f"{self.parameterisation.name}-{self.parameterisation.sigma_data:g}"


def alpha(s: Tensor) -> Tensor:
    return 1 / (1 + s**2).sqrt()


def edm(d: float) -> Row:
    skip = lambda s: d**2 / (s**2 + d**2)  # noqa: E731  # Karras et al. 2022, table 1
    out = lambda s: s * d / (s**2 + d**2).sqrt()  # noqa: E731
    return Row(
        Parameterisation("edm", d),
        lambda s: 1 / (s**2 + d**2).sqrt(),
        lambda x0, z, s: (s * x0 - d**2 * z) / (d * (s**2 + d**2).sqrt()),  # (x₀ − skip x)/out, without the cancellation
        lambda x, net, s: skip(s) * x + out(s) * net,
        lambda s: 1.0,
    )


ROWS = [
    edm(1.0),
    edm(0.5),
    Row(Parameterisation("noise"), alpha, lambda x0, z, s: z, lambda x, net, s: x - s * net, lambda s: 1.0),
    Row(Parameterisation("data"), alpha, lambda x0, z, s: x0, lambda x, net, s: net, lambda s: 1 + 1 / s**2),
    Row(
        Parameterisation("v"),
        alpha,
        lambda x0, z, s: alpha(s) * z - s * alpha(s) * x0,
        lambda x, net, s: alpha(s) * (alpha(s) * x) - s * alpha(s) * net,  # Salimans & Ho 2022: x₀ = α x_t − std v
        lambda s: 1.0,
    ),
    Row(
        Parameterisation("flow"),
        lambda s: 1 / (1 + s),
        lambda x0, z, s: z - x0,
        lambda x, net, s: x / (1 + s) - s / (1 + s) * net,  # x₀ = x_t − t v at t = σ/(1 + σ)
        lambda s: 1 + 1 / s,
    ),
    Row(Parameterisation("ncsn"), torch.ones_like, lambda x0, z, s: -z, lambda x, net, s: x + s * net, lambda s: 1.0),
]
ENERGY_ROWS = [row for row in ROWS if row.parameterisation.name != "data"]
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
each_energy_row = pytest.mark.parametrize("row", ENERGY_ROWS, ids=lambda row: row.name)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


class Gaussian:
    """The data N(μ, τ²I), float64."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mean = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def noised(self, sigma: float, n: int = 5) -> Tensor:
        g = torch.Generator().manual_seed(2)
        z = torch.randn(n, *self.mean.shape, generator=g, dtype=torch.float64)
        return self.mean + (TAU**2 + sigma**2) ** 0.5 * z

    def optimum(self, row: Row, x: Tensor, s: Tensor) -> Tensor:
        """E[target | x]."""
        x0 = self.mean + TAU**2 * (x - self.mean) / (TAU**2 + s**2)
        z = s * (x - self.mean) / (TAU**2 + s**2)
        return row.target(x0, z, s)

    def score(self, x: Tensor, sigma: float) -> Tensor:
        return -(x - self.mean) / (TAU**2 + sigma**2)


class Known(nn.Module):
    """A network that is a function; checks on the way that it was given u = c_in x and c_noise = ¼ log σ."""

    def __init__(self, row: Row, x: Tensor, sigma: Tensor, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.row, self.x, self.sigma, self.answer = row, x, sigma, answer

    def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        eps = torch.finfo(u.dtype).eps
        expected = self.row.inner(self.sigma) * self.x
        torch.testing.assert_close(u.double(), expected, rtol=8 * eps, atol=0)
        level = (self.sigma.log() / 4).expand_as(c_noise)
        torch.testing.assert_close(c_noise.double(), level, rtol=8 * eps, atol=8 * eps)
        return self.answer(u)


def assert_relative(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    error = (actual.double() - expected).norm() / expected.norm()
    assert error <= tolerance, f"relative error {error:.2e}, tolerance {tolerance:.2e}"


@each_row
@each_shape
@each_dtype
@pytest.mark.parametrize("sigma", LEVELS.tolist(), ids=lambda s: f"{s:.3g}")
def test_the_optimal_network_gives_the_exact_score(row: Row, shape: tuple[int, ...], dtype: torch.dtype, sigma: float) -> None:
    data = Gaussian(shape)
    x = data.noised(sigma).to(dtype)
    s = torch.tensor(sigma, dtype=torch.float64)
    answer = data.optimum(row, x.double(), s).to(dtype)
    model = ScoreModel(Known(row, x.double(), s, lambda u: answer), ModelSpec(shape, row.parameterisation))
    tolerance = 16 * torch.finfo(dtype).eps * row.loss_of_digits(sigma)
    assert_relative(model.score(x, sigma), data.score(x.double(), sigma), tolerance)


@each_energy_row
@each_shape
@each_dtype
@pytest.mark.parametrize("sigma", LEVELS.tolist(), ids=lambda s: f"{s:.3g}")
def test_the_optimal_scalar_network_gives_the_exact_score(
    row: Row, shape: tuple[int, ...], dtype: torch.dtype, sigma: float
) -> None:
    data = Gaussian(shape)
    x = data.noised(sigma).to(dtype)
    s = torch.tensor(sigma, dtype=torch.float64)

    def quadratic(u: Tensor) -> Tensor:  # the φ whose gradient is the affine optimum
        at_zero = data.optimum(row, torch.zeros_like(data.mean), s).to(dtype)
        slope = (data.optimum(row, torch.ones_like(data.mean), s).to(dtype) - at_zero) / row.inner(s).to(dtype)
        return (slope * u**2 / 2 + at_zero * u).flatten(1).sum(1)

    model = EnergyModel(Known(row, x.double(), s, quadratic), ModelSpec(shape, row.parameterisation))
    tolerance = 32 * torch.finfo(dtype).eps * row.loss_of_digits(sigma)
    assert_relative(model.score(x, sigma), data.score(x.double(), sigma), tolerance)


class Wave(nn.Module):
    """An arbitrary nonlinear network, and with `scalar` the φ whose gradient it is (computed by hand)."""

    def __init__(self, scalar: bool) -> None:
        super().__init__()
        self.scalar = scalar

    def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        level = c_noise.reshape(-1, *[1] * (u.ndim - 1))
        if self.scalar:
            return (-(2 * u + level).cos() / 2 + level * u.tanh()).flatten(1).sum(1)
        return (2 * u + level).sin() + level * (1 - u.tanh() ** 2)


@each_shape
@each_row
def test_any_network_is_read_as_its_paper_says(row: Row, shape: tuple[int, ...]) -> None:
    x = Gaussian(shape).noised(1.0, len(LEVELS))
    s = LEVELS.reshape(-1, *[1] * len(shape))
    net = Wave(scalar=False)(row.inner(s) * x, LEVELS.log() / 4)
    expected = (row.denoised(x, net, s) - x) / s**2  # loses eps/σ² ≈ 6e-11
    spec = ModelSpec(shape, row.parameterisation)
    torch.testing.assert_close(ScoreModel(Wave(scalar=False), spec).score(x, LEVELS), expected, rtol=1e-8, atol=1e-9)
    if row in ENERGY_ROWS:
        torch.testing.assert_close(EnergyModel(Wave(scalar=True), spec).score(x, LEVELS), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", [ScoreModel, EnergyModel])
def test_the_network_may_answer_in_lower_precision(kind: type) -> None:
    class Half(Wave):
        def forward(self, u: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
            return super().forward(u, c_noise).bfloat16()

    x = Gaussian((3,)).noised(1.0)
    assert kind(Half(scalar=kind is EnergyModel), ModelSpec((3,))).score(x, 1.0).dtype == x.dtype


def test_energies_refuse_the_data_row() -> None:
    with pytest.raises(ValueError, match=r"'data' is not offered for energies: choose edm, v or flow"):
        EnergyModel(Wave(scalar=True), ModelSpec((3,), Parameterisation("data")))
