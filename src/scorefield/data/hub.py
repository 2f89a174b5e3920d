"""Image data sets of the Hugging Face hub."""

from collections.abc import Iterator
from typing import Any

from scorefield.data.examples import Example, Examples
from scorefield.data.images import Reading, is_grey, pixels
from scorefield.errors import UserError


def hub_dataset(name: str, reading: Reading) -> Examples:
    """The images of `owner/name`: its first image column, its first class column if it has one, its test split if official.

    Loading scripts are never run (`datasets` ≥ 4 has none). Grey or colour is taken from the first image.

    Raises:
        UserError: no such data set, no network, or no images in it.
    """
    import datasets

    try:
        splits = datasets.load_dataset(name)
    except Exception as error:  # whatever goes wrong in the library, the network or the data set
        reason = " ".join(str(error).split())
        raise UserError(f"hf:{name} cannot be loaded from the Hugging Face hub: {reason}") from error
    parts = {k: v for k, v in splits.items() if k in ("train", "test")} or dict(list(splits.items())[:1])
    features = next(iter(parts.values())).features
    column = next((k for k, f in features.items() if isinstance(f, datasets.Image)), None)
    if column is None:
        raise UserError(f"hf:{name} has no column of images; its columns are {', '.join(features)}")
    label = next((k for k, f in features.items() if isinstance(f, datasets.ClassLabel)), None)
    classes = tuple(features[label].names) if label else ()
    skipped: list[str] = []

    def read() -> Iterator[Example]:
        skipped.clear()
        grey: bool | None = None if reading.channels == "auto" else reading.channels == "grey"
        shape: tuple[int, ...] | None = None
        for split, rows in parts.items():
            for number in range(len(rows)):
                try:
                    row: dict[str, Any] = rows[number]
                    grey = is_grey(row[column]) if grey is None else grey
                    x = pixels(row[column], reading, grey, deep=False)
                except (OSError, ValueError, SyntaxError) as error:
                    if not reading.skip_bad:
                        raise UserError(
                            f"hf:{name}, {split} row {number} cannot be read ({error}): --reading.skip-bad leaves it out"
                        ) from error
                    skipped.append(f"{split} row {number}")
                    continue
                shape = shape or x.shape
                if x.shape != shape:
                    raise UserError(
                        f"hf:{name} holds images of different sizes ({split} row {number} is {x.shape[2]}×{x.shape[1]}): "
                        "give --reading.size N to make all of them N×N"
                    )
                yield Example(x, row[label] if label else -1, split == "test")

    return Examples("images", sum(len(p) for p in parts.values()), 256, read, classes, skipped)
