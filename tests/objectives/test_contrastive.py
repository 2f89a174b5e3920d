"""Maximum likelihood and noise contrast of energies: gradients against closed forms, and what they learn (rows 22, 23)."""

import math

import pytest
import torch
from torch import Tensor, nn

from scorefield.densities import Pairwise, enumerate_states, gaussian, log_partition_exact
from scorefield.errors import RunError
from scorefield.interfaces import Density, Energy, Objective
from scorefield.objectives import ContrastiveDivergence, NoiseContrastiveEstimation, PersistentContrastiveDivergence
from scorefield.samplers import HMC, ULA, Gibbs

SIGMAS = 4.5


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Normal(Energy):
    """log f = −a‖x − m‖²/2, a and m learned, at every σ alike; log Z = d/2 log 2π/a."""

    sigma_range = (0.0, 10.0)

    def __init__(self, shape: tuple[int, ...], a: float = 1.0, m: float = 0.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))
        self.m = nn.Parameter(torch.full(shape, m, dtype=torch.float64))

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return -self.a * ((x - self.m) ** 2).flatten(1).sum(1) / 2

    def log_z(self) -> Tensor:
        return self.m.numel() * (2 * math.pi / self.a).log() / 2


def gradients(objective: Objective, model: nn.Module, x: Tensor, repeats: int) -> Tensor:
    """The gradient in all parameters from each of `repeats` batches, `(repeats, parameters)`."""
    rows = []
    for i in range(repeats):
        part = x[i * len(x) // repeats : (i + 1) * len(x) // repeats]
        loss = objective(model, part, generator=stream(i)).value.mean()  # type: ignore[arg-type]
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    return torch.stack(rows).double()


def agree(found: Tensor, exact: Tensor) -> None:
    error = (found.mean(0) - exact) / (found.std(0) / len(found) ** 0.5)
    assert error.abs().max() < SIGMAS, f"{error.abs().max():.1f} standard errors"


@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_long_chains_give_the_likelihoods_gradient(shape: tuple[int, ...], sigma: float) -> None:
    """Chains long enough to forget the data: −∇ E[log p_θ], of the data with its noise; persistent ones after a while."""
    model, data = Normal(shape, a=1.5, m=0.3), gaussian(torch.zeros(shape), 0.8)
    x = data.sample(20_000, generator=stream(0))
    noised = gaussian(torch.zeros(shape), 0.8 + sigma**2).sample(200_000, generator=stream(1))
    likelihood = model.log_density(noised).mean() - model.log_z()
    exact = -torch.cat([g.flatten() for g in torch.autograd.grad(likelihood, list(model.parameters()))])
    long = ContrastiveDivergence(25, HMC(3), step_size=0.15, sigma=sigma)
    agree(gradients(long, model, x, 40), exact)
    hot = ContrastiveDivergence(40, HMC(3), step_size=0.15, sigma=sigma, hottest=3.0, from_noise=True)
    agree(gradients(hot, model, x, 40), exact)
    persistent = PersistentContrastiveDivergence(shape, 1000, 0.01, 10, HMC(3), 0.15, sigma)
    persistent.double()
    gradients(persistent, model, x, 40)
    agree(gradients(persistent, model, x, 40), exact)


def test_gibbs_chains_give_the_likelihoods_gradient() -> None:
    d, model = 3, Pairwise(3).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream(2)) / 2)
    space = enumerate_states(d)
    data = torch.randn(len(space), generator=stream(3)).softmax(0).double()
    exact = -torch.cat([
        g.flatten()
        for g in torch.autograd.grad(data @ model.log_density(space) - log_partition_exact(model, d), list(model.parameters()))
    ])  # fmt: skip
    x = space[torch.multinomial(data, 20_000, True, generator=stream(4))]
    agree(gradients(ContrastiveDivergence(15, Gibbs()), model, x, 40), exact)


def test_short_chains_are_biased_as_theory_says() -> None:
    """One Langevin step of size h from N(0, 1) for N(0, 1/a): E x⁻² = (1 − ah)² + 2h, and −∂_a E log f(x) − … follows."""
    a, h = 2.0, 0.1
    model, x = Normal((1,), a), gaussian(torch.zeros(1), 1.0).sample(60_000, generator=stream(5))
    found = gradients(ContrastiveDivergence(1, ULA(), h), model, x, 60)[:, :1]
    second = (1 - a * h) ** 2 + 2 * h
    agree(found, torch.tensor([(1 - second) / 2]))


@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=str)
@pytest.mark.parametrize(
    "make",
    [
        lambda shape, noise: PersistentContrastiveDivergence(shape, 512, 0.0, 5, HMC(2), 0.2),
        lambda shape, noise: ContrastiveDivergence(5, HMC(2), 0.2),
        lambda shape, noise: NoiseContrastiveEstimation(noise, 2),
        lambda shape, noise: NoiseContrastiveEstimation(noise, 4, "ranking"),
    ],
    ids=["persistent", "divergence", "binary", "ranking"],
)
def test_what_they_learn_is_the_data(shape: tuple[int, ...], make) -> None:  # type: ignore[no-untyped-def]
    """N(0.5, 0.64): a = 1/0.64 and m = ½ within five per cent or so, the constant log Z."""
    model, noise = Normal(shape), gaussian(torch.zeros(shape), 1.2)
    objective = make(shape, noise).double()
    data = gaussian(torch.full(shape, 0.5), 0.64).sample(20_000, generator=stream(6))
    parameters = [*model.parameters(), *objective.parameters()]
    optimizer = torch.optim.Adam(parameters, 0.05)
    for step in range(500):
        x = data[torch.randint(len(data), (500,), generator=stream(step))]
        optimizer.zero_grad()
        objective(model, x, generator=stream(10_000 + step)).value.mean().backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 500)
        optimizer.step()
    assert float(model.a) == pytest.approx(1 / 0.64, rel=0.05)
    assert (model.m - 0.5).abs().max() < 0.05
    if isinstance(objective, NoiseContrastiveEstimation) and objective.kind == "binary":
        assert float(objective.log_z) == pytest.approx(float(model.log_z()), abs=0.06)


def test_the_noise_contrastive_loss_by_hand() -> None:
    """One example, two draws: the definition, spelt out."""
    model, noise, x = Normal((1,), 2.0), gaussian(torch.zeros(1), 3.0), torch.tensor([[0.7]], dtype=torch.float64)
    for kind in ("binary", "ranking"):
        objective = NoiseContrastiveEstimation(noise, 2, kind).double()  # type: ignore[arg-type]
        with torch.no_grad():
            objective.log_z.fill_(0.4)
        value = objective(model, x, generator=stream(7)).value
        others = noise.sample(2, generator=stream(7))
        f = lambda y: float(model.log_density(y) - noise.log_density(y))  # noqa: E731
        data, one, other = f(x), f(others[:1]), f(others[1:])
        if kind == "binary":
            c = 0.4 + math.log(2)
            by_hand = math.log1p(math.exp(c - data)) + math.log1p(math.exp(one - c)) + math.log1p(math.exp(other - c))
        else:
            by_hand = math.log(math.exp(data) + math.exp(one) + math.exp(other)) - data
        assert float(value) == pytest.approx(by_hand, abs=1e-12)


def test_looking_changes_no_state() -> None:
    """Validation, which runs without gradients, moves neither chains nor the step size; training moves both."""
    objective, model = PersistentContrastiveDivergence((2,), 64, steps=3).double(), Normal((2,))
    x = torch.randn(32, 2, generator=stream(8), dtype=torch.float64)
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    with torch.no_grad():
        objective(model, x, generator=stream(9))
    assert all(v.equal(before[k]) for k, v in objective.state_dict().items())
    objective(model, x, generator=stream(9))
    after = objective.state_dict()
    assert not after["log_step"].equal(before["log_step"])
    assert (after["replay"] != before["replay"]).any(1).sum() > 16  # about 32 chains, of which most moves are taken


def test_regularisation_and_what_is_logged() -> None:
    model, x = Normal((2,)), torch.randn(100, 2, generator=stream(10), dtype=torch.float64)
    plain, heavy = (ContrastiveDivergence(1, ULA(), regularisation=r)(model, x, generator=stream(0)) for r in (0.0, 0.5))
    at_data = model.log_density(x)
    at_negatives = plain.value + at_data
    torch.testing.assert_close(heavy.value, plain.value + (at_data**2 + at_negatives**2) / 2)
    torch.testing.assert_close(plain.info["gap"], -plain.value.detach().mean())


class Growing(Normal):
    """Rises without end."""

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return self.a * (x**2).flatten(1).sum(1)


class Spoilt(Normal):
    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return super().log_density(x) * math.inf


class Far(Normal):
    """Finite at the data and far below it elsewhere."""

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        return 1e6 * super().log_density(x)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (Spoilt((2,)), "energies diverge: the log-density of data is not finite"),
        (Growing((2,)), "chains leave the data's box"),
        (Far((2,)), "the gap between data and negatives explodes"),
    ],
)
def test_what_runs_away_is_stopped_with_its_cause(model: Density, match: str) -> None:
    x = torch.randn(50, 2, generator=stream(11), dtype=torch.float64)
    with pytest.raises(RunError, match=match):
        ContrastiveDivergence(30, ULA(), 0.1 if not isinstance(model, Far) else 1e-12, from_noise=True)(
            model, 0.01 * x if isinstance(model, Far) else x, generator=stream(0)
        )


def test_what_they_refuse() -> None:
    model, x = Normal((2,)), torch.randn(8, 2, generator=stream(12), dtype=torch.float64)
    column = Normal((2,))
    column.log_density = lambda x, sigma=0.0, cond=None: -(x**2).sum(1, keepdim=True)  # type: ignore[method-assign]

    class Wedge:
        def sample(self, n: int, sigma: float = 0.0, *, generator: torch.Generator | None = None) -> Tensor:
            return torch.rand(n, 2, generator=generator, dtype=torch.float64) + 5

        def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
            return torch.where(((x >= 5) & (x <= 6)).all(1), 0.0, -math.inf)

    for match, call in {
        "steps must be": lambda: ContrastiveDivergence(0),
        "step_size must be": lambda: ContrastiveDivergence(step_size=-1.0),
        "hottest must be": lambda: ContrastiveDivergence(hottest=0.0),
        "regularisation must be": lambda: ContrastiveDivergence(regularisation=-1.0),
        "size must be": lambda: PersistentContrastiveDivergence((2,), 0),
        "fresh must be": lambda: PersistentContrastiveDivergence((2,), 10, 2.0),
        "a batch of 8 needs": lambda: PersistentContrastiveDivergence((2,), 7)(model, x),
        "chains are of floating-point events": lambda: PersistentContrastiveDivergence((1,))(model, x),
        "from_noise is for continuous data": lambda: ContrastiveDivergence(1, Gibbs(), from_noise=True)(
            Pairwise(2), torch.zeros(3, 2, dtype=torch.int64)
        ),
        "train with conditions by": lambda: PersistentContrastiveDivergence((2,))(model, x, torch.zeros(8)),
        "one number per example": lambda: ContrastiveDivergence(1)(column, x),
        "NaN or infinity": lambda: ContrastiveDivergence(1)(model, x / 0),
        "ratio must be": lambda: NoiseContrastiveEstimation(gaussian(torch.zeros(2), 1.0), 0),
        "choose binary or ranking": lambda: NoiseContrastiveEstimation(gaussian(torch.zeros(2), 1.0), 1, "other"),  # type: ignore[arg-type]
        "noise must cover the data": lambda: NoiseContrastiveEstimation(Wedge())(model, x),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()
