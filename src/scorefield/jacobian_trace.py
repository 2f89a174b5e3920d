"""tr ∇s of a score s = ∇ log p: its divergence, the Laplacian of the log-density.

    exact          Σᵢ eᵢᵀ ∇s eᵢ                                 d directions
    Hutchinson     E vᵀ ∇s v,  E vvᵀ = I                        variances for S, the symmetric part of ∇s:
                   Gaussian 2 ‖S‖²    Rademacher 2 (‖S‖² − Σ Sᵢᵢ²)    sphere of radius √d  2d/(d + 2) (‖S‖² − (tr S)²/d)
                   orthogonal: k on that sphere at right angles to each other; their mean has (d − k)/(d − 1) of the
                   variance of k independent ones, and is the trace itself for k = d
    differences    vᵀ (s(x + εv) − s(x − εv)) / 2ε              error of order ε²

Where every layer of a model has a rule (`jets`), directions are pushed through it forwards, all in one pass; elsewhere, vectors
are pulled back in one batch. Both give the same numbers. An example's score must not depend on the rest of its batch.

Reference: Hutchinson 1989, Communications in Statistics 18(3); Song et al. 2019, arXiv:1905.07088; Pang et al. 2020,
arXiv:2007.03317 (differences).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from scorefield.interfaces import Energy, Field, TraceEstimate, check_event, check_scalar
from scorefield.jets import AllDerivatives, Jet, NoRule
from scorefield.tensors import event_size, noise_levels

Probe = Literal["rademacher", "gaussian", "sphere", "orthogonal"]
CHUNK = 256
BLOCK = 32
"""directions that pass a layer together: more would be no faster, and larger than caches"""
T = TypeVar("T")
Part = Callable[[Field, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Exact:
    """The trace itself, for events of any shape.

    More than `chunk` directions are taken in turn. Where every layer has a rule they are computed again in the backward
    pass, so memory does not grow with d; elsewhere it does in training, though not without gradients.

    Raises:
        ValueError: `chunk` < 1.
    """

    chunk: int = CHUNK
    """directions at a time"""

    def __post_init__(self) -> None:
        check_count("chunk", self.chunk)

    def __call__(self, field: Field, x: Tensor, *, generator: torch.Generator | None = None) -> TraceEstimate:
        check_event(x, x.shape[1:])
        return by_jets(field, x, lambda: self.forward(field, x)) or self.reverse(field, x)

    def forward(self, field: Field, x: Tensor) -> TraceEstimate:
        """By jets."""
        energy, again = isinstance(field.model, Energy), event_size(x) > self.chunk
        part = laplacian if energy else divergence
        found = [piece(part, field, x, v, again) for v in basis(x, self.chunk)]
        trace = total([t for _, t in found])
        if energy:
            return TraceEstimate(torch.cat([slopes for slopes, _ in found]).T.reshape(x.shape), trace, None)
        return TraceEstimate(found[0][0], trace, None)

    def reverse(self, field: Field, x: Tensor) -> TraceEstimate:
        """By vectors pulled back."""
        score, pullback = score_and_pullback(field, x)
        rows = torch.func.vmap(pullback)
        traces = [inner(rows(v.expand(len(v), *x.shape)), v).sum(0) for v in basis(x, self.chunk)]
        return TraceEstimate(score, total(traces), None)


@dataclass(frozen=True)
class Hutchinson:
    """An unbiased estimate of the trace from random probes, with its standard error from two probes on.

    Raises:
        ValueError: no probes, or an unknown distribution.
    """

    probes: int = 1
    """independent probes for each example"""
    distribution: Probe = "rademacher"
    """law of the probes; rademacher never has more variance than gaussian, nor sphere, nor orthogonal than sphere"""

    def __post_init__(self) -> None:
        check_probes(self.probes, self.distribution)

    def __call__(self, field: Field, x: Tensor, *, generator: torch.Generator | None = None) -> TraceEstimate:
        v = draw_probes(x, self.probes, self.distribution, generator)
        score, curvature = score_and_curvature(field, x, v)
        return TraceEstimate(score, *mean_of_probes(curvature, event_size(x), self.distribution))


@dataclass(frozen=True)
class FiniteDifference:
    """Hutchinson's estimate without derivatives of the score: central differences along the probes.

    Raises:
        ValueError: no probes, an unknown distribution, or `step` ≤ 0.
    """

    probes: int = 1
    """independent probes for each example"""
    distribution: Probe = "rademacher"
    """law of the probes"""
    step: float | None = None
    """ε; by default machine precision to the power ⅓: 5e-3 in float32, 6e-6 in float64"""

    def __post_init__(self) -> None:
        check_probes(self.probes, self.distribution)
        check_step(self.step)

    def __call__(self, field: Field, x: Tensor, *, generator: torch.Generator | None = None) -> TraceEstimate:
        v = draw_probes(x, self.probes, self.distribution, generator)
        eps = self.step or torch.finfo(x.dtype).eps ** (1 / 3)
        k = len(v)
        score = at_points(field, torch.cat([x + eps * v, x - eps * v, x[None]]))
        curvature = inner(score[:k] - score[k:-1], v) / (2 * eps)
        return TraceEstimate(score[-1], *mean_of_probes(curvature, event_size(x), self.distribution))


class Slices(NamedTuple):
    """Along each of k directions v: the slope vᵀs `(k, b)` and the curvature vᵀ ∇s v `(k, b)` of the log-density."""

    slope: Tensor
    curvature: Tensor


def slices(field: Field, x: Tensor, v: Tensor) -> Slices:
    """Slope and curvature along `v` `(k, b, *event)`; for an energy by one forward pass, without its score."""
    check_event(x, x.shape[1:])
    if isinstance(field.model, Energy) and (found := by_jets(field, x, lambda: slices_forward(field, x, v))):
        return found
    score, curvature = score_and_curvature(field, x, v)
    return Slices(inner(score, v), curvature)


def slices_forward(field: Field, x: Tensor, v: Tensor) -> Slices:
    """The same for an energy by jets."""
    zero = x.new_zeros(()).expand(len(v), 1, *x.shape[1:])
    jet = through(field, Jet(x, v, zero))
    assert jet.second is not None
    return Slices(jet.tangents.expand(v.shape[:2]), jet.second.expand(v.shape[:2]))


def difference_slices(field: Field, x: Tensor, v: Tensor, step: float | None = None) -> Slices:
    """The same by central differences of the log-density (energies, three evaluations) or of the score (two); error O(step²).

    `step` is by default machine precision to the power ¼ for energies (0.019 in float32), ⅓ for scores (0.005): there the
    errors of truncation and of rounding are of one size.
    """
    check_step(step)
    k, eps = len(v), torch.finfo(x.dtype).eps
    if isinstance(field.model, Energy):
        h = step or eps**0.25
        log_p = at_points(field, torch.cat([x + h * v, x - h * v, x[None]]), "log_density")
        ahead, behind, here = log_p[:k], log_p[k:-1], log_p[-1]
        return Slices((ahead - behind) / (2 * h), (ahead + behind - 2 * here) / h**2)
    h = step or eps ** (1 / 3)
    ahead, behind = at_points(field, torch.cat([x + h * v, x - h * v])).split(k)
    return Slices(inner(ahead + behind, v) / 2, inner(ahead - behind, v) / (2 * h))


def draw_probes(x: Tensor, k: int, distribution: Probe, generator: torch.Generator | None = None) -> Tensor:
    """k independent v `(k, *x.shape)` with E vvᵀ = I for each example (orthogonal: at most d of them); integers are refused.

    Raises:
        ValueError: `x` holds no floating-point numbers.
    """
    check_event(x, x.shape[1:])
    v = torch.randn(k, *x.shape, generator=generator, dtype=x.dtype, device=x.device)
    if distribution == "rademacher":
        return torch.where(v > 0, 1.0, -1.0).to(x.dtype)
    if distribution == "sphere":
        norms = v.flatten(2).norm(dim=2).reshape(k, len(x), *[1] * (x.ndim - 1))
        return v * (math.sqrt(event_size(x)) / norms)
    if distribution == "orthogonal":
        columns = v[: event_size(x)].flatten(2).permute(1, 2, 0)  # (b, d, k); the signs that QR chooses do not matter
        q = torch.linalg.qr(columns.float() if x.dtype in (torch.bfloat16, torch.float16) else columns).Q
        return (q * math.sqrt(event_size(x))).permute(2, 0, 1).reshape(-1, *x.shape).to(x.dtype)
    return v


def score_and_curvature(field: Field, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The score `(b, *event)` and vᵀ ∇s v `(k, b)` along `v` `(k, b, *event)`."""
    check_event(x, x.shape[1:])
    jet = None if isinstance(field.model, Energy) else by_jets(field, x, lambda: through(field, Jet(x, v)))
    if jet is not None:
        return jet.value, inner(jet.tangents, v)
    score, pullback = score_and_pullback(field, x)
    return score, inner(pullback(v[0])[None] if len(v) == 1 else torch.func.vmap(pullback)(v), v)


def score_and_pullback(field: Field, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The score `(b, *event)`, and u ↦ uᵀ ∇s for cotangents u like it; both can be differentiated once more."""
    with AllDerivatives():
        score, pullback = torch.func.vjp(field.score, x)  # type: ignore[misc]
    return score, lambda u: pullback(u)[0]


def laplacian(field: Field, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes of an energy along `v` `(k, 1, *event)`, `(k, b)`, and the sum of its curvatures, `(b,)`."""
    zero = x.new_zeros(()).expand(1, 1, *x.shape[1:])
    jets = [through(field, Jet(x, block, zero, summed=True)) for block in v.split(BLOCK)]
    slopes = torch.cat([jet.tangents.expand(-1, len(x)) for jet in jets])
    return slopes, total([jet.second[0] for jet in jets if jet.second is not None]).expand(len(x))


def divergence(field: Field, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A direct score `(b, *event)`, and the part of its trace along `v` `(k, 1, *event)`, `(b,)`."""
    jets = [(through(field, Jet(x, block)), block) for block in v.split(BLOCK)]
    return jets[0][0].value, total([inner(jet.tangents, block).sum(0) for jet, block in jets]).expand(len(x))


def piece(part: Part, field: Field, x: Tensor, v: Tensor, again: bool) -> tuple[Tensor, Tensor]:
    """`part(field, x, v)`; with `again` what it needs for its gradient is not kept but computed again."""
    if again and torch.is_grad_enabled():
        return checkpoint(part, field, x, v, use_reentrant=False, preserve_rng_state=False)
    return part(field, x, v)


def through(field: Field, jet: Jet) -> Jet:
    """The log-density of an energy, or a direct score, as a jet."""
    model = field.model
    verb = model.log_density if isinstance(model, Energy) else model.score
    return verb(jet, field.sigma, field.cond)  # type: ignore[arg-type, return-value]  # a jet stands in for a tensor


_passes: WeakKeyDictionary[object, bool] = WeakKeyDictionary()


def by_jets(field: Field, x: Tensor, forward: Callable[[], T]) -> T | None:
    """What `forward` finds, or None where a layer of the model has no rule for jets."""
    if not passes(field, x):
        return None
    try:
        return forward()
    except NoRule:  # with another condition, or since the network was changed
        _passes[field.model] = False
        return None


def passes(field: Field, x: Tensor) -> bool:
    """Whether every layer of the model has a rule for jets; tried once for each model, on two examples."""
    try:
        known = _passes.get(field.model)
        if known is None:
            known = tried(field, x)
            if known is not None:
                _passes[field.model] = known
    except TypeError:  # not hashable or not weakly referable, so not a module
        return False
    return bool(known)


@torch.no_grad()
def tried(field: Field, x: Tensor) -> bool | None:
    """Push a jet of one direction through two examples; None if the call itself was at fault, which says nothing."""
    some = x[:2]
    sigma = field.sigma[:2] if isinstance(field.sigma, Tensor) and field.sigma.ndim else field.sigma
    first = Field(field.model, sigma, None if field.cond is None else field.cond[:2])
    try:
        out = through(first, Jet(some, some[None], some[None]))
    except (NoRule, TypeError, AttributeError):
        return False
    except Exception:  # the model will say so itself on the other way
        return None
    return isinstance(out, Jet) and out.shape == (some.shape[:1] if isinstance(field.model, Energy) else some.shape)


def at_points(field: Field, points: Tensor, verb: Literal["score", "log_density"] = "score") -> Tensor:
    """The score or the log-density at `points` `(m, b, *event)`, in one batch."""
    m, b = points.shape[:2]
    sigma = noise_levels(field.sigma, points[0]).repeat(m)
    cond = None if field.cond is None else torch.cat([field.cond] * m)
    flat = points.flatten(0, 1)
    if verb == "score":
        return Field(field.model, sigma, cond).score(flat).unflatten(0, (m, b))
    assert isinstance(field.model, Energy)
    return check_scalar(field.model.log_density(flat, sigma, cond), flat).unflatten(0, (m, b))


def basis(x: Tensor, chunk: int) -> Iterator[Tensor]:
    """The directions eᵢ of the event, `(≤ chunk, 1, *event)` at a time."""
    d = event_size(x)
    for start in range(0, d, chunk):
        v = x.new_zeros(min(chunk, d - start), d)
        v.diagonal(start).fill_(1)
        yield v.reshape(len(v), 1, *x.shape[1:])


def total(parts: list[Tensor]) -> Tensor:
    """Their sum."""
    return torch.stack(parts).sum(0)


def inner(a: Tensor, v: Tensor) -> Tensor:
    """Inner products over the event: `(k, b, *event)` to `(k, b)`."""
    return (a * v).flatten(2).sum(2)


def mean_of_probes(curvature: Tensor, d: int, distribution: Probe) -> tuple[Tensor, Tensor | None]:
    """The mean over probes `(k, b)` and its standard error.

    Orthogonal probes are drawn without replacement, as it were, from directions whose mean is the trace: hence 1 − k/d.
    """
    k = len(curvature)
    if distribution == "orthogonal" and k == d:
        return curvature.mean(0), torch.zeros_like(curvature[0])
    se = curvature.std(0) / math.sqrt(k) if k > 1 else None
    if se is not None and distribution == "orthogonal":
        se = se * math.sqrt(1 - k / d)
    return curvature.mean(0), se


def check_probes(probes: int, distribution: str) -> None:
    """Raises `ValueError` for no probes or an unknown distribution."""
    check_count("probes", probes)
    if distribution not in get_args(Probe):
        raise ValueError(f"unknown distribution of probes {distribution!r}: choose one of {', '.join(get_args(Probe))}")


def check_count(name: str, value: int) -> None:
    """Raises `ValueError` for a number below 1."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value}")


def check_step(step: float | None) -> None:
    """Raises `ValueError` for a step of differences that is not positive and finite."""
    if step is not None and not 0 < step < math.inf:
        raise ValueError(f"step must be positive, got {step}")
