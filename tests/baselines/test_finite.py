"""Frequencies: the softmax over a finite set in closed form."""

import itertools
import math
from collections import Counter

import pytest
import torch

from scorefield.baselines import (
    BaselineConfig,
    IndependentPixels,
    IndependentPixelsConfig,
    SoftmaxPatches,
    SoftmaxPatchesConfig,
    TrainingImages,
    TrainingImagesConfig,
    binary_patches,
    fitted_softmax,
)
from scorefield.objectives import MaximumLikelihood

LEVELS = 3


def images(n: int, shape: tuple[int, ...] = (1, 2, 2), seed: int = 0, levels: int = LEVELS) -> torch.Tensor:
    """Integer events whose pixels are unlike each other and not independent."""
    g = torch.Generator().manual_seed(seed)
    common = torch.randint(levels, (n,), generator=g).reshape(-1, *(1 for _ in shape))
    own = torch.randint(levels, (n, *shape), generator=g)
    keep = torch.rand((n, *shape), generator=g) < torch.linspace(0.2, 0.9, math.prod(shape)).reshape(shape)
    return torch.where(keep, common, own)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("pseudocount", [0.5, 2.0])
def test_independent_pixels_are_their_frequencies(shape: tuple[int, ...], pseudocount: float) -> None:
    x, new = images(200, shape), images(20, shape, seed=1)
    model = IndependentPixels(shape, LEVELS).fit(x, pseudocount)
    for row, found in zip(new.flatten(1).tolist(), model.log_density(new).tolist(), strict=True):
        exact = 0.0
        for i, value in enumerate(row):
            seen = sum(other[i] == value for other in x.flatten(1).tolist())
            exact += math.log((seen + pseudocount) / (200 + LEVELS * pseudocount))
        assert found == pytest.approx(exact, abs=1e-9)
    everything = torch.tensor(list(itertools.product(range(LEVELS), repeat=math.prod(shape)))).unflatten(1, shape)
    assert float(model.log_density(everything).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_without_a_pseudocount_what_was_never_seen_is_impossible() -> None:
    x = torch.tensor([[0, 1], [0, 2]])
    model = IndependentPixels((2,), LEVELS).fit(x, 0.0)
    assert model.log_density(torch.tensor([[0, 1], [1, 1]])).tolist() == [math.log(0.5), -math.inf]


def test_samples_of_independent_pixels_have_their_frequencies() -> None:
    n, model = 20_000, IndependentPixels((1, 2, 2), LEVELS).fit(images(300))
    drawn = model.sample(n, generator=torch.Generator().manual_seed(3))
    assert drawn.shape == (n, 1, 2, 2)
    p = model.log_p.exp()
    for i, column in enumerate(drawn.flatten(1).T):
        share = torch.bincount(column, minlength=LEVELS) / n
        assert ((share - p[i]) / (p[i] * (1 - p[i]) / n).sqrt()).abs().max() < 4.5


def test_a_class_for_each_training_image_knows_nothing_else() -> None:
    x = images(50)
    model = TrainingImages((1, 2, 2), LEVELS).fit(torch.cat([x, x[:1]]))
    counts = Counter(map(tuple, torch.cat([x, x[:1]]).flatten(1).tolist()))
    everything = torch.tensor(list(itertools.product(range(LEVELS), repeat=4))).unflatten(1, (1, 2, 2))
    found = model.log_density(everything)
    for row, value in zip(everything.flatten(1).tolist(), found.tolist(), strict=True):
        assert value == (pytest.approx(math.log(counts[tuple(row)] / 51)) if tuple(row) in counts else -math.inf)
    assert float(found.exp().sum()) == pytest.approx(1, abs=1e-12)
    drawn = model.sample(100, generator=torch.Generator().manual_seed(0))
    assert model.log_density(drawn).isfinite().all()


def test_patches_are_cut_and_binarised() -> None:
    x = torch.tensor([[0, 8, 16, 7, 1], [9, 3, 8, 16, 1], [0, 0, 16, 16, 1]])[None, None]
    assert binary_patches(x, levels=17).tolist() == [[0, 0, 1, 0], [1, 0, 0, 1]]
    assert binary_patches(x, levels=32).tolist() == [[0, 0, 0, 0], [1, 0, 0, 1]]


def test_the_softmax_over_patches_is_their_frequencies_and_the_maximum_of_the_likelihood() -> None:
    patches = binary_patches(images(400, (1, 6, 6)), LEVELS)
    model = fitted_softmax(patches)
    counts = Counter(map(tuple, patches.tolist()))
    states = torch.tensor(list(itertools.product((0, 1), repeat=4)))
    exact = torch.tensor([counts[tuple(s)] / len(patches) for s in states.tolist()], dtype=torch.float64)
    assert (model.log_density(states).exp() - exact).abs().max() < 1e-12
    gradient = torch.autograd.grad(MaximumLikelihood()(model, patches).value.mean(), model.logits)[0]
    assert gradient.abs().max() < 1e-12


def test_what_they_refuse() -> None:
    model = IndependentPixels((1, 2, 2), LEVELS)
    for x, match in (
        (torch.zeros(3, 4, dtype=torch.long), r"events of shape \(1, 2, 2\)"),
        (torch.zeros(3, 1, 2, 2), "integer levels"),
        (torch.full((3, 1, 2, 2), 3), "row 0 has a level outside 0 … 2"),
    ):
        with pytest.raises(ValueError, match=match):
            model.log_density(x)
    with pytest.raises(ValueError, match="sigma must be 0"):
        model.log_density(images(3), 0.1)
    with pytest.raises(ValueError, match="at least 2 levels"):
        IndependentPixels((2,), 1)
    with pytest.raises(ValueError, match="frequencies need rows"):
        model.fit(images(0))
    with pytest.raises(ValueError, match="no classes"):
        TrainingImages((1, 2, 2), LEVELS).fit(images(0))
    with pytest.raises(ValueError, match="need images"):
        binary_patches(torch.zeros(3, 2), 2)
    with pytest.raises(ValueError, match="at least one row"):
        fitted_softmax(torch.zeros(0, 4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"values must be in 0\.\.1"):
        fitted_softmax(torch.tensor([[0, 2], [0, 0]]))
    with pytest.raises(ValueError, match="integer levels"):
        binary_patches(torch.rand(3, 1, 4, 4), 2)


# ── a softmax for each patch ───────────────────────────────────────────────────────────────────────────────────────────


def every_image(shape: tuple[int, ...], levels: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(levels), repeat=math.prod(shape)))).unflatten(1, shape)


def counted_by_hand(x: torch.Tensor, levels: int, pseudocount: float, image: torch.Tensor) -> float:
    """log p of one image `(c, h, w)` from the definition, by loops over the training images `(n, c, h, w)`."""

    def is_bright(value: int) -> bool:
        return value >= levels / 2

    seen, found = x.tolist(), image.tolist()
    c, h, w = image.shape
    log_p = 0.0
    for k, i, j in itertools.product(range(c), range(0, h, 2), range(0, w, 2)):
        places = [(k, i, j), (k, i, j + 1), (k, i + 1, j), (k, i + 1, j + 1)]
        pattern = [is_bright(found[a][b][e]) for a, b, e in places]
        alike = sum([is_bright(other[a][b][e]) for a, b, e in places] == pattern for other in seen)
        log_p += math.log((alike + pseudocount) / (len(seen) + 16 * pseudocount))
    for k, i, j in itertools.product(range(c), range(h), range(w)):
        value = found[k][i][j]
        of_its_kind = [v for v in range(levels) if is_bright(v) == is_bright(value)]
        counts = {v: sum(other[k][i][j] == v for other in seen) + pseudocount for v in of_its_kind}
        log_p += math.log(counts[value] / sum(counts.values()))
    return log_p


@pytest.mark.parametrize(("shape", "levels"), [((1, 2, 2), 3), ((1, 2, 4), 4), ((2, 4, 2), 5), ((1, 4, 6), 2)], ids=str)
@pytest.mark.parametrize("pseudocount", [0.5, 2.0])
def test_patches_and_levels_are_counted(shape: tuple[int, ...], levels: int, pseudocount: float) -> None:
    x, new = images(60, shape, levels=levels), images(8, shape, seed=1, levels=levels)
    found = SoftmaxPatches(shape, levels).fit(x, pseudocount).log_density(new)
    assert found.dtype == torch.float64
    for image, value in zip(new, found.tolist(), strict=True):
        assert value == pytest.approx(counted_by_hand(x, levels, pseudocount, image), abs=1e-12)


@pytest.mark.parametrize(
    ("shape", "levels"),
    [((1, 2, 2), 2), ((1, 2, 2), 3), ((1, 2, 2), 4), ((1, 2, 2), 5), ((1, 2, 4), 2), ((1, 2, 4), 3), ((2, 2, 2), 2)],
    ids=str,
)
def test_probabilities_of_all_images_sum_to_one_before_and_after_the_fit(shape: tuple[int, ...], levels: int) -> None:
    model, everything = SoftmaxPatches(shape, levels), every_image(shape, levels)
    assert float(model.log_density(everything).exp().sum()) == pytest.approx(1, abs=1e-12)
    p = model.fit(images(100, shape, levels=levels)).log_density(everything).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    assert float(p.std() / p.mean()) > 0.3  # and are far from equal


def test_before_the_fit_patterns_are_equally_likely_and_so_are_levels_of_one_kind() -> None:
    """Of five levels 0, 1 and 2 are dark, 3 and 4 bright, and every pixel is as often bright as dark."""
    found = SoftmaxPatches((1, 2, 2), 5).log_density(torch.tensor([[[[0, 2], [1, 0]]], [[[3, 4], [2, 3]]]]))
    assert found.tolist() == pytest.approx([math.log(1 / 16 / 3**4), math.log(1 / 16 / 3 / 2**3)], abs=1e-12)


@pytest.mark.parametrize(("shape", "levels"), [((1, 2, 2), 3), ((1, 2, 4), 2), ((2, 2, 2), 2)], ids=str)
def test_samples_of_patches_have_their_probabilities(shape: tuple[int, ...], levels: int) -> None:
    n, model, everything = (
        40_000,
        SoftmaxPatches(shape, levels).fit(images(200, shape, levels=levels)),
        every_image(shape, levels),
    )
    drawn = model.sample(n, generator=torch.Generator().manual_seed(4))
    assert drawn.shape == (n, *shape)
    assert drawn.dtype == torch.int64
    numbers = (drawn.flatten(1) * levels ** torch.arange(math.prod(shape) - 1, -1, -1)).sum(1)
    share, p = torch.bincount(numbers, minlength=len(everything)) / n, model.log_density(everything).exp()
    frequent = p * n > 20  # the others are too rare to be about normal, and are taken together
    z = (share - p)[frequent] / (p * (1 - p) / n)[frequent].sqrt()
    assert z.abs().max() < 4.5
    rest, rest_p = float(share[~frequent].sum()), float(p[~frequent].sum())
    assert abs(rest - rest_p) < 4.5 * math.sqrt((rest_p * (1 - rest_p) + 1e-12) / n)


def test_patches_see_pixels_together_that_single_pixels_do_not() -> None:
    """Two images, all dark and all bright: two patterns in place of sixteen, log 2 nats where pixels alone need 4 log 2."""
    x = torch.tensor([[[[0, 0], [0, 0]]], [[[1, 1], [1, 1]]]]).repeat(50, 1, 1, 1)
    patches, pixels = (model.fit(x, 1e-9) for model in (SoftmaxPatches((1, 2, 2), 2), IndependentPixels((1, 2, 2), 2)))
    assert patches.log_density(x).tolist() == pytest.approx([-math.log(2)] * 100, abs=1e-6)
    assert pixels.log_density(x).tolist() == pytest.approx([-4 * math.log(2)] * 100, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 2), (1, 2, 5), (4,), (2, 2)], ids=str)
def test_events_that_are_no_images_of_even_sides_have_no_patches(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="patches of 2×2 pixels need images of even sides, got events of shape"):
        SoftmaxPatchesConfig().build(shape, LEVELS)


@pytest.mark.parametrize("pseudocount", [0.0, -1.0, math.inf, math.nan])
def test_patches_need_rows_and_a_positive_pseudocount(pseudocount: float) -> None:
    model = SoftmaxPatchesConfig().build((1, 2, 2), LEVELS)
    with pytest.raises(ValueError, match=f"a positive pseudocount, got 5 rows and {pseudocount}"):
        model.fit(images(5), pseudocount)
    with pytest.raises(ValueError, match=r"a positive pseudocount, got 0 rows and 0\.5"):
        model.fit(images(0))
    with pytest.raises(ValueError, match="row 0 has a level outside 0 … 2"):
        model.fit(torch.full((2, 1, 2, 2), 3))
    with pytest.raises(ValueError, match="sigma must be 0"):
        model.log_density(images(3), 0.5)


# ── as plain values and as weights ─────────────────────────────────────────────────────────────────────────────────────


def test_a_set_of_any_size_is_loaded_into_an_empty_model() -> None:
    """With more than 256 levels too, which need more than a byte each; and over a set of another size."""
    for levels in (3, 17, 256, 300):
        x = images(40, levels=levels)
        stored = TrainingImages((1, 2, 2), levels).fit(x).state_dict()
        for fresh in (TrainingImagesConfig().build((1, 2, 2), levels), TrainingImages((1, 2, 2), levels).fit(x[:3])):
            fresh.load_state_dict(stored)
            assert torch.equal(fresh.images.long(), x.flatten(1))
            counts = Counter(map(tuple, x.flatten(1).tolist()))
            exact = [math.log(counts[tuple(row)] / 40) for row in x.flatten(1).tolist()]
            assert fresh.log_density(x).tolist() == pytest.approx(exact, abs=1e-12)
            drawn = fresh.sample(200, generator=torch.Generator().manual_seed(0))
            assert set(map(tuple, drawn.flatten(1).tolist())) <= set(counts)


def test_a_set_within_a_larger_model_is_loaded_under_its_prefix() -> None:
    x = images(7)
    whole, fresh = (torch.nn.ModuleDict({"part": TrainingImages((1, 2, 2), LEVELS)}) for _ in range(2))
    whole["part"].fit(x)
    fresh.load_state_dict(whole.state_dict())
    assert torch.equal(fresh["part"].images.long(), x.flatten(1))


def test_sets_of_other_events_are_not_loaded() -> None:
    stored = TrainingImages((1, 2, 2), LEVELS).fit(images(5)).state_dict()
    with pytest.raises(RuntimeError, match="size mismatch"):
        TrainingImages((3,), LEVELS).load_state_dict(stored)
    with pytest.raises(RuntimeError, match="Missing key"):
        TrainingImages((1, 2, 2), LEVELS).load_state_dict({})


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (IndependentPixelsConfig(), IndependentPixels),
        (SoftmaxPatchesConfig(), SoftmaxPatches),
        (TrainingImagesConfig(), TrainingImages),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_configurations_build_what_they_name_and_weights_come_back(config: BaselineConfig, kind: type) -> None:
    x, new = images(30), images(10, seed=1)
    model, again = (config.build((1, 2, 2), LEVELS) for _ in range(2))
    assert type(model) is kind
    model.fit(x)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.log_density(new), model.log_density(new))
    drawn = [m.sample(20, generator=torch.Generator().manual_seed(1)) for m in (model, again)]
    assert torch.equal(*drawn)
