"""The classics against quadrature, other libraries' formulas, autograd, and the law of their own samples."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest, multivariate_t, norm
from torch import Tensor
from torch.distributions import Normal

from scorefield.densities import Banana, DoubleWell, Funnel, StudentT
from scorefield.interfaces import Density, Score, grad_log_density

SCALE = torch.tensor([[1.5, 0.4, 0.1], [0.4, 0.7, -0.2], [0.1, -0.2, 0.3]]).double()
CENTRE = torch.tensor([1.0, -0.5, 0.2]).double()
IMAGE = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(1, 2, 3)
CLASSICS = {
    "banana": Banana(width=1.3, bend=0.7, std=0.4),
    "funnel": Funnel(dimension=4, std=1.2),
    "double well": DoubleWell(dimension=3, location=1.4, barrier=2.5),
    "student": StudentT(5.0, CENTRE, SCALE),
    "student image": StudentT(7.0, IMAGE, 0.6),
}
each = pytest.mark.parametrize("p", CLASSICS.values(), ids=CLASSICS)
Classic = Banana | Funnel | DoubleWell | StudentT


def points(p: Classic, n: int = 40) -> Tensor:
    return 1.5 * torch.randn(n, *p.event_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def draws(p: Classic, n: int) -> Tensor:
    return p.sample(n, generator=torch.Generator().manual_seed(2))


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def mass(p: Classic, first: Tensor, second: Tensor) -> float:
    cell = float((first[1] - first[0]) * (second[1] - second[0]))
    return float(p.log_density(torch.cartesian_prod(first, second)).exp().sum()) * cell


@each
def test_the_score_is_the_gradient(p: Classic) -> None:
    for x in (points(p), draws(p, 40)):
        gradient = grad_log_density(p.log_density, x)
        torch.testing.assert_close(p.score(x), gradient, rtol=1e-10, atol=1e-10)
        one_at_a_time = torch.func.vmap(torch.func.grad(lambda row: p.log_density(row[None])[0]))(x)
        torch.testing.assert_close(p.score(x), one_at_a_time, rtol=1e-10, atol=1e-10)


@each
def test_samples_follow_the_density(p: Classic) -> None:
    """E[s(x) xᵀ] = −I for x ~ p, by integration by parts: it ties the score to the samples, every factor included."""
    n = 100_000
    x = draws(p, n)
    products = p.score(x).flatten(1)[:, :, None] * x.flatten(1)[:, None, :]
    eye = torch.eye(products.shape[1], dtype=torch.float64)
    assert ((products.mean(0) + eye).abs() < 4.5 * products.std(0) / n**0.5).all()
    assert (p.score(x).mean(0).abs() < 4.5 * p.score(x).std(0) / n**0.5).all()
    assert torch.equal(x, draws(p, n))


def test_they_integrate_to_one_in_the_plane() -> None:
    line = torch.linspace(-12, 12, 401, dtype=torch.float64)
    assert mass(Banana(1.1, 0.4, 0.5), line, torch.linspace(-6, 45, 1201, dtype=torch.float64)) == pytest.approx(1, abs=1e-8)
    assert mass(Funnel(2, 0.5), line / 3, torch.linspace(-60, 60, 4001, dtype=torch.float64)) == pytest.approx(1, abs=1e-8)
    assert mass(DoubleWell(2, 1.4, 2.5), line / 2, line / 2) == pytest.approx(1, abs=1e-10)


def test_banana() -> None:
    """Against the two conditional normal laws, and the moments of x₂: mean 0, variance s² + 2b²w⁴."""
    w, b, s, n = 1.3, 0.7, 0.4, 50_000
    p = CLASSICS["banana"]
    x = points(p)
    expected = Normal(0.0, number(w)).log_prob(x[:, 0]) + Normal(b * (x[:, 0] ** 2 - w**2), number(s)).log_prob(x[:, 1])
    torch.testing.assert_close(p.log_density(x), expected, rtol=1e-12, atol=1e-12)
    first, second = draws(p, n).unbind(1)
    assert kstest(first / w, "norm").statistic < 2.23 / math.sqrt(n)
    assert float(second.mean()) == pytest.approx(0, abs=4.5 * float(second.std()) / math.sqrt(n))
    squares = second**2
    assert float(squares.mean()) == pytest.approx(s**2 + 2 * b**2 * w**4, abs=4.5 * float(squares.std()) / math.sqrt(n))


@pytest.mark.parametrize("p", [Funnel(), Funnel(10, 3.0), Funnel(4, 1.2)], ids=str)
def test_funnel(p: Funnel) -> None:
    """Against the conditional normal laws; Kolmogorov–Smirnov of v and of each coordinate over its own scale."""
    n = 20_000
    x = points(p)
    scale = (x[:, :1] / 2).exp().expand(-1, p.dimension - 1)
    expected = Normal(0.0, number(p.std)).log_prob(x[:, 0]) + Normal(0.0, scale).log_prob(x[:, 1:]).sum(1)
    torch.testing.assert_close(p.log_density(x), expected, rtol=1e-12, atol=1e-12)
    x = draws(p, n)
    assert kstest(x[:, 0], norm(0, p.std).cdf).statistic < 2.23 / math.sqrt(n)
    assert kstest((x[:, 1:] / (x[:, :1] / 2).exp()).flatten(), "norm").statistic < 2.23 / math.sqrt(n * (p.dimension - 1))


@pytest.mark.parametrize("barrier", [0.05, 1.0, 6.0, 40.0])
def test_double_well(barrier: float) -> None:
    """Closed-form log Z against quadrature, the barrier as stated, and samples against the integrated density."""
    a, n = 1.4, 20_000
    p = DoubleWell(1, a, barrier)
    z = 2 * quad(lambda x: math.exp(-barrier * ((x / a) ** 2 - 1) ** 2), 0, 12, epsabs=1e-13)[0]
    assert p.log_z == pytest.approx(math.log(z), abs=1e-9)
    top, well = p.log_density(torch.tensor([[0.0], [a]], dtype=torch.float64)).tolist()
    assert well - top == pytest.approx(barrier, rel=1e-12)
    line = torch.linspace(-8, 8, 64_001, dtype=torch.float64)
    cdf = torch.cumulative_trapezoid(p.log_density(line[:, None]).exp(), line)
    assert float(cdf[-1]) == pytest.approx(1, abs=1e-9)
    x = draws(p, n).flatten()
    at_samples = np.interp(x, line[1:], cdf)
    assert kstest(at_samples, "uniform").statistic < 2.23 / math.sqrt(n)


def test_the_wells_are_independent() -> None:
    one, three = DoubleWell(1, 1.4, 2.5), DoubleWell(3, 1.4, 2.5)
    x = points(three)
    torch.testing.assert_close(three.log_density(x), sum(one.log_density(x[:, [i]]) for i in range(3)))
    signs = draws(three, 50_000).sign()
    assert ((signs.mT @ signs / 50_000 - torch.eye(3)).abs() < 4.5 / math.sqrt(50_000)).all()


def test_student_t() -> None:
    """Against SciPy's formula, Σ = 0.6 I on images; samples have mean μ, δ/d ~ F(d, ν), and no preferred direction."""
    n = 200_000
    p, image = CLASSICS["student"], CLASSICS["student image"]
    for q, centre, scale in ((p, CENTRE, SCALE), (image, IMAGE.flatten(), 0.6 * torch.eye(6).double())):
        x = points(q)
        expected = multivariate_t(centre, scale, df=q.df).logpdf(x.flatten(1))
        torch.testing.assert_close(q.log_density(x), torch.from_numpy(expected), rtol=1e-12, atol=1e-12)
    offset = draws(p, n) - CENTRE
    assert (offset.mean(0).abs() < 4.5 * offset.std(0) / n**0.5).all()
    # squares have heavy tails: rather than their mean, compare δ/d with its F(d, ν) law
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(SCALE), offset.mT, upper=False)
    assert kstest((white**2).sum(0) / 3, "f", args=(3, 5.0)).statistic < 2.23 / math.sqrt(n)
    direction = white / white.norm(dim=0)
    assert ((direction @ direction.mT / n - torch.eye(3) / 3).abs() < 4.5 * 0.3 / n**0.5).all()


def test_cauchy_has_its_own_name_in_one_dimension() -> None:
    p = StudentT(1.0, torch.zeros(1))
    total = quad(lambda x: math.exp(float(p.log_density(torch.tensor([[x]], dtype=torch.float64)))), -math.inf, math.inf)[0]
    assert total == pytest.approx(1, abs=1e-8)
    n = 20_000
    assert kstest(draws(p, n).flatten(), "cauchy").statistic < 2.23 / math.sqrt(n)


@each
def test_answers_are_in_the_dtype_of_x(p: Classic) -> None:
    single = points(p).float()
    methods: tuple[Callable[[Tensor], Tensor], ...] = (p.log_density, p.score)
    for method in methods:
        assert method(single).dtype == torch.float32
        torch.testing.assert_close(method(single), method(single.double()).float(), rtol=1e-6, atol=0)


@each
def test_they_answer_at_the_data_density_only(p: Classic) -> None:
    assert isinstance(p, Score)
    assert isinstance(p, Density)
    assert p.sigma_range == (0, 0)
    x = points(p)
    assert torch.equal(p.score(x, torch.zeros(40)), p.score(x))
    for sigma in (0.1, -0.1, torch.tensor([0.0] * 39 + [0.1])):
        for ask in (p.log_density, p.score):
            with pytest.raises(ValueError, match=r"sigma must be 0, got -?0\.1: this model answers for no other level"):
                ask(x, sigma)
    with pytest.raises(ValueError, match=r"sigma must be 0, got 0\.1"):
        p.sample(3, 0.1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Banana(width=0.0), "positive width and std and a finite bend"),
        (lambda: Banana(bend=math.nan), "positive width and std and a finite bend"),
        (lambda: Funnel(dimension=1), "a funnel needs dimension >= 2 and a positive std, got 1 and 3.0"),
        (lambda: Funnel(std=-1.0), "a funnel needs dimension >= 2 and a positive std, got 2 and -1.0"),
        (lambda: DoubleWell(dimension=0), "a double well needs dimension >= 1"),
        (lambda: DoubleWell(location=0.0), "positive location and a positive barrier"),
        (lambda: DoubleWell(barrier=-1.0), "positive location and a positive barrier, got 2, 1.0 and -1.0"),
        (lambda: StudentT(0.0, torch.zeros(2)), "degrees of freedom must be positive and finite, got 0.0"),
        (lambda: StudentT(3.0, torch.zeros(2), torch.eye(3)), r"scale must be a number or \(2, 2\), got \(3, 3\)"),
        (lambda: StudentT(3.0, torch.zeros(2), -1.0), "scale must be a positive number or a symmetric positive definite"),
        (lambda: StudentT(3.0, torch.zeros(2), torch.tensor([[1.0, 0.9], [0.0, 1.0]])), "symmetric positive definite"),
    ],
)
def test_ingredients_that_make_no_density_are_refused(build: Callable[[], Classic], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
