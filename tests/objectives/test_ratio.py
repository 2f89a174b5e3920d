"""Identities 9 and 19: the objectives of discrete laws are divergences plus a constant, least at the true law alone.

Expectations are sums over all states, so nothing here is sampled.
"""

from collections.abc import Callable
from itertools import product
from math import log
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scorefield.densities import ConcreteScore, FiniteSoftmax, Pairwise, enumerate_states, gaussian, log_partition_exact, ratios
from scorefield.interfaces import Energy, Loss
from scorefield.objectives import (
    ConcreteScoreMatching,
    GeneralisedScoreMatching,
    Marginalisation,
    MaximumLikelihood,
    PseudoLikelihood,
    RatioMatching,
)

Law = dict[tuple[int, ...], float]
Matching = RatioMatching | PseudoLikelihood | ConcreteScoreMatching | MaximumLikelihood
Model = FiniteSoftmax | Pairwise

CASES = [
    pytest.param(objective, kind, d, states, id=f"{type(objective).__name__}-{kind.__name__}-{d}-{states}")
    for objective in (RatioMatching(), PseudoLikelihood(), ConcreteScoreMatching(), MaximumLikelihood())
    for kind in (FiniteSoftmax, Pairwise)
    for d, states in [(4, 2), (3, 3)]
    if not (isinstance(objective, RatioMatching) and states > 2)
    and not (isinstance(objective, MaximumLikelihood) and kind is Pairwise)
]
each_case = pytest.mark.parametrize(("objective", "kind", "d", "states"), CASES)


def random_model(kind: Callable[[int, int], Model], d: int, states: int, seed: int, scale: float = 0.5) -> Model:
    g = torch.Generator().manual_seed(seed)
    model = kind(d, states).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=scale, generator=g)
    return model


def probabilities(model: Model) -> Tensor:
    return (model.log_density(enumerate_states(model.d, model.states)) - log_partition_exact(model, model.d)).exp().detach()


def as_law(model: Model) -> Law:
    space = product(range(model.states), repeat=model.d)
    return dict(zip(space, probabilities(model).tolist(), strict=True))


def expectation(objective: Callable[..., Loss], model: nn.Module, p: Tensor, d: int, states: int) -> Tensor:
    return p @ objective(model, enumerate_states(d, states)).value


def minimise(loss: Callable[[], Tensor], model: nn.Module) -> None:
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=2000, tolerance_grad=1e-11, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)


def put(x: tuple[int, ...], i: int, a: int) -> tuple[int, ...]:
    return (*x[:i], a, *x[i + 1 :])


def divergence_minus_constant(objective: Matching, p: Law, q: Law, states: int) -> float:
    """What the objective's mean has to be, in loops over states."""
    d = len(next(iter(p)))
    total = 0.0
    for x, weight in p.items():
        if isinstance(objective, MaximumLikelihood):  # KL + entropy
            total += weight * (log(weight / q[x]) - log(weight))
            continue
        for i in range(d):
            line = [put(x, i, a) for a in range(states)]
            if isinstance(objective, PseudoLikelihood):  # KL of conditionals + their entropy
                of_p, of_q = weight / sum(p[y] for y in line), q[x] / sum(q[y] for y in line)
                total += weight * (log(of_p / of_q) - log(of_p))
            for n in line:
                if n == x:
                    continue
                r_p, r_q = p[n] / weight, q[n] / q[x]
                if isinstance(objective, ConcreteScoreMatching):
                    total += weight * ((r_q - r_p) ** 2 - r_p**2)
                if isinstance(objective, RatioMatching):  # Hyvärinen's symmetric form has both g(u) and g(1/u), and a half
                    g_p, g_q = (1 / (1 + 1 / r) for r in (r_p, r_q))
                    h_p, h_q = (1 / (1 + r) for r in (r_p, r_q))
                    total += weight * (((g_p - g_q) ** 2 + (h_p - h_q) ** 2) / 2 + g_p**2)
    return total


@each_case
def test_the_mean_is_the_divergence_up_to_a_constant(objective: Matching, kind: type[Model], d: int, states: int) -> None:
    p, q = random_model(FiniteSoftmax, d, states, 1), random_model(kind, d, states, 2)
    value = expectation(objective, q, probabilities(p), d, states).item()
    assert value == pytest.approx(divergence_minus_constant(objective, as_law(p), as_law(q), states), abs=1e-11)


@each_case
def test_the_gradient_vanishes_at_the_truth_and_nowhere_near_it(
    objective: Matching, kind: type[Model], d: int, states: int
) -> None:
    truth = random_model(kind, d, states, 3)
    p = probabilities(truth)
    expectation(objective, truth, p, d, states).backward()
    assert all(parameter.grad.abs().max() <= 1e-10 for parameter in truth.parameters() if parameter.grad is not None)
    other = random_model(kind, d, states, 4)
    expectation(objective, other, p, d, states).backward()
    for parameter in other.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().min() > 1e-7


def test_ten_bits() -> None:
    """Ratio matching's gradient is zero at the truth on 1024 states."""
    truth = random_model(Pairwise, 10, 2, 5, scale=1.0)
    expectation(RatioMatching(), truth, probabilities(truth), 10, 2).backward()
    for parameter in truth.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() <= 1e-10


@each_case
def test_the_minimiser_is_the_true_law(objective: Matching, kind: type[Model], d: int, states: int) -> None:
    p = probabilities(random_model(kind, d, states, 6))
    model = random_model(kind, d, states, 7)
    assert (probabilities(model) - p).abs().max() > 0.01
    minimise(lambda: expectation(objective, model, p, d, states), model)
    torch.testing.assert_close(probabilities(model), p, rtol=0, atol=1e-6)


class Table(nn.Module):
    """A network with one free output for each state, coordinate and value."""

    def __init__(self, d: int, states: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(8)
        self.d, self.states = d, states
        self.outputs = nn.Parameter(torch.randn(*[states] * d, d, states, generator=g, dtype=torch.float64) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs[tuple(x.T)]


def true_ratios(p: Law, states: int) -> Tensor:
    d = len(next(iter(p)))
    rows = [[[p[put(x, i, a)] / p[x] for a in range(states)] for i in range(d)] for x in p]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(("d", "states"), [(4, 2), (3, 3)])
def test_free_ratios_are_matched_to_the_true_ones(d: int, states: int) -> None:
    truth = random_model(FiniteSoftmax, d, states, 9)
    p, space = probabilities(truth), enumerate_states(d, states)
    wanted = true_ratios(as_law(truth), states)
    model = ConcreteScore(Table(d, states), d, states)

    def fisher() -> float:
        return (p @ ((ratios(model, space) - wanted) ** 2).sum((1, 2))).item()

    constant = (p @ (wanted**2).sum((1, 2))).item() - d  # the ratio of a state to itself is no neighbour's
    value = expectation(ConcreteScoreMatching(), model, p, d, states)
    assert value.item() == pytest.approx(fisher() - constant, abs=1e-11)
    value.backward()
    assert all(parameter.grad.abs().min() > 1e-7 for parameter in model.parameters() if parameter.grad is not None)
    minimise(lambda: expectation(ConcreteScoreMatching(), model, p, d, states), model)
    torch.testing.assert_close(ratios(model, space).detach(), wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("d", "states"), [(4, 2), (3, 3)])
def test_a_densitys_ratios_give_the_density_loss(d: int, states: int) -> None:
    """A model with `ratios` is asked at the neighbours, a log-density is not: same value for each example."""
    density = random_model(FiniteSoftmax, d, states, 10)
    space = enumerate_states(d, states)
    model = ConcreteScore(Table(d, states), d, states)
    network = model.network
    assert isinstance(network, Table)
    network.outputs.data.copy_(ratios(density, space).log().reshape(network.outputs.shape))
    torch.testing.assert_close(ConcreteScoreMatching()(model, space).value, ConcreteScoreMatching()(density, space).value)


def test_maximum_likelihoods_optimum_is_the_empirical_law() -> None:
    data = torch.tensor([[0, 0]] * 5 + [[0, 2]] * 3 + [[2, 1]] * 2)
    empirical = torch.tensor([5, 0, 3, 0, 0, 0, 0, 2, 0]).double() / 10
    best = FiniteSoftmax(2, 3).double()
    best.logits.data.copy_(empirical.log())  # unseen states: −∞
    MaximumLikelihood()(best, data).value.mean().backward()
    assert best.logits.grad is not None
    assert best.logits.grad.abs().max() <= 1e-15
    torch.testing.assert_close(probabilities(best), empirical, rtol=0, atol=1e-15)
    supremum = MaximumLikelihood()(best, data).value.mean().item()
    assert supremum == pytest.approx(-sum(f * log(f) for f in (0.5, 0.3, 0.2)), abs=1e-14)

    model = random_model(FiniteSoftmax, 2, 3, 11)
    unseen = []
    for _ in range(3):
        minimise(lambda: MaximumLikelihood()(model, data).value.mean(), model)
        assert MaximumLikelihood()(model, data).value.mean().item() > supremum
        unseen.append(probabilities(model)[empirical == 0].sum().item())
    torch.testing.assert_close(probabilities(model), empirical, rtol=0, atol=1e-6)
    assert unseen == sorted(unseen, reverse=True)


def test_maximum_likelihood_takes_any_normalised_density() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]]).double()
    value = MaximumLikelihood()(gaussian(torch.zeros(2), 2.0), x).value
    torch.testing.assert_close(value, log(4 * torch.pi) + (x**2).sum(1) / 4)


class Fields(nn.Module):
    """Independent bits in a field that is the condition, as a log-density."""

    states = 2

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        assert cond is not None
        return (x * cond - nn.functional.softplus(cond)).sum(1)


class FieldNetwork(nn.Module):
    """The same as a network of ratios."""

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(cond), cond], 2)


@pytest.mark.parametrize(
    ("objective", "model"),
    [
        *[(o, Fields()) for o in (RatioMatching(), PseudoLikelihood(), ConcreteScoreMatching(), MaximumLikelihood())],
        (ConcreteScoreMatching(), ConcreteScore(FieldNetwork(), 3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_example_keeps_its_condition(objective: Matching, model: Any) -> None:
    h = torch.randn(8, 3, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
    x = enumerate_states(3)
    u = h * (1 - 2 * x)  # log-ratio of flipping each bit
    expected = {
        RatioMatching: u.sigmoid() ** 2, PseudoLikelihood: nn.functional.softplus(u),
        ConcreteScoreMatching: (2 * u).exp() - 2 * (-u).exp(), MaximumLikelihood: nn.functional.softplus(u),
    }[type(objective)]  # fmt: skip
    torch.testing.assert_close(objective(model, x, h).value, expected.sum(1))


def test_ratio_matching_is_bounded_where_ratios_are_not_representable() -> None:
    model = Pairwise(2).requires_grad_(False)
    model.bias.copy_(torch.tensor([400.0, -400.0]))
    value = RatioMatching()(model, enumerate_states(2)).value
    torch.testing.assert_close(value, torch.tensor([1.0, 2.0, 0.0, 1.0]))
    pseudo = PseudoLikelihood()(model, enumerate_states(2)).value
    torch.testing.assert_close(pseudo, torch.tensor([400.0, 800.0, 0.0, 400.0]))


def test_mistakes_are_refused() -> None:
    x = torch.tensor([[0, 1]])
    with pytest.raises(ValueError, match="ratio matching is for binary data, got 3 states: use PseudoLikelihood"):
        RatioMatching()(Pairwise(2, 3), x)
    free = ConcreteScore(Table(2, 2), 2)
    for objective in (RatioMatching(), PseudoLikelihood()):
        with pytest.raises(ValueError, match=r"a discrete log-density .* is needed, got ConcreteScore"):
            objective(free, x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a discrete log-density .* is needed, got GaussianMixture"):
        ConcreteScoreMatching()(gaussian(torch.zeros(2), 1.0), x)  # type: ignore[arg-type]

    class Unknown(Energy):
        sigma_range = (0.0, 0.0)

        def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
            return x.sum(1)

    for model in (Pairwise(2), free, Unknown()):
        with pytest.raises(ValueError, match=f"needs a normalised log-density, got {type(model).__name__}"):
            MaximumLikelihood()(model, x)  # type: ignore[arg-type]
    for matching in (RatioMatching(), PseudoLikelihood(), ConcreteScoreMatching(), MaximumLikelihood()):
        with pytest.raises(ValueError, match="must be an int64 tensor"):
            matching(FiniteSoftmax(2), x.double())


class Trusting(nn.Module):
    """Independent fair bits, from a user who checks nothing: any tensor gives numbers."""

    states = 2

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return (0.0 * x - log(2)).sum(-1)


class TrustingRatios(nn.Module):
    """The same as ratios."""

    states = 2

    def ratios(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return torch.ones(*x.shape, 2)


EVERY = (
    RatioMatching(), PseudoLikelihood(), ConcreteScoreMatching(), MaximumLikelihood(),
    GeneralisedScoreMatching(Marginalisation()),
)  # fmt: skip


@pytest.mark.parametrize(
    ("objective", "model"),
    [*[(objective, Trusting()) for objective in EVERY], (ConcreteScoreMatching(), TrustingRatios())],
    ids=lambda value: type(value).__name__,
)
def test_data_that_is_not_of_the_models_states_is_refused_whoever_wrote_the_model(objective: Any, model: nn.Module) -> None:
    good = torch.tensor([[0, 1, 1]])
    assert objective(model, good).value.isfinite().all()
    for x, message in [
        (5 * good, r"values must be in 0\.\.1, got 0\.\.5"),
        (good - 1, r"values must be in 0\.\.1, got -1\.\.0"),
        (good.double(), r"must be an int64 tensor, got torch.float64: convert integers with x.long\(\)"),
        (good[0], r"must have shape \(b, d\), got \(3,\)"),
        (good[None], r"must have shape \(b, d\), got \(1, 1, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            objective(model, x)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_maximum_likelihood_refuses_data_that_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="the batch holds NaN or infinity, first in row 1"):
        MaximumLikelihood()(gaussian(torch.zeros(2), 2.0), torch.tensor([[0.0, 0.0], [0.0, value]]))
