"""Rows 1–4: the Fisher divergence without the true score, traces by probes, slices, and differences.

    1   ½ F(p‖q) = E_p[½ ‖s‖² + tr ∇s] + ½ E_p‖∇log p‖²
    2   E_v[vᵀ ∇s v] = tr ∇s, with the variances of `jacobian_trace`
    3   E_v[½ (vᵀs)² + vᵀ ∇s v] = E_v[½ ‖s‖² + vᵀ ∇s v] = ½ ‖s‖² + tr ∇s
    4   differences of step ε instead of derivatives: error c ε², so that log error against log ε has slope 2

1 holds for any field s, also one that is no gradient, with F = E_p‖∇log p − s‖².
"""

from collections.abc import Iterator
from copy import deepcopy
from itertools import product

import torch
from torch import Tensor, nn

from scorefield.interfaces import Field, Objective, Score
from scorefield.jacobian_trace import Exact, Hutchinson, Probe
from scorefield.metrics.score import jacobian
from scorefield.objectives.matching import (
    ExplicitScoreMatching,
    FiniteDifferenceScoreMatching,
    ImplicitScoreMatching,
    SlicedScoreMatching,
)
from scorefield.verify.families import (
    KINDS,
    Kind,
    Scaled,
    ScaledEnergy,
    Shape,
    cubature,
    half_fisher,
    name,
    network,
    quadratic,
    random_gaussian,
    random_mixture,
    shapes,
    size,
    stream,
)
from scorefield.verify.record import Record, close, exact, sampled

SIGMA = 0.5
BATCHES = 40
PROBES: tuple[Probe, ...] = ("rademacher", "gaussian", "sphere")


def row_1(full: bool) -> Iterator[Record]:
    for kind, shape in product(KINDS, shapes(full)):
        which, n = f"{kind}, {name(shape)}", draws(shape, full)
        p, q = random_gaussian(shape, stream(1)), quadratic(kind, shape, stream(1, 1))
        implicit = ImplicitScoreMatching()(q, cubature(p.mean(), p.covariance())).value.mean()
        half = half_fisher(p, q)
        constant = torch.linalg.inv(p.covariance()).trace() / 2
        yield exact(1, f"E[½‖s‖² + tr ∇s] + ½E‖∇log p‖² = ½F: {which}, Gaussians", implicit + constant, half)
        yield exact(1, f"… its gradient in θ: {which}, Gaussians", gradient(q, implicit), gradient(q, half))

        mixture, model = random_mixture(shape, stream(1, 2)), network(kind, shape, 1)
        matching = ImplicitScoreMatching(sigma=SIGMA), ExplicitScoreMatching(mixture, SIGMA)
        x = mixture.sample(n, generator=stream(1, 3))
        with torch.no_grad():
            left, right = (o(model, x, generator=stream(1, 4)).value for o in matching)
            constants = (mixture.score(with_noise(x, stream(1, 4)), SIGMA) ** 2).flatten(1).sum(1) / 2
        yield sampled(1, f"E[½‖s‖² + tr ∇s] + ½E‖∇log p‖² = ½F: {which}, network on mixture", left + constants, right)
        slopes = steepest_slopes(model, matching, x, 1)
        yield sampled(1, f"… its gradient in θ, in the steepest direction: {which}, network on mixture", *slopes)


def row_2(full: bool) -> Iterator[Record]:
    n = 100_000 if full else 10_000
    for kind, shape in product(KINDS, shapes(full)):
        which, d = f"{kind}, {name(shape)}", size(shape)
        model = network(kind, shape, 2)
        point = random_mixture(shape, stream(2)).sample(1, generator=stream(2, 1))
        at = Field(model, SIGMA)
        with torch.no_grad():
            j = jacobian(at, point)[0]
            both = at, Field(network(kind, shape, 2, unet=True), SIGMA)
            traces = torch.cat([Exact()(field, point).trace for field in both])
            whole = torch.stack([jacobian(field, point)[0].trace() for field in both])
            yield exact(2, f"sum of d directions = tr ∇s of the whole Jacobian, two networks: {which}", traces, whole)
            x = point.expand(n, *shape)
            s = (j + j.T) / 2
            total, diagonal = (s**2).sum(), (s.diagonal() ** 2).sum()
            variances: dict[Probe, Tensor] = {
                "rademacher": 2 * (total - diagonal),
                "gaussian": 2 * total,
                "sphere": 2 * d / (d + 2) * (total - j.trace() ** 2 / d),
            }
            single = {probe: Hutchinson(1, probe)(at, x, generator=stream(2, 2)).trace for probe in PROBES}
            orthogonal = Hutchinson(2, "orthogonal")(at, x, generator=stream(2, 4))
            several = {probe: Hutchinson(4, probe)(at, x[: n // 4], generator=stream(2, 3)).se for probe in PROBES}
        estimates = torch.stack([single[p] for p in PROBES], 1)
        yield sampled(2, f"E[vᵀ ∇s v] = tr ∇s, worst of three laws of v: {which}", estimates, j.trace())
        for probe, variance in variances.items():
            yield sampled(2, f"Var[vᵀ ∇s v], {probe}: {which}", (single[probe] - j.trace()) ** 2, variance)
        squares = torch.stack([e**2 for e in several.values() if e is not None], 1)
        expected = torch.stack([variances[p] / 4 for p in PROBES])
        yield sampled(2, f"E[se²] = variance/4 of four probes, worst of three laws: {which}", squares, expected)
        if d > 2 and orthogonal.se is not None:
            pair, variance = orthogonal.trace, variances["sphere"] / 2 * (d - 2) / (d - 1)
            yield sampled(2, f"E[½(v₁ᵀ∇s v₁ + v₂ᵀ∇s v₂)] = tr ∇s, v₁ ⟂ v₂: {which}", pair, j.trace())
            squares = torch.stack([(pair - j.trace()) ** 2, orthogonal.se**2], 1)
            yield sampled(2, f"its variance and E[se²] = ½ Var[sphere] (d − 2)/(d − 1): {which}", squares, variance.expand(2))


def row_3(full: bool) -> Iterator[Record]:
    for kind, shape in product(KINDS, shapes(full)):
        n = draws(shape, full)
        base, p = network(kind, shape, 3), random_mixture(shape, stream(3))
        x = p.sample(n, generator=stream(3, 1))
        implicit = value_and_slope(ImplicitScoreMatching(sigma=SIGMA), kind, base, x)
        for reduced in (False, True):
            objectives = [SlicedScoreMatching(2, probe, reduced, SIGMA) for probe in PROBES]
            found = [value_and_slope(o, kind, base, x) for o in objectives]
            which = f"{'variance-reduced' if reduced else 'sliced'}, {kind}, {name(shape)}, worst of three laws of v"
            for i, what in enumerate(("E value = implicit's", "… derivative by the parameter a of a·s")):
                yield sampled(3, f"{what}: {which}", torch.stack([f[i] for f in found], 1), implicit[i][:, None])


def row_4(full: bool) -> Iterator[Record]:
    steps = torch.tensor([0.04, 0.02, 0.01, 0.005], dtype=torch.float64)
    for kind, shape in product(KINDS, shapes(full)):
        which = f"{kind}, {name(shape)}"
        model = network(kind, shape, 4)
        x = random_mixture(shape, stream(4)).sample(200 if full else 50, generator=stream(4, 1))
        derived = SlicedScoreMatching(sigma=SIGMA)(model, x, generator=stream(4, 2)).value
        slope = gradient(model, derived.mean())
        errors = []
        for step in steps.tolist():
            value = FiniteDifferenceScoreMatching(step=step, sigma=SIGMA)(model, x, generator=stream(4, 2)).value
            errors.append(torch.stack([(value - derived).norm(), (gradient(model, value.mean()) - slope).norm()]))
        orders = fitted_slope(steps.log(), torch.stack(errors).detach().log())
        for what, order in zip(("value", "gradient in θ"), orders.tolist(), strict=True):
            yield close(4, f"order of |finite-difference − sliced| in ε, {what}: {which} [fit, ±0.05]", order, 2.0, 0.05)
        yield in_single_precision(which, model, x)


def in_single_precision(which: str, model: nn.Module, x: Tensor) -> Record:
    """At float32's default ε: the root mean square of the error relative to that of the value."""
    single, x = deepcopy(model).float(), x.float()
    objectives = FiniteDifferenceScoreMatching(sigma=SIGMA), SlicedScoreMatching(sigma=SIGMA)
    differences, derived = (o(single, x, generator=stream(4, 2)).value.detach().double() for o in objectives)  # type: ignore[arg-type]
    error = float((differences - derived).norm() / derived.norm())
    return close(4, f"relative error of differences in float32, default ε: {which} [1 %]", error, 0.0, 0.01)


def draws(shape: Shape, full: bool) -> int:
    """How many examples; an image has more coordinates, and each costs a direction."""
    return (10_000 if len(shape) == 1 else 2000) * (5 if full else 1)


def value_and_slope(objective: Objective, kind: Kind, base: Score, x: Tensor) -> tuple[Tensor, Tensor]:
    """The values `(n,)` at a = 0.7 of the family a·s, and their derivatives by a, `(n,)`."""
    a = torch.full((len(x),), 0.7, dtype=torch.float64, requires_grad=True)
    model = ScaledEnergy(base, a) if kind == "energy" else Scaled(base, a)  # type: ignore[arg-type]
    value = objective(model, x, generator=stream(3, 2)).value
    return value.detach(), torch.autograd.grad(value.sum(), a)[0]


def with_noise(x: Tensor, g: torch.Generator) -> Tensor:
    """x + σz with the noise that the objectives draw from the same stream."""
    return x + SIGMA * torch.randn(x.shape, generator=g, dtype=x.dtype)


def gradient(model: nn.Module, value: Tensor) -> Tensor:
    """∇_θ of a number, flat; zeros for what it does not depend on."""
    parts = torch.autograd.grad(value, list(model.parameters()), retain_graph=True, materialize_grads=True)
    return torch.cat([p.flatten() for p in parts])


def steepest_slopes(model: nn.Module, objectives: tuple[Objective, Objective], x: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """Slopes of two objectives along the second one's steepest direction, on batches of x, `(batches,)` each."""

    def slopes(objective: Objective, part: Tensor, key: int) -> Tensor:
        return gradient(model, objective(model, part, generator=stream(row, 5, key)).value.mean())  # type: ignore[arg-type]

    pilot, *parts = x.tensor_split(BATCHES + 1)
    direction = slopes(objectives[1], pilot, 0)
    direction = direction / direction.norm()
    found = [[slopes(o, part, key) @ direction for o in objectives] for key, part in enumerate(parts, 1)]
    left, right = torch.tensor(found, dtype=torch.float64).T
    return left, right


def fitted_slope(x: Tensor, y: Tensor) -> Tensor:
    """Least-squares slopes of the columns of y `(n, k)` against x `(n,)`."""
    centred = x - x.mean()
    return centred @ y / (centred**2).sum()
