"""Discrete models against loops over all states: energies, partition function, ratios, conditionals, input checks."""

from itertools import product
from math import exp, log

import pytest
import torch
from torch import Tensor, nn

from scorefield.densities import (
    ConcreteScore,
    FiniteSoftmax,
    Pairwise,
    enumerate_states,
    gaussian,
    log_conditionals,
    log_partition_exact,
    neighbour_log_ratios,
    ratios,
)
from scorefield.densities.discrete import DiscreteDensity, moves, neighbours

Model = FiniteSoftmax | Pairwise

each_space = pytest.mark.parametrize(("d", "states"), [(1, 2), (4, 2), (3, 3), (2, 5)])
each_model = pytest.mark.parametrize("kind", [FiniteSoftmax, Pairwise])


def random_model(kind: type[Model], d: int, states: int, scale: float = 0.7) -> Model:
    g = torch.Generator().manual_seed(1)
    model = kind(d, states).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=scale, generator=g)
    return model.requires_grad_(False)


def law(model: Model) -> dict[tuple[int, ...], float]:
    """Every state's probability, normalised in Python."""
    space = list(product(range(model.states), repeat=model.d))
    weights = [exp(model.log_density(torch.tensor([x])).item()) for x in space]
    return {x: w / sum(weights) for x, w in zip(space, weights, strict=True)}


def put(x: tuple[int, ...], i: int, a: int) -> tuple[int, ...]:
    return (*x[:i], a, *x[i + 1 :])


class Fields(nn.Module):
    """Independent bits in a field that is the condition: log q(x given h) = hᵀx, unnormalised."""

    states = 2

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        assert cond is not None
        return (x * cond).sum(1)


@each_space
def test_states_are_enumerated_in_order(d: int, states: int) -> None:
    assert enumerate_states(d, states).tolist() == [list(x) for x in product(range(states), repeat=d)]


def test_the_largest_space() -> None:
    assert enumerate_states(20).sum(0).tolist() == [2**19] * 20
    for build in (enumerate_states, FiniteSoftmax):
        with pytest.raises(ValueError, match=r"2\*\*21 states are more than the 1048576"):
            build(21)
    with pytest.raises(ValueError, match=r"2\*\*30 states are more"):
        log_partition_exact(Pairwise(30), 30)


def test_the_ising_model_is_the_quadratic_form() -> None:
    model = random_model(Pairwise, 4, 2)
    assert isinstance(model, Pairwise)
    w = torch.zeros(4, 4, dtype=torch.float64)
    w[[0, 0, 0, 1, 1, 2], [1, 2, 3, 2, 3, 3]] = model.couplings
    w = w + w.T
    x = enumerate_states(4)
    expected = x.double() @ model.bias + torch.einsum("bi,ij,bj->b", x.double(), w, x.double()) / 2
    torch.testing.assert_close(model.log_density(x), expected, rtol=1e-13, atol=1e-13)


def test_the_potts_model_has_a_bias_for_each_value_and_a_coupling_for_each_pair_of_values() -> None:
    model = random_model(Pairwise, 3, 3)
    assert isinstance(model, Pairwise)
    bias = {(i, a): model.bias[2 * i + a - 1].item() for i in range(3) for a in (1, 2)}
    pairs = [((i, a), (j, c)) for i in range(3) for a in (1, 2) for j in range(i + 1, 3) for c in (1, 2)]
    coupling = dict(zip(pairs, model.couplings.tolist(), strict=True))
    for x in product(range(3), repeat=3):
        on = [(i, a) for i, a in enumerate(x) if a > 0]
        expected = sum(bias[k] for k in on) + sum(coupling[k, m] for k in on for m in on if k[0] < m[0])
        assert model.log_density(torch.tensor([x])).item() == pytest.approx(expected, abs=1e-13)


def test_softmax_probabilities_are_those_of_the_states() -> None:
    model = FiniteSoftmax(2, 3)
    with torch.no_grad():
        model.logits.copy_((torch.arange(9.0) + 1).log() + 7)
    probability = model.log_density(torch.tensor([[0, 0], [0, 2], [1, 0], [2, 2]])).exp() * 45
    torch.testing.assert_close(probability, torch.tensor([1.0, 3.0, 4.0, 9.0]))


@each_space
def test_partition_function(d: int, states: int) -> None:
    assert log_partition_exact(random_model(FiniteSoftmax, d, states), d).item() == pytest.approx(0, abs=1e-14)
    model = random_model(Pairwise, d, states)
    total = sum(exp(model.log_density(torch.tensor([x])).item()) for x in product(range(states), repeat=d))
    assert log_partition_exact(model, d).item() == pytest.approx(log(total), abs=1e-13)


def test_partition_function_of_independent_bits_over_several_blocks_and_without_overflow() -> None:
    model = Pairwise(17).requires_grad_(False)
    model.bias.copy_(torch.linspace(-300, 300, 17))
    assert log_partition_exact(model, 17).item() == pytest.approx(nn.functional.softplus(model.bias).sum().item(), rel=1e-6)


@pytest.mark.parametrize("states", [2, 3])
def test_the_gradient_of_log_z_is_the_models_mean(states: int) -> None:
    model = random_model(Pairwise, 3, states).requires_grad_(True)
    log_partition_exact(model, 3).backward()
    assert isinstance(model, Pairwise)
    assert model.bias.grad is not None
    marginals = [sum(p for x, p in law(model).items() if x[i] == a) for i in range(3) for a in range(1, states)]
    torch.testing.assert_close(model.bias.grad.tolist(), marginals, rtol=0, atol=1e-13)


@each_model
@each_space
def test_ratios_and_conditionals_of_every_neighbour(kind: type[Model], d: int, states: int) -> None:
    model = random_model(kind, d, states)
    p, space = law(model), enumerate_states(d, states)
    log_ratio, ratio, conditional = (f(model, space) for f in (neighbour_log_ratios, ratios, log_conditionals))
    for n, x in enumerate(p):
        for i, a in product(range(d), range(states)):
            y = put(x, i, a)
            assert log_ratio[n, i, a].item() == pytest.approx(log(p[y] / p[x]), abs=1e-12)
            assert ratio[n, i, a].item() == pytest.approx(p[y] / p[x], rel=1e-12)
            total = sum(p[put(x, i, c)] for c in range(states))
            assert conditional[n, i, a].item() == pytest.approx(log(p[y] / total), abs=1e-12)
    assert (log_ratio.gather(2, space[:, :, None]) == 0).all()


@each_space
def test_neighbours_are_what_moves_says(d: int, states: int) -> None:
    x = enumerate_states(d, states)
    to, near = moves(x, states), neighbours(x, states)
    for n, i, k in product(range(len(x)), range(d), range(states - 1)):
        a = int(to[n, i, k])
        assert near[n, i, k].tolist() == list(put(tuple(x[n].tolist()), i, a))
        assert a != x[n, i]
    assert all(len(set(row)) == states - 1 for row in to.flatten(0, 1).tolist())


def test_each_row_keeps_its_condition() -> None:
    g = torch.Generator().manual_seed(2)
    h = torch.randn(8, 3, generator=g, dtype=torch.float64)
    x = enumerate_states(3)
    expected = torch.stack([torch.zeros_like(h), h], 2)
    torch.testing.assert_close(log_conditionals(Fields(), x, h), expected.log_softmax(2))
    torch.testing.assert_close(neighbour_log_ratios(Fields(), x, h), expected - (h * x)[:, :, None])
    torch.testing.assert_close(ratios(Fields(), x, h), (expected - (h * x)[:, :, None]).exp())


class Sites(nn.Module):
    """Outputs o_ia = (i + 1)·a² + x_0 + cond."""

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        shift = x[:, 0] if cond is None else x[:, 0] + cond
        return torch.arange(1, 4)[:, None] * torch.arange(3.0) ** 2 * shift[:, None, None]


@pytest.mark.parametrize("flat", [False, True])
def test_a_concrete_score_is_relative_to_the_state_itself(flat: bool) -> None:
    model = ConcreteScore(nn.Sequential(Sites(), nn.Flatten()) if flat else Sites(), 3, 3)
    x = torch.tensor([[1, 0, 2]])
    expected = torch.tensor([[[-1.0, 0, 3], [0, 2, 8], [-12, -9, 0]]]).exp()
    torch.testing.assert_close(model.ratios(x), expected)
    assert torch.equal(ratios(model, x), model.ratios(x))
    if not flat:
        torch.testing.assert_close(ratios(model, x, torch.tensor([1])), expected**2)


def test_a_models_own_ratios_come_first() -> None:
    class Both(FiniteSoftmax):
        def ratios(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
            return torch.full((*x.shape, self.states), 7.0)

    assert (ratios(Both(2, 2), torch.tensor([[0, 1]])) == 7).all()


@pytest.mark.parametrize("model", [FiniteSoftmax(3, 2), Pairwise(3, 2), ConcreteScore(nn.Flatten(), 3, 2)], ids=repr)
def test_bad_data_is_refused(model: Model | ConcreteScore) -> None:
    verb = model.ratios if isinstance(model, ConcreteScore) else model.log_density
    good = torch.tensor([[0, 1, 1]])
    for x, message in [
        (good.double(), r"must be an int64 tensor, got torch.float64: convert integers with x.long\(\)"),
        (good.bool(), "must be an int64 tensor, got torch.bool"),
        (good[:, :2], r"must have shape \(b, 3\), got \(1, 2\)"),
        (good[0], r"must have shape \(b, 3\), got \(3,\)"),
        (good + 1, r"values must be in 0..1, got 1..2"),
        (good - 1, r"values must be in 0..1, got -1..0"),
    ]:
        with pytest.raises(ValueError, match=message):
            verb(x)
    if not isinstance(model, ConcreteScore):
        for sigma in (0.1, torch.tensor([0.5]), float("nan")):
            with pytest.raises(ValueError, match=r"sigma must be 0, got .*: discrete data has no Gaussian noise"):
                model.log_density(good, sigma)
        assert model.log_density(good[:0]).shape == (0,)


def test_bad_models_and_spaces_are_refused() -> None:
    for build in (FiniteSoftmax, Pairwise, enumerate_states, lambda d, s: ConcreteScore(nn.Flatten(), d, s)):
        for d, states in [(0, 2), (3, 1)]:
            with pytest.raises(ValueError, match=f"got d = {d} and {states} states"):
                build(d, states)
    with pytest.raises(ValueError, match=r"must return shape \(1, 3, 2\), or that flat, got \(1, 3\)"):
        ConcreteScore(nn.Flatten(), 3, 2).ratios(torch.tensor([[0, 1, 1]]))
    oracle = gaussian(torch.zeros(2), 1.0)
    for verb in (neighbour_log_ratios, log_conditionals, ratios):
        with pytest.raises(ValueError, match=r"a discrete log-density .* is needed, got GaussianMixture"):
            verb(oracle, torch.zeros(1, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a discrete log-density .* is needed, got GaussianMixture"):
        log_partition_exact(oracle, 2)  # type: ignore[arg-type]
    assert not isinstance(oracle, DiscreteDensity)


def test_states_of_probability_zero() -> None:
    model = FiniteSoftmax(2, 2).requires_grad_(False)
    model.logits[1:3] = -torch.inf  # only (0, 0) and (1, 1) occur
    x = torch.tensor([[0, 0], [0, 1]])
    assert model.log_density(x).tolist() == [pytest.approx(log(0.5)), -torch.inf]
    assert neighbour_log_ratios(model, x[:1])[0, 0].tolist() == [0, -torch.inf]
    assert log_conditionals(model, x)[1, 0].tolist() == [-torch.inf, 0]
    with pytest.raises(ValueError, match="row 1 of x has probability zero under the model: ratios to it do not exist"):
        neighbour_log_ratios(model, x)
    model.logits[3] = -torch.inf
    with pytest.raises(ValueError, match="row 1 of x without coordinate 0 has probability zero under the model"):
        log_conditionals(model, x)
