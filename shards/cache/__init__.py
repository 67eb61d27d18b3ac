"""Copies of shards on this machine: the cache, a dataset's copies in it, and what is fetched ahead of need."""

from .cache import Cache

__all__ = ["Cache"]
