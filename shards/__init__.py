"""The `shards` room: the type both halves of worldtrace share, and its bytes on disk.

A sample is a `LayeredView` (or a `Clip` of them). `encode` and `write_shard` put samples into WebDataset shards,
`write_manifest` and `write_dataset_json` make a dataset of shards, `open` reads one; `Order` says which sample
comes when. The format is described in docs/format.md.
"""

from .contract import REGIMES, Clip, LayeredView, Origin, Regime, Sample, forward_fill, rays
from .dataset_json import read_dataset_json, write_dataset_json
from .errors import CorruptSample
from .manifest import read_manifest, write_manifest
from .randomness import generator, seed_of
from .reader import Dataset, open
from .sample import EncodedSample, decode, encode
from .split import SPLITS, Split, split_of
from .writer import write_shard

__all__ = [
    "REGIMES",
    "SPLITS",
    "Clip",
    "CorruptSample",
    "Dataset",
    "EncodedSample",
    "LayeredView",
    "Origin",
    "Regime",
    "Sample",
    "Split",
    "decode",
    "encode",
    "forward_fill",
    "generator",
    "open",
    "rays",
    "read_dataset_json",
    "read_manifest",
    "seed_of",
    "split_of",
    "write_dataset_json",
    "write_manifest",
    "write_shard",
]
