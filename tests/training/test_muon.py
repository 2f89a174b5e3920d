"""Muon against singular value decompositions, and what it leaves to Adam."""

import pytest
import torch

from scorefield.training.muon import ADAMS_SIZE, ITERATION, ITERATIONS, MOMENTUM, Muon, is_matrix, orthogonalised


def polynomial(s: torch.Tensor) -> torch.Tensor:
    """What the iteration makes of singular values."""
    a, b, c = ITERATION
    for _ in range(ITERATIONS):
        s = a * s + b * s**3 + c * s**5
    return s


@pytest.mark.parametrize("shape", [(64, 200), (200, 64), (80, 80)], ids=str)
def test_orthogonalisation_keeps_directions_and_levels_singular_values(shape: tuple[int, int]) -> None:
    m = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, vt = torch.linalg.svd(m, full_matrices=False)
    s = torch.logspace(0, -2, len(s), dtype=torch.float64)
    m = 7 * u @ s.diag() @ vt
    found = orthogonalised(m)
    torch.testing.assert_close(found, u @ polynomial(s / s.norm()).diag() @ vt, rtol=1e-9, atol=1e-9)
    values = torch.linalg.svdvals(found)
    assert values.max() < 1.21
    assert values[s / s.norm() > 0.005].min() > 0.6
    torch.testing.assert_close(orthogonalised(m.float()).double(), found, rtol=0, atol=1e-3)
    assert not orthogonalised(torch.zeros(64, 70)).any()


def test_which_parameters_are_matrices() -> None:
    assert is_matrix(torch.zeros(64, 64))
    assert is_matrix(torch.zeros(128, 64, 3, 3))
    for other in (torch.zeros(64), torch.zeros(63, 64), torch.zeros(4, 64, 3, 3), torch.zeros(64, 4, 3, 3)):
        assert not is_matrix(other)


def test_steps_are_those_of_the_definition() -> None:
    """Two steps by hand for a kernel; a bias beside it moves as under Adam alone."""
    g = torch.Generator().manual_seed(0)
    kernel, bias = torch.randn(70, 65, 3, 3, generator=g).requires_grad_(), torch.randn(70, generator=g).requires_grad_()
    alone = bias.detach().clone().requires_grad_()
    muon, adam = Muon([kernel, bias], 0.01, fused=True), torch.optim.Adam([alone], 0.01, fused=True)
    expected, momentum = kernel.detach().clone(), torch.zeros_like(kernel)
    for _ in range(2):
        kernel.grad = torch.randn(kernel.shape, generator=g)
        bias.grad = torch.randn(70, generator=g)
        alone.grad = bias.grad.clone()
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * kernel.grad
        nesterov = (1 - MOMENTUM) * kernel.grad + MOMENTUM * momentum
        u, s, vt = torch.linalg.svd(nesterov.flatten(1).double(), full_matrices=False)
        update = u @ polynomial(s / s.norm()).diag() @ vt
        expected -= 0.01 * ADAMS_SIZE * (65 * 9) ** 0.5 * update.reshape(kernel.shape).float()
        muon.step()
        adam.step()
        assert kernel.grad is not None
    torch.testing.assert_close(kernel.detach(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(bias, alone)
    assert set(muon.state[kernel]) == {"step", "momentum"}
