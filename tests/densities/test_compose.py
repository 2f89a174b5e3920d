"""Products and mixtures against closed forms, quadrature and autograd: row 20 of the identities."""

import math

import pytest
import torch
from torch import Tensor, nn

from scorefield.data.scaling import Scaling
from scorefield.densities import (
    AtLevel,
    Banana,
    Contrast,
    GaussianMixture,
    Mixture,
    Product,
    Ring,
    Tempered,
    eight_gaussians,
    gaussian,
    product_of_gaussians,
)
from scorefield.interfaces import Density, Energy, Score, grad_log_density
from scorefield.models import EnergyModel, InnerProduct, ModelSpec, PlainScore, WithoutNoise
from scorefield.networks import MLPConfig

SHAPES = [(3,), (1, 2, 2)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_kind = pytest.mark.parametrize("isotropic", [True, False], ids=["isotropic", "full"])
each_level = pytest.mark.parametrize("sigma", [0.0, 0.5])
F64 = torch.float64


def points(shape: tuple[int, ...], n: int = 30) -> Tensor:
    return 1.5 * torch.randn(n, *shape, generator=torch.Generator().manual_seed(1), dtype=F64)


def gaussians(shape: tuple[int, ...], isotropic: bool, k: int = 3) -> list[GaussianMixture]:
    g = torch.Generator().manual_seed(0)
    d = math.prod(shape)
    means = torch.randn(k, *shape, generator=g, dtype=F64)
    root = torch.randn(k, d, d, generator=g, dtype=F64) / d**0.5
    full = root @ root.mT + 0.3 * torch.eye(d, dtype=F64)
    return [gaussian(m, 0.4 + 0.3 * i if isotropic else c) for i, (m, c) in enumerate(zip(means, full, strict=True))]


class Quadratic(Energy):
    """log f = shift − a‖x‖²/2, a learnt: N(0, 1/a) times an unknown constant."""

    sigma_range = (0.0, 1.0)

    def __init__(self, precision: float, shift: float = 0.0) -> None:
        super().__init__()
        self.precision = nn.Parameter(torch.tensor(precision, dtype=F64))
        self.shift = shift

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0, cond: Tensor | None = None) -> Tensor:
        scale = 1 if cond is None else cond
        return self.shift - scale * self.precision * (x**2).flatten(1).sum(1) / 2


@each_shape
@each_kind
def test_product_of_gaussians(shape: tuple[int, ...], isotropic: bool) -> None:
    """The closed form has the scores of the sum of log-densities, which differ from its own by one constant."""
    members, x = gaussians(shape, isotropic), points(shape)
    closed, product = product_of_gaussians(*members), Product(members)
    assert (closed.rotations is None) is isotropic
    torch.testing.assert_close(product.score(x), closed.score(x), rtol=1e-10, atol=1e-10)
    difference = product.log_density(x) - closed.log_density(x)
    torch.testing.assert_close(difference, difference[:1].expand(30), rtol=1e-10, atol=1e-10)
    assert float(difference.std()) < 1e-10
    # the constant is log ∫ Π pᵢ: for two members log N(μ₁; μ₂, C₁ + C₂)
    first, second = members[:2]
    overlap = gaussian(second.mean(), first.covariance() + second.covariance()).log_density(first.mean()[None])
    pair = Product([first, second]).log_density(x) - product_of_gaussians(first, second).log_density(x)
    torch.testing.assert_close(pair, overlap.expand(30), rtol=1e-10, atol=1e-10)


def test_moments_of_a_product() -> None:
    """Mean and covariance of exp Σ log pᵢ by quadrature are those of the closed form, one member of each kind."""
    members = [gaussian(torch.tensor([1.0, -0.5]), 0.7), gaussians((2,), isotropic=False)[1]]
    axis = torch.linspace(-9, 9, 361, dtype=F64)
    x = torch.cartesian_prod(axis, axis)
    weight = Product(members).log_density(x).softmax(0)
    closed = product_of_gaussians(*members)
    mean = weight @ x
    torch.testing.assert_close(mean, closed.mean(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close((x - mean).mT @ (weight[:, None] * (x - mean)), closed.covariance(), rtol=1e-9, atol=1e-9)


@each_level
@pytest.mark.parametrize("kind", [Product, Mixture])
def test_scores_are_gradients(kind: type, sigma: float) -> None:
    members = [Ring(std=0.4), eight_gaussians(std=0.3), gaussian(torch.zeros(2), 1.0)]
    p = kind(members) if kind is Product else kind(members, [1.0, 2.0, 3.0])
    x = points((2,))
    gradient = grad_log_density(lambda y: p.log_density(y, sigma), x)
    torch.testing.assert_close(p.score(x, sigma), gradient, rtol=1e-10, atol=1e-10)
    levels = torch.linspace(0, 1, 30, dtype=F64)
    gradient = grad_log_density(lambda y: p.log_density(y, levels), x)
    torch.testing.assert_close(p.score(x, levels), gradient, rtol=1e-10, atol=1e-10)
    single = p.score(x.float(), sigma)
    assert single.dtype == p.log_density(x.float(), sigma).dtype == torch.float32
    torch.testing.assert_close(single.double(), p.score(x.float().double(), sigma), rtol=1e-4, atol=1e-5)


def test_a_product_is_not_the_product_smoothed() -> None:
    """At σ = 0 exact; at σ = 1 two equal unit Gaussians give precision 2/2, not the smoothed product's 1/1.5."""
    one, x = gaussian(torch.zeros(3), 1.0), points((3,))
    p = Product([one, one])
    torch.testing.assert_close(p.score(x), -2 * x)
    torch.testing.assert_close(p.score(x, 1.0), -x)
    torch.testing.assert_close(product_of_gaussians(one, one).score(x, 1.0), -x / 1.5)


@each_shape
@each_level
def test_a_mixture_of_normalised_densities_is_exact_at_every_level(shape: tuple[int, ...], sigma: float) -> None:
    members, x = gaussians(shape, isotropic=False), points(shape)
    w = torch.tensor([1.0, 2.0, 5.0])
    covariances = torch.stack([m.covariance() for m in members])
    expected = GaussianMixture(w, torch.stack([m.mean() for m in members]), covariances)
    for p in (Mixture(members, w), Mixture(members, [2.0, 4.0, 10.0], log_z=[0.0, 0.0, 0.0])):
        torch.testing.assert_close(p.log_density(x, sigma), expected.log_density(x, sigma), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(p.score(x, sigma), expected.score(x, sigma), rtol=1e-10, atol=1e-10)


def test_a_mixture_of_unnormalised_energies_has_weights_w_times_z() -> None:
    """fᵢ = Zᵢ N(0, 1/aᵢ): without log Z the shares are wᵢZᵢ/ΣwⱼZⱼ, with it they are wᵢ, and p is normalised."""
    w, a, shift = torch.tensor([0.7, 0.3], dtype=F64), (0.5, 4.0), (0.3, -1.2)
    members = [Quadratic(a[0], shift[0]), Quadratic(a[1], shift[1])]
    log_z = torch.tensor([s + math.log(2 * math.pi / precision) for s, precision in zip(shift, a, strict=True)], dtype=F64)
    x = points((2,))

    def closed(weights: Tensor) -> GaussianMixture:
        return GaussianMixture(weights, torch.zeros(2, 2), 1 / torch.tensor(a))

    without, divided = Mixture(members, w), Mixture(members, w, log_z)
    shares = w * log_z.exp()
    torch.testing.assert_close(without.score(x), closed(shares).score(x), rtol=1e-10, atol=1e-10)
    expected = closed(shares).log_density(x) + shares.sum().log()
    torch.testing.assert_close(without.log_density(x), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(divided.score(x), closed(w).score(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(divided.log_density(x), closed(w).log_density(x), rtol=1e-10, atol=1e-10)
    assert float((without.score(x) - divided.score(x)).detach().abs().max()) > 0.1


def test_learned_members_are_submodules() -> None:
    """Parameters are found, saved, and get the gradient of the composition; the condition reaches every member."""
    x, cond = points((2,)), torch.linspace(0.5, 2, 30, dtype=F64)
    for p in (Product([Ring(), Quadratic(2.0)]), Mixture([Ring(), Quadratic(2.0)], [1.0, 1.0])):
        (precision,) = p.parameters()
        with torch.no_grad():
            precision.fill_(3.0)
        torch.testing.assert_close(Product([p]).score(x), p.score(x))
        expected = -(x**2).sum() / 2 if isinstance(p, Product) else -(_share(p, x) * (x**2).sum(1)).sum() / 2
        (slope,) = torch.autograd.grad(p.log_density(x).sum(), precision)
        torch.testing.assert_close(slope, expected, rtol=1e-10, atol=1e-10)
        other = type(p)([Ring(), Quadratic(1.0)], *([] if isinstance(p, Product) else [[1.0, 9.0]]))
        other.load_state_dict(p.state_dict())
        assert torch.equal(other.score(x), p.score(x))
    learned = Product([Quadratic(1.0), Quadratic(2.0)])
    torch.testing.assert_close(learned.score(x, 0.0, cond), -3 * cond[:, None] * x)
    torch.testing.assert_close(Mixture([Quadratic(2.0)], [1.0]).score(x, 0.0, cond), -2 * cond[:, None] * x)


def _share(p: Mixture, x: Tensor) -> Tensor:
    """Responsibility of the second member, by hand."""
    logs = [d.log_density(x).detach() for d in p.densities]
    return (logs[1] - logs[0]).sigmoid()


def test_ranges_and_shapes_are_those_of_the_members() -> None:
    p = Product([Ring(), Quadratic(1.0)])
    assert isinstance(p, Score)
    assert isinstance(p, Density)
    assert p.sigma_range == (0, 1)
    assert p.event_shape == (2,)
    assert Product([Quadratic(1.0)]).event_shape is None
    assert Mixture([Ring(), Banana()], [1.0, 1.0]).sigma_range == (0, 0)
    with pytest.raises(ValueError, match=r"sigma must be 0, got 0\.1"):
        Product([Ring(), Banana()]).score(torch.zeros(1, 2), 0.1)


def test_impossible_compositions_are_refused() -> None:
    high = Quadratic(1.0)
    high.sigma_range = (0.1, 1.0)  # type: ignore[misc]
    for kind in (Product, lambda members: Mixture(members, torch.ones(len(members)))):
        with pytest.raises(ValueError, match="a composition needs at least one density, got none"):
            kind([])
        with pytest.raises(ValueError, match="every member needs score and sigma_range, got a Linear"):
            kind([Ring(), nn.Linear(2, 2)])
        with pytest.raises(ValueError, match=r"one shape, got \[\(2,\), \(3,\)\]"):
            kind([Ring(), gaussian(torch.zeros(3), 1.0)])
        with pytest.raises(ValueError, match="no sigma suits every member"):
            kind([Banana(), high])


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf], [[1.0, 1.0]], 1.0])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="a mixture of 2 densities needs 2 positive weights, got"):
        Mixture([Ring(), Banana()], weights)


@pytest.mark.parametrize("log_z", [[0.0], [0.0, math.inf], [0.0, math.nan], 0.0])
def test_impossible_partition_functions_are_refused(log_z: list[float]) -> None:
    with pytest.raises(ValueError, match="a mixture of 2 densities needs 2 finite values of log Z, got"):
        Mixture([Ring(), Banana()], [1.0, 1.0], log_z)


def test_only_gaussians_of_one_shape_have_a_product_in_closed_form() -> None:
    with pytest.raises(ValueError, match="a product needs at least one Gaussian, got none"):
        product_of_gaussians()
    with pytest.raises(ValueError, match="takes mixtures of one component, got one of 8"):
        product_of_gaussians(gaussian(torch.zeros(2), 1.0), eight_gaussians())
    with pytest.raises(ValueError, match=r"one event shape, got \(2,\) and \(3,\)"):
        product_of_gaussians(gaussian(torch.zeros(2), 1.0), gaussian(torch.zeros(3), 1.0))


def test_powers_and_quotients_of_gaussians() -> None:
    """Precisions are multiplied and subtracted: N(0, v)^β has precision β/v, N(0, v)/N(0, w)^γ has 1/v − γ/w."""
    x = points((3,))
    narrow, wide = gaussian(torch.zeros(3), 0.5), gaussian(torch.ones(3), 2.0)
    torch.testing.assert_close(Tempered(narrow, 3.0).score(x), -3 * x / 0.5)
    torch.testing.assert_close(Contrast(narrow, wide, 1.5).score(x), -x / 0.5 + 1.5 * (x - 1) / 2)
    tempered = Tempered(narrow, 3.0).log_density(x) + 3 * (x**2).sum(1) / (2 * 0.5)
    torch.testing.assert_close(tempered, tempered[:1].expand(30))
    contrast = Contrast(narrow, wide, 1.5)
    rest = contrast.log_density(x) + (x**2).sum(1) / (2 * 0.5) - 1.5 * ((x - 1) ** 2).sum(1) / (2 * 2)
    torch.testing.assert_close(rest, rest[:1].expand(30))
    both = contrast.log_density_and_score(x)
    torch.testing.assert_close(both, (contrast.log_density(x), contrast.score(x)))
    frozen = AtLevel(narrow, 1.0)
    torch.testing.assert_close(frozen.score(x), narrow.score(x, 1.0))
    torch.testing.assert_close(frozen.log_density_and_score(x), (narrow.log_density(x, 1.0), narrow.score(x, 1.0)))
    shrunk = AtLevel(narrow, 1.0, scale=3.0)
    torch.testing.assert_close(shrunk.score(x), 3 * narrow.score(3 * x, 1.0))
    torch.testing.assert_close(shrunk.log_density_and_score(x), (shrunk.log_density(x), shrunk.score(x)))
    for wrong in (lambda: Tempered(narrow, 0.0), lambda: Contrast(narrow, wide, math.inf)):
        with pytest.raises(ValueError, match="must be positive and finite"):
            wrong()
    for wrong in (lambda: AtLevel(Quadratic(1.0), 2.0), lambda: frozen.score(x, 1.0), lambda: frozen.log_density(x, 1.0)):
        with pytest.raises(ValueError, match="sigma must be"):
            wrong()


def test_scores_alone_add_up_and_have_no_density() -> None:
    net = WithoutNoise(MLPConfig(width=8).build((3,)))
    alone, x = PlainScore(net, (3,)).double(), points((3,))
    both = Product([alone, gaussian(torch.zeros(3), 1.0)])
    torch.testing.assert_close(both.score(x), alone.score(x) - x)
    with pytest.raises(ValueError, match="PlainScore has only a score: compose energies"):
        both.log_density(x)


def test_members_trained_on_another_scale_are_refused() -> None:
    network = InnerProduct(MLPConfig(width=8).build((3,)))
    one, other = (EnergyModel(network, ModelSpec((3,), scaling=Scaling(scale=s))) for s in ((1.0,), (2.0,)))
    Product([one, one])
    with pytest.raises(ValueError, match="scale data in the same way"):
        Product([one, other])
    with pytest.raises(ValueError, match="scale data in the same way"):
        Product([Tempered(one, 2.0), Product([other, other])])
    with pytest.raises(ValueError, match="events of one shape"):
        Product([one, gaussian(torch.zeros(4), 1.0)])
