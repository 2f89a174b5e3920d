"""Rows 22 and 23: what maximum likelihood and noise-contrastive estimation of an unnormalised model have their gradients from.

22   ∇_θ E_p[log p_θ] = E_p[∇_θ log f] − E_{p_θ}[∇_θ log f]: on N(m, P⁻¹), where points with the right moments give both
     expectations exactly, and on an Ising model, from draws of its enumerated law
23   G = log f − c − log q − log ν has the loss's gradient 0 at f e^−c = p, so at c = log Z and no other constant
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from scorefield.densities import Pairwise, enumerate_states, gaussian, log_partition_exact
from scorefield.interfaces import Loss
from scorefield.objectives import NoiseContrastiveEstimation
from scorefield.objectives.contrastive import contrast
from scorefield.verify.families import (
    QuadraticEnergy,
    Shape,
    cubature,
    name,
    random_covariance,
    random_gaussian,
    shapes,
    size,
    stream,
)
from scorefield.verify.record import Record, exact, ordered, sampled


def row_22(full: bool) -> Iterator[Record]:
    for shape in shapes(full):
        yield from gaussian_likelihood(shape)
    yield from ising_likelihood(200_000 if full else 20_000)


def gaussian_likelihood(shape: Shape) -> Iterator[Record]:
    """log Z = ½ log det (2π P⁻¹) is differentiated by PyTorch on one side, and sampled on the other."""
    p = random_gaussian(shape, stream(22))
    precision = random_covariance(size(shape), stream(22, 1))
    model = QuadraticEnergy(torch.randn(shape, generator=stream(22, 2), dtype=torch.float64), precision)
    x = cubature(p.mean(), p.covariance())
    log_z = -torch.logdet((model.precision + model.precision.T) / (4 * math.pi)) / 2
    likelihood = gradient(model.log_density(x).mean() - log_z, model)
    negatives = cubature(model.mean.detach(), torch.linalg.inv(precision))
    at_data, at_negatives = contrast(model, x, negatives)
    found = gradient((at_data - at_negatives).mean(), model)
    yield exact(22, f"∇E log p_θ = E_p ∇log f − E_θ ∇log f: {name(shape)}, Gaussian", found, likelihood, 1e-9)


def ising_likelihood(n: int) -> Iterator[Record]:
    d = 4
    model, space = Pairwise(d).double(), enumerate_states(d)
    with torch.no_grad():
        for key, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=stream(22, 3, key), dtype=torch.float64) / 2)
    data = torch.randn(len(space), generator=stream(22, 4), dtype=torch.float64).softmax(0)
    log_z = log_partition_exact(model, d)
    likelihood = gradient(data @ model.log_density(space) - log_z, model)
    law = (model.log_density(space) - log_z).exp().detach()
    x, negatives = (space[torch.multinomial(w, n, True, generator=stream(22, 5, i))] for i, w in enumerate((data, law)))
    per_draw = features(x) - features(negatives)  # what ∇(log f(x) − log f(x⁻)) is for a model linear in its parameters
    at_data, at_negatives = contrast(model, x, negatives)
    yield exact(
        22, "the contrast's gradient: Ising model", gradient((at_data - at_negatives).mean(), model), per_draw.mean(0), 1e-9
    )
    yield sampled(22, "∇E log p_θ = E_p ∇log f − E_θ ∇log f: Ising model", per_draw, likelihood)


def features(x: Tensor) -> Tensor:
    """x_i and x_i x_j, `(b, d + d(d−1)/2)`."""
    d = x.shape[1]
    i, j = torch.triu_indices(d, d, 1)
    return torch.cat([x, x[:, i] * x[:, j]], 1).double()


def gradient(value: Tensor, model: torch.nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])


def row_23(full: bool) -> Iterator[Record]:
    n = 50_000 if full else 5_000
    for shape in shapes(full)[:2]:
        d = size(shape)
        covariance = random_covariance(d, stream(23))
        p = gaussian(torch.zeros(shape), covariance)
        model = QuadraticEnergy(torch.zeros(shape, dtype=torch.float64), torch.linalg.inv(covariance))
        log_z = float(torch.logdet(2 * math.pi * covariance)) / 2
        noise = gaussian(torch.zeros(shape), 1.5 * float(covariance.diagonal().max()))
        x = p.sample(n, generator=stream(23, 1))
        for ratio in (1, 3):
            which = f"{name(shape)}, ν = {ratio}"
            slopes = slope_in_the_constant(model, NoiseContrastiveEstimation(noise, ratio), log_z, x)
            yield sampled(23, f"the loss is least at c = log Z: {which}", slopes, 0.0)
            off = slope_in_the_constant(model, NoiseContrastiveEstimation(noise, ratio), log_z + 0.5, x)
            yield ordered(23, f"… and not at log Z + ½: {which}", float(off.mean()), 5 * float(off.std()) / n**0.5)
            yield from slopes_in_the_model(model, NoiseContrastiveEstimation(noise, ratio), log_z, x, which)
        ranking = NoiseContrastiveEstimation(noise, 3, "ranking")
        yield from slopes_in_the_model(model, ranking, log_z, x, f"{name(shape)}, ranking")


def loss_of(objective: NoiseContrastiveEstimation, model: QuadraticEnergy, c: float, x: Tensor) -> Loss:
    with torch.no_grad():
        objective.log_z.fill_(c)
    return objective.double()(model, x, generator=stream(23, 2))


def slope_in_the_constant(model: QuadraticEnergy, objective: NoiseContrastiveEstimation, c: float, x: Tensor) -> Tensor:
    """∂loss/∂c of each example, by the difference quotient of a smooth function in float64."""
    up, down = (loss_of(objective, model, c + e, x).value.detach() for e in (1e-4, -1e-4))
    return (up - down) / 2e-4


def slopes_in_the_model(
    model: QuadraticEnergy, objective: NoiseContrastiveEstimation, c: float, x: Tensor, which: str
) -> Iterator[Record]:
    """∂loss/∂m of each example along the first axis, at the true model."""
    values = []
    for e in (1e-4, -1e-4):
        with torch.no_grad():
            model.mean.zero_().flatten()[0] += e
        values.append(loss_of(objective, model, c, x).value.detach())
    with torch.no_grad():
        model.mean.zero_()
    yield sampled(23, f"… and at the true mean: {which}", (values[0] - values[1]) / 2e-4, 0.0)
