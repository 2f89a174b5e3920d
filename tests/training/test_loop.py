"""The training loop in one process: it learns the right score, and stops, resumes and fails as promised."""

import io
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from scorefield import DenoisingScoreMatching, EnergyModel, InnerProduct, ModelSpec, RunError, ScoreModel, UserError
from scorefield.densities import gaussian
from scorefield.interfaces import Loss
from scorefield.models import PlainEnergy, WithoutNoise
from scorefield.networks import MLPConfig, UNetConfig
from scorefield.networks.mlp import MLP
from scorefield.objectives import LogUniform, NoiseContrastiveEstimation, PersistentContrastiveDivergence
from scorefield.randomness import keyed_generator
from scorefield.training import Outcome, Training, TrainState, fit, log, loop, read_log

QUICK = Training(
    steps=12, batch_size=32, warmup=2, checkpoint_every=4, log_every=5, validate_every=6, precision="float32", threads=1
)


def vector_model(energy: bool = False) -> nn.Module:
    torch.manual_seed(0)
    network = MLPConfig(width=16, blocks=1, frequencies=2).build((2,))
    spec = ModelSpec((2,), sigma_range=(0.05, 5.0))
    return EnergyModel(InnerProduct(network), spec) if energy else ScoreModel(network, spec)


def image_model() -> nn.Module:
    torch.manual_seed(0)
    return ScoreModel(UNetConfig(channels=8, multipliers=(1, 2), blocks=1).build((1, 8, 8)), ModelSpec((1, 8, 8)))


def batches(*event: int):
    def at(step: int) -> tuple[Tensor, None]:
        return torch.randn(32, *event, generator=keyed_generator(0, "test batches", step)), None

    return at


def run(
    folder: Path, training: Training, model: nn.Module | None = None, objective=None, **options
) -> tuple[TrainState, Outcome]:
    folder.mkdir(exist_ok=True)
    model = model or vector_model()
    return fit(
        model, objective or DenoisingScoreMatching(), batches(*model.spec.event_shape), training, folder,
        accelerator=Accelerator(cpu=True), **options,
    )  # fmt: skip


def test_learns_the_score_of_a_gaussian(tmp_path: Path) -> None:
    """Data N(0, 1/4 I), not of unit scale: the learned score must be −x/(1/4 + σ²), far from the untrained −x/(1 + σ²)."""
    training = replace(QUICK, steps=400, learning_rate=1e-2, batch_size=256, decay_after=100)
    model = vector_model()

    def at(step: int) -> tuple[Tensor, None]:
        return torch.randn(256, 2, generator=keyed_generator(0, "gaussian", step)) / 2, None

    objective = DenoisingScoreMatching(noise=LogUniform())
    state, _ = fit(model, objective, at, training, tmp_path, accelerator=Accelerator(cpu=True))
    sigma = torch.tensor([0.3, 1.0])
    z = torch.randn(2000, 2, generator=keyed_generator(0, "check"))
    for s in sigma.tolist():
        x = (0.25 + s**2) ** 0.5 * z
        exact = -x / (0.25 + s**2)
        learned = state.average.score(x, s)
        untrained = -x / (1 + s**2)
        error, start = ((learned - exact) ** 2).sum(), ((untrained - exact) ** 2).sum()
        assert error / (exact**2).sum() < 0.02 < start / (exact**2).sum(), s


@pytest.mark.parametrize("make", [vector_model, lambda: vector_model(energy=True), image_model], ids=["mlp", "energy", "unet"])
def test_stopping_and_resuming_changes_no_bit(tmp_path: Path, make) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, QUICK, make())
    for steps in (4, 5, 12):  # 5 is no multiple of anything
        _, outcome = run(parts, replace(QUICK, steps=steps), make())
        assert outcome.step == steps
    a, b = whole / "checkpoints" / "step-00000012.safetensors", parts / "checkpoints" / "step-00000012.safetensors"
    tensors_of = lambda path: path.read_bytes()[8 + int.from_bytes(path.read_bytes()[:8], "little") :]  # noqa: E731
    assert tensors_of(a) == tensors_of(b)  # the headers differ: the log of the second run has more lines
    assert len(tensors_of(a)) > 1000


@pytest.mark.parametrize("levels", [True, False], ids=["at its smallest level", "without levels"])
def test_persistent_chains_and_learned_constants_resume_exactly(tmp_path: Path, levels: bool) -> None:
    """An objective with a state of its own: chains, their step size, a constant; validation in between moves nothing."""

    def go(folder: Path, steps: int, kind: str) -> dict[str, Tensor]:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        plain = PlainEnergy(WithoutNoise(MLP(2, 0, 16, 1, 2)), 0.5)
        model = vector_model(energy=True) if levels else plain
        if kind == "chains":
            objective: nn.Module = PersistentContrastiveDivergence((2,), 64, steps=2)
        else:
            objective = NoiseContrastiveEstimation(gaussian(torch.zeros(2), 2.0))
        held_out = torch.randn(20, 2, generator=keyed_generator(0, "held out")), None
        training = replace(QUICK, steps=steps)
        state, _ = fit(model, objective, batches(2), training, folder, accelerator=Accelerator(cpu=True), validation=held_out)
        return state.tensors()

    for kind, moved in (("chains", "model.objective.replay"), ("constant", "model.objective.log_z")):
        fresh, whole = go(tmp_path / f"{kind} fresh", 1, kind), go(tmp_path / f"{kind} whole", 12, kind)
        go(tmp_path / f"{kind} parts", 5, kind)
        parts = go(tmp_path / f"{kind} parts", 12, kind)
        assert parts.keys() == whole.keys()
        assert all(parts[name].equal(whole[name]) for name in whole)
        assert not whole[moved].equal(fresh[moved])


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    run(tmp_path, QUICK)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    _, outcome = run(tmp_path, QUICK)
    assert outcome.started_at == outcome.step == 12
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    run(tmp_path, replace(QUICK, steps=4))
    (tmp_path / "checkpoints" / ".step-00000008.safetensors.1234abcd.part").write_bytes(b"half")
    run(tmp_path, QUICK)
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == [f"step-000000{k}.safetensors" for k in ("08", 12)]


def test_only_the_last_k_checkpoints_stay(tmp_path: Path) -> None:
    run(tmp_path, replace(QUICK, steps=20, keep=3))
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == [
        f"step-000000{k}.safetensors" for k in (12, 16, 20)
    ]


def test_the_log_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, QUICK)
    lines = (tmp_path / "log.jsonl").read_text()
    sorted((tmp_path / "checkpoints").iterdir())[-1].unlink()  # as if killed after step 8
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"kind": "train", "step": 9')
    run(tmp_path, QUICK)
    records = read_log(tmp_path / "log.jsonl")
    assert [r["step"] for r in records] == [5, 10, 12]
    assert [r["images"] for r in records] == [json.loads(line)["images"] for line in lines.splitlines()]


def test_log_records_hold_the_loss_by_noise_level(tmp_path: Path) -> None:
    x = torch.randn(40, 2, generator=keyed_generator(0, "validation"))
    run(tmp_path, QUICK, validation=(x, None))
    train = [r for r in read_log(tmp_path / "log.jsonl") if r["kind"] == "train"]
    assert [r["step"] for r in train] == [5, 10, 12]
    assert [r["images"] for r in train] == [160, 320, 384]
    for record in train:
        known = [v for v in record["loss_by_sigma"] if v is not None]
        assert min(known) <= record["loss"] <= max(known)
    validation = [r for r in read_log(tmp_path / "log.jsonl") if r["kind"] == "validation"]
    assert [r["step"] for r in validation] == [6, 12]
    assert validation[0]["loss"] != validation[1]["loss"]


class NotFiniteAt:
    """An objective whose loss is NaN for one example of one call."""

    def __init__(self, call: int) -> None:
        self.call, self.inner = call, DenoisingScoreMatching()

    def __call__(self, model, x, cond=None, *, generator=None):
        loss = self.inner(model, x, cond, generator=generator)
        self.call -= 1
        return (
            loss._replace(value=loss.value * torch.where(torch.arange(len(x)) == 3, torch.nan, 1.0)) if self.call == 0 else loss
        )


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not finite in step 7 at sigma [\d.e-]+; the last good checkpoint is .*step-00000004"):
        run(tmp_path, QUICK, objective=NotFiniteAt(7))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000004.safetensors"]


class GradientNotFiniteAt(NotFiniteAt):
    """An objective whose loss is finite and whose gradient is not, in one call."""

    def __call__(self, model, x, cond=None, *, generator=None):
        loss = self.inner(model, x, cond, generator=generator)
        self.call -= 1
        nothing = (0 * next(model.parameters()).sum()).sqrt()  # 0, with an infinite slope
        return loss._replace(value=loss.value + nothing) if self.call == 0 else loss


def test_a_gradient_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    """The loss of the step before a checkpoint says nothing about the weights after it."""
    with pytest.raises(RunError, match=r"gradient is not finite in step 8; the last good checkpoint is .*step-00000004"):
        run(tmp_path, QUICK, objective=GradientNotFiniteAt(8))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000004.safetensors"]


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("can't allocate memory: 99 TB")])
def test_too_little_memory_is_said_in_one_line(error: Exception, tmp_path: Path) -> None:
    def objective(*arguments: object, **options: object) -> None:
        raise error

    with pytest.raises(RunError, match="out of memory in step 1: a smaller --batch-size"):
        run(tmp_path, QUICK, objective=objective)


class Clock:
    """Time that only batches take: a second each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(loop, "time", self)

    def monotonic(self) -> float:
        return self.now

    def batches(self, step: int) -> tuple[Tensor, None]:
        self.now += 1
        return batches(2)(step)

    def run(self, folder: Path, training: Training, watch=lambda step, fields: None) -> Outcome:
        accelerator = Accelerator(cpu=True)
        objective = DenoisingScoreMatching()
        return fit(vector_model(), objective, self.batches, training, folder, accelerator=accelerator, watch=watch)[1]


def test_minutes_count_over_all_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, ten_seconds = Clock(monkeypatch), replace(QUICK, steps=3, minutes=10 / 60)

    def interrupt(step: int, fields: dict) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    first = clock.run(tmp_path, ten_seconds, interrupt)
    clock.now += 99  # between two calls
    second = clock.run(tmp_path, ten_seconds)
    assert (first.signal_number, second.signal_number) == (signal.SIGINT, None)
    assert (second.started_at, second.step, second.seconds) == (first.step, 10, 10 - first.step)
    assert [r["trained_seconds"] for r in read_log(tmp_path / "log.jsonl")] == [5, first.step, 10]
    third = clock.run(tmp_path, ten_seconds)
    assert (third.started_at, third.step) == (10, 10)
    assert clock.run(tmp_path, replace(QUICK, minutes=0.2)).step == 12
    assert clock.run(tmp_path, replace(QUICK, steps=15)).step == 15


def test_throughput_is_that_of_the_steps_since_the_last_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    clock.run(tmp_path, replace(QUICK, steps=4))
    clock.run(tmp_path, QUICK)  # its first record is of one step
    assert [(r["step"], r["images_per_s"]) for r in read_log(tmp_path / "log.jsonl")] == [(4, 32), (5, 32), (10, 32), (12, 32)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_and_returns(tmp_path: Path, number: int) -> None:
    def watch(step: int, fields: dict) -> None:
        if step == 6:
            os.kill(os.getpid(), number)

    _, outcome = run(tmp_path, QUICK, watch=watch)
    assert outcome.signal_number == number
    assert outcome.step in (6, 7)  # the step under way is finished
    assert (tmp_path / "checkpoints" / f"step-{outcome.step:08d}.safetensors").exists()
    whole = tmp_path / "whole"
    resumed, _ = run(tmp_path, QUICK)
    uninterrupted, _ = run(whole, QUICK)
    for name, value in uninterrupted.tensors().items():
        assert torch.equal(value, resumed.tensors()[name]), name


def test_minutes_end_a_run_early(tmp_path: Path) -> None:
    _, outcome = run(tmp_path, replace(QUICK, steps=100_000, minutes=0.02))
    assert 0 < outcome.step < 100_000
    assert outcome.signal_number is None
    assert read_log(tmp_path / "log.jsonl")[-1]["step"] == outcome.step


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.write_bytes

    def write_bytes(self: Path, data: bytes) -> int:
        if "step-00000008" in self.name:
            real(self, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(RunError, match="the disk is full"):
        run(tmp_path, QUICK)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000004.safetensors"]
    monkeypatch.undo()
    resumed, outcome = run(tmp_path, QUICK)
    assert outcome.started_at == 4
    whole, _ = run(tmp_path / "whole", QUICK)
    for name, value in whole.tensors().items():
        assert torch.equal(value, resumed.tensors()[name]), name


def test_a_disk_that_fills_up_at_a_log_line_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class File(io.FileIO):
        def flush(self) -> None:
            if self.tell() > 2000:  # the second line, of step 10
                raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log, "open", lambda path, mode: File(path, mode), raising=False)
        with pytest.raises(RunError, match=r"log.jsonl: the disk is full"):
            run(tmp_path, QUICK)
    resumed, outcome = run(tmp_path, QUICK)
    assert outcome.started_at == 8
    whole, _ = run(tmp_path / "whole", QUICK)
    for name, value in whole.tensors().items():
        assert torch.equal(value, resumed.tensors()[name]), name
    assert [r["step"] for r in read_log(tmp_path / "log.jsonl")] == [5, 10, 12]


def test_a_folder_that_cannot_be_made_is_a_failed_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(RunError, match=r"cannot write .*checkpoints"):
        run(tmp_path, QUICK)


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    run(tmp_path, QUICK)
    newest_path = sorted((tmp_path / "checkpoints").iterdir())[-1]
    newest_path.write_bytes(newest_path.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"step-00000012\.safetensors cannot be read"):
        run(tmp_path, QUICK)


def test_energies_are_never_trained_in_bf16() -> None:
    with pytest.raises(UserError, match="bf16"):
        Training(precision="bf16").resolved(torch.device("cpu"), energy=True)
    assert Training().resolved(torch.device("cpu"), energy=True).precision == "float32"


def test_randomness_is_not_global(tmp_path: Path) -> None:
    """Draws between steps, as a user's callback may make, change nothing."""
    a, _ = run(tmp_path / "a", QUICK)
    b, _ = run(tmp_path / "b", QUICK, watch=lambda step, fields: torch.rand(step))
    assert all(torch.equal(v, b.tensors()[k]) for k, v in a.tensors().items())


# ── the weights that are kept ──────────────────────────────────────────────────────────────────────────────────────────


class Passing(nn.Module):
    """A single weight that training pushes up, while held-out data likes it best near a goal; model and objective in one."""

    sigma_range = (0.0, 0.0)

    def __init__(self, goal: float = 0.0) -> None:
        super().__init__()
        self.weight, self.goal = nn.Parameter(torch.zeros(1, dtype=torch.float64)), goal

    def held_out(self, weight: float) -> float:
        return (weight - self.goal) ** 2

    def __call__(self, model: nn.Module, x: Tensor, cond: Tensor | None = None, *, generator: object = None) -> Loss:
        value = -model.weight if torch.is_grad_enabled() else (model.weight - self.goal) ** 2
        return Loss(value.expand(len(x)), None, {})


def pass_by(
    folder: Path, steps: int, goal: float = 0.0, watch=lambda step, fields: None, **changes
) -> tuple[TrainState, Outcome]:
    """Train the weight, held-out data every 3 steps."""
    folder.mkdir(exist_ok=True)
    settings = {"learning_rate": 0.1, "validate_every": 3, "keep_best": True}
    training = replace(QUICK, steps=steps, **{**settings, **changes})
    data = lambda step: (torch.zeros(4, 1), None)  # noqa: E731
    return fit(
        Passing(), Passing(goal).__call__, data, training, folder,
        accelerator=Accelerator(cpu=True), validation=(torch.zeros(5, 1), None), watch=watch,
    )  # fmt: skip


def averages(folder: Path, steps: int) -> list[float]:
    """The averaged weight after step 1, 2, …, by a run without choice that is looked at after every step."""
    seen: list[float] = []
    for step in range(1, steps + 1):
        seen.append(pass_by(folder, step, keep_best=False)[0].average.weight.item())
    assert seen == sorted(seen)  # it only rises
    return seen


def test_the_weights_of_the_smallest_held_out_loss_are_kept(tmp_path: Path) -> None:
    """Of those at multiples of `validate_every`: step 14 is the last one, is measured, and does not count."""
    found = averages(tmp_path / "averages", 14)
    for goal, expected in ((found[5] + 0.01, 6), (found[0], 3), (found[13], 12), (found[7], 9), (100.0, 12)):
        best = min((3, 6, 9, 12), key=lambda step: (found[step - 1] - goal) ** 2)
        assert best == expected
        folder = tmp_path / f"{goal:.6f}"
        state, _ = pass_by(folder, 14, goal)
        assert state.chosen.weight.item() == found[best - 1]
        assert state.best_loss == pytest.approx((found[best - 1] - goal) ** 2, rel=1e-12, abs=1e-30)
        assert state.average.weight.item() == found[13]
        losses = {r["step"]: r["loss"] for r in read_log(folder / "log.jsonl") if r["kind"] == "validation"}
        assert list(losses) == [3, 6, 9, 12, 14]
        assert losses[14] == pytest.approx((found[13] - goal) ** 2, rel=1e-12, abs=1e-30)
        assert state.best_loss == min(losses[step] for step in (3, 6, 9, 12))


def test_the_last_weights_are_kept_where_no_choice_was_asked_for_or_possible(tmp_path: Path) -> None:
    for name, changes in (("not asked for", {"keep_best": False}), ("never judged", {"validate_every": 15})):
        state, _ = pass_by(tmp_path / name, 14, **changes)
        assert state.best is None
        assert state.chosen is state.average
        assert state.best_loss == float("inf")


def test_what_an_interruption_measures_does_not_count(tmp_path: Path) -> None:
    """Step 7 would be the best of all; a run that was interrupted there, or ended and grown, keeps what a whole one keeps."""
    goal = averages(tmp_path / "averages", 7)[6]
    whole, _ = pass_by(tmp_path / "whole", 14, goal)

    def interrupt(step: int, fields: dict) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    stopped, outcome = pass_by(tmp_path / "interrupted", 14, goal, interrupt)
    assert (outcome.signal_number, outcome.step) == (signal.SIGINT, 7)
    assert stopped.average.weight.item() == goal
    last = read_log(tmp_path / "interrupted" / "log.jsonl")[-1]
    assert (last["kind"], last["step"], last["loss"]) == ("validation", 7, 0.0)
    assert stopped.chosen.weight.item() != goal
    pass_by(tmp_path / "grown", 7, goal)
    for name in ("interrupted", "grown"):
        resumed, outcome = pass_by(tmp_path / name, 14, goal)
        assert (outcome.started_at, outcome.step) == (7, 14)
        assert resumed.best_loss == whole.best_loss > 0
        assert resumed.tensors().keys() == whole.tensors().keys()
        assert all(torch.equal(value, resumed.tensors()[key]) for key, value in whole.tensors().items())


@pytest.mark.parametrize("stop", [4, 8, 10])
def test_the_best_weights_of_a_network_survive_a_resume_bit_for_bit(tmp_path: Path, stop: int) -> None:
    """Learning too fast for its few rows, so that the loss on others has a minimum within the run."""
    held_out = torch.randn(40, 2, generator=keyed_generator(0, "validation")), None
    training = replace(QUICK, steps=12, learning_rate=0.3, validate_every=2, keep_best=True)
    whole, _ = run(tmp_path / "whole", training, validation=held_out)
    run(tmp_path / "parts", replace(training, steps=stop), validation=held_out)
    parts, _ = run(tmp_path / "parts", training, validation=held_out)
    losses = {r["step"]: r["loss"] for r in read_log(tmp_path / "whole" / "log.jsonl") if r["kind"] == "validation"}
    assert whole.best_loss == parts.best_loss == min(losses.values()) < losses[12]
    best = {key: value for key, value in whole.tensors().items() if key.startswith("best.")}
    assert best.keys() == {f"best.{key}" for key in whole.average.state_dict()}
    assert all(torch.equal(value, parts.tensors()[key]) for key, value in best.items())
    assert any(not torch.equal(value, whole.tensors()[key.replace("best", "average", 1)]) for key, value in best.items())
    again, outcome = run(tmp_path / "parts", training, validation=held_out)  # finished: it is read and left alone
    assert outcome.started_at == outcome.step
    assert again.best_loss == whole.best_loss
    assert all(torch.equal(value, again.chosen.state_dict()[key.removeprefix("best.")]) for key, value in best.items())
