"""What every objective asks of a batch."""

from torch import Tensor


def check_batch(x: Tensor) -> None:
    """Refuse batches that would make a loss meaningless.

    Raises:
        ValueError: `x` is not `(b, *event)` of floating-point numbers, is empty, or holds NaN or infinity (the first row
            is named).
    """
    if x.ndim < 2 or not x.numel():
        raise ValueError(f"a batch must have shape (b, *event) and hold something, got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"a batch must hold floating-point numbers, got {x.dtype}: scale the data first")
    if not x.isfinite().all():
        row = int((~x.flatten(1).isfinite().all(1)).nonzero()[0])
        raise ValueError(f"the batch holds NaN or infinity, first in row {row}: mend the data")
