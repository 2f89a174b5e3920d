"""Ready families: what T is, where its rows live, and what the coefficients are called.

    gaussian            x_i, x_i x_j on ℝᵈ                         θ = (Λμ, −Λ/2 on squares, −Λ_ij elsewhere), Λ the precision
    polynomial          all monomials up to a degree on ℝᵈ
    truncated_gaussian  as gaussian, in a box
    pairwise            x_iᵃ, x_iᵃ x_jᵃ on the orthant: a = 1 truncated Gaussian, a = ½ exponential-root, a = 0 log x
    gamma               x_i, log x_i on the orthant                θ = (−rate, shape − 1)
    dirichlet           log x_i on the simplex                     θ = α − 1
    von_mises_fisher    x_i on the sphere                          θ = κμ
    bingham             x_i x_j on the sphere, without x_d²        ‖x‖² = 1 makes one redundant
    fisher_bingham      both

Reference: Yu, Drton & Shojaie 2019, JMLR 20:76 (pairwise); Mardia & Jupp 2000, Directional Statistics, chapter 9.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.densities.exponential.domains import Box, Domain, Simplex, Sphere, orthant, reals
from scorefield.densities.exponential.family import ExponentialFamily
from scorefield.densities.exponential.probe import Statistic

Index = tuple[int, ...]
"""of a monomial: (0, 0, 2) is x₀² x₂"""


@dataclass(frozen=True)
class Monomials:
    """Products of coordinates of rows `(b, d)`, `(b, p)`."""

    indices: tuple[Index, ...]

    smooth: ClassVar[bool] = True

    def __call__(self, x: Tensor) -> Tensor:
        longest = max(map(len, self.indices))
        with_one = torch.cat([x, torch.ones_like(x[:, :1])], 1)  # shorter products go on with ones
        padded = torch.tensor([(*i, *(x.shape[1],) * (longest - len(i))) for i in self.indices])
        product = with_one[:, padded[:, 0]]
        for column in padded.T[1:]:
            product = product * with_one[:, column]
        return product

    def names(self, variable: Sequence[str], raised: str = "{}") -> list[str]:
        """As x0²·x2, with the coordinates' own names; `raised` is how those are written under an exponent."""

        def factor(j: int, exponent: int) -> str:
            return variable[j] if exponent == 1 else raised.format(variable[j]) + SUPERSCRIPTS[exponent]

        return ["·".join(factor(j, index.count(j)) for j in dict.fromkeys(index)) for index in self.indices]


SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"


@dataclass(frozen=True)
class OfPowers:
    """Monomials of xᵃ, or of log x where a is 0."""

    monomials: Monomials
    power: float

    smooth: ClassVar[bool] = True

    def __call__(self, x: Tensor) -> Tensor:
        return self.monomials(x**self.power if self.power else x.log())


@dataclass(frozen=True)
class Logs:
    """log x."""

    smooth: ClassVar[bool] = True

    def __call__(self, x: Tensor) -> Tensor:
        return x.log()


@dataclass(frozen=True)
class WithLogs:
    """x and log x."""

    smooth: ClassVar[bool] = True

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.log()], 1)


def monomials(d: int, least: int, most: int) -> Monomials:
    """All of degrees from `least` to `most` in d coordinates."""
    if d < 1:
        raise ValueError(f"a family needs at least one coordinate, got {d}")
    return Monomials(tuple(i for degree in range(least, most + 1) for i in combinations_with_replacement(range(d), degree)))


def polynomial(d: int, degree: int = 4, domain: Domain | None = None, names: Sequence[str] | None = None) -> ExponentialFamily:
    """All monomials of d coordinates up to a degree, which must be even for the density to have an integral on ℝᵈ.

    Raises:
        ValueError: an odd degree on ℝᵈ, one below 1 or above 9.
    """
    if not 1 <= degree <= 9:
        raise ValueError(f"the degree of a polynomial must be from 1 to 9, got {degree}")
    if domain is None and degree % 2:
        raise ValueError(f"the degree of a polynomial on ℝᵈ must be 2, 4, 6 or 8, got {degree}")
    found = monomials(d, 1, degree)
    return ready(found, domain or reals(), d, names, found.names)


def gaussian(d: int, names: Sequence[str] | None = None) -> ExponentialFamily:
    """Any Gaussian; `moments` reads mean and covariance."""
    return polynomial(d, 2, names=names)


def truncated_gaussian(d: int, domain: Domain | None = None, names: Sequence[str] | None = None) -> ExponentialFamily:
    """A Gaussian of which only what lies in the domain is seen, the positive orthant by default."""
    return polynomial(d, 2, domain or orthant(), names)


def pairwise(d: int, power: float = 0.5, domain: Box | None = None, names: Sequence[str] | None = None) -> ExponentialFamily:
    """Pairwise interactions of xᵃ: θᵀT = Σ η_i x_iᵃ + Σ_{i≤j} K_ij x_iᵃ x_jᵃ on the orthant; a = 0 means log x.

    Raises:
        ValueError: a negative power.
    """
    if power < 0:
        raise ValueError(f"the power of a pairwise family must be at least 0, got {power}")
    found = monomials(d, 1, 2)
    function = {0.0: "log {}", 1.0: "{}", 0.5: "√{}"}.get(float(power), f"{{}}^{power:g}")

    def naming(columns: Sequence[str]) -> list[str]:
        return found.names([function.format(name) for name in columns], "({})" if power != 1 else "{}")

    return ready(OfPowers(found, float(power)), domain or orthant(power=2 if power < 1 else 1), d, names, naming)


def gamma(d: int = 1, names: Sequence[str] | None = None) -> ExponentialFamily:
    """Independent Gamma laws: θ = (−rate, shape − 1)."""
    return ready(WithLogs(), orthant(power=2), d, names, lambda columns: [*columns, *map("log {}".format, columns)])


def dirichlet(d: int, power: float = 2.0, names: Sequence[str] | None = None) -> ExponentialFamily:
    """Dirichlet laws of d shares: θ = α − 1; the power of the weight as in `Simplex`."""
    return ready(Logs(), Simplex(power), d, names, lambda columns: [*map("log {}".format, columns)])


def von_mises_fisher(d: int, names: Sequence[str] | None = None) -> ExponentialFamily:
    """Directions in ℝᵈ about one mean: θ = κμ."""
    found = monomials(d, 1, 1)
    return ready(found, Sphere(), d, names, found.names)


def bingham(d: int, names: Sequence[str] | None = None) -> ExponentialFamily:
    """Axes in ℝᵈ, x and −x alike: θ has x_i x_j, and x_i² but the last."""
    found = Monomials(monomials(d, 2, 2).indices[:-1])
    return ready(found, Sphere(), d, names, found.names)


def fisher_bingham(d: int, names: Sequence[str] | None = None) -> ExponentialFamily:
    """Directions whose spread differs by direction."""
    found = Monomials(monomials(d, 1, 2).indices[:-1])
    return ready(found, Sphere(), d, names, found.names)


def ready(
    statistic: Statistic, domain: Domain, d: int, names: Sequence[str] | None, naming: Callable[[Sequence[str]], Sequence[str]]
) -> ExponentialFamily:
    """A family of d columns; `naming` makes names of components of those of columns, which a data frame has its own of."""
    own = naming(variables(d, names))
    return ExponentialFamily(statistic, domain, own, columns=d, naming=naming if names is None else None)


def variables(d: int, names: Sequence[str] | None) -> list[str]:
    """x0, x1, … or the given ones; raises `ValueError` for another number of them."""
    if names is not None and len(names) != d:
        raise ValueError(f"{d} coordinates need {d} names, got {len(names)}")
    return [f"x{j}" for j in range(d)] if names is None else [str(name) for name in names]


def quadratic_form(coef: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """η `(d,)` and the symmetric K `(d, d)` with θᵀT = ηᵀx − ½ xᵀK x, of coefficients of all monomials of degree 1 and 2."""
    upper = torch.zeros(d, d, dtype=coef.dtype)
    upper[*torch.triu_indices(d, d)] = coef[d:]
    return coef[:d], -(upper + upper.T)


def moments(coef: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Mean `(d,)` and covariance `(d, d)` of the Gaussian with these coefficients.

    Raises:
        ValueError: coefficients of no Gaussian: the precision is not positive definite.
    """
    eta, precision = quadratic_form(coef, d)
    if not float(torch.linalg.eigvalsh(precision)[0]) > 0:
        raise ValueError("the precision is not positive definite: no Gaussian has these coefficients")
    covariance = torch.linalg.inv(precision)
    return covariance @ eta, covariance
