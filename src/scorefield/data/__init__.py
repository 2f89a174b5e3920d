"""Data: any source, read once into a memory-mapped cache of its own integer levels or floats."""

from scorefield.data.arrays import load_array
from scorefield.data.batches import Batches
from scorefield.data.cache import Data, Split
from scorefield.data.examples import Progress
from scorefield.data.images import Reading, is_image_file, read_image
from scorefield.data.scaling import ScaledRows
from scorefield.data.sources import holds_vectors, open_data, read_all
from scorefield.data.splits import random_rows

__all__ = [
    "Batches", "Data", "Progress", "Reading", "ScaledRows", "Split", "holds_vectors", "is_image_file", "load_array",
    "open_data", "random_rows", "read_all", "read_image",
]  # fmt: skip
