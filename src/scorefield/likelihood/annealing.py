"""log Z by walking from a law that can be sampled to the density in question, along densities between.

    path      f₀ normalised and sampled exactly, f₁, …, f_K = f unnormalised
    AIS       log w = Σ log f_k(x_{k−1}) − log f_{k−1}(x_{k−1}),  x_k ~ T_k(x_{k−1}),  T_k leaves f_k invariant;  E w = Z
    backward  the same along the same chain begun at an exact draw of f:  E 1/w = 1/Z
    SMC       AIS whose particles are drawn anew, by their weights, whenever few of them count

Along noise levels particles need not stand still between rungs. They can take a step of the reverse diffusion p(x'|x), whose
way back, to add noise, is a known normal law q(x|x'): that puts q(x|x')/p(x'|x) into the weight, and what is left to chance is
how far the step is from the true one, in place of all that a level changes. In many dimensions that is very much less.

    denoising   log w += log f_k(x_k) − log f_{k−1}(x_{k−1}) + log q(x_{k−1}|x_k) − log p(x_k|x_{k−1})

By Jensen's inequality E log w ≤ log Z forward, and E log w ≥ log Z backward. The kernels' step sizes come from a pilot run and
are frozen, since a kernel that adapts to its own path leaves nothing invariant.

Paths are geometric, f_k = q^{1−β} f^β, or along the noise levels of a model that knows them all, from σ_max, where it is
all but Gaussian, to the level asked for; constants that depend on σ do no harm. Generators, bases and models must live on one
device.

Reference: Neal 2001, arXiv:physics/9803008 (AIS); Grosse et al. 2015, arXiv:1511.02543 (bounds from both sides);
Del Moral et al. 2006, doi:10.1111/j.1467-9868.2006.00553.x (SMC); Douc & Cappé 2005, arXiv:cs/0507025 (systematic resampling);
Doucet et al. 2022, arXiv:2208.07698 (reverse diffusions within AIS).
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield.densities import AtLevel, Product, Tempered, gaussian
from scorefield.densities.confinement import check_confined
from scorefield.interfaces import Proposal, ScoredDensity, home
from scorefield.likelihood.partition import LARGEST_SE, Mean, Partition, check_budget, log_mean, weighted, wide
from scorefield.samplers import HMC, Kernel, Target
from scorefield.samplers.descent import noise_like
from scorefield.samplers.kernels import Point, check_continuous
from scorefield.samplers.levels import Geometric
from scorefield.tensors import event_size, sum_event

Watch = Callable[[int], None]
FEWEST_OF_AN_ISLAND = 16


@dataclass(frozen=True)
class Denoising:
    """A step of the reverse diffusion from level a down to b, and its way back, in coordinates x/√(1 + σ²) at either level.

    Down it is N(x + (a² − b²) s, variance), back N(x, a² − b²), which is exact. The variance, a tensor broadcast over an event,
    may be any; ancestral sampling's b²(a² − b²)/a² is right where the data is narrower than b, a² − b² where wider than a.

    Raises:
        ValueError: levels that do not go down or reach 0, or a variance that is not positive.
    """

    a: float
    b: float
    variance: Tensor

    def __post_init__(self) -> None:
        if not 0 < self.b < self.a < math.inf:
            raise ValueError(f"a denoising step goes down to a level above 0, got {self.a:g} to {self.b:g}")
        if not (self.variance > 0).all():
            raise ValueError("the variance of a denoising step must be positive")

    @property
    def added(self) -> float:
        """Variance of the noise on the way back."""
        return self.a**2 - self.b**2

    def down(self, point: Point, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Where the chains get to, and log q(back)/p(there) `(b,)`, float64."""
        x = (self.mean(point) + self.variance.sqrt() * noise_like(point.x, generator)) / unit(self.b)
        return x, self.log_ratio(point, x)

    def back(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """The same with noise added again."""
        return (unit(self.b) * x + math.sqrt(self.added) * noise_like(x, generator)) / unit(self.a)

    def log_ratio(self, point: Point, x: Tensor) -> Tensor:
        """log q(point|x)/p(x|point), nats, `(b,)`, float64."""
        there = (unit(self.b) * x - self.mean(point)).double() ** 2 / self.variance - (self.added / self.variance).log()
        back = (unit(self.a) * point.x - unit(self.b) * x).double() ** 2 / self.added
        return sum_event(there - back) / 2 + event_size(x) * math.log(unit(self.a) / unit(self.b))

    def mean(self, point: Point) -> Tensor:
        """Of the step down, in the model's own coordinates."""
        return unit(self.a) * point.x + self.added / unit(self.a) * point.score


def best_variance(a: float, b: float, scores: Tensor) -> Tensor:
    """The variance that a step from a to b should have in each coordinate, `(*event)`, from scores at level a `(b, *event)`.

    b²(a² − b²)/a² + ((a² − b²)/a²)² Var[x₀|x], with the posterior's mean variance a²(1 − a² E s²): Bao et al. 2022,
    arXiv:2201.06503 (theorem 1), in each coordinate. What chance makes of E s² can leave less than no variance; it counts as 0.
    """
    added = a**2 - b**2
    posterior = 1 - a**2 * (scores**2).mean(0)
    return (b**2 * added + added**2 * posterior.clamp(min=0)) / a**2


def unit(sigma: float) -> float:
    """√(1 + σ²), the standard deviation at level σ of data of variance 1."""
    return math.sqrt(1 + sigma**2)


@dataclass(frozen=True)
class Path:
    """From a law that can be sampled to a density with an unknown Z, both at σ = 0.

    Raises:
        ValueError: no rungs, one without log-density and score, or steps that are not one fewer than rungs.
    """

    base: Proposal
    rungs: tuple[ScoredDensity, ...]
    """f₁ … f_K"""
    sigma: float = 0.0
    """the noise level of f_K in its model, for the record"""
    scale: float = 1.0
    """f_K is the density of x/scale for x of the model"""
    steps: tuple[Denoising, ...] | None = None
    """from each rung to the next; None where particles stand still"""

    def __post_init__(self) -> None:
        if not self.rungs:
            raise ValueError("a path needs at least one step: a larger budget")
        if self.steps is not None and len(self.steps) != len(self.rungs) - 1:
            raise ValueError(f"{len(self.rungs)} rungs have {len(self.rungs) - 1} steps between them, got {len(self.steps)}")
        for rung in self.rungs:
            check_continuous(rung)

    @property
    def home(self) -> Tensor:
        """Dtype and device of the walk."""
        return home(self.rungs[-1])

    def onwards(self, k: int, point: Point, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """From rung k to the next: where to, and what that adds to the log-weights besides log f_{k+1} − log f_k, `(b,)`."""
        if self.steps is None:
            return point.x, torch.zeros_like(point.log_density, dtype=torch.float64)
        return self.steps[k].down(point, generator)

    def backwards(self, k: int, x: Tensor, generator: torch.Generator | None) -> tuple[Point, Tensor]:
        """From rung k + 1 to rung k, and what the way onwards from there adds."""
        if self.steps is None:
            point = Target(self.rungs[k]).at(x)
            return point, torch.zeros_like(point.log_density, dtype=torch.float64)
        point = Target(self.rungs[k]).at(self.steps[k].back(x, generator))
        return point, self.steps[k].log_ratio(point, x)


def geometric_path(base: Proposal, density: ScoredDensity, sigma: float = 0.0, steps: int = 100, power: float = 3.0) -> Path:
    """q^{1−β} f^β with β = (k/steps)^power: small steps first, where f is unlike q."""
    f = AtLevel(density, sigma)
    betas = [(k / steps) ** power for k in range(1, steps)]
    return Path(base, (*(Product([Tempered(base, 1 - b), Tempered(f, b)]) for b in betas), f), sigma)  # type: ignore[arg-type]


def noise_path(
    model: ScoredDensity,
    event_shape: tuple[int, ...],
    sigma: float | None = None,
    steps: int = 100,
    sigma_max: float | None = None,
    denoising: bool = False,
    pilot: int = 256,
    generator: torch.Generator | None = None,
    watch: Watch = lambda rungs: None,
) -> Path:
    """p_σ at levels in geometric progression from σ_max down to `sigma` (the model's largest and smallest).

    In coordinates x/√(1 + σ²), in which a model of data of variance 1 begins as N(0, I) and changes only where its structure
    shows. With `denoising` particles go from level to level by the reverse diffusion, with variances found by a pilot run of
    `pilot` particles, whose own error counts: few of them cost weight. Such a path needs no kernel (`moves=0`).

    Raises:
        ValueError: levels that the model does not answer for, fewer than 2 of them, or too small a pilot run.
    """
    low, high = model.sigma_range[0] if sigma is None else sigma, sigma_max or model.sigma_range[1]
    check_budget(steps)
    check_budget(pilot)
    levels = Geometric()(steps, (low, high))
    rungs = tuple(AtLevel(model, level, unit(level)) for level in levels)
    base = gaussian(torch.zeros(event_shape, device=home(model).device), 1.0)
    path = Path(base, rungs, low, unit(levels[-1]))
    if not denoising:
        return path
    return replace(path, steps=tuple(learned_steps(levels, path, base.sample(pilot, generator=generator), generator, watch)))


@torch.no_grad()
def learned_steps(
    levels: Sequence[float], path: Path, x: Tensor, generator: torch.Generator | None, watch: Watch
) -> Iterator[Denoising]:
    """The steps between all levels, each with the variance that suits the particles which it brings to the next."""
    x = x.to(path.home)
    for (a, b), rung in zip(itertools.pairwise(levels), path.rungs, strict=False):
        point = Target(rung).at(x)
        step = Denoising(a, b, best_variance(a, b, point.score / unit(a)))
        x, _ = step.down(point, generator)
        watch(1)
        yield step


@dataclass(frozen=True)
class Annealing:
    """How the walk is done.

    Raises:
        ValueError: fewer than 2 particles, islands or pilot particles, a negative number of moves, islands that do not divide
            the particles, or moves of a kernel without a Metropolis test; when called, no moves on a path without steps, or a
            density that is not confined.
    """

    particles: int = 512
    """walkers; of AIS each has a weight of its own"""
    kernel: Kernel = HMC(3)
    """what moves them; it must be one with a Metropolis test"""
    moves: int = 1
    """of the kernel at each rung; 0 for paths with steps of their own"""
    islands: int = 8
    """SMC: groups of particles that know nothing of each other, whose estimates tell the error"""
    pilot: int = 32
    """particles of the pilot run"""

    def __post_init__(self) -> None:
        for name in ("particles", "islands", "pilot"):
            check_budget(getattr(self, name))
        if self.moves < 0:
            raise ValueError(f"moves must be at least 0, got {self.moves}")
        if self.particles % self.islands:
            raise ValueError(f"{self.particles} particles cannot be divided among {self.islands} islands")
        if self.moves and self.kernel.aim is None:
            raise ValueError(f"{type(self.kernel).__name__} does not leave its law invariant: use MALA or HMC")

    def evaluations(self, path: Path) -> int:
        """What a walk of one particle costs, about; the pilot's is not in it."""
        return len(path.rungs) * (1 + self.moves * self.kernel.evaluations)

    @torch.no_grad()
    def step_sizes(
        self, path: Path, *, generator: torch.Generator | None = None, watch: Watch = lambda rungs: None
    ) -> list[float]:
        """The step size at each rung, by a pilot run that moves it towards the acceptance aimed at; all 1 without moves."""
        if not self.moves:
            return [1.0] * len(path.rungs)
        x = path.base.sample(self.pilot, generator=generator).to(path.home)
        log_h, found = math.log(0.1 * float(x.var())), []
        for k, rung in enumerate(path.rungs):
            target = Target(rung)
            point = target.at(x)
            for i in range(20 if k == 0 else 2):
                point, probability = self.kernel(target, point, math.exp(log_h), generator)
                log_h += (2.0 if k == 0 and i < 15 else 0.5) * (float(probability.mean()) - (self.kernel.aim or 0.0))
            found.append(math.exp(log_h))
            if k + 1 < len(path.rungs):
                x, _ = path.onwards(k, point, generator)
            watch(1)
        return found

    @torch.no_grad()
    def importance(
        self,
        path: Path,
        step_sizes: Sequence[float] | None = None,
        *,
        exact: Tensor | None = None,
        generator: torch.Generator | None = None,
        watch: Watch = lambda rungs: None,
    ) -> Partition:
        """log Z by annealed importance sampling; with `exact` samples of f `(n, *event)` also the bound from above."""
        self.check(path)
        sizes = self.step_sizes(path, generator=generator, watch=watch) if step_sizes is None else step_sizes
        x = path.base.sample(self.particles, generator=generator).to(path.home)
        log_weights = -path.base.log_density(x).double()
        before = torch.zeros_like(log_weights)
        for k, (rung, h) in enumerate(zip(path.rungs, sizes, strict=True)):
            target = Target(rung)
            point = target.at(x)
            log_weights += point.log_density.double() - before
            if k + 1 < len(path.rungs):
                point = self.moved(target, point, h, generator)
                x, ratio = path.onwards(k, point, generator)
                before = point.log_density.double() - ratio
            watch(1)
        upper = None if exact is None else self.backward(path, exact, sizes, generator, watch)
        spent = self.evaluations(path) * (self.particles + (0 if exact is None else len(exact)))
        return weighted("AIS", log_weights, path.sigma, spent, upper)

    def backward(
        self, path: Path, exact: Tensor, sizes: Sequence[float], generator: torch.Generator | None, watch: Watch
    ) -> Mean:
        """E log w ≥ log Z over chains that begin at exact draws of f and go back to the base."""
        x = exact.to(path.home) / path.scale
        log_weights = Target(path.rungs[-1]).at(x).log_density.double()  # the draws are exact there: no move
        for k in reversed(range(len(path.rungs) - 1)):
            point, ratio = path.backwards(k, x, generator)
            log_weights += ratio - point.log_density.double()
            point = self.moved(Target(path.rungs[k]), point, sizes[k], generator)
            log_weights += point.log_density.double()
            x = point.x
            watch(1)
        log_weights -= path.base.log_density(x).double()
        return Mean(float(log_weights.mean()), float(log_weights.std()) / len(x) ** 0.5)

    @torch.no_grad()
    def sequential(
        self,
        path: Path,
        step_sizes: Sequence[float] | None = None,
        *,
        generator: torch.Generator | None = None,
        watch: Watch = lambda rungs: None,
    ) -> Partition:
        """log Z by sequential Monte Carlo, from islands of particles that each give an unbiased Ẑ."""
        self.check(path)
        sizes = self.step_sizes(path, generator=generator, watch=watch) if step_sizes is None else step_sizes
        groups, each = self.islands, self.particles // self.islands
        x = path.base.sample(self.particles, generator=generator).to(path.home)
        before = path.base.log_density(x).double()
        log_weights = torch.zeros(groups, each, dtype=torch.float64, device=x.device)
        log_z, fewest = torch.zeros(groups, dtype=torch.float64, device=x.device), float(self.particles)
        for k, (rung, h) in enumerate(zip(path.rungs, sizes, strict=True)):
            target = Target(rung)
            point = target.at(x)
            log_weights += (point.log_density.double() - before).reshape(groups, each)
            shares = log_weights.softmax(1)
            effective = (1 / (shares**2).sum(1)).nan_to_num(0.0)
            fewest = min(fewest, float(effective.sum()))
            last = k + 1 == len(path.rungs)
            poor = (effective < each / 2) | last
            if poor.any():
                log_z[poor] += log_weights[poor].logsumexp(1) - math.log(each)
                if not last:
                    chosen = self.resampled(shares, poor, generator)
                    point = Point(*(part[chosen] for part in point))
                log_weights[poor] = 0
            if not last:
                point = self.moved(target, point, h, generator)
                x, ratio = path.onwards(k, point, generator)
                before = point.log_density.double() - ratio
            watch(1)
        value, se, _ = log_mean(log_z)
        problems = [] if se <= LARGEST_SE else [wide(se)]
        if each < FEWEST_OF_AN_ISLAND:
            least = FEWEST_OF_AN_ISLAND * groups
            problems.append(f"islands of {each} particles are too small to tell their error: take {least} particles or more")
        if fewest < self.particles / 10:
            problems.append(f"at some rung only {fewest:.0f} of {self.particles} particles counted: take more rungs")
        lower = Mean(float(log_z.mean()), float(log_z.std()) / groups**0.5)
        spent = self.evaluations(path) * self.particles
        return Partition("SMC", value, se, fewest, lower, None, tuple(problems), path.sigma, spent)

    @torch.no_grad()
    def draws(self, path: Path, step_sizes: Sequence[float], *, generator: torch.Generator | None = None) -> Tensor:
        """As many rows as particles, about of the law f: moved from rung to rung, drawn again where weights are uneven.

        They are not independent, since some may descend from one particle; their law is f's as particles grow in number.
        """
        self.check(path)
        x = path.base.sample(self.particles, generator=generator).to(path.home)
        before, all_of_them = path.base.log_density(x).double(), torch.tensor([True], device=x.device)
        log_weights = torch.zeros(1, self.particles, dtype=torch.float64, device=x.device)
        for k, (rung, h) in enumerate(zip(path.rungs, step_sizes, strict=True)):
            target = Target(rung)
            point = target.at(x)
            log_weights += (point.log_density.double() - before)[None]
            shares, last = log_weights.softmax(1), k + 1 == len(path.rungs)
            if last or 1 / float((shares**2).sum()) < self.particles / 2:
                chosen = self.resampled(shares, all_of_them, generator)
                point = Point(*(part[chosen] for part in point))
                log_weights.zero_()
            point = self.moved(target, point, h, generator)
            x, before = point.x, point.log_density.double()
            if not last:
                x, ratio = path.onwards(k, point, generator)
                before = before - ratio
        return x * path.scale

    def moved(self, target: Target, point: Point, h: float, generator: torch.Generator | None) -> Point:
        """After `moves` steps of the kernel."""
        for _ in range(self.moves):
            point, _ = self.kernel(target, point, h, generator)
        return point

    def resampled(self, shares: Tensor, poor: Tensor, generator: torch.Generator | None) -> Tensor:
        """Particle numbers after systematic resampling of the islands that are `poor`; others keep theirs."""
        groups, each = shares.shape
        u = torch.rand(groups, 1, generator=generator, device=shares.device, dtype=shares.dtype)
        places = (torch.arange(each, device=shares.device) + u) / each
        picked = torch.searchsorted(shares.cumsum(1), places).clamp(max=each - 1)
        own = torch.arange(each, device=shares.device).expand(groups, each)
        numbers = torch.where(poor[:, None], picked, own)
        return (numbers + each * torch.arange(groups, device=shares.device)[:, None]).flatten()

    def check(self, path: Path) -> None:
        """Raises `ValueError` for a density that is not confined, and for particles that would never move."""
        if not self.moves and path.steps is None and len(path.rungs) > 1:
            raise ValueError("without moves particles stand still: take a path with steps, noise_path(…, denoising=True)")
        like = path.base.sample(1, generator=torch.Generator(path.home.device).manual_seed(0))
        check_confined(path.rungs[-1], tuple(like.shape[1:]))
