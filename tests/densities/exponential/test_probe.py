"""What is refused before a fit because score matching would be confidently wrong with it, and what must not be refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from scorefield.densities.exponential import ExponentialFamily, ExponentialFit, orthant

ROWS = torch.from_numpy(np.random.default_rng(0).normal(size=(400, 4)))


def matrices(x: Tensor) -> Tensor:
    a = x.unflatten(1, (2, 2))
    return a @ a.mT + torch.eye(2, dtype=x.dtype)


def fitted(statistic: Callable[[Tensor], Any], x: Tensor = ROWS) -> ExponentialFit:
    return ExponentialFamily(statistic, names=None).fit(x)


KINKS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "absolute": (lambda x: torch.cat([x**2, x.abs()], 1), r"T4 has a kink near \((-?\d.*, ){3}"),
    "hinge": (lambda x: torch.cat([(x[:, :1] - 0.5).relu(), x**2], 1), r"T0 has a kink near \(0.5, "),
    "largest": (lambda x: torch.stack([(x**2).sum(1), x.amax(1)], 1), "T1 has a kink"),
    "faint": (lambda x: torch.cat([x**2 + 0.05 * x.abs(), x], 1), "T0 has a kink|T1 has a kink|T2 has a kink|T3 has a kink"),
    "huber": (lambda x: torch.where(x < 1, x**2 / 2, 2 * x - 1.5), "has a kink"),
}


@pytest.mark.parametrize("name", KINKS)
def test_a_kink_is_named_with_its_place(name: str) -> None:
    statistic, message = KINKS[name]
    with pytest.raises(ValueError, match=message):
        fitted(statistic)


def test_the_place_of_a_kink_is_right() -> None:
    with pytest.raises(ValueError, match=r"kink near \(1.25\)"):
        fitted(lambda x: torch.cat([(x - 1.25).relu(), x**2], 1), ROWS[:, :1])


def test_a_kink_of_the_base_is_named() -> None:
    with pytest.raises(ValueError, match="log q₀ has a kink"):
        ExponentialFamily(lambda x: x**2, base=lambda x: -x.abs().sum(1)).fit(ROWS)


SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "a smoothed one": lambda x: torch.cat([(x**2 + 1e-4).sqrt(), x**2], 1),
    "steep": lambda x: torch.cat([torch.tanh(100 * x), x**2], 1),
    "fast": lambda x: torch.cat([torch.sin(50 * x), x**2], 1),
    "a pole": lambda x: torch.cat([(x**2).log(), x**2], 1),
    "Huber's, once differentiable": lambda x: torch.where(x.abs() < 1, x**2 / 2, x.abs() - 0.5),
    "far off": lambda x: torch.cat([(x / 1e6 - 1) ** 2, x / 1e6], 1),
    "softmax": lambda x: torch.cat([x.softmax(1)[:, :3], x**2], 1),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_smooth_is_taken(name: str) -> None:
    x = ROWS * 1e6 + 1e6 if name == "far off" else ROWS
    assert fitted(SMOOTH[name], x).n == 400


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "layer_norm": lambda x: layer_norm(x, (4,))[:, :2] ** 2,
    "det": lambda x: torch.linalg.det(matrices(x))[:, None],
    "logdet": lambda x: torch.logdet(matrices(x))[:, None],
    "solve": lambda x: torch.linalg.solve(matrices(x), torch.ones(len(x), 2, dtype=x.dtype)),
}


@pytest.mark.parametrize("name", WRONG)
def test_derivatives_that_pytorch_gets_wrong_are_not_used(name: str) -> None:
    with pytest.raises(ValueError, match="T0 wrong derivatives"):
        fitted(WRONG[name])


def test_the_same_function_by_other_means_is_taken() -> None:
    fit = fitted(
        lambda x: torch.cat([(matrices(x)[:, 0, 0] * matrices(x)[:, 1, 1] - matrices(x)[:, 0, 1] ** 2)[:, None], x**2], 1)
    )
    assert len(fit.coef) == 5


def test_near_a_wall_differences_do_not_mislead() -> None:
    x = torch.from_numpy(np.random.default_rng(0).gamma(0.02, size=(400, 1)).clip(1e-300))
    fit = ExponentialFamily(lambda x: torch.cat([x, x.log()], 1), orthant(2)).fit(x)
    assert abs(float(fit.coef[1]) + 1 - 0.02) < 4 * float(fit.standard_errors[1])


FAILS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "NumPy": (lambda x: np.square(x.numpy()), "must give a tensor .*got ndarray"),
    "detached": (lambda x: torch.from_numpy(x.detach().numpy() ** 2), "cannot differentiate T twice|zero derivative"),
    "float32": (lambda x: x.float() ** 2, "must give float64.*got float32"),
    "integers": (lambda x: x.long(), "must give float64.*got int64"),
    "float32 weights": (torch.nn.Linear(4, 2), "T fails at rows .*float64: RuntimeError"),
    "a list": (lambda x: [x], "must give a tensor .*got list"),
    "nothing": (lambda x: None, "must give a tensor .*got NoneType"),
    "no forward mode": (lambda x: torch.cdist(x, x[:1].detach() * 0 + ROWS[:3]), "cannot differentiate T twice"),
    "a vector": (lambda x: x[:, 0], r"must be \(16, p\), got \(16,\)"),
    "by the others": (lambda x: x**2 * (1 + (x.mean() > 0)), "depends on the other rows"),
}


@pytest.mark.parametrize("name", FAILS)
def test_a_statistic_that_is_none_gets_one_line(name: str) -> None:
    statistic, message = FAILS[name]
    with pytest.raises(ValueError, match=message) as caught:
        fitted(statistic)
    assert "\n" not in str(caught.value)


BASES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "a column": (lambda x: -(x**2), r"float64 tensor \(16,\), got torch.float64 \(16, 4\)"),
    "a number": (lambda x: torch.tensor(0.0), r"got torch.float32 \(\)"),
    "NumPy": (lambda x: np.zeros(len(x)), "got ndarray"),
    "failing": (lambda x: x @ torch.ones(3, dtype=x.dtype), "the base fails at rows"),
}


@pytest.mark.parametrize("name", BASES)
def test_a_base_that_is_none_gets_one_line(name: str) -> None:
    base, message = BASES[name]
    with pytest.raises(ValueError, match=message):
        ExponentialFamily(lambda x: x**2, base=base).fit(ROWS)


def test_a_statistic_that_is_not_finite_is_refused_where_its_derivative_is() -> None:
    x = torch.tensor([[0.5], [1.5], [-2.0], [3.0]]).double()
    with pytest.raises(ValueError, match=r"row 2, at \(-2\): T is not finite"):
        ExponentialFamily(lambda x: torch.cat([x.log(), x**2], 1)).fit(x)


def test_units_do_not_make_a_constant() -> None:
    """A fifth power of small numbers has small slopes; what rounding leaves of a constant's is no slope."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(400, 1)))
    powers = ExponentialFamily(lambda x: torch.cat([x**k for k in range(1, 7)], 1))
    scale = torch.tensor([1e4**k for k in range(1, 7)]).double()
    torch.testing.assert_close(powers.fit(x * 1e-4).coef / scale, powers.fit(x).coef, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="component T1 has zero derivative"):
        fitted(lambda x: torch.stack([(x**2).sum(1), x.softmax(1).sum(1)], 1))


def test_rows_of_zeros_at_the_head_of_a_table_do_not_make_a_constant() -> None:
    x = torch.cat([torch.zeros(20, 4).double(), ROWS])
    sorted_fit = fitted(lambda x: torch.cat([x.cos(), x**2], 1), x)
    torch.testing.assert_close(sorted_fit.coef, fitted(lambda x: torch.cat([x.cos(), x**2], 1), x.flip(0)).coef)
