"""Rows 8, 9 and 19: linear operators other than the gradient, and laws on finitely many states, all by enumeration.

    8    E_p‖L[p]/p − L[q]/q‖² = E_p[‖L[q]/q‖² − 2 L*(L[q]/q)] + E_p‖L[p]/p‖²;  L = ∇ gives twice row 1
    9    E_p Σᵢ g(q/qᵢ)² = E_p Σᵢ (g(p/pᵢ) − g(q/qᵢ))² + const: least at q = p alone
    19   sup E_p̂ log softmax = −H(p̂), reached as the logits of unseen states go to −∞

Minimisers are found by L-BFGS from another law; what is compared is the probability of every state.
"""

import math
from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor, nn

from scorefield.densities import FiniteSoftmax, Pairwise, enumerate_states, log_conditionals, log_partition_exact
from scorefield.densities.discrete import DiscreteDensity, moves, neighbour_log_ratios
from scorefield.interfaces import Loss
from scorefield.jacobian_trace import Exact
from scorefield.objectives import (
    ConcreteScoreMatching,
    GeneralisedScoreMatching,
    Gradient,
    Marginalisation,
    MaximumLikelihood,
    PseudoLikelihood,
    RatioMatching,
)
from scorefield.objectives.matching import ImplicitScoreMatching
from scorefield.verify.families import (
    KINDS,
    cubature,
    half_fisher,
    name,
    network,
    quadratic,
    random_gaussian,
    random_mixture,
    shapes,
    stream,
)
from scorefield.verify.record import Record, exact

Law = FiniteSoftmax | Pairwise
DiscreteObjective = Callable[[Law, Tensor], Loss]
CONDITIONAL = GeneralisedScoreMatching(Marginalisation())
MINIMISER = 1e-6
SPACES: list[tuple[type[Law], int, int]] = [(FiniteSoftmax, 3, 2), (Pairwise, 4, 2), (FiniteSoftmax, 2, 3), (Pairwise, 7, 2)]


def row_8(full: bool) -> Iterator[Record]:
    gradient = GeneralisedScoreMatching(Gradient(Exact()))
    for kind, shape in product(KINDS, shapes(full)):
        which = f"{kind}, {name(shape)}"
        model = network(kind, shape, 8)
        x = random_mixture(shape, stream(8)).sample(50, generator=stream(8, 1))
        both = GeneralisedScoreMatching(Gradient(Exact(), 0.5))(model, x).value, twice_implicit(model, x)
        yield exact(8, f"L = ∇: ‖s‖² + 2 tr ∇s is twice row 1's: {which}, network", *both)
        p, q = random_gaussian(shape, stream(8, 2)), quadratic(kind, shape, stream(8, 3))
        value = gradient(q, cubature(p.mean(), p.covariance())).value.mean()
        fisher = value + torch.linalg.inv(p.covariance()).trace()
        yield exact(8, f"L = ∇: E‖∇p/p − ∇q/q‖² = F: {which}, Gaussians", fisher, 2 * half_fisher(p, q))
    for family, d, states in SPACES if full else SPACES[:-1]:
        yield from conditional_form(family, d, states)


def conditional_form(family: type[Law], d: int, states: int) -> Iterator[Record]:
    which = f"{family.__name__}, {states}^{d} states"
    truth, other = law(family, d, states, 0), law(family, d, states, 1)
    x, p = enumerate_states(d, states), probabilities(truth)
    inverse = [(-log_conditionals(m, x).gather(2, x[:, :, None])[:, :, 0]).exp() for m in (truth, other)]
    divergence = p @ ((inverse[0] - inverse[1]) ** 2).sum(1)
    value = p @ CONDITIONAL(other, x).value + p @ (inverse[0] ** 2).sum(1)
    yield exact(8, f"conditional form: value + const = E_p Σ(1/p(xᵢ|x₋ᵢ) − 1/q(xᵢ|x₋ᵢ))²: {which}", value, divergence)
    yield minimiser(8, "conditional form", CONDITIONAL, truth, other, which)


def twice_implicit(model: nn.Module, x: Tensor) -> Tensor:
    """‖s‖² + 2 tr ∇s at σ = 0.5 with the trace, and no noise added: implicit matching's value on a model frozen at σ."""

    class Frozen(nn.Module):
        sigma_range = (0.0, 0.0)

        def score(self, y: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
            return model.score(y, 0.5, cond)  # type: ignore[operator]

    return 2 * ImplicitScoreMatching()(Frozen(), x).value


def row_9(full: bool) -> Iterator[Record]:
    cases: list[tuple[type[Law], int]] = [(FiniteSoftmax, 3), (Pairwise, 5), (Pairwise, 10)]
    for family, d in cases:
        which = f"{family.__name__}, 2^{d} states"
        truth, other = law(family, d, 2, 0), law(family, d, 2, 1)
        x, p = enumerate_states(d), probabilities(truth)
        g_p, g_q = (share_of_flip(m, x) for m in (truth, other))
        value = p @ RatioMatching()(other, x).value
        yield exact(9, f"value = E_p Σ(g_p − g_q)² + const: {which}", value, p @ ((g_p - g_q) ** 2 + g_p * (1 - g_p)).sum(1))
        yield minimiser(9, "ratio matching", RatioMatching(), truth, other, which)
    siblings: dict[str, DiscreteObjective] = {
        "pseudo-likelihood": PseudoLikelihood(),
        "concrete matching": ConcreteScoreMatching(),
    }
    for what, objective in siblings.items():
        truth, other = law(Pairwise, 5, 2, 0), law(Pairwise, 5, 2, 1)
        yield minimiser(9, what, objective, truth, other, "Pairwise, 2^5 states")
    truth, other = law(FiniteSoftmax, 2, 3, 0), law(FiniteSoftmax, 2, 3, 1)
    yield minimiser(9, "concrete matching", ConcreteScoreMatching(), truth, other, "FiniteSoftmax, 3^2 states")


def row_19(full: bool) -> Iterator[Record]:
    for d, states in [(1, 5), (3, 2), *([(10, 2)] if full else [])]:
        which = f"{states}^{d} classes"
        x = enumerate_states(d, states)
        model = with_logits(d, states, torch.randn(len(x), generator=stream(19, 1), dtype=torch.float64))
        one = torch.ones((), dtype=torch.float64)
        yield exact(19, f"Σ softmax = 1: {which}", model.log_density(x).exp().sum(), one)
        empirical = torch.rand(len(x), generator=stream(19), dtype=torch.float64)
        empirical[0] = 0  # a class that was never seen
        empirical = empirical / empirical.sum()
        entropy = -float(torch.special.xlogy(empirical, empirical).sum())
        supremum = with_logits(d, states, empirical.log())
        seen = empirical > 0
        value = empirical[seen] @ MaximumLikelihood()(supremum, x[seen]).value
        yield exact(19, f"E −log softmax at the empirical law = its entropy: {which}", value, entropy)
        gaps, expected = [], []
        for t in (-1.0, -5.0, -20.0):
            near = with_logits(d, states, torch.where(seen, empirical.log(), t))
            gaps.append(empirical @ MaximumLikelihood()(near, x).value - entropy)
            expected.append(math.log1p(math.exp(t)))
        statement = f"logit of the unseen class t = −1, −5, −20: the gap to the supremum is log(1 + eᵗ): {which}"
        yield exact(19, statement, torch.stack(gaps), torch.tensor(expected, dtype=torch.float64))
        slope = torch.autograd.grad(-empirical @ MaximumLikelihood()(model, x).value, model.logits)[0]
        yield exact(19, f"∂E log softmax/∂logits = empirical − model: {which}", slope, empirical - probabilities(model))
        yield exact(19, f"log Z by enumeration = 0: {which}", log_partition_exact(model, d), 0.0)


def share_of_flip(model: DiscreteDensity, x: Tensor) -> Tensor:
    """g = q(xᵢ flipped)/(q(x) + q(xᵢ flipped)), `(b, d)`, from log-densities alone."""
    flipped = neighbour_log_ratios(model, x).gather(2, moves(x, 2))[:, :, 0]
    return 1 / (1 + (-flipped).exp())


def law(family: type[Law], d: int, states: int, key: int) -> Law:
    """A random one, in float64."""
    model = family(d, states).double()
    g = stream(9, d, states, key)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=g, dtype=torch.float64))
    return model


def with_logits(d: int, states: int, logits: Tensor) -> FiniteSoftmax:
    model = FiniteSoftmax(d, states).double()
    model.logits.data.copy_(logits)
    return model


def probabilities(model: Law) -> Tensor:
    """Of every state, in the order of `enumerate_states`."""
    with torch.no_grad():
        return model.log_density(enumerate_states(model.d, model.states)).softmax(0)


def minimiser(row: int, what: str, objective: DiscreteObjective, truth: Law, model: Law, which: str) -> Record:
    """Fits `model` to the expectation of the objective under `truth`; compares probabilities, up to 1e-6."""
    x, p = enumerate_states(model.d, model.states), probabilities(truth)
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=2000, tolerance_grad=1e-11, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value: Tensor = p @ objective(model, x).value
        value.backward()
        return value

    optimiser.step(closure)
    return exact(row, f"{what}: the minimiser is the true law, {which}", probabilities(model), p, MINIMISER)
