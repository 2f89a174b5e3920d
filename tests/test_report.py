"""report.html: everything inlined, everything escaped, nothing hidden."""

import base64
import json
import re
import shlex
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scorefield.errors import UserError
from scorefield.models import ModelSpec
from scorefield.networks import MLPConfig, UNetConfig
from scorefield.persistence import ModelConfig, to_json
from scorefield.report import write_report

EVIL = "<script>alert('1')</script>\"&.npy"
PICTURES = ["samples.png", "film.gif", "neighbours.png", "learning_curve.png", "loss_by_sigma.png", "bound_by_sigma.png"]


def run_file(data: str = EVIL) -> dict[str, Any]:
    training = {"steps": 1600, "minutes": None, "batch_size": 128, "seed": 0, "precision": "bf16", "threads": 2}
    run = {
        "data": data, "recipe": "digits", "reading": {"size": None, "skip_bad": True},
        "network": {"kind": "unet", "channels": 64, "multipliers": [1, 2], "attention": True}, "energy": False,
        "parameterisation": {"name": "edm"}, "sigma_range": [0.002, 80.0], "objective": {"noise": {"kind": "lognormal"}},
        "training": training,
    }  # fmt: skip
    return {"format_version": 1, "run": run, "made_with": {"scorefield": "0.1.0", "device": EVIL}}


RECORDS = [
    {"metric": "denoising loss", "value": 0.41234567, "se": 0.0031, "n": 360, "unit": "per dimension", "seed": 0},
    {"metric": "denoising loss at sigma 0.11", "value": 0.305, "se": 0.012, "n": 360, "unit": "per dimension", "seed": 0},
    {"metric": "Fréchet distance", "value": 4.4482, "se": 0.498, "n": 297, "unit": EVIL, "seed": 0},
    {"metric": "Fréchet distance, real data", "value": 3.4075, "se": 0.343, "n": 297, "unit": EVIL, "seed": 0},
    {"metric": "kernel distance", "value": 1.5e-09, "se": None, "n": 297, "unit": "cubic", "seed": None},
    {"metric": EVIL, "value": 12345.0, "se": 678.0, "n": 297, "unit": "1", "seed": 0},
]
LOG = {"kind": "train", "step": 1600, "images": 204800, "loss": 0.3, "images_per_s": 5120.4}


class Page(HTMLParser):
    """All start tags with their attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with an evil name and everything in it."""
    folder = tmp_path / "<script>&\"' run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(run_file()))
    (folder / "evaluation.json").write_text(json.dumps(RECORDS))
    (folder / "log.jsonl").write_text(json.dumps(LOG) + "\n" + '{"kind": "tr')
    for number, name in enumerate(PICTURES):
        Image.fromarray(np.full((4, 5 + number), number, np.uint8)).save(folder / name)
    return folder


def written(folder: Path) -> tuple[str, Page]:
    path = write_report(folder)
    assert path == folder / "report.html"
    page = path.read_text(encoding="utf-8")
    return page, Page(page)


def test_nothing_is_executed_and_nothing_loaded(folder: Path) -> None:
    page, parsed = written(folder)
    assert "<script" not in page.lower()
    assert not re.search(r"https?://|@import|url\(", page)
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "form", "base"})
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    sources = [attributes.get(name) for _, attributes in parsed.tags for name in ("src", "srcset", "href", "data")]
    assert all(source is None or source.startswith("data:image/") for source in sources)
    assert page.count(unescape("&lt;script&gt;alert")) == 0
    assert parsed.text.count(EVIL) >= 4  # data, unit, metric and device, all shown as they are


def test_every_picture_is_inlined_with_a_text_for_those_who_do_not_see_it(folder: Path) -> None:
    _, parsed = written(folder)
    images = parsed.all("img")
    contents = [base64.b64decode((image["src"] or "").split("base64,")[1]) for image in images]
    assert contents == [(folder / name).read_bytes() for name in PICTURES]
    assert [(image["src"] or "")[:15] for image in images] == ["data:image/png;", "data:image/gif;", *["data:image/png;"] * 4]
    assert [(image["width"], image["height"]) for image in images] == [(str(5 + i), "4") for i in range(6)]
    assert all(len(image["alt"] or "") > 20 for image in images)
    assert [image.get("class") for image in images] == ["pixels", "pixels", "pixels", None, None, None]


def test_values_stand_with_their_errors_and_meanings(folder: Path) -> None:
    _, parsed = written(folder)
    assert {attributes["value"] for attributes in parsed.all("data")} == {repr(r["value"]) for r in RECORDS}
    for text in ("0.4123 ± 0.0031", "4.45 ± 0.50", "3.41 ± 0.34", "1.5e-09", "12345 ± 678", "0.305 ± 0.012"):
        assert text in parsed.text
    for sentence in ("mean and covariance of the samples", "Lower is better", "There is no memorisation ratio"):
        assert sentence in parsed.text


def test_the_run_and_its_training_are_told(folder: Path) -> None:
    page, parsed = written(folder)
    assert "1,600 steps, 204,800 examples seen, 5,120 examples/s" in parsed.text
    assert "<dt>batch size</dt><dd>128</dd>" in page
    assert "<dt>multipliers</dt><dd>1, 2</dd>" in page
    assert "<dt>minutes</dt><dd>not set</dd>" in page
    assert "<dt>skip bad</dt><dd>yes</dd>" in page
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page


def test_commands_can_be_pasted_into_a_shell(folder: Path) -> None:
    page, _ = written(folder)
    block = unescape(re.findall(r"<pre>(.*?)</pre>", page, re.S)[0])
    train, sample, evaluate = (shlex.split(line) for line in block.split("\n\n"))
    assert train[:3] == ["scorefield", "train", EVIL]
    assert train[3:7] == ["--out", folder.name, "--recipe", "digits"]
    settings = shlex.join(train[7:])
    assert settings == (
        "--reading.skip-bad --network.kind unet --network.channels 64 --network.multipliers 1 2 --network.attention "
        "--no-energy --parameterisation.name edm --sigma-range 0.002 80.0 "
        "--objective.noise.kind lognormal --steps 1600 --batch-size 128 --seed 0 --precision bf16 "
        "--threads 2"
    )
    assert sample == ["scorefield", "sample", folder.name, "--out", "samples.png"]
    assert evaluate == ["scorefield", "evaluate", folder.name]


@pytest.mark.parametrize("changes", [{}, {"conditional": True, "recipe": "digits-classes"}, {"dequantise": False}], ids=str)
def test_the_train_command_is_the_run(changes: dict[str, Any], tiny_run: Path, tmp_path: Path) -> None:
    """Parsed as the command line would, it gives the very configuration that was stored."""
    from scorefield.cli.parse import parse
    from scorefield.cli.train import Train
    from scorefield.experiment import read_run
    from scorefield.report import commands

    run = json.loads((tiny_run / "run.json").read_text())["run"] | changes
    block = unescape(commands(run, "again").removeprefix("<pre>"))
    arguments = shlex.split(block.split("\n\n")[0])[2:]
    parsed = parse(Train, arguments, prog="scorefield train", default=Train.defaults(arguments))
    assert parsed.run == replace(read_run(tiny_run), **changes)


def test_an_empty_folder_is_told_as_such(tmp_path: Path) -> None:
    page, parsed = written(tmp_path)
    for name in PICTURES:
        assert f"There is no {name} here" in parsed.text
    for words in ("Not evaluated yet", "no run.json here", "log.jsonl is missing", "commands are not known"):
        assert words in parsed.text
    assert parsed.all("img") == []
    assert "None" not in page


def test_plots_of_vectors_are_not_pixel_art(folder: Path) -> None:
    (folder / "neighbours.png").unlink()
    (folder / "config.json").write_text(to_json(ModelConfig(ModelSpec((2,)), MLPConfig())))
    _, parsed = written(folder)
    assert [image.get("class") for image in parsed.all("img")] == [None] * 5
    assert "over held-out data (grey)" in parsed.text


def test_images_judged_on_other_data_stay_images(folder: Path) -> None:
    """They have no neighbours.png, since nearest rows of other data are no training examples."""
    (folder / "neighbours.png").unlink()
    (folder / "config.json").write_text(to_json(ModelConfig(ModelSpec((1, 8, 8)), UNetConfig())))
    _, parsed = written(folder)
    assert [image.get("class") for image in parsed.all("img")] == ["pixels", "pixels", None, None, None]
    assert "over held-out data" not in parsed.text
    assert (
        "There is no neighbours.png here; it is made by scorefield evaluate, for images, on the run's own data" in parsed.text
    )
    assert "There is no memorisation ratio: it is left out on other data than the run's own" in parsed.text


def test_the_old_page_is_replaced_and_nothing_else_left(folder: Path) -> None:
    (folder / "report.html").write_text("old")
    before = {path.name for path in folder.iterdir()}
    page, _ = written(folder)
    assert page.startswith("<!DOCTYPE html>")
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["run.json", "evaluation.json", "log.jsonl", "samples.png"])
def test_damaged_files_are_named(folder: Path, name: str) -> None:
    (folder / name).write_text("{half\n")
    with pytest.raises(UserError, match=name):
        write_report(folder)
    assert not (folder / "report.html").exists()
