"""Laws on finite sets {0, …, S−1}ᵈ: what stands in for the score where there is no gradient in x.

Discrete data is an int64 tensor x `(b, d)` with values 0 … S−1 (binary: S = 2). A change of one coordinate, x_i := a, is
a Hamming-1 neighbour of x, written x_{i→a}; each x has d(S−1) of them. The partition function cancels in

    log q(x_{i→a}) − log q(x)                                    the log-ratio to a neighbour
    log q(x_i = a | x_{−i}) = log q(x_{i→a}) − log Σ_c q(x_{i→c})   the conditional, a softmax of the log-ratios over a

so both are known for unnormalised models, and either determines a law that is positive everywhere. The ratios
themselves, q(x_{i→a})/q(x), are the discrete counterpart of the score (shifted by 1, Meng et al.'s *concrete score*):
the verb `ratios`.

A law on few enough states needs none of this: with one logit a state, q = softmax(logits) is normalised, and the maximum of
E_p̂[log q] = −H(p̂) − KL(p̂‖q) is q = p̂, the empirical law; the logit of a state that never occurs falls to −∞.

Reference: Hyvärinen 2007, Computational Statistics & Data Analysis 51(5); Meng et al. 2022, arXiv:2211.00802.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

LARGEST_SPACE = 2**20
"""the largest number of states that is enumerated"""


@runtime_checkable
class DiscreteDensity(Protocol):
    """A law on {0, …, states−1}ᵈ: log q(x) + const, nats, `(b,)`, for int64 x `(b, d)`."""

    states: int

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class Ratios(Protocol):
    """Anything with the ratios q(x_{i→a})/q(x), `(b, d, states)`, for int64 x `(b, d)`; 1 where a = x_i."""

    states: int

    def ratios(self, x: Tensor, cond: Tensor | None = None) -> Tensor: ...


class FiniteSoftmax(nn.Module):
    """One logit for each of the statesᵈ states, so log q is exactly normalised: the solved case. Starts uniform.

    Raises:
        ValueError: more than 2²⁰ states.
    """

    normalised = True

    def __init__(self, d: int, states: int = 2) -> None:
        super().__init__()
        self.d, self.states = d, states
        self.logits = nn.Parameter(torch.zeros(_space_size(d, states)))

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """log q(x), normalised, nats, `(b,)`; −∞ where a logit is.

        Raises:
            ValueError: σ ≠ 0, or x is not int64 of shape `(b, d)` with values 0 … states−1.
        """
        _check(x, self.d, self.states, sigma)
        return self.logits.log_softmax(0)[(x * place_values(self.d, self.states, x.device)).sum(1)]


class Pairwise(nn.Module):
    """The Ising (two states) or Potts (more) model: log q(x) = bᵀφ + ½ φᵀWφ − log Z, with log Z left out. Starts uniform.

    φ(x) is the one-hot code without state 0, so for two states φ = x and log q = bᵀx + ½ xᵀWx; with state 0 as
    reference every parameter is identified. W is symmetric and couples different coordinates only; `couplings` lists its
    entries above the diagonal, in the order of `pairs` `(2, n)`.

    Args:
        d: number of coordinates.
        states: values a coordinate takes, 2 or more.
    """

    normalised = False
    pairs: Tensor

    def __init__(self, d: int, states: int = 2) -> None:
        super().__init__()
        _check_space(d, states)
        self.d, self.states = d, states
        features = d * (states - 1)
        pairs = torch.triu_indices(features, features, 1)
        self.register_buffer("pairs", pairs[:, pairs[0] // (states - 1) != pairs[1] // (states - 1)], persistent=False)
        self.bias = nn.Parameter(torch.zeros(features))
        self.couplings = nn.Parameter(torch.zeros(self.pairs.shape[1]))

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        """bᵀφ + ½ φᵀWφ, unnormalised, nats, `(b,)`.

        Raises:
            ValueError: σ ≠ 0, or x is not int64 of shape `(b, d)` with values 0 … states−1.
        """
        _check(x, self.d, self.states, sigma)
        phi = (x[:, :, None] == torch.arange(1, self.states, device=x.device)).flatten(1).to(self.bias.dtype)
        above = self.bias.new_zeros(len(self.bias), len(self.bias)).index_put(tuple(self.pairs), self.couplings)
        return phi @ self.bias + (phi @ above * phi).sum(1)


class ConcreteScore(nn.Module):
    """Ratios straight from a network; they need not be those of any law.

    Args:
        network: int64 `(b, d)` (and `cond`, if one is given) to logarithms of ratios up to a constant for each
            coordinate, `(b, d, states)` or `(b, d * states)`.
        d: number of coordinates.
        states: values a coordinate takes, 2 or more.
    """

    def __init__(self, network: nn.Module, d: int, states: int = 2) -> None:
        super().__init__()
        _check_space(d, states)
        self.network, self.d, self.states = network, d, states

    def ratios(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """exp(o_ia − o_ix) of the network's outputs o: positive, 1 at the state itself, `(b, d, states)`.

        Raises:
            ValueError: x is not int64 of shape `(b, d)` with values 0 … states−1, or the network's output has another size.
        """
        _check(x, self.d, self.states)
        output = self.network(x) if cond is None else self.network(x, cond)
        if output.shape not in ((len(x), self.d, self.states), (len(x), self.d * self.states)):
            shape = tuple(output.shape)
            raise ValueError(f"the network must return shape ({len(x)}, {self.d}, {self.states}), or that flat, got {shape}")
        output = output.reshape(len(x), self.d, self.states)
        return (output - output.gather(2, x[:, :, None])).exp()


def enumerate_states(d: int, states: int = 2, *, device: torch.device | None = None) -> Tensor:
    """All of {0, …, states−1}ᵈ, int64 `(states**d, d)`, in lexicographic order.

    Raises:
        ValueError: more than 2²⁰ states.
    """
    index = torch.arange(_space_size(d, states), device=device)
    return index[:, None] // place_values(d, states, device) % states


def log_partition_exact(model: DiscreteDensity, d: int) -> Tensor:
    """log Σ exp(log q(x)) over all statesᵈ states, nats, a scalar; differentiable.

    Raises:
        ValueError: more than 2²⁰ states, or a model that is not a discrete log-density.
    """
    model = as_density(model)
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    space = enumerate_states(d, model.states, device=None if parameter is None else parameter.device)
    return torch.cat([model.log_density(part) for part in space.split(2**16)]).logsumexp(0)


def neighbour_log_ratios(model: DiscreteDensity, x: Tensor, cond: Tensor | None = None) -> Tensor:
    """log q(x_{i→a}) − log q(x), nats, `(b, d, states)`; 0 where a = x_i. All neighbours are evaluated in one batch.

    Raises:
        ValueError: a model that is not a discrete log-density, bad x, or an x of probability zero.
    """
    at_x, by_state = _log_densities(model, x, cond)
    if (at_x == -torch.inf).any():
        row = int((at_x == -torch.inf).nonzero()[0])
        raise ValueError(f"row {row} of x has probability zero under the model: ratios to it do not exist")
    return by_state - at_x[:, None, None]


def ratios(model: Ratios | DiscreteDensity, x: Tensor, cond: Tensor | None = None) -> Tensor:
    """q(x_{i→a})/q(x), `(b, d, states)`; 1 where a = x_i: the model's own, or those of its log-density.

    Raises:
        ValueError: a model that has neither, bad x, or an x of probability zero.
    """
    return model.ratios(x, cond) if isinstance(model, Ratios) else neighbour_log_ratios(model, x, cond).exp()


def log_conditionals(model: DiscreteDensity, x: Tensor, cond: Tensor | None = None) -> Tensor:
    """log q(x_i = a | x_{−i}), nats, `(b, d, states)`: sums to one over a; does not depend on x_i.

    Raises:
        ValueError: a model that is not a discrete log-density, bad x, or an x_{−i} of probability zero.
    """
    _, by_state = _log_densities(model, x, cond)
    if (by_state.amax(2) == -torch.inf).any():
        row, i = (by_state.amax(2) == -torch.inf).nonzero()[0].tolist()
        raise ValueError(f"row {row} of x without coordinate {i} has probability zero under the model: no conditional exists")
    return by_state.log_softmax(2)


def log_conditional(model: DiscreteDensity, x: Tensor, i: int, cond: Tensor | None = None) -> Tensor:
    """log q(x_i = a | x_{−i}) of coordinate i alone, nats, `(b, states)`; errors as in `log_conditionals`."""
    with_state = x.repeat_interleave(model.states, 0)
    with_state[:, i] = torch.arange(model.states, device=x.device).repeat(len(x))
    repeated = None if cond is None else cond.repeat_interleave(model.states, 0)
    by_state = model.log_density(with_state, 0.0, repeated).reshape(len(x), model.states)
    if (by_state.amax(1) == -torch.inf).any():
        row = int((by_state.amax(1) == -torch.inf).nonzero()[0])
        raise ValueError(f"row {row} of x without coordinate {i} has probability zero under the model: no conditional exists")
    return by_state.log_softmax(1)


def moves(x: Tensor, states: int) -> Tensor:
    """The states−1 values that each coordinate can change to, int64 `(b, d, states−1)`."""
    return (x[:, :, None] + torch.arange(1, states, device=x.device)) % states


def neighbours(x: Tensor, states: int) -> Tensor:
    """All Hamming-1 neighbours, int64 `(b, d, states−1, d)`: at `[n, i, k]`, x with x_i := `moves(x, states)[n, i, k]`.

    Raises:
        ValueError: x is not int64 of shape `(b, d)` with values 0 … states−1.
    """
    check_states(x, states)
    shift = torch.arange(1, states, device=x.device)[:, None] * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[:, None]
    return (x[:, None, None] + shift) % states


def as_density(model: object) -> DiscreteDensity:
    """The model, if it is a discrete log-density.

    Raises:
        ValueError: it has no `states` or no `log_density`.
    """
    if not isinstance(model, DiscreteDensity):
        raise ValueError(f"a discrete log-density with `states` and `log_density` is needed, got {type(model).__name__}")
    return model


def _log_densities(model: DiscreteDensity, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
    """log q(x) + const, `(b,)`, and log q(x_{i→a}) + const, `(b, d, states)`."""
    states = as_density(model).states
    near = neighbours(x, states)
    at_x = model.log_density(x, 0.0, cond)
    count = near.shape[1] * near.shape[2]
    moved = model.log_density(near.flatten(0, 2), 0.0, None if cond is None else cond.repeat_interleave(count, 0))
    stay = at_x[:, None, None].expand(*x.shape, states)
    return at_x, stay.scatter(2, moves(x, states), moved.reshape(near.shape[:3]))


def check_states(x: Tensor, states: int, d: int | None = None) -> None:
    """Refuses data that is not in {0, …, states−1}ᵈ, with any d if none is given.

    Raises:
        ValueError: x is not int64 of shape `(b, d)` with values 0 … states−1.
    """
    if x.dtype != torch.int64:
        raise ValueError(f"discrete data must be an int64 tensor, got {x.dtype}: convert integers with x.long()")
    if x.ndim != 2 or d not in (None, x.shape[1]):
        raise ValueError(f"discrete data must have shape (b, {d or 'd'}), got {tuple(x.shape)}")
    if x.numel() and not (x.min() >= 0 and x.max() < states):
        raise ValueError(f"values must be in 0..{states - 1}, got {int(x.min())}..{int(x.max())}")


def _check(x: Tensor, d: int, states: int, sigma: float | Tensor = 0.0) -> None:
    if torch.as_tensor(sigma).any():
        raise ValueError(f"sigma must be 0, got {sigma}: discrete data has no Gaussian noise")
    check_states(x, states, d)


def _check_space(d: int, states: int) -> None:
    if d < 1 or states < 2:
        raise ValueError(f"a discrete space needs d of at least 1 and at least 2 states, got d = {d} and {states} states")


def _space_size(d: int, states: int) -> int:
    _check_space(d, states)
    if states**d > LARGEST_SPACE:
        raise ValueError(f"{states}**{d} states are more than the {LARGEST_SPACE} that can be enumerated")
    return states**d


def place_values(d: int, states: int, device: torch.device | None) -> Tensor:
    """statesᵈ⁻¹, …, states, 1: what each coordinate adds to a state's number."""
    return states ** torch.arange(d - 1, -1, -1, device=device)
