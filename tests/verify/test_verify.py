"""`scorefield verify`: every row passes, a wrong identity does not, and the command says both as it promises."""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scorefield.interfaces
import scorefield.jacobian_trace
import scorefield.objectives.denoising
import scorefield.objectives.matching
import scorefield.processes
import scorefield.samplers.exponential
import scorefield.samplers.langevin
import scorefield.samplers.reverse
import scorefield.verify.compose
import scorefield.verify.learned
import scorefield.verify.sampling
import scorefield.verify.smoothing
from scorefield.cli import main
from scorefield.densities import FiniteSoftmax, GaussianMixture, Mixture, gaussian
from scorefield.interfaces import Loss
from scorefield.objectives import GeneralisedScoreMatching, RatioMatching
from scorefield.objectives.matching import ExplicitScoreMatching, ImplicitScoreMatching
from scorefield.samplers import Heun
from scorefield.verify import ROWS, Record, Row, verify
from scorefield.verify.families import KINDS, Kind
from scorefield.verify.record import bounded, exact, ordered, sampled

FIELDS = ["row", "statement", "left", "right", "error", "tolerance", "pass"]


def strict(text: str) -> Any:
    """JSON without the constants that only Python knows."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


# ── the identities hold ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("row", ROWS)
def test_every_check_of_the_row_passes(row: int) -> None:
    records = list(verify([row]))
    assert len(records) > 1
    assert [r for r in records if not r.passed] == []
    assert {r.row for r in records} == {row}
    assert len({r.statement for r in records}) == len(records)
    assert all(math.isfinite(v) for r in records for v in (r.left, r.right, r.error, r.tolerance))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("row", ROWS)
def test_every_check_of_the_row_passes_in_full(row: int) -> None:
    assert [r for r in verify([row], full=True) if not r.passed] == []


def test_a_run_can_be_repeated_whatever_the_global_random_state() -> None:
    torch.manual_seed(1)
    first = list(verify([4, 5, 9]))
    state = torch.random.get_rng_state()
    assert list(verify([5, 4])) == [r for row in (5, 4) for r in first if r.row == row]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_vectors_and_images_energies_and_direct_scores() -> None:
    for row in (4, 6, 8):
        statements = " ".join(r.statement for r in verify([row]))
        assert all(word in statements for word in ("vector", "image", "energy", "direct"))


def test_a_row_trains_on_random_numbers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    draw = scorefield.verify.learned.stream
    monkeypatch.setattr(scorefield.verify.learned, "stream", lambda row, *key: rows.append(row) or draw(row, *key))
    assert all(r.passed for r in verify([21]))
    assert len(rows) > 50
    assert set(rows) == {21}


@pytest.mark.parametrize("kind", KINDS)
def test_members_of_a_family_answer_for_the_levels_they_state(kind: Kind) -> None:
    p, x = gaussian(torch.zeros(2), 1.0), torch.ones(3, 2)
    model = scorefield.verify.smoothing.member(kind, p, 2.0)
    torch.testing.assert_close(model.score(x, model.sigma_range[1]).double(), 2 * p.score(x.double(), model.sigma_range[1]))
    for sigma in (0.002, 80.0):
        with pytest.raises(ValueError, match=rf"sigma must be in \[0.01, 10\], got {sigma:g}"):
            model.score(x, sigma)
        assert scorefield.verify.smoothing.member(kind, p, 2.0, (0.002, 80.0)).score(x, sigma).isfinite().all()


# ── a wrong identity fails ─────────────────────────────────────────────────────────────────────────────────────────────


def scaled(objective: type, factor: Callable[[Any], float]) -> Callable[..., Loss]:
    """The objective's call with its values multiplied."""
    name = "forward" if issubclass(objective, torch.nn.Module) else "__call__"
    call = getattr(objective, name)

    def wrong(self: Any, *arguments: Any, **options: Any) -> Loss:
        loss = call(self, *arguments, **options)
        return loss._replace(value=factor(self) * loss.value)

    return wrong


def implicit_with_the_trace_turned(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, model: Any, x: Tensor, cond: Any = None, *, generator: Any = None) -> Loss:
        y, level = scorefield.objectives.matching.noised(x, self.sigma, generator)
        score, trace, _ = self.trace(scorefield.interfaces.Field(model, self.sigma, cond), y)
        return Loss((score**2).flatten(1).sum(1) / 2 - trace, level, {})

    patch.setattr(ImplicitScoreMatching, "__call__", wrong)


def implicit_without_the_half(patch: pytest.MonkeyPatch) -> None:
    call = ImplicitScoreMatching.__call__

    def wrong(self: Any, model: Any, x: Tensor, cond: Any = None, *, generator: Any = None) -> Loss:
        loss = call(self, model, x, cond, generator=generator)
        return loss._replace(value=loss.value + (model.score(x, self.sigma) ** 2).flatten(1).sum(1) / 2)

    patch.setattr(ImplicitScoreMatching, "__call__", wrong)


def sphere_of_radius_one(patch: pytest.MonkeyPatch) -> None:
    draw = scorefield.jacobian_trace.draw_probes

    def wrong(x: Tensor, k: int, distribution: str, generator: Any = None) -> Tensor:
        v = draw(x, k, distribution, generator)  # type: ignore[arg-type]
        return v / math.prod(x.shape[1:]) ** 0.5 if distribution == "sphere" else v

    patch.setattr(scorefield.jacobian_trace, "draw_probes", wrong)
    patch.setattr(scorefield.objectives.matching, "draw_probes", wrong)


def standard_error_divided_twice(patch: pytest.MonkeyPatch) -> None:
    mean = scorefield.jacobian_trace.mean_of_probes

    def wrong(curvature: Tensor, *law: Any) -> Any:
        value, se = mean(curvature, *law)
        return value, None if se is None else se / len(curvature) ** 0.5

    patch.setattr(scorefield.jacobian_trace, "mean_of_probes", wrong)


def slices_without_the_half(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scorefield.objectives.matching, "sliced_value", lambda s: (s.slope**2 + s.curvature).mean(0))


def differences_to_one_side(patch: pytest.MonkeyPatch) -> None:
    slices = scorefield.objectives.matching.difference_slices

    def wrong(field: Any, x: Tensor, v: Tensor, step: float | None = None) -> Any:
        return slices(field, x + (step or 1e-3) * v[0], v, step)

    patch.setattr(scorefield.objectives.matching, "difference_slices", wrong)


def denoising_against_the_noise(patch: pytest.MonkeyPatch) -> None:
    right = scorefield.objectives.denoising.noise_error

    def wrong(model: Any, x: Tensor, sigma: Tensor, z: Tensor, *rest: Any) -> Tensor:
        class Turned:
            def score(self, y: Tensor, s: Tensor, cond: Any = None) -> Tensor:
                return -model.score(y, s, cond)

        return right(Turned(), x, sigma, z, *rest)

    patch.setattr(scorefield.objectives.denoising, "noise_error", wrong)


def denoising_with_sigma_squared(patch: pytest.MonkeyPatch) -> None:
    right = scorefield.objectives.denoising.noise_error

    def wrong(model: Any, x: Tensor, sigma: Tensor, *rest: Any) -> Tensor:
        return right(model, x, sigma, *rest) / sigma**2

    patch.setattr(scorefield.objectives.denoising, "noise_error", wrong)


def tweedie(power: int, sign: int) -> Callable[[pytest.MonkeyPatch], None]:
    def patched(patch: pytest.MonkeyPatch) -> None:
        def wrong(model: Any, x: Tensor, sigma: float, cond: Any = None) -> Tensor:
            return x + sign * sigma**power * model.score(x, sigma, cond)

        patch.setattr(scorefield.verify.smoothing, "denoise", wrong)

    return patched


def explicit_without_the_half(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ExplicitScoreMatching, "forward", scaled(ExplicitScoreMatching, lambda _: 2.0))


def density_smoothed_by_the_deviation(patch: pytest.MonkeyPatch) -> None:
    score = GaussianMixture.score
    patch.setattr(GaussianMixture, "score", lambda self, x, sigma=0.0, cond=None: score(self, x, abs(sigma) ** 0.5, cond))


def operators_without_the_two(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, model: Any, x: Tensor, cond: Any = None, *, generator: Any = None) -> Loss:
        ratio, adjoint = self.operator(model, x, cond, generator=generator)
        return Loss((ratio**2).sum(1) - adjoint, None, {})

    patch.setattr(GeneralisedScoreMatching, "__call__", wrong)


def ratios_turned(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RatioMatching, "__call__", scaled(RatioMatching, lambda _: -1.0))


def diffusion_without_the_two(patch: pytest.MonkeyPatch) -> None:
    right = scorefield.processes.drift_diffusion

    def wrong(process: Any, t: Tensor) -> tuple[Tensor, Tensor]:
        drift, diffusion = right(process, t)
        return drift, diffusion / 2

    patch.setattr(scorefield.verify.sampling, "drift_diffusion", wrong)


def scores_not_divided_by_alpha(patch: pytest.MonkeyPatch) -> None:
    right = scorefield.processes.marginal_score
    patch.setattr(
        scorefield.verify.sampling,
        "marginal_score",
        lambda model, process, x, t: process.alpha(t) * right(model, process, x, t),
    )


def heun_without_its_second_slope(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Heun, "tableau", replace(Heun.tableau, b=(1.0, 0.0)))


def denoised_by_the_deviation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        scorefield.samplers.exponential,
        "denoise",
        lambda model, x, sigma, cond=None: x + sigma * model.score(x, sigma, cond),
    )


def noise_of_half_the_variance(module: Any) -> Callable[[pytest.MonkeyPatch], None]:
    def patched(patch: pytest.MonkeyPatch) -> None:
        right = module.noise_like
        patch.setattr(module, "noise_like", lambda x, generator: right(x, generator) / 2**0.5)

    return patched


def deciles_in_the_wrong_order(patch: pytest.MonkeyPatch) -> None:
    right = scorefield.verify.learned.error_by_log_density
    patch.setattr(scorefield.verify.learned, "error_by_log_density", lambda a, b, log_p: right(a, b, -log_p))


def softmax_without_its_normaliser(patch: pytest.MonkeyPatch) -> None:
    right = FiniteSoftmax.log_density
    patch.setattr(
        FiniteSoftmax, "log_density", lambda self, x, *rest: right(self, x, *rest) + self.logits.exp().sum().log().detach()
    )


def mixture_that_forgets_log_z(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scorefield.verify.compose, "Mixture", lambda densities, weights, log_z=None: Mixture(densities, weights))


def product_that_averages_means(patch: pytest.MonkeyPatch) -> None:
    right = scorefield.verify.compose.product_of_gaussians

    def wrong(*experts: GaussianMixture) -> GaussianMixture:
        found = right(*experts)
        found.means = torch.stack([e.means for e in experts]).mean(0)
        return found

    patch.setattr(scorefield.verify.compose, "product_of_gaussians", wrong)


def gradient_with_a_twist(patch: pytest.MonkeyPatch) -> None:
    right = scorefield.interfaces.grad_log_density

    def wrong(log_density: Any, x: Tensor) -> Tensor:
        return right(log_density, x) + 1e-3 * x.flatten(1).roll(1, 1).reshape(x.shape)

    patch.setattr(scorefield.interfaces, "grad_log_density", wrong)


WRONG: list[tuple[int, Callable[[pytest.MonkeyPatch], None]]] = [
    (1, implicit_with_the_trace_turned),
    (1, implicit_without_the_half),
    (2, sphere_of_radius_one),
    (2, standard_error_divided_twice),
    (3, slices_without_the_half),
    (3, sphere_of_radius_one),
    (4, differences_to_one_side),
    (5, denoising_against_the_noise),
    (5, denoising_with_sigma_squared),
    (6, tweedie(2, -1)),
    (6, tweedie(1, 1)),
    (7, explicit_without_the_half),
    (7, density_smoothed_by_the_deviation),
    (8, operators_without_the_two),
    (9, ratios_turned),
    (11, diffusion_without_the_two),
    (11, scores_not_divided_by_alpha),
    (12, heun_without_its_second_slope),
    (12, denoised_by_the_deviation),
    (12, noise_of_half_the_variance(scorefield.samplers.reverse)),
    (12, noise_of_half_the_variance(scorefield.samplers.exponential)),
    (16, noise_of_half_the_variance(scorefield.samplers.langevin)),
    (17, deciles_in_the_wrong_order),
    (19, softmax_without_its_normaliser),
    (20, mixture_that_forgets_log_z),
    (20, product_that_averages_means),
    (21, gradient_with_a_twist),
]


@pytest.mark.parametrize(("row", "make_wrong"), WRONG, ids=[f"{row}-{f.__name__}" for row, f in WRONG])
def test_a_wrong_identity_fails(
    row: int, make_wrong: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_wrong(monkeypatch)
    checks = ROWS[row].checks

    def up_to_the_first_failure(full: bool) -> Iterator[Record]:
        for record in checks(full):
            yield record
            if not record.passed:
                return

    monkeypatch.setitem(ROWS, row, ROWS[row]._replace(checks=up_to_the_first_failure))
    assert main(["verify", "--rows", str(row), "--json", str(tmp_path / "checks.json")]) == 1
    found = strict((tmp_path / "checks.json").read_text())["rows"]
    assert found[-1]["pass"] is False
    assert found[-1]["error"] > 2 * found[-1]["tolerance"]  # not by a hair, and not by stopping with an exception
    assert all(r["pass"] for r in found[:-1])


# ── records ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sampled_accepts_five_standard_errors_of_the_mean_difference() -> None:
    x = torch.tensor([-1.0, 1.0] * 200).double()  # mean 0, standard error 1/20 (to a quarter percent)
    tolerance = 5 * x.std().item() / 20
    inside, outside = (sampled(1, "", x + factor * tolerance, torch.zeros(400)) for factor in (0.99, 1.01))
    assert inside.passed
    assert not outside.passed
    assert outside.tolerance == pytest.approx(0.25, rel=1e-2)
    shared = 1000 * torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    assert not sampled(1, "", x + shared + 1.01 * tolerance, shared).passed  # what both sides share is no error


def test_the_worst_entry_is_shown() -> None:
    record = exact(1, "", torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([1.0, 2.5, 3.1]).double(), 0.1)
    assert (record.left, record.right, record.passed) == (2.0, 2.5, False)
    assert record.error == pytest.approx(0.5)
    assert record.tolerance == pytest.approx(0.31)
    wide_and_narrow = torch.stack([torch.tensor([0.0, 2.0] * 50), torch.tensor([-0.1, 0.3] * 50)], 1).double()
    assert sampled(1, "", wide_and_narrow, torch.tensor([0.9, 0.0])).left == pytest.approx(0.1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_never_passes(value: float) -> None:
    wrong = torch.tensor([1.0, value])
    records = [
        exact(1, "", wrong, torch.ones(2)), exact(1, "", wrong, wrong), sampled(1, "", wrong, 1.0),
        ordered(1, "", math.nan, value), bounded(1, "", value, 1.0),
    ]  # fmt: skip
    for record in records:
        assert record.passed is False
        assert None in record.as_json().values()
        strict(json.dumps(record.as_json(), allow_nan=False))


def test_an_inequalitys_error_is_its_violation() -> None:
    assert ordered(1, "", 2.0, 1.0) == Record(1, " [left ≥ right]", 2.0, 1.0, 0.0, 0.0, True)
    assert ordered(1, "", 1.0, 2.5) == Record(1, " [left ≥ right]", 1.0, 2.5, 1.5, 0.0, False)


# ── the command ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_table_json_and_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "checks.json"
    file.write_text("old")
    assert main(["verify", "--rows", "19, 6,6", "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    found = strict(file.read_text())
    assert list(found) == ["rows"]
    assert all(list(r) == FIELDS for r in found["rows"])
    assert [r["row"] for r in found["rows"]] == sorted(r["row"] for r in found["rows"])
    assert {r["row"] for r in found["rows"]} == {6, 19}
    for r in found["rows"]:
        assert r["pass"] is True
        assert r["error"] <= r["tolerance"]
        assert r["error"] == pytest.approx(abs(r["left"] - r["right"]), abs=1e-18)
    n = len(found["rows"])
    assert re.match(r"row +statement +left +right +error +tolerance +pass", out)
    assert len(re.findall(r"^ *(?:6|19) .* yes *$", out, re.MULTILINE)) == n
    assert f"{n} of {n} checks passed" in err
    assert f"wrote {file}" in err.replace("\n", "")
    assert [p.name for p in tmp_path.iterdir()] == ["checks.json"]


def test_a_row_that_stops_fails_and_the_others_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stops(full: bool) -> Iterator[Record]:
        yield Record(6, "before", 1.0, 1.0, 0.0, 0.0, True)
        raise ArithmeticError("no\nluck")

    monkeypatch.setitem(ROWS, 6, Row("broken", stops, 1))
    assert main(["verify", "--rows", "6,19", "--json", str(tmp_path / "x.json")]) == 1
    out, err = capsys.readouterr()
    found = strict((tmp_path / "x.json").read_text())["rows"]
    assert found[1] == {
        "row": 6, "statement": "stopped by ArithmeticError: no luck", "left": None, "right": None, "error": None,
        "tolerance": 0.0, "pass": False,
    }  # fmt: skip
    assert found[0]["pass"]
    assert all(r["pass"] for r in found[2:])
    assert "NO" in out
    assert "row 6 failed: broken" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "99"], ["99", ", ".join(map(str, ROWS))]),
        (["--rows", "1,x"], ["numbers separated by commas", "1,x"]),
        (["--rows", ""], ["numbers separated by commas"]),
        (["--rows", "1,,2"], ["1,,2"]),
        (["--rows", "-1"], ["-1"]),
        (["--rows"], ["--rows"]),
        (["--json", "no/such/folder.json"], ["no/such/folder.json", "No such file"]),
        (["--json", "."], ["folder"]),
        (["--json", "a\0b"], ["null"]),
        (["1"], ["1"]),
    ],
)
def test_mistakes_are_one_line_before_anything_is_computed(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["verify", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("scorefield: ")
    assert len(err.splitlines()) == 1
    assert all(word in err for word in words), err
    assert not any(tmp_path.iterdir())


def test_threads_are_as_they_were() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert main(["verify", "--rows", "19"]) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
