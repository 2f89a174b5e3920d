"""Score diagnostics against fields whose errors and Jacobians are known."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from scorefield.densities import GaussianMixture, gaussian
from scorefield.interfaces import Energy, Field
from scorefield.metrics import curl, error_by_log_density, relative_error
from scorefield.metrics.score import jacobian


class Linear:
    """s = Jx, with x flattened."""

    sigma_range = (0.0, 0.0)

    def __init__(self, j: Tensor) -> None:
        self.j = j

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return (x.flatten(1) @ self.j.T).reshape(x.shape)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)], ids=str)
def test_relative_error_of_a_scaled_score_is_the_square_of_what_is_missing(shape: tuple[int, ...]) -> None:
    exact = draw(500, *shape)
    error = relative_error(0.7 * exact, exact)
    assert error.value == pytest.approx(0.09)
    assert error.se == pytest.approx(0, abs=1e-12)
    assert relative_error(torch.zeros_like(exact), exact).value == pytest.approx(1)
    assert relative_error(exact.float(), exact).value < 1e-12


def test_its_standard_error_covers() -> None:
    """Noise of variance v on scores N(0, I) gives v: 1,000 repetitions of 400 points scatter as the standard error says."""
    exact, noise = draw(1000, 400, 2), 0.5 * draw(1000, 400, 2, seed=1)
    found = [relative_error(s + z, s) for s, z in zip(exact, noise, strict=True)]
    values, errors = torch.tensor(found, dtype=torch.float64).T
    assert abs(values.mean() - 0.25) < 5 * values.std() / 1000**0.5
    assert errors.mean() == pytest.approx(values.std().item(), rel=0.1)  # 4 standard errors of a std from 1,000 draws
    assert relative_error(exact[0, :1], exact[0, :1]).se is None


def test_groups_by_log_density_come_rarest_first_and_hold_equally_many() -> None:
    p = gaussian(torch.zeros(2), 1.0)
    x = draw(1000, 2)
    radius = x.norm(dim=1)
    exact = p.score(x)
    wrong = exact * (1 + radius[:, None])  # relative error r² at radius r
    found = error_by_log_density(wrong, exact, p.log_density(x))
    order = radius.argsort(descending=True).reshape(10, 100)
    expected = [(radius[part] ** 4).sum() / (radius[part] ** 2).sum() for part in order]
    torch.testing.assert_close(torch.tensor([e.value for e in found]).double(), torch.stack(expected))
    assert all(a.value > b.value for a, b in pairwise(found))
    assert len(error_by_log_density(wrong, exact, p.log_density(x), groups=3)) == 3


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)], ids=str)
def test_the_jacobian_and_curl_of_a_linear_field(shape: tuple[int, ...]) -> None:
    d = math.prod(shape)
    j, x = draw(d, d), draw(7, *shape, seed=1)
    torch.testing.assert_close(jacobian(Field(Linear(j)), x), j.expand(7, d, d))
    expected = torch.linalg.matrix_norm((j - j.T) / 2) / torch.linalg.matrix_norm(j)
    torch.testing.assert_close(curl(Field(Linear(j)), x), expected.expand(7))
    torch.testing.assert_close(curl(Field(Linear(j - j.T)), x), torch.ones(7).double())
    torch.testing.assert_close(curl(Field(Linear(j + j.T)), x), torch.zeros(7).double())
    assert curl(Field(Linear(0 * j)), x).isnan().all()


def test_the_jacobian_of_a_mixtures_score_is_its_hessian_at_that_sigma() -> None:
    p = GaussianMixture(torch.tensor([0.3, 0.7]), draw(2, 3), torch.tensor([0.5, 0.8]))
    x = draw(4, 3, seed=1)

    class Potential(Energy):
        sigma_range = (0.0, 10.0)

        def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
            return p.log_density(x, sigma)

    hessian = torch.stack([torch.func.hessian(lambda y: p.log_density(y[None], 0.6)[0])(point) for point in x])
    for model in (p, Potential()):
        torch.testing.assert_close(jacobian(Field(model, 0.6), x), hessian)
        assert curl(Field(model, 0.6), x).max() < 1e-14


def test_mistakes_are_refused() -> None:
    s = draw(5, 2)
    with pytest.raises(ValueError, match=r"one shape, got \(5, 2\) and \(5, 1\)"):
        relative_error(s, s[:, :1])
    with pytest.raises(ValueError, match="zero at every point"):
        relative_error(s, 0 * s)
    with pytest.raises(ValueError, match=r"10 groups need as many points"):
        error_by_log_density(s, s, s[:, 0])
    with pytest.raises(ValueError, match=r"got \(5, 2\)"):
        error_by_log_density(s, s, s, groups=2)
