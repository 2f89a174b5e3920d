"""The closed form against an objective written out with autograd, maximum likelihood, and laws whose parameters are known."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy import optimize, special, stats
from torch import Tensor

from scorefield.densities.exponential import (
    Box,
    Domain,
    ExponentialFamily,
    ExponentialFit,
    Simplex,
    Sphere,
    bingham,
    dirichlet,
    fisher_bingham,
    gamma,
    gaussian,
    moments,
    orthant,
    pairwise,
    polynomial,
    quadratic_form,
    reals,
    truncated_gaussian,
    von_mises_fisher,
)
from scorefield.densities.exponential import family as module

RNG = np.random.default_rng


def cubic(x: Tensor) -> Tensor:
    """Statistics of no ready family."""
    return torch.stack([x[:, 0], x[:, 0] * x[:, 1], x[:, 1] ** 2 * x[:, 0], x[:, 2].sin() + x[:, 1], (0.3 * x[:, 2]).exp()], 1)


def slanted(x: Tensor) -> Tensor:
    """A base that is not flat."""
    return -(x**2).sum(1) / 3 + x[:, 0] * x[:, 1] / 5


def points(domain: Domain, n: int = 60, d: int = 3) -> Tensor:
    x = torch.from_numpy(RNG(3).normal(size=(n, d)))
    if isinstance(domain, Sphere):
        return x / x.norm(dim=1, keepdim=True)
    if isinstance(domain, Simplex):
        return x.exp() / x.exp().sum(1, keepdim=True)
    return x.tanh() * 0.9 if domain == BOX else x.abs() if domain != reals() else x


BOX = Box((-1.0, -math.inf, -1.0), 1.0, cap=0.6)
DOMAINS = {
    "reals": reals(),
    "orthant": orthant(2.0, 0.8),
    "box": BOX,
    "simplex": Simplex(),
    "sphere": Sphere(),
}
each_domain = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)


def written_out(domain: Domain, base: Callable[[Tensor], Tensor] | None, coef: Tensor, x: Tensor) -> Tensor:
    """½ sᵀGs + ∇·(Gs) of each row, by autograd alone."""

    def score(y: Tensor) -> Tensor:
        log_p = lambda z: (cubic(z[None]) @ coef)[0] + (0 if base is None else base(z[None])[0])  # noqa: E731
        return torch.func.grad(log_p)(y)

    def g(y: Tensor) -> Tensor:
        w, u, _ = domain.metric(y[None])
        return torch.diag(w[0]) - (0 if u is None else torch.outer(u[0], u[0]))

    def one(y: Tensor) -> Tensor:
        s = score(y)
        return s @ g(y) @ s / 2 + torch.func.jacfwd(lambda z: g(z) @ score(z))(y).trace()

    return torch.func.vmap(one)(x)


@each_domain
@pytest.mark.parametrize("base", [None, slanted], ids=["flat", "base"])
def test_the_fit_minimises_the_objective_written_out(domain: Domain, base: Callable[[Tensor], Tensor] | None) -> None:
    x, weights = points(domain), torch.from_numpy(RNG(5).uniform(0.2, 2, size=60))
    fit = ExponentialFamily(cubic, domain, base=base).fit(x, weights)
    shares = weights / weights.sum()

    def rows(coef: Tensor) -> Tensor:
        return written_out(fit.domain, base, coef, x)

    gradient = torch.func.grad(lambda c: shares @ rows(c))(fit.coef)
    hessian = torch.func.hessian(lambda c: shares @ rows(c))(fit.coef)
    assert (gradient.abs() < 1e-9 * (1 + hessian.abs().sum(1) * fit.coef.abs().max())).all()
    assert torch.linalg.eigvalsh(hessian)[0] > 0
    zero = shares @ rows(torch.zeros_like(fit.coef))
    assert fit.training_loss == pytest.approx(float(shares @ rows(fit.coef) - zero), rel=1e-9)
    torch.testing.assert_close(fit.loss(x), rows(fit.coef) - rows(torch.zeros_like(fit.coef)), rtol=1e-9, atol=1e-9)
    psi = torch.func.jacrev(rows)(fit.coef) * shares[:, None]
    inverse = torch.linalg.inv(hessian)
    torch.testing.assert_close(fit.covariance, inverse @ psi.T @ psi @ inverse, rtol=1e-7, atol=1e-12)
    assert fit.effective == pytest.approx(60 * float(torch.trace(psi.T @ psi @ inverse)), rel=1e-8)


@each_domain
def test_blocks_and_memory_do_not_matter(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    x = points(domain)
    whole = ExponentialFamily(cubic, domain, base=slanted).fit(x)
    monkeypatch.setattr(module, "BLOCK", 4 * 5 * 7)
    monkeypatch.setattr(module, "KEPT", 0)
    parts = ExponentialFamily(cubic, domain, base=slanted).fit(x)
    torch.testing.assert_close(parts.coef, whole.coef, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(parts.covariance, whole.covariance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_gaussian_is_fitted_as_by_maximum_likelihood(d: int) -> None:
    rng = RNG(d)
    x = rng.normal(size=(200, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)
    mean, covariance = moments(gaussian(d).fit(x).coef, d)
    assert np.abs(mean.numpy() - x.mean(0)).max() < 1e-8
    assert np.abs(covariance.numpy() - np.atleast_2d(np.cov(x.T, bias=True))).max() < 1e-8
    weights = rng.integers(0, 4, size=200)
    weighted, repeated = gaussian(d).fit(x, weights), gaussian(d).fit(np.repeat(x, weights, axis=0))
    torch.testing.assert_close(weighted.coef, repeated.coef, rtol=1e-9, atol=1e-11)


def test_a_ridge_is_a_penalty_without_unit() -> None:
    x = RNG(0).normal(size=(50, 2)) @ np.array([[1.0, 0.7], [0.0, 0.5]])
    small, large = gaussian(2).fit(x, ridge=0.3), gaussian(2).fit(100 * x, ridge=0.3)
    units = torch.tensor([100.0, 100.0, 1e4, 1e4, 1e4]).double()
    torch.testing.assert_close(small.coef, large.coef * units, rtol=1e-9, atol=1e-12)
    plain = gaussian(2).fit(x)
    s = torch.from_numpy(x)
    gram = torch.zeros(5, 5).double()
    for row in s:
        slopes = torch.func.jacrev(lambda y: torch.stack([y[0], y[1], y[0] ** 2, y[0] * y[1], y[1] ** 2]))(row)
        gram += slopes @ slopes.T / 50
    shrunk = torch.linalg.solve(gram + 0.3 * torch.diag(gram.diagonal()), gram @ plain.coef)
    torch.testing.assert_close(small.coef, shrunk, rtol=1e-8, atol=1e-10)
    assert len(gaussian(2).fit(x[:3], ridge=0.1).coef) == 5


def difference_from_mle(
    estimates: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], x: np.ndarray, seed: int
) -> np.ndarray:
    """How far score matching and maximum likelihood are apart, in standard errors of their difference by a paired bootstrap."""
    rng, ours, theirs = RNG(seed), *estimates(x)
    again = [np.subtract(*estimates(x[rng.integers(0, len(x), len(x))])) for _ in range(60)]
    return (ours - theirs) / np.std(again, axis=0, ddof=1)


def test_von_mises_fisher_agrees_with_scipys_likelihood() -> None:
    direction = np.array([1.0, 2.0, 2.0]) / 3
    x = stats.vonmises_fisher(direction, 4.0).rvs(1500, random_state=1)

    def estimates(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mu, kappa = stats.vonmises_fisher.fit(x)
        return von_mises_fisher(3).fit(x).coef.numpy(), kappa * mu

    assert np.abs(difference_from_mle(estimates, x, 2)).max() < 3
    fit = von_mises_fisher(3).fit(x)
    assert (np.abs(fit.coef.numpy() - 4 * direction) < 4 * fit.standard_errors.numpy()).all()


@pytest.mark.parametrize("alpha", [(0.5, 2.0, 4.0), (3.0, 2.0, 5.0, 1.2)])
def test_dirichlet_agrees_with_the_likelihood(alpha: tuple[float, ...]) -> None:
    x = RNG(4).dirichlet(alpha, 1000)

    def estimates(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logs = np.log(x).mean(0)

        def loss(a: np.ndarray) -> tuple[float, np.ndarray]:
            a = np.exp(a)
            value = special.gammaln(a.sum()) - special.gammaln(a).sum() + (a - 1) @ logs
            return -value, -a * (special.digamma(a.sum()) - special.digamma(a) + logs)

        best = optimize.minimize(loss, np.zeros(x.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-10})
        return dirichlet(x.shape[1]).fit(x).coef.numpy() + 1, np.exp(best.x)

    assert np.abs(difference_from_mle(estimates, x, 5)).max() < 3
    fit = dirichlet(len(alpha)).fit(x)
    assert (np.abs(fit.coef.numpy() + 1 - alpha) < 4 * fit.standard_errors.numpy()).all()


def truncated(n: int, mean: np.ndarray, covariance: np.ndarray, lower: float, upper: float, seed: int) -> np.ndarray:
    rng, kept = RNG(seed), np.empty((0, len(mean)))
    while len(kept) < n:
        draw = rng.multivariate_normal(mean, covariance, size=4 * n)
        kept = np.concatenate([kept, draw[((draw > lower) & (draw < upper)).all(1)]])
    return kept[:n]


@pytest.mark.parametrize("upper", [math.inf, 1.5])
def test_a_truncated_gaussian_agrees_with_the_likelihood(upper: float) -> None:
    covariance, mean = np.array([[1.0, 0.5], [0.5, 0.89]]), np.array([0.4, 0.2])
    x = truncated(1000, mean, covariance, 0.0, upper, 6)
    domain = Box(0.0, upper)
    corners = [(0.0, 1), (12.0 if upper == math.inf else upper, -1)]
    nodes, weight = np.polynomial.legendre.leggauss(60)
    nodes, weight = corners[1][0] * (nodes + 1) / 2, weight * corners[1][0] / 2
    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    log_weight = np.log(np.outer(weight, weight)).ravel()

    def statistics(x: np.ndarray) -> np.ndarray:
        return np.stack([x[:, 0], x[:, 1], x[:, 0] ** 2, x[:, 0] * x[:, 1], x[:, 1] ** 2], 1)

    grid_statistics = statistics(grid)

    def estimates(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        target, ours = statistics(x).mean(0), truncated_gaussian(2, domain).fit(x).coef.numpy()

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            exponent = grid_statistics @ theta + log_weight
            log_z = special.logsumexp(exponent)
            return log_z - theta @ target, np.exp(exponent - log_z) @ grid_statistics - target

        best = optimize.minimize(loss, ours, jac=True, method="BFGS", options={"gtol": 1e-9})
        return ours, best.x

    assert np.abs(difference_from_mle(estimates, x, 7)).max() < 3
    fit = truncated_gaussian(2, domain).fit(x)
    precision = np.linalg.inv(covariance)
    truth = np.array([*(precision @ mean), -precision[0, 0] / 2, -precision[0, 1], -precision[1, 1] / 2])
    assert (np.abs(fit.coef.numpy() - truth) < 4 * fit.standard_errors.numpy()).all()


def quartic_draws(n: int) -> np.ndarray:
    """exp(x − x⁴/2) on the line, by inversion on a fine grid."""
    grid = np.linspace(-3, 3, 20001)
    cumulative = np.cumsum(np.exp(grid - grid**4 / 2))
    return np.interp(RNG(8).uniform(size=n), cumulative / cumulative[-1], grid)[:, None]


def bingham_draws(n: int) -> tuple[np.ndarray, np.ndarray]:
    """exp(xᵀB x) on the sphere in ℝ³, by rejection."""
    b, rng, kept = np.array([[3.0, 1.0, 0.0], [1.0, 0.0, -1.0], [0.0, -1.0, 0.0]]), RNG(9), np.empty((0, 3))
    top = np.linalg.eigvalsh(b)[-1]
    while len(kept) < n:
        z = rng.normal(size=(20 * n, 3))
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        kept = np.concatenate([kept, z[rng.uniform(size=len(z)) < np.exp(np.einsum("ni,ij,nj->n", z, b, z) - top)]])
    return kept[:n], b


def roots(n: int) -> np.ndarray:
    """exp(η√x − k x) on x > 0: y = √x has the density y exp(ηy − k y²)."""
    grid = np.linspace(0, 12, 200001)
    cumulative = np.cumsum(grid * np.exp(grid - 0.8 * grid**2))
    return np.interp(RNG(10).uniform(size=n), cumulative / cumulative[-1], grid)[:, None] ** 2


N = 4000
KNOWN: dict[str, tuple[Callable[[], ExponentialFit], list[float]]] = {
    "gamma": (lambda: gamma(2).fit(RNG(1).gamma((2.0, 0.7), (1 / 3, 2.0), (N, 2))), [-3, -0.5, 1, -0.3]),
    "quartic": (lambda: polynomial(1).fit(quartic_draws(N)), [1, 0, 0, -0.5]),
    "exponential-root": (lambda: pairwise(1).fit(roots(N)), [1, -0.8]),
    "log-normal": (lambda: pairwise(1, 0.0).fit(np.exp(RNG(2).normal(0.5, 0.8, (N, 1)))), [0.5 / 0.64 - 1, -1 / 1.28]),
    "uniform in a box": (lambda: polynomial(2, 2, Box(0.0, 2.0)).fit(RNG(3).uniform(0, 2, (N, 2))), [0] * 5),
    "uniform on the sphere": (lambda: fisher_bingham(3).fit(uniform()), [0] * 8),
}


def uniform() -> np.ndarray:
    x = RNG(4).normal(size=(N, 3))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("name", KNOWN)
def test_known_parameters_lie_within_four_standard_errors(name: str) -> None:
    make, truth = KNOWN[name]
    fit = make()
    off = (fit.coef - torch.tensor(truth, dtype=torch.float64)) / fit.standard_errors
    assert off.abs().max() < 4, fit.summary()


def test_bingham() -> None:
    x, b = bingham_draws(N)
    fit = bingham(3).fit(x)
    truth = [b[0, 0] - b[2, 2], 2 * b[0, 1], 2 * b[0, 2], b[1, 1] - b[2, 2], 2 * b[1, 2]]
    off = (fit.coef - torch.tensor(truth).double()) / fit.standard_errors
    assert off.abs().max() < 4, fit.summary()
    assert fit.names == ("x0²", "x0·x1", "x0·x2", "x1²", "x1·x2")


def test_the_quadratic_form_is_that_of_the_coefficients() -> None:
    coef = torch.from_numpy(RNG(0).normal(size=9))
    eta, k = quadratic_form(coef, 3)
    x = torch.from_numpy(RNG(1).normal(size=(5, 3)))
    expected = polynomial(3, 2).statistic(x) @ coef
    torch.testing.assert_close(x @ eta - torch.einsum("ni,ij,nj->n", x, k, x) / 2, expected)
    torch.testing.assert_close(k, k.T)


def test_an_interaction_of_roots_is_recovered_from_the_law_itself() -> None:
    """Rows are nodes of a quadrature in s = √x, weights the law's mass at them; panels meet where min(x, cap) has its kink."""
    eta, k = np.array([0.7, -0.4]), np.array([[1.5, 0.6], [0.6, 2.0]])
    nodes, weights = np.polynomial.legendre.leggauss(60)
    s = np.concatenate([(nodes + 1) / 2, 1 + 3.5 * (nodes + 1)])
    w = np.concatenate([weights / 2, 3.5 * weights])
    a, b = (part.ravel() for part in np.meshgrid(s, s))
    both = np.stack([a, b], 1)
    mass = np.outer(w, w).ravel() * 4 * a * b * np.exp(both @ eta - np.einsum("ni,ij,nj->n", both, k, both) / 2)
    fit = pairwise(2, domain=orthant(2.0, 1.0)).fit(both**2, mass)
    expected = torch.tensor([*eta, -k[0, 0] / 2, -k[0, 1], -k[1, 1] / 2]).double()
    torch.testing.assert_close(fit.coef, expected, rtol=1e-8, atol=1e-8)


def test_names_of_ready_families() -> None:
    assert polynomial(2, 2, names=["a", "b"]).names == ("a", "b", "a²", "a·b", "b²")
    assert pairwise(2).names == ("√x0", "√x1", "(√x0)²", "√x0·√x1", "(√x1)²")
    assert polynomial(1).names == ("x0", "x0²", "x0³", "x0⁴")
    assert dirichlet(2).names == ("log x0", "log x1")


def test_a_data_frames_names_are_the_components() -> None:
    x = RNG(0).gamma(2.0, size=(50, 2))
    frame = pd.DataFrame(x, columns=["a", "b"])
    for table in (frame, pl.from_pandas(frame), pa.Table.from_pandas(frame)):
        assert gaussian(2).fit(table).names == ("a", "b", "a²", "a·b", "b²")
        assert gaussian(2, names=["u", "v"]).fit(table).names == ("u", "v", "u²", "u·v", "v²")
    assert pairwise(2).fit(frame).names == ("√a", "√b", "(√a)²", "√a·√b", "(√b)²")
    assert gamma(2).fit(frame).names == ("a", "b", "log a", "log b")
    shares = frame.div(frame.sum(axis=1), axis=0)
    assert dirichlet(2).fit(shares).names == ("log a", "log b")
    directions = frame.div(np.sqrt((frame**2).sum(axis=1)), axis=0)
    assert von_mises_fisher(2).fit(directions).names == ("a", "b")
    assert gaussian(2).fit(x).names == ("x0", "x1", "x0²", "x0·x1", "x1²")


def x2(n: int = 40) -> np.ndarray:
    return RNG(0).normal(size=(n, 2))


def joined(*parts: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.stack([part(x) for part in parts], 1)


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "collinear": (
        lambda: ExponentialFamily(joined(lambda x: x[:, 0], lambda x: x[:, 1], lambda x: 2 * x[:, 0]), names="abc").fit(x2()),
        "components a, c are collinear",
    ),
    "collinear on the domain": (
        lambda: von_mises_fisher_and_constant().fit(uniform()),
        "components x0², x1², x2² are collinear",
    ),
    "constant": (
        lambda: ExponentialFamily(joined(lambda x: x[:, 0], lambda x: 0 * x[:, 0] + 1), names="ab").fit(x2()),
        "component b has zero derivative at every row",
    ),
    "zero derivative": (
        lambda: ExponentialFamily(joined(lambda x: x[:, 0], lambda x: x[:, 1].sign(), lambda x: x[:, 0].round())).fit(x2()),
        "components T1, T2 have zero derivative",
    ),
    "few rows": (lambda: gaussian(2).fit(x2(5)), "5 rows are too few for 5 coefficients"),
    "few rows with a weight": (lambda: gaussian(2).fit(x2(), [1.0] * 5 + [0.0] * 35), "5 rows are too few for 5 coefficients"),
    "other columns": (lambda: gaussian(1).fit(x2()), "the family is for 1 columns, the rows have 2"),
    "linear": (lambda: ExponentialFamily(lambda x: x).fit(x2()), "no second derivative at any row"),
    "twice": (lambda: ExponentialFamily(lambda x: x, names=["a", "a"]), "two components of T are called a"),
    "no domain": (lambda: ExponentialFamily(lambda x: x, "orthant"), "a domain is reals(), orthant()"),  # type: ignore[arg-type]
    "a function for a domain": (lambda: ExponentialFamily(lambda x: x, orthant), "a domain is"),  # type: ignore[arg-type]
    "a class for a domain": (lambda: ExponentialFamily(lambda x: x, Sphere), "a domain is"),  # type: ignore[arg-type]
    "text as ridge": (lambda: gaussian(2).fit(x2(), ridge="x"), "ridge must be a number"),  # type: ignore[arg-type]
    "no finite derivative": (
        lambda: dirichlet(2).fit([[0.5, 0.5], [0, 1], [0.2, 0.8]]),
        "row 1, at (0, 1): T is not finite there",
    ),
    "not finite": (lambda: gaussian(1).fit([1.0, 2.0, math.nan]), "row 2, column 0: nan is not a finite number"),
    "no rows": (lambda: gaussian(1).fit(np.empty((0, 1))), "rows (n, d) expected, at least 1 of them, got shape (0, 1)"),
    "outside": (lambda: gamma(2).fit(x2()), "is not in [0, inf]"),
    "negative weight": (lambda: gaussian(2).fit(x2(), [-1.0] + [1.0] * 39), "got -1 in row 0"),
    "zero weights": (lambda: gaussian(2).fit(x2(), [0.0] * 40), "zero in every row"),
    "text as weights": (lambda: gaussian(2).fit(x2(), ["u"] * 40), "sample_weight must be numbers"),
    "other weights": (lambda: gaussian(2).fit(x2(), [1.0]), "must be (40,), got (1,)"),
    "negative ridge": (lambda: gaussian(2).fit(x2(), ridge=-1), "ridge must be a number and at least 0"),
    "shape": (lambda: ExponentialFamily(lambda x: x[:, 0]).fit(x2()), "must be (16, p), got (16,)"),
    "across rows": (lambda: ExponentialFamily(lambda x: x - x.mean(0)).fit(x2()), "depends on the other rows"),
    "names": (lambda: ExponentialFamily(lambda x: x, names=["a"]).fit(x2()), "2 components, and there are 1 names"),
    "odd": (lambda: polynomial(2, 3), "must be 2, 4, 6 or 8, got 3"),
    "names of coordinates": (lambda: gaussian(2, ["a"]), "2 coordinates need 2 names, got 1"),
    "power": (lambda: pairwise(2, -1.0), "at least 0, got -1"),
    "no Gaussian": (lambda: moments(torch.tensor([0.0, 1.0]).double(), 1), "not positive definite"),
}


def von_mises_fisher_and_constant() -> ExponentialFamily:
    return ExponentialFamily(lambda x: x**2, Sphere(), ["x0²", "x1²", "x2²"])


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_line(name: str) -> None:
    make, said = BAD[name]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
