"""The one gradient of a log-density, in every mode, and the check of noise levels."""

import contextlib

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from scorefield.interfaces import Energy, check_sigma, grad_log_density


def log_density(x: Tensor) -> Tensor:
    return (x.sin() - x**4 / 4).flatten(1).sum(1)


def gradient(x: Tensor) -> Tensor:
    return x.cos() - x**3


def points(shape: tuple[int, ...] = (4, 3)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


MODES = {
    "grad": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "plain": contextlib.nullcontext,
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("shape", [(4, 3), (2, 1, 3, 2)], ids=str)
def test_the_gradient_in_every_mode(mode: type, shape: tuple[int, ...]) -> None:
    with mode():
        x = points(shape)
        torch.testing.assert_close(grad_log_density(log_density, x), gradient(x))


def test_the_graph_is_kept_if_and_only_if_grad_mode_is_on() -> None:
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x = points()
    kept = grad_log_density(lambda y: scale * log_density(y), x)
    (slope,) = torch.autograd.grad(kept.sum(), scale)
    torch.testing.assert_close(slope, gradient(x).sum())
    with torch.no_grad():
        assert not grad_log_density(lambda y: scale * log_density(y), x).requires_grad
    assert not x.requires_grad


def test_second_derivatives_forwards_and_backwards() -> None:
    x, v = points(), points((4, 3)).flip(0)
    expected = (-x.sin() - 3 * x**2) * v
    value, tangent = torch.func.jvp(lambda y: grad_log_density(log_density, y), (x,), (v,))
    torch.testing.assert_close(value, gradient(x))
    torch.testing.assert_close(tangent, expected)
    with torch.no_grad():
        tangent = torch.func.jvp(lambda y: grad_log_density(log_density, y), (x,), (v,))[1]
    torch.testing.assert_close(tangent, expected)
    y = x.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(grad_log_density(log_density, y), y, v)[0], expected)


def test_each_example_has_its_own_gradient_under_vmap() -> None:
    x = points()
    rows = torch.func.vmap(lambda row: grad_log_density(log_density, row[None])[0])(x)
    torch.testing.assert_close(rows, gradient(x))


@pytest.mark.parametrize("wrong", [lambda x: x.sum(), lambda x: x, lambda x: log_density(x)[:, None]])
def test_a_log_density_of_another_shape_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"a log-density must have shape \(4,\), one number per example, got"):
        grad_log_density(wrong, points())  # type: ignore[arg-type]


def test_an_energy_is_minus_a_log_density_and_its_score_the_gradient() -> None:
    class Quartic(Energy):
        sigma_range = (0.1, 1.0)

        def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
            return log_density(x) * sigma * (1 if cond is None else cond)

    x, cond = points(), torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(Quartic().score(x, 0.5, cond), 0.5 * cond[:, None] * gradient(x))
    torch.testing.assert_close(Quartic().energy(x, 0.5, cond), -0.5 * cond * log_density(x))
    with pytest.raises(TypeError, match="abstract"):
        Energy()  # type: ignore[abstract]


def test_levels_in_the_range_pass() -> None:
    x = points()
    assert check_sigma(0.5, x, (0.1, 2.0)).tolist() == [0.5] * 4
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0])  # float32's 0.1 is not float64's
    assert torch.equal(check_sigma(sigma, x, (0.1, 2.0)), sigma.double())
    assert check_sigma(1.0, x[:0], (0.1, 2.0)).shape == (0,)


@pytest.mark.parametrize("sigma", [0.0, 0.0999, 2.001, -0.5, float("nan"), float("inf")])
def test_levels_outside_are_refused_by_name(sigma: float) -> None:
    with pytest.raises(ValueError, match=rf"sigma must be in \[0.1, 2\], got {sigma:g}: this model answers"):
        check_sigma(sigma, points(), (0.1, 2.0))
    with pytest.raises(ValueError, match=r"sigma must be in \[0.1, 2\]"):
        check_sigma(torch.tensor([0.5, 0.5, sigma, 0.5]), points(), (0.1, 2.0))


def test_the_gradient_follows_forward_mode_where_no_graph_is_kept() -> None:
    """Dual numbers under `no_grad`: the tangent of a gradient is the Hessian times it."""
    x, v = points(), torch.ones_like(points())
    with torch.no_grad(), forward_ad.dual_level():
        found = grad_log_density(log_density, forward_ad.make_dual(x, v))
        tangent = forward_ad.unpack_dual(found).tangent
    torch.testing.assert_close(tangent, -x.sin() - 3 * x**2)
    with torch.no_grad():
        tangent = torch.func.jvp(lambda y: grad_log_density(log_density, y), (x,), (v,))[1]
    torch.testing.assert_close(tangent, -x.sin() - 3 * x**2)


def test_transformations_see_through_where_no_graph_is_kept() -> None:
    x = points()
    with torch.no_grad():
        rows = torch.func.vmap(lambda row: grad_log_density(log_density, row[None])[0])(x)
        curvature = torch.func.grad(lambda y: grad_log_density(log_density, y).sum())(x)
    torch.testing.assert_close(rows, gradient(x))
    torch.testing.assert_close(curvature, -x.sin() - 3 * x**2)


def test_a_log_density_that_does_not_look_at_x_has_no_slope() -> None:
    weight = torch.nn.Parameter(torch.ones(()))
    for enabled in (False, True):
        with torch.set_grad_enabled(enabled):
            assert not grad_log_density(lambda y: weight.expand(len(y)), points()).any()
