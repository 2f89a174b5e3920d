"""Identity 8: E_p‖L[p]/p − L[q]/q‖² for L = ∇ and for sums over one coordinate.

Expectations are exact: sums over all states, and for Gaussians a cubature that is exact for quadratics.
"""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from scorefield.densities import ConcreteScore, FiniteSoftmax, Pairwise, enumerate_states, gaussian, log_partition_exact
from scorefield.interfaces import Field, TraceEstimate
from scorefield.jacobian_trace import Exact
from scorefield.objectives import GeneralisedScoreMatching, Gradient, Marginalisation
from scorefield.objectives.matching import ImplicitScoreMatching

Model = FiniteSoftmax | Pairwise
CONDITIONAL = GeneralisedScoreMatching(Marginalisation())

each_space = pytest.mark.parametrize(("d", "states"), [(4, 2), (3, 3)])
each_model = pytest.mark.parametrize("kind", [FiniteSoftmax, Pairwise])


def exact_trace(field: Field, x: Tensor, *, generator: torch.Generator | None = None) -> TraceEstimate:
    """The trace of the whole Jacobian; scores of different examples do not mix, so they are summed."""
    jacobian = torch.autograd.functional.jacobian(lambda y: field.score(y).flatten(1).sum(0), x, create_graph=True)
    return TraceEstimate(field.score(x), jacobian.flatten(2).diagonal(dim1=0, dim2=2).sum(1), None)


def random_model(kind: type[Model], d: int, states: int, seed: int) -> Model:
    g = torch.Generator().manual_seed(seed)
    model = kind(d, states).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5, generator=g)
    return model


def probabilities(model: Model) -> Tensor:
    return (model.log_density(enumerate_states(model.d, model.states)) - log_partition_exact(model, model.d)).exp().detach()


def expectation(model: Model, p: Tensor) -> Tensor:
    return p @ CONDITIONAL(model, enumerate_states(model.d, model.states)).value


@each_model
@each_space
def test_the_conditional_form_is_the_divergence_up_to_a_constant(kind: type[Model], d: int, states: int) -> None:
    p, model = probabilities(random_model(FiniteSoftmax, d, states, 1)), random_model(kind, d, states, 2)
    q = probabilities(model)
    p_cube, q_cube = p.reshape([states] * d), q.reshape([states] * d)
    expected = 0.0
    for x in product(range(states), repeat=d):
        for i in range(d):  # M_i[p]/p: the sum over coordinate i, divided by the density
            of_p, of_q = (cube.sum(i, keepdim=True).expand_as(cube)[x] / cube[x] for cube in (p_cube, q_cube))
            expected += (p_cube[x] * ((of_p - of_q) ** 2 - of_p**2)).item()
    assert expectation(model, p).item() == pytest.approx(expected, abs=1e-10)


@each_model
@each_space
def test_the_conditional_forms_gradient_vanishes_at_the_truth(kind: type[Model], d: int, states: int) -> None:
    truth, other = (random_model(kind, d, states, seed) for seed in (3, 4))
    p = probabilities(truth)
    for model in (truth, other):
        expectation(model, p).backward()
    for at_truth, elsewhere in zip(truth.parameters(), other.parameters(), strict=True):
        assert at_truth.grad is not None
        assert elsewhere.grad is not None
        assert at_truth.grad.abs().max() <= 1e-10
        assert elsewhere.grad.abs().min() > 1e-7


@each_model
@each_space
def test_the_conditional_forms_minimiser_is_the_true_law(kind: type[Model], d: int, states: int) -> None:
    p = probabilities(random_model(kind, d, states, 5))
    model = random_model(kind, d, states, 6)
    assert (probabilities(model) - p).abs().max() > 0.01
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=2000, tolerance_grad=1e-11, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = expectation(model, p)
        value.backward()
        return value

    optimiser.step(closure)
    torch.testing.assert_close(probabilities(model), p, rtol=0, atol=1e-6)


@each_space
def test_marginalisation_is_its_own_adjoint(d: int, states: int) -> None:
    """Σ_x ⟨M f, h⟩ = Σ_x f · adjoint(h) for any f, with h = M[q]/q."""
    model = random_model(FiniteSoftmax, d, states, 7)
    ratio, adjoint = Marginalisation()(model, enumerate_states(d, states))
    f = torch.randn([states] * d, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    marginals = torch.stack([f.sum(i, keepdim=True).expand_as(f).reshape(-1) for i in range(d)], 1)
    torch.testing.assert_close((marginals * ratio).sum(), f.reshape(-1) @ adjoint, rtol=1e-12, atol=1e-12)


def test_each_example_keeps_its_condition() -> None:
    class Fields(nn.Module):
        states = 2

        def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
            assert cond is not None
            return (x * cond).sum(1)

    h = torch.randn(8, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    x = enumerate_states(3)
    off, on = 1 + h.exp(), 1 + (-h).exp()
    expected = torch.where(x == 1, on, off) ** 2 - 2 * (on + off)
    torch.testing.assert_close(CONDITIONAL(Fields(), x, h).value, expected.sum(1))


def spread(shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """A random mean `(*shape)` and covariance `(d, d)`."""
    g = torch.Generator().manual_seed(seed)
    d = torch.Size(shape).numel()
    a = torch.randn(d, d, generator=g, dtype=torch.float64)
    return torch.randn(shape, generator=g, dtype=torch.float64), a @ a.T / d + torch.eye(d, dtype=torch.float64) / 2


def cubature(mean: Tensor, covariance: Tensor) -> Tensor:
    """2d equally likely points that have N(mean, covariance)'s moments up to order three."""
    d = len(covariance)
    steps = d**0.5 * torch.linalg.cholesky(covariance).T
    return mean + torch.cat([steps, -steps]).reshape(2 * d, *mean.shape)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_the_gradient_form_is_twice_implicit_score_matching(shape: tuple[int, ...], sigma: float) -> None:
    (m_p, c_p), (m_q, c_q) = spread(shape, 1), spread(shape, 2)
    model = gaussian(m_q, c_q)
    smooth = sigma**2 * torch.eye(len(c_p), dtype=torch.float64)
    c_p, c_q = c_p + smooth, c_q + smooth
    x = cubature(m_p, c_p)
    loss = GeneralisedScoreMatching(Gradient(exact_trace, sigma))(model, x)

    a_p, a_q = torch.linalg.inv(c_p), torch.linalg.inv(c_q)
    scores = -(x - m_q).flatten(1) @ a_q
    implicit = (scores**2).sum(1) / 2 - a_q.trace()
    torch.testing.assert_close(loss.value, 2 * implicit, rtol=1e-10, atol=1e-10)
    if sigma == 0:
        ours = GeneralisedScoreMatching(Gradient(Exact()))(model, x)
        torch.testing.assert_close(ours.value, 2 * ImplicitScoreMatching(Exact())(model, x).value, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(ours.value, loss.value, rtol=1e-10, atol=1e-10)
    shift = a_q @ (m_p - m_q).flatten()
    fisher = ((a_p - a_q) @ c_p @ (a_p - a_q)).trace() + shift @ shift  # E‖∇log p − ∇log q‖²
    torch.testing.assert_close(loss.value.mean(), fisher - a_p.trace(), rtol=1e-10, atol=1e-10)


class Linear(nn.Module):
    """The score −A(x − m) with free A and m, shifted by a condition."""

    sigma_range = (0.0, 1.0)

    def __init__(self, mean: Tensor, precision: Tensor) -> None:
        super().__init__()
        self.mean, self.precision = nn.Parameter(mean.clone()), nn.Parameter(precision.clone())

    def score(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return -(x - self.mean - (0 if cond is None else cond)) @ self.precision


def test_the_gradient_forms_parameter_gradients_vanish_at_the_truth_alone() -> None:
    (mean, covariance), (other_mean, other_covariance) = spread((3,), 3), spread((3,), 4)
    truth, other = Linear(mean, covariance.inverse()), Linear(other_mean, other_covariance.inverse())
    for model in (truth, other):
        GeneralisedScoreMatching(Gradient(exact_trace))(model, cubature(mean, covariance)).value.mean().backward()
    for at_truth, elsewhere in zip(truth.parameters(), other.parameters(), strict=True):
        assert at_truth.grad is not None
        assert elsewhere.grad is not None
        assert at_truth.grad.abs().max() <= 1e-12
        assert elsewhere.grad.abs().min() > 1e-7


def test_condition_and_generator_reach_the_trace() -> None:
    mean, covariance = spread((3,), 5)
    model, x = Linear(mean, covariance.inverse()), cubature(mean, covariance)
    shifted = Linear(mean + 2, covariance.inverse())
    objective = GeneralisedScoreMatching(Gradient(exact_trace))
    torch.testing.assert_close(objective(model, x, torch.full((6, 1), 2.0)).value, objective(shifted, x).value)

    def one_probe(field: Field, x: Tensor, *, generator: torch.Generator | None = None) -> TraceEstimate:
        return TraceEstimate(field.score(x), torch.rand(len(x), generator=generator, dtype=x.dtype), None)

    value = GeneralisedScoreMatching(Gradient(one_probe))(model, x, generator=torch.Generator().manual_seed(6)).value
    drawn = torch.rand(6, generator=torch.Generator().manual_seed(6), dtype=x.dtype)
    torch.testing.assert_close(value, (model.score(x) ** 2).sum(1) + 2 * drawn)


def test_mistakes_are_refused() -> None:
    x = torch.tensor([[0, 1]])
    for model in (gaussian(torch.zeros(2), 1.0), ConcreteScore(nn.Flatten(), 2)):
        with pytest.raises(ValueError, match=rf"a discrete log-density .* is needed, got {type(model).__name__}"):
            CONDITIONAL(model, x)
    with pytest.raises(ValueError, match=r"must be an int64 tensor, got torch.float64"):
        CONDITIONAL(Pairwise(2), x.double())
    for sigma in (-1.0, torch.inf, torch.nan):
        with pytest.raises(ValueError, match=rf"sigma must be at least 0 and finite, got {sigma}"):
            Gradient(exact_trace, sigma)
    with pytest.raises(ValueError, match="the gradient operator needs a model with a score, got Pairwise"):
        GeneralisedScoreMatching(Gradient(exact_trace))(Pairwise(2), x)
    with pytest.raises(ValueError, match="the batch holds NaN or infinity, first in row 1"):
        GeneralisedScoreMatching(Gradient(exact_trace))(gaussian(torch.zeros(2), 1.0), torch.tensor([[0, 0], [0, torch.nan]]))
