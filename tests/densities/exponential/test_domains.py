"""The metric of each domain: what it lets through, and integration by parts on it."""

import math

import pytest
import torch
from torch import Tensor

from scorefield.densities.exponential import Box, Domain, Simplex, Sphere, orthant, reals


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matrix(domain: Domain, x: Tensor) -> Tensor:
    """G at one point `(d,)`."""
    w, u, _ = domain.metric(x[None])
    return torch.diag(w[0]) - (0 if u is None else torch.outer(u[0], u[0]))


def on(domain: Domain, n: int, d: int = 3) -> Tensor:
    """Points inside, away from the kinks of the weight."""
    z = torch.rand(n, d, generator=generator(), dtype=torch.float64) + 0.1
    if isinstance(domain, Simplex):
        return z / z.sum(1, keepdim=True)
    return (z - 0.6) / (z - 0.6).norm(dim=1, keepdim=True) if isinstance(domain, Sphere) else z


DOMAINS = {
    "reals": reals(),
    "orthant": orthant(cap=0.7),
    "orthant, squared": orthant(2.0, (0.5, 0.7, 2.0)),
    "box in units": Box((0.0, -math.inf, -1.0), (math.inf, math.inf, 1.3), 1.0, 0.3, (2.0, 3.0, 0.2)),
    "box": Box((0.0, -math.inf, -1.0), (math.inf, math.inf, 1.3)),
    "simplex": Simplex(),
    "simplex, linear": Simplex(1.0),
    "simplex, between": Simplex(1.5),
    "sphere": Sphere(),
}
each = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)


@each
def test_the_divergence_is_that_of_the_metric(domain: Domain) -> None:
    for x in on(domain, 20):
        jacobian = torch.func.jacfwd(lambda y: matrix(domain, y))(x)  # [i, j, k] = ∂ G_ij/∂x_k
        expected = torch.einsum("iji->j", jacobian)
        torch.testing.assert_close(domain.metric(x[None]).divergence[0], expected, rtol=1e-12, atol=1e-12)


@each
def test_the_metric_is_positive_and_takes_away_what_points_out(domain: Domain) -> None:
    for x in on(domain, 20):
        g = matrix(domain, x)
        eigenvalues = torch.linalg.eigvalsh(g)
        assert eigenvalues[0] > -1e-14
        if isinstance(domain, Box):
            assert eigenvalues[0] > 0
        else:
            normal = x if isinstance(domain, Sphere) else torch.ones_like(x)
            assert (g @ normal).abs().max() < 1e-14
            assert eigenvalues[1] > 1e-6  # nothing else is lost
    if isinstance(domain, Sphere):
        torch.testing.assert_close(g @ g, g)


def test_the_box_is_felt_up_to_the_cap() -> None:
    w, _, divergence = Box((0.0, -math.inf), (10.0, math.inf), 2.0, 3.0).metric(
        torch.tensor([[2.0, 5.0], [4.0, 0.0], [9.0, 7.0]])
    )
    assert w.tolist() == [[4.0, 1.0], [9.0, 1.0], [1.0, 1.0]]
    assert divergence.tolist() == [[4.0, 0.0], [0.0, 0.0], [-2.0, 0.0]]


def test_the_cap_is_the_median_distance_by_default() -> None:
    x = torch.tensor([[1.0, 9.0], [2.0, 2.0], [7.0, 5.0]]).double()
    assert Box(0.0, 10.0).scaled_to(x, torch.ones(len(x))).cap == pytest.approx((2.0, 2.0), rel=1e-5)
    assert Box(0.0).scaled_to(torch.zeros(5, 1), torch.ones(5)).cap == (1.0,)  # at least half of the rows on the wall
    assert reals().scaled_to(x, torch.ones(len(x))) == reals()
    assert orthant(cap=4.0).scaled_to(x, torch.ones(len(x))).cap == 4.0


@pytest.mark.parametrize(
    ("domain", "row", "said"),
    [
        (orthant(), [1.0, -2.0], "row 1: -2 in column 1 is not in [0, inf]"),
        (Box(0.0, (3.0, 1.0)), [1.0, 2.0], "row 1: 2 in column 1 is not in [0, 1]"),
        (Simplex(), [0.5, 0.6], "row 1 is not in the simplex: least share 0.5, sum 1.1"),
        (Simplex(), [1.5, -0.5], "row 1 is not in the simplex: least share -0.5, sum 1"),
        (Sphere(), [0.6, 0.6], "row 1 is not on the sphere, its length is 0.848528: divide"),
        (Box((0.0, 0.0, 0.0)), [0.5, 0.5], "the box has walls for 3 columns, the rows have 2"),
    ],
)
def test_rows_outside_are_named(domain: Domain, row: list[float], said: str) -> None:
    inside = [0.6, 0.8] if isinstance(domain, Sphere) else [0.4, 0.6]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        domain.check(torch.tensor([inside, row], dtype=torch.float64))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Box(1.0, 1.0), "lower < upper"),
        (lambda: Box((0.0, 2.0), 1.0), "lower < upper"),
        (lambda: orthant(0.5), "at least 1"),
        (lambda: orthant(cap=0.0), "must be positive"),
        (lambda: Box(unit=(1.0, 0.0)), "unit of a boundary weight must be positive"),
        (lambda: Simplex(0.0), "at least 1"),
    ],
)
def test_settings_out_of_range(make: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()  # type: ignore[operator]
