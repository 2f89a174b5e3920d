"""Data: any source, read once into a memory-mapped cache of its own integer levels or floats."""

from scorefield.data.batches import Batches
from scorefield.data.cache import Data, Split
from scorefield.data.examples import Progress
from scorefield.data.images import Reading
from scorefield.data.sources import open_data

__all__ = ["Batches", "Data", "Progress", "Reading", "Split", "open_data"]
