"""Rows 17 and 21: models that have learned, a few seconds each.

    17   ‖ŝ − s‖²/‖s‖² at points uniform in a box, by tenths of log p: a score is learned where the data lies. Noise puts
         data everywhere, but a single level learns p_σ for p; many levels have one that covers the box and one that is p
    21   J = ∇ŝ is symmetric for an energy, whatever it learned; a direct model's antisymmetric part is only reported

The data of row 17 is Song & Ermon's, p = 1/5 N((−5, −5), I) + 4/5 N((5, 5), I) in the box [−8, 8]², divided by 5.

Reference: Song & Ermon 2019, arXiv:1907.05600 (section 3.2, figure 2).
"""

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from scorefield.densities import GaussianMixture
from scorefield.interfaces import Field, Objective, Score
from scorefield.metrics.score import curl, error_by_log_density, relative_error
from scorefield.models import EnergyModel, ModelSpec, ScoreModel
from scorefield.networks import MLPConfig
from scorefield.objectives import DenoisingAt, DenoisingScoreMatching, LogUniform
from scorefield.verify.families import KINDS, name, network, quadratic, random_mixture, seeded, shapes, stream
from scorefield.verify.record import Record, bounded, exact, ordered

BOX = 1.6
CLEAN, ONE, LARGEST = 0.02, 0.5, 2.0
"""σ: as good as none beside the data's own 0.2; the single level; the largest of many"""


def row_17(full: bool) -> Iterator[Record]:
    p = two_modes()
    steps = 4000 if full else 600
    uniform = BOX * (2 * torch.rand(20_000, 2, generator=stream(17), dtype=torch.float64) - 1)
    data = p.sample(20_000, CLEAN, generator=stream(17, 1))

    clean = learned_score(p, DenoisingAt(CLEAN, control_variate=True), steps)
    estimate, truth = scores(clean, p, uniform, CLEAN)
    tenths = error_by_log_density(estimate, truth, p.log_density(uniform, CLEAN))
    found = torch.tensor([tenth.value for tenth in tenths], dtype=torch.float64)
    statement = "error without noise: in the lowest and in the highest tenth of the box by log p"
    yield ordered(17, statement, float(found[0]), float(found[-1]))
    order = torch.stack([found, -torch.arange(10)]).argsort(1).argsort(1).double()
    statement = "rank correlation of the tenths' error with rarity, and the least that counts as growing"
    yield ordered(17, statement, float(torch.corrcoef(order)[0, 1]), 0.7)
    without = relative_error(estimate, truth).value

    one = learned_score(p, DenoisingAt(ONE), steps)
    with_one = relative_error(*scores(one, p, uniform, ONE)).value
    yield ordered(17, f"error in the box: without noise, and at one level σ = {ONE:g}", without, with_one)

    many = learned_score(p, DenoisingScoreMatching(LogUniform()), steps)
    with_many = relative_error(*scores(many, p, uniform, LARGEST)).value
    yield ordered(17, f"error in the box: at one level, and at the largest of many, σ = {LARGEST:g}", with_one, with_many)
    truth = p.score(data, CLEAN)
    biased = relative_error(one.score(data.float(), ONE), truth).value
    faithful = relative_error(many.score(data.float(), CLEAN), truth).value
    yield ordered(17, f"error on the data: of one level σ = {ONE:g}, and of the smallest of many, {CLEAN:g}", biased, faithful)


def row_21(full: bool) -> Iterator[Record]:
    steps = 500 if full else 50
    for shape in shapes(full):
        field = quadratic("direct", shape, stream(21))
        x = random_mixture(shape, stream(21, 1)).sample(20, generator=stream(21, 2))
        j = field.jacobian()
        expected = ((j - j.T) / 2).norm() / j.norm()
        yield exact(21, f"‖(J − Jᵀ)/2‖/‖J‖ of s = Jx: {name(shape)}", curl(Field(field), x), expected.detach())
        mixture = random_mixture(shape, stream(21, 1))
        yield exact(21, f"∇log p of a mixture is curl-free: {name(shape)}", curl(Field(mixture, 0.5), x), 0.0)
    for kind, shape in product(KINDS, shapes(full)):
        p = random_mixture(shape, stream(21, 1))
        model = network(kind, shape, 21, unet=True).float()
        train(21, model, DenoisingScoreMatching(LogUniform()), p, steps)
        x = p.sample(20, 0.5, generator=stream(21, 3))
        part = curl(Field(model.double(), 0.5), x)
        if isinstance(model, EnergyModel):
            yield exact(21, f"a learned energy's score is curl-free: {name(shape)}", part, 0.0)
        else:
            statement = f"‖(J − Jᵀ)/2‖/‖J‖ of a learned direct score: {name(shape)}, mean"
            yield bounded(21, statement, float(part.detach().mean()), 1.0)


def two_modes() -> GaussianMixture:
    means = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    return GaussianMixture(torch.tensor([0.2, 0.8]), means, torch.full((2,), 0.2**2, dtype=torch.float64))


def learned_score(p: GaussianMixture, objective: Objective, steps: int) -> ScoreModel:
    """A direct score from a small MLP on bare coordinates."""
    net = seeded(lambda: MLPConfig(width=64, blocks=2, frequencies=0).build((2,)), 17)
    model = ScoreModel(net, ModelSpec((2,), sigma_range=(CLEAN, LARGEST)))
    train(17, model, objective, p, steps)
    return model


def train(
    row: int, model: ScoreModel | EnergyModel, objective: Objective, p: GaussianMixture, steps: int, batch: int = 256
) -> None:
    """Adam with a rate that falls linearly to zero; every batch is fresh."""
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for step in range(steps):
        g = stream(row, 2, step)
        x = p.sample(batch, generator=g).float()
        optimiser.zero_grad()
        objective(model, x, generator=g).value.mean().backward()
        optimiser.step()
        schedule.step()


def scores(model: Score, p: GaussianMixture, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """The learned and the true score of p_σ at x."""
    with torch.no_grad():
        return model.score(x.float(), sigma), p.score(x, sigma)
