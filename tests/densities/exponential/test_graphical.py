"""The path against its optimality conditions, refits against the general solve, and graphs that are known."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from scorefield.densities.exponential import Box, GraphicalModel, Simplex, orthant, reals
from scorefield.densities.exponential.family import ExponentialFamily
from scorefield.densities.exponential.graphical import Columns, edges, family, largest_penalty, path, precision_of, weighted

RNG = np.random.default_rng
DOMAINS = {"reals": reals(), "orthant": orthant(cap=0.7), "box": Box((-2.0,) * 3 + (-math.inf,), 2.5, 2.0, 1.1)}
each_domain = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)


def chain(n: int, d: int = 4, seed: int = 0) -> np.ndarray:
    """A Gaussian whose graph is a line."""
    k = np.eye(d) * 1.3 + np.diag([0.5] * (d - 1), 1) + np.diag([0.5] * (d - 1), -1)
    return RNG(seed).multivariate_normal(np.zeros(d), np.linalg.inv(k), size=n)


def inside(domain: Box, n: int = 200) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(chain(n)).clamp(-1.9, 2.4)
    weights = torch.from_numpy(RNG(1).uniform(0.5, 1.5, n))
    return (x.abs() if domain == DOMAINS["orthant"] else x), weights / weights.sum()


def columns(domain: Box) -> Columns:
    return weighted(*inside(domain), domain).columns


@each_domain
def test_the_penalised_minimisers_satisfy_their_conditions(domain: Box) -> None:
    of = columns(domain)
    for penalty, k in path(of, 12, 0.01):
        slope = of.gradient(k)
        away = ~torch.eye(4, dtype=torch.bool)
        joined = (k != 0) & away
        torch.testing.assert_close(k, k.T)
        assert (slope.diagonal().abs() < 1e-4).all()
        assert ((slope + penalty * k.sign())[joined].abs() < 1e-4).all()
        assert (slope[away & ~joined].abs() <= penalty * (1 + 1e-6)).all()


@each_domain
def test_without_a_penalty_it_is_the_general_solve(domain: Box) -> None:
    x, weights = inside(domain)
    joined = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    fit = family(4, joined, domain).fit(x, weights)
    of = columns(domain)
    k = precision_of(fit.coef, 4, joined)
    assert of.gradient(k).abs().max() < 1e-10
    assert float(of.value(k)) < float(of.value(1.01 * k))
    assert torch.linalg.norm(list(path(of, 8, 1e-7))[-1][1] - k) < 1e-3 * torch.linalg.norm(k)


@each_domain
@pytest.mark.parametrize("joined", [(), ((0, 1), (1, 3))])
def test_a_refit_on_edges_is_the_general_one(domain: Box, joined: tuple[tuple[int, int], ...]) -> None:
    x, weights = inside(domain)
    loss, effective = weighted(x, weights, domain).refitted(joined)
    fit = family(4, joined, domain).fit(x, weights)
    assert loss == pytest.approx(fit.training_loss, rel=1e-9)
    assert effective == pytest.approx(fit.effective, rel=1e-8)


def test_the_largest_penalty_leaves_no_edge_and_a_smaller_one_does() -> None:
    of = columns(reals())
    largest = largest_penalty(of)
    assert edges(next(path(of, 2, 0.5, 1.001 * largest))[1]) == ()
    assert len(edges(next(path(of, 2, 0.5, 0.98 * largest))[1])) == 1


@pytest.mark.parametrize("selection", ["ebic", "cv"])
def test_a_line_is_found(selection: str) -> None:
    graph = GraphicalModel(selection=selection).fit(chain(1500, 6))  # type: ignore[arg-type]
    line = {(i, i + 1) for i in range(5)}
    assert line <= set(graph.edges)
    if selection == "ebic":
        assert set(graph.edges) == line
        off = torch.stack([graph.precision[i, j] for i, j in graph.edges]) - 0.5
        assert (off.abs() < 4 * graph.density.standard_errors[12:]).all()
        assert torch.equal(graph.adjacency, torch.from_numpy(np.eye(6, k=1) + np.eye(6, k=-1)).bool())
        expected = -graph.precision[0, 1] / (graph.precision[0, 0] * graph.precision[1, 1]).sqrt()
        assert float(graph.partial_correlations[0, 1]) == pytest.approx(float(expected))
        assert (graph.partial_correlations.diagonal() == 1).all()


def test_other_rows_give_honest_intervals_of_each_edge() -> None:
    graph, other = GraphicalModel().fit(chain(600)), chain(900, seed=5)
    assert graph.edges == ((0, 1), (1, 2), (2, 3))
    again = graph.refit(other)
    ends, half = graph.intervals(0.9), 1.6448536269514722 * graph.density.standard_errors[8:]
    strengths = torch.stack([graph.precision[i, j] for i, j in graph.edges])
    torch.testing.assert_close(ends, torch.stack([strengths - half, strengths + half], 1))
    assert ((-again.coef[8:] - 0.5).abs() < 4 * again.standard_errors[8:]).all()
    assert again.n == 900
    with pytest.raises(ValueError, match="of 4 columns, the rows have 3"):
        graph.refit(other[:, :3])


def test_of_all_edges_the_gaussian_precision_is_that_of_the_rows() -> None:
    x = chain(500)
    k = precision_of(
        family(4, ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)), reals()).fit(x).coef, 4, edges(torch.ones(4, 4))
    )
    torch.testing.assert_close(k, torch.from_numpy(np.linalg.inv(np.cov(x.T, bias=True))), rtol=1e-8, atol=1e-10)


def test_of_few_rows_only_graphs_are_tried_that_they_can_bear() -> None:
    graph = GraphicalModel(selection="ebic", gamma=0.0).fit(chain(12, 4))
    assert len(graph.edges) <= 12 - 2 * 4
    assert all(step.criterion == math.inf for step in graph.path if step.edges > 4)


def test_units_do_not_change_the_graph() -> None:
    x = np.abs(chain(800))
    units = np.array([1.0, 100.0, 0.01, 7.0])
    one, other = GraphicalModel(orthant()).fit(x), GraphicalModel(orthant()).fit(x * units)
    assert one.edges == other.edges
    torch.testing.assert_close(other.precision * torch.from_numpy(np.outer(units, units)), one.precision, rtol=1e-6, atol=1e-9)


def test_weights_count_rows() -> None:
    x, counts = chain(400), RNG(3).integers(0, 3, 400)
    weighted_graph = GraphicalModel(selection="cv").fit(x, counts)
    joined = weighted_graph.edges
    unit = tuple(np.repeat(x, counts, axis=0).std(0))
    repeated = family(4, joined, Box(unit=unit)).fit(np.repeat(x, counts, axis=0))
    torch.testing.assert_close(weighted_graph.density.coef, repeated.coef)


def test_names_are_the_columns() -> None:
    frame = pd.DataFrame(chain(300, 3), columns=["a", "b", "c"])
    graph = GraphicalModel().fit(frame)
    assert graph.names == ("a", "b", "c")
    assert "a·b" in graph.density.names
    assert isinstance(family(2, (), reals()), ExponentialFamily)


def test_columns_in_another_order_are_not_refitted() -> None:
    frame = pd.DataFrame(chain(300, 3), columns=["a", "b", "c"])
    graph = GraphicalModel().fit(frame)
    with pytest.raises(ValueError, match="columns are c, b, a, those of the graph a, b, c"):
        graph.refit(frame[["c", "b", "a"]])
    assert torch.equal(graph.refit(frame).coef, graph.refit(frame.to_numpy()).coef)


def test_a_refit_weighs_its_rows() -> None:
    graph, x = GraphicalModel().fit(chain(300)), chain(200, seed=3)
    counts = RNG(3).integers(0, 3, 200)
    torch.testing.assert_close(graph.refit(x, counts).coef, graph.refit(np.repeat(x, counts, axis=0)).coef)


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_the_criterion_is_the_extended_bayesian_one(gamma: float) -> None:
    x = chain(300)
    graph = GraphicalModel(gamma=gamma).fit(x)
    step = next(step for step in graph.path if edges(step.precision) == graph.edges)
    z = (x - x.mean(0)) / x.std(0)
    fit = family(4, graph.edges, reals()).fit(z)
    expected = 2 * 300 * fit.training_loss + fit.effective * (math.log(300) + 4 * gamma * math.log(4))
    assert step.criterion == pytest.approx(expected, rel=1e-9)
    assert step.criterion == min(step.criterion for step in graph.path)


def test_cross_validation_is_the_loss_of_rows_left_out() -> None:
    """Of rows that are independent the least penalty of the path has the greatest loss, and the largest is chosen."""
    graph = GraphicalModel(selection="cv", smallest=0.001).fit(RNG(4).normal(size=(60, 6)))
    losses = [step.criterion for step in graph.path]
    assert losses.index(min(losses)) < len(losses) / 4
    assert losses[-1] > losses[0]


def test_the_summary_has_the_strongest_edge_first() -> None:
    graph = GraphicalModel().fit(pd.DataFrame(chain(600), columns=["a", "b", "c", "d"]))
    assert repr(graph) == "Graph(3 edges between 4 columns)"
    lines = [line.split() for line in graph.summary().splitlines()[2:5]]
    partial = {frozenset((graph.names[i], graph.names[j])): float(graph.partial_correlations[i, j]) for i, j in graph.edges}
    for a, b, shown, *_ in lines:
        assert float(shown) == pytest.approx(partial[frozenset((a, b))], abs=6e-4)
    sizes = [abs(float(shown)) for _, _, shown, *_ in lines]
    assert sizes == sorted(sizes, reverse=True)
    ends = dict(zip(graph.edges, graph.intervals().tolist(), strict=True))
    a, b, _, k, low, high = lines[0]
    edge = next(edge for edge in graph.edges if {graph.names[edge[0]], graph.names[edge[1]]} == {a, b})
    assert [float(k), float(low), float(high)] == pytest.approx([float(graph.precision[edge]), *ends[edge]], rel=1e-3)


def test_between_near_walls_there_may_be_no_partial_correlation() -> None:
    x = RNG(0).beta(0.5, 0.5, size=(400, 3))
    graph = GraphicalModel(Box(0.0, 1.0, power=2)).fit(x)
    with pytest.raises(ValueError, match="column x0 is not concave given the others"):
        _ = graph.partial_correlations


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GraphicalModel().fit(chain(8)), "8 rows are too few for a graph of 4 columns"),
        (lambda: GraphicalModel().fit(chain(40)[:, :1]), "at least two columns"),
        (lambda: GraphicalModel().fit(np.c_[chain(40), np.ones(40)]), "column x4 is constant"),
        (lambda: GraphicalModel(orthant()).fit(chain(40)), "is not in [0, inf]"),
        (lambda: GraphicalModel().fit(chain(40), np.zeros(40)), "zero in every row"),
        (lambda: GraphicalModel(gamma=-1.0), "gamma must be at least 0"),
        (lambda: GraphicalModel(selection="aic"), "must be ebic or cv"),
        (lambda: GraphicalModel("orthant"), "lives on reals(), orthant() or another Box, got 'orthant'"),
        (lambda: GraphicalModel(Simplex()), "lives on reals()"),
        (lambda: GraphicalModel().fit(np.c_[chain(40), chain(40)[:, 1]]), "columns x1, x4 follow from one another"),
        (lambda: GraphicalModel().fit(np.c_[chain(40), chain(40)[:, :2].sum(1)]), "columns x0, x1, x4 follow from one another"),
        (lambda: GraphicalModel().fit(chain(40), [1.0] * 8 + [0.0] * 32), "8 rows are too few for a graph of 4 columns"),
    ],
)
def test_bad_input_gets_one_line(make: object, said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make()  # type: ignore[operator]
    assert said in str(caught.value)
