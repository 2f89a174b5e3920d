"""report.html: one page about a run, with everything in it; nothing is loaded from elsewhere and nothing is executed."""

import shlex
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from scorefield.metrics.evaluation import REAL
from scorefield.persistence import read_config
from scorefield.report.page import HEAD, inlined, metric_rows, missing, number, read_json, row
from scorefield.system import write_durably
from scorefield.training import read_log

BY_SIGMA = "denoising loss at sigma "

BY_BOUND = (
    "The same by the evidence bound of the chain of Gaussian steps. Its density is another than the flow's, and only bounded: "
    "the two agree if the score is exact."
)
BY_HALF = "How the first number would change with half the solver's steps; the error left is smaller."
MEANINGS = {
    "denoising loss": "The training objective on held-out data, averaged over noise levels. Lower is better; compare only "
    "runs on the same data with the same objective.",
    "Fréchet distance": "How far mean and covariance of the samples are from those of held-out data. Lower is better, and "
    "other real data shows what can be reached at this number of examples.",
    "kernel distance": "A distance between the whole distributions that is 0 on average if they are equal, so it may fall "
    "below 0. Lower is better, and within two standard errors of 0 no difference was found.",
    "precision": "The share of samples that lie where held-out data lies. Higher is better.",
    "recall": "The share of held-out data that lies where samples lie. Higher is better; low values mean missing variety.",
    "density": "How closely samples crowd around held-out data. Near 1, or near the value of real data, is good; "
    "far above means that samples keep to the most typical places.",
    "coverage": "The share of held-out data with a sample nearby. Higher is better.",
    "bits per dimension, probability flow": "What a lossless code built on the model would spend on each number of an example: "
    "lower is better. By the density that the probability flow makes.",
    "bits per dimension, evidence bound": BY_BOUND,
    "bits per dimension, change by half the steps": BY_HALF,
    "bits per dimension, independent pixels": "What a histogram of each pixel alone would spend. A model should be well below.",
    "bits per dimension, uniform": "What knowing nothing would spend.",
    "bits per dimension, exact": "What a lossless code built on the model spends on each number of an example, exactly: lower "
    "is better.",
    "bits per dimension, bound of 64 importance samples": "At most so many bits, by a lower bound on the likelihood.",
    "log-density, energy less log Z": "Higher is better; the energy's log-density less an estimate of log Z.",
    "bits per dimension, energy less log Z": "The same by the energy's log-density and an estimate of log Z, whose error is in "
    "the standard error.",
    "log-density, probability flow": "Higher is better; in the units of the data, by the density of the probability flow.",
    "log-density, evidence bound": BY_BOUND,
    "log-density, change by half the steps": BY_HALF,
    "log-density lost by the prior": "What the Gaussian at the largest noise level costs; it should be next to nothing.",
    "memorisation ratio": "Median distance from samples to their nearest training example, divided by the same for held-out "
    "data. Near 1 is good; far below 1 means that samples are copies of training data.",
}  # fmt: skip

PICTURES = {
    "samples.png": ("Samples", "samples drawn from the model"),
    "film.gif": ("From noise to samples", "film of the same samples emerging from noise"),
    "neighbours.png": (
        "Are they copies?",
        "on the left of each row a sample, on its right the training images nearest to it, the nearest first",
    ),
    "learning_curve.png": ("Learning curve", "loss on training and held-out data against training examples seen"),
    "loss_by_sigma.png": ("Loss by noise level", "loss on training and held-out data at the end, by noise level"),
    "bound_by_sigma.png": (
        "Where the bits are",
        "what each range of noise levels adds to the evidence bound of held-out data, bars of two standard errors",
    ),
}
WHERE = {
    "film.gif": " of models whose samples come step by step",
    "neighbours.png": ", for images, on the run's own data",
    "bound_by_sigma.png": " with likelihoods, of models of many levels",
    "loss_by_sigma.png": " where the loss has a noise level",
}
"""which evaluations make pictures that not all make"""
PIXEL_ART = ("samples.png", "film.gif", "neighbours.png")
OF_VECTORS = {"samples.png": " (orange) over held-out data (grey)", "film.gif": ", the first two coordinates"}

PAGE = Template(
    HEAD
    + """<body>
<header><h1>$title</h1>$summary</header>
<main>
<section class="pictures">$pictures</section>
<section><h2>How good are the samples?</h2>$metrics</section>
<section><h2>Configuration</h2>$configuration</section>
<section><h2>Do it again</h2>$commands</section>
</main>
</body>
</html>
"""
)


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html from what lies in a run folder; what is missing is said in its place.

    Raises:
        UserError: run.json, evaluation.json or log.jsonl is damaged, a picture is none, or the page cannot be written.
    """
    file = read_json(folder / "run.json") or {}
    run, records = file.get("run", {}), read_json(folder / "evaluation.json") or []
    name = folder.resolve().name
    page = PAGE.substitute(
        title=escape(name),
        summary=summary(run, read_training(folder / "log.jsonl")),
        pictures="".join(picture(folder, file_name) for file_name in PICTURES),
        metrics=metrics(records),
        configuration=configuration(file),
        commands=commands(run, name),
    )
    path = folder / "report.html"
    write_durably(path, page)
    return path


def read_training(path: Path) -> list[dict[str, Any]]:
    """The training records of a log, none if there is no log; `UserError` if it is damaged."""
    return [record for record in read_log(path) if record["kind"] == "train"] if path.exists() else []


def summary(run: dict[str, Any], train: list[dict[str, Any]]) -> str:
    """What was trained on what, and for how long."""
    parts = []
    if run:
        kind, network = "log-density" if run["energy"] else "score", run["network"]["kind"]
        what = f"A {kind} of data “{run['data']}”, learned by a {network} network."
        of_integers = run["objective"].get("kind") == "likelihood"
        parts.append(f"Data “{run['data']}” by the family {network}, at σ = 0." if of_integers else what)
    if not train:
        return f"<p>{escape(' '.join(parts))}</p>" + missing("No training log here: log.jsonl is missing or empty.")
    last = train[-1]
    parts.append(
        f"{last['step']:,} steps, {last['images']:,} examples seen, {last['images_per_s']:,.0f} examples/s at the end."
    )
    return f"<p>{escape(' '.join(parts))}</p>"


def picture(folder: Path, name: str) -> str:
    """A figure with the picture inlined, or a sentence."""
    title, description = PICTURES[name]
    path = folder / name
    if not path.exists():
        hint = WHERE.get(name, "")
        return (
            f"<figure><h2>{title}</h2>{missing(f'There is no {name} here; it is made by scorefield evaluate{hint}.')}</figure>"
        )
    source, width, height = inlined(path, "evaluate")
    images = makes_images(folder)
    pixels = ' class="pixels"' if name in PIXEL_ART and images else ""
    description += "" if images else OF_VECTORS.get(name, "")
    shown = f'<img{pixels} src="{source}" alt="{escape(description)}" width="{width}" height="{height}">'
    caption = escape(description[0].upper() + description[1:])
    return f"<figure><h2>{title}</h2>{shown}<figcaption>{caption}.</figcaption></figure>"


def makes_images(folder: Path) -> bool:
    """Whether the model of a run makes images; taken for granted where there is no model."""
    path = folder / "config.json"
    return not path.exists() or len(read_config(path).spec.event_shape) == 3


def metrics(records: list[dict[str, Any]]) -> str:
    """Each metric with its standard error, the value of real data and its meaning; losses by noise level apart."""
    if not records:
        return missing("Not evaluated yet: there is no evaluation.json here. Run scorefield evaluate.")
    reference = {r["metric"].removesuffix(REAL): r for r in records if r["metric"].endswith(REAL)}
    shown = [r for r in records if not r["metric"].endswith(REAL) and not r["metric"].startswith(BY_SIGMA)]
    head = row("th", "metric", "value ± standard error", "same for real data", scope=' scope="col"')
    body = "".join(metric_rows(r, reference.get(r["metric"]), MEANINGS) for r in shown)
    absent = "" if any(r["metric"] == "memorisation ratio" for r in records) else missing(
        "There is no memorisation ratio: it is left out on other data than the run's own, and where held-out rows are "
        "themselves copies of training rows."
    )  # fmt: skip
    levels = [r for r in records if r["metric"].startswith(BY_SIGMA)]
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>{absent}{level_table(levels)}"


def level_table(records: list[dict[str, Any]]) -> str:
    """The held-out loss at each noise level."""
    if not records:
        return ""
    head = row("th", "noise level σ", "value ± standard error", scope=' scope="col"')
    levels = [(escape(r["metric"].removeprefix(BY_SIGMA)), number(r)) for r in records]
    body = "".join(f"<tr><td>{sigma}</td><td>{value}</td></tr>\n" for sigma, value in levels)
    unit = escape(f"Unit: {records[0]['unit']}; σ in standard deviations of the data. {records[0]['n']:,} held-out examples.")
    table = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
    return f'<details open><summary>Denoising loss by noise level</summary>{table}<p class="soft">{unit}</p></details>'


def configuration(file: dict[str, Any]) -> str:
    """run.json as nested definition lists."""
    if not file:
        return missing("The configuration is not known: there is no run.json here.")
    titles = {"run": "The run", "made_with": "Made with"}
    parts = [f"<details open><summary>{t}</summary>{definitions(file[k])}</details>" for k, t in titles.items() if k in file]
    return "".join(parts)


def definitions(tree: dict[str, Any]) -> str:
    """A dict as a definition list, dicts in it as lists in the list."""
    parts = []
    for key, value in tree.items():
        nested = isinstance(value, dict) and bool(value)
        mark = ' class="nested"' if nested else ""
        content = definitions(value) if nested else escape(plain(value))
        parts.append(f"<dt{mark}>{escape(key.replace('_', ' '))}</dt><dd{mark}>{content}</dd>\n")
    return f"<dl>{''.join(parts)}</dl>"


def plain(value: Any) -> str:
    """A leaf of the configuration in words."""
    if value is None or value == "":
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value) or "none"
    return str(value)


def commands(run: dict[str, Any], name: str) -> str:
    """Shell commands that repeat the run, its settings spelt out; what is not set is left to its default."""
    if not run:
        return missing("Without run.json the commands are not known.")
    recipe = ["--recipe", run["recipe"]] if run["recipe"] else []
    settings = {key: value for key, value in run.items() if key not in ("data", "recipe", "training")}
    flags = [*arguments(settings, "--"), *arguments(run["training"], "--")]
    train = ["scorefield", "train", run["data"], "--out", name, *recipe, *flags]
    sample = ["scorefield", "sample", name, "--out", "samples.png"]
    evaluate = ["scorefield", "evaluate", name]
    lines = "\n\n".join(shlex.join(command) for command in (train, sample, evaluate))
    return f"<pre>{escape(lines)}</pre>"


def arguments(tree: dict[str, Any], prefix: str) -> list[str]:
    """A dict as flags, nested names joined by dots; switches as --name or --no-name."""
    found: list[str] = []
    for key, value in tree.items():
        name = key.replace("_", "-")
        if isinstance(value, dict):
            found += arguments(value, f"{prefix}{name}.")
        elif isinstance(value, bool):
            found.append(f"{prefix}{name}" if value else f"{prefix}no-{name}")
        elif value not in (None, "", []):
            found += [prefix + name, *(str(item) for item in (value if isinstance(value, list) else [value]))]
    return found
