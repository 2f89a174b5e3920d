"""A neural spline flow of vectors, by the library zuko, an optional extra.

Reference: Durkan et al. 2019, arXiv:1906.04032.
"""

import math
import time
from typing import Any

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.randomness import derive_seed, keyed_generator

TRANSFORMS, HIDDEN = 3, (128, 128)
LEARNING_RATE, BATCH, CLIP = 1e-3, 256, 5.0
PATIENCE = 30
"""epochs without a better validation likelihood, after which training stops"""


def fitted_spline_flow(train: Tensor, validation: Tensor, *, seconds: float = math.inf, seed: int = 0) -> Any:
    """A zuko flow fitted to rows `(n, d)` by maximum likelihood, with the weights that suit `validation` best.

    Raises:
        UserError: zuko is not installed.
    """
    try:
        import zuko
    except ImportError as error:
        raise UserError("the neural spline flow needs the library zuko: pip install 'scorefield[flows]'") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights of a spline flow"))
        flow = zuko.flows.NSF(train.shape[1], transforms=TRANSFORMS, hidden_features=HIDDEN)
    optimizer = torch.optim.Adam(flow.parameters(), LEARNING_RATE)
    best, least, epoch, at, began = flow.state_dict(), math.inf, 0, 0, time.monotonic()
    while time.monotonic() - began < seconds and epoch - at < PATIENCE:
        for rows in torch.randperm(len(train), generator=keyed_generator(seed, "batches of a spline flow", epoch)).split(BATCH):
            loss = -flow().log_prob(train[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
            optimizer.step()
        epoch += 1
        with torch.no_grad():
            reached = float(-flow().log_prob(validation).mean())
        if reached < least:
            best, least, at = {k: v.clone() for k, v in flow.state_dict().items()}, reached, epoch
    flow.load_state_dict(best)
    return flow.double().eval().requires_grad_(False)
