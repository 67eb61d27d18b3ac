"""The `shards` room: the type both halves of worldtrace share, and its bytes on disk.

A sample is a `LayeredView` (or a `Clip` of them). `encode` and `write_shard` put samples into WebDataset shards,
`write_manifest` and `write_dataset_json` make a dataset of shards, `open` reads one; `Order` says which sample
comes when; `layout` names the files of a dataset. The format is described in docs/format.md.
"""

from . import layout, manifest, moments
from .cache.cache import Cache
from .check.measure import statistics
from .commit import committed
from .contract import REGIMES, Clip, LayeredView, Origin, Regime, Sample, forward_fill, rays
from .dataset_json import dataset_json, parse_dataset_json, read_dataset_json, write_dataset_json
from .errors import CorruptSample
from .layers.planes import PLANES, planes_in
from .layout import TEMPORARY
from .manifest import ManifestWriter, read_manifest, write_manifest
from .moments import Moments, moments_of_sample
from .order.order import Order, Windows
from .order.sequence import History, Sequence
from .pointcloud import layered_points, write_points
from .randomness import generator, seed_of
from .reader import Dataset, open
from .sample import EncodedSample, decode, encode
from .sheet import colorize, layer_pictures, over_checkerboard, sheet
from .split import SPLITS, Split, split_of
from .writer import shard_into, write_shard

__all__ = [
    "PLANES",
    "REGIMES",
    "SPLITS",
    "TEMPORARY",
    "Cache",
    "Clip",
    "CorruptSample",
    "Dataset",
    "EncodedSample",
    "History",
    "LayeredView",
    "ManifestWriter",
    "Moments",
    "Order",
    "Origin",
    "Regime",
    "Sample",
    "Sequence",
    "Split",
    "Windows",
    "colorize",
    "committed",
    "dataset_json",
    "decode",
    "encode",
    "forward_fill",
    "generator",
    "layer_pictures",
    "layered_points",
    "layout",
    "manifest",
    "moments",
    "moments_of_sample",
    "open",
    "over_checkerboard",
    "parse_dataset_json",
    "planes_in",
    "rays",
    "read_dataset_json",
    "read_manifest",
    "seed_of",
    "shard_into",
    "sheet",
    "split_of",
    "statistics",
    "write_dataset_json",
    "write_manifest",
    "write_points",
    "write_shard",
]
