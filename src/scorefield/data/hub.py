"""Image data sets of the Hugging Face hub."""

from functools import partial
from io import BytesIO
from typing import Any

from PIL import Image

from scorefield.data.examples import Examples, Progress
from scorefield.data.images import FORMATS, Picture, Reading, image_examples
from scorefield.data.splits import OFFICIAL, HeldOut
from scorefield.errors import UserError


def hub_dataset(name: str, reading: Reading, progress: Progress) -> Examples:
    """The images of `owner/name`: its first image column, and its column `label`, or else the first one of classes.

    The splits `train`, `validation` and `test` are taken as such; without `train`, the first split alone. Loading scripts are
    never run (`datasets` ≥ 4 has none).

    Raises:
        UserError: no such data set, no network, or no images in it.
    """
    import datasets

    try:
        splits = datasets.load_dataset(name)
    except Exception as error:  # whatever goes wrong in the library, the network or the data set
        reason = " ".join(str(error).split())
        raise UserError(
            f"hf:{name} cannot be loaded from the Hugging Face hub: {reason}; check the name and the network"
        ) from error
    parts = {k: v for k, v in splits.items() if k in OFFICIAL} if "train" in splits else dict([*splits.items()][:1])
    features = next(iter(parts.values())).features
    column = next((k for k, f in features.items() if isinstance(f, datasets.Image)), None)
    if column is None:
        raise UserError(f"hf:{name} has no column of images, only {', '.join(features)}: choose a data set of images")
    labels = sorted((k for k, f in features.items() if isinstance(f, datasets.ClassLabel)), key=lambda k: k != "label")
    pictures = [
        picture
        for split, rows in parts.items()
        for picture in pictures_of(
            rows, split, column, labels[0] if labels else None, OFFICIAL[split] if "train" in parts else ""
        )
    ]
    return image_examples(pictures, f"hf:{name}, ", reading, progress, tuple(features[labels[0]].names) if labels else ())


def pictures_of(rows: Any, split: str, column: str, label: str | None, held_out: HeldOut) -> list[Picture]:
    """The rows of one split; a missing class is −1."""
    import datasets

    encoded = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    classes = [-1] * len(rows) if label is None else [-1 if k is None else k for k in rows[label]]
    return [Picture(f"{split} row {i}", partial(opened, encoded, i, column), k, held_out) for i, k in enumerate(classes)]


def opened(encoded: Any, row: int, column: str) -> Image.Image:
    """The image of a row, its bytes not yet decoded; `ValueError` if there is none."""
    value = encoded[row][column]
    if value is None:
        raise ValueError("it is empty")
    return Image.open(value["path"] if value["bytes"] is None else BytesIO(value["bytes"]), formats=FORMATS)
