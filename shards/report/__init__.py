"""A dataset as one static HTML page, for people: what is in it, how it is distributed, the best and the worst of it.

The page is one file without scripts, addresses or fonts of others: it opens from a disk without a network. Counts and
distributions are of every row of the manifest; what only pictures can tell is taken from samples that are chosen by the
dataset alone, so the same dataset gives the same bytes.
"""

from .page import write_report

__all__ = ["write_report"]
