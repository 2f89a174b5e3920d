"""Muon: the momentum of each hidden weight matrix is made orthogonal before it moves the weights; Adam does the rest.

Of the momentum M = U S Vᵀ nearly U Vᵀ is applied, so that directions which rarely occur in the gradient are learnt as fast as
frequent ones. It is computed without a decomposition: with A = X Xᵀ the iteration X ← (a + bA + cA²) X drives all singular
values towards 1, and since everything commutes with A it runs on the small Gram matrix alone.

Reference: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon (the iteration and its numbers); Liu et al. 2025,
arXiv:2502.16982 (eq. 4: updates as large as Adam's, so that one learning rate serves both).
"""

from collections.abc import Iterable

import torch
from torch import Tensor

MOMENTUM = 0.95
ITERATION = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
ADAMS_SIZE = 0.2
"""root mean square of Adam's updates in units of its learning rate, as it is found in practice"""
SMALLEST = 64
"""sides of a matrix; thinner ones (the first and last layer, embeddings of few classes) are left to Adam"""


class Muon(torch.optim.Adam):
    """An optimiser for all parameters of a network; the learning rate is Adam's."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; every matrix first, hidden from Adam meanwhile."""
        gradients: list[tuple[Tensor, Tensor]] = []
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and is_matrix(p):
                    gradients.append((p, p.grad))
                    self.move(p, p.grad, group["lr"])
                    p.grad = None
        super().step()
        for p, gradient in gradients:
            p.grad = gradient

    def move(self, p: Tensor, gradient: Tensor, rate: float) -> None:
        """Nesterov's momentum, made orthogonal, as long as Adam's step."""
        state = self.state[p]
        if not state:
            state["step"] = torch.tensor(0.0)  # Adam wants all its parameters to have one
            state["momentum"] = torch.zeros_like(p)
        state["step"] += 1
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        direction = orthogonalised(gradient.lerp(state["momentum"], MOMENTUM).flatten(1))
        p.add_(direction.reshape(p.shape), alpha=-rate * ADAMS_SIZE * max(direction.shape) ** 0.5)


def is_matrix(p: Tensor) -> bool:
    """Whether a parameter is a weight matrix, or a kernel that is one when flattened, large enough to be worth it."""
    return p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= SMALLEST


def orthogonalised(matrix: Tensor) -> Tensor:
    """About U Vᵀ of a matrix U S Vᵀ `(m, n)`: singular values between 0.7 and 1.2 where S is not tiny beside its largest."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    gram = x @ x.T
    gram /= gram.trace() + torch.finfo(x.dtype).tiny
    factor = product = iteration_factor(gram)
    for _ in range(ITERATIONS - 1):
        gram = factor @ gram @ factor
        factor = iteration_factor(gram)
        product = factor @ product
    done = product @ (x / (x.norm() + torch.finfo(x.dtype).tiny))
    return done.T if matrix.shape[0] > matrix.shape[1] else done


def iteration_factor(gram: Tensor) -> Tensor:
    """a + bA + cA²."""
    a, b, c = ITERATION
    factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal().add_(a)
    return factor


def make_optimizer(name: str, parameters: Iterable[Tensor], rate: float, beta2: float) -> torch.optim.Adam:
    """Adam or Muon, fused where the device has it."""
    parameters = list(parameters)
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    kind = Muon if name == "muon" else torch.optim.Adam
    return kind(parameters, rate, betas=(0.9, beta2), fused=fused)
