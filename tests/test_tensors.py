"""Shapes."""

import pytest
import torch

from scorefield.tensors import event_size, expand, noise_levels, sum_event


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 2, 5)], ids=str)
def test_levels_broadcast_against_events(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    sigma = torch.tensor([1.0, 2.0, 3.0, 4.0])
    levels = noise_levels(sigma, x)
    assert levels.dtype == x.dtype
    assert levels.tolist() == [1, 2, 3, 4]
    assert torch.equal(expand(levels, x) * x, torch.stack([(i + 1) * x[i] for i in range(4)]))
    for scalar in (2, 2.0, torch.tensor(2), torch.tensor([2.0])):
        assert noise_levels(scalar, x).tolist() == [2, 2, 2, 2]


def test_sums_and_sizes_leave_the_batch_alone() -> None:
    x = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert sum_event(x).tolist() == [66, 210]
    assert sum_event(x.flatten(1)).tolist() == [66, 210]
    assert event_size(x) == 12


@pytest.mark.parametrize("sigma", [torch.ones(3), torch.ones(4, 1), torch.ones(0)], ids=lambda s: str(tuple(s.shape)))
def test_levels_of_another_shape_are_refused(sigma: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"sigma must be a scalar or of shape \(4,\), got"):
        noise_levels(sigma, torch.zeros(4, 2))
