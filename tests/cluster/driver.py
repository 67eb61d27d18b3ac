"""`python -m tests.cluster.driver OUT SCRATCH COUNT [hang] [NAME=VALUE ...]`: a driver to be killed.

Its last asset may hang. Names: address (of a Ray; default: one of its own), seconds (that every load takes), workers,
foremen.
"""

import sys

from cluster import connection
from tests.cluster.boxes import SETTINGS, Boxes

if __name__ == "__main__":
    out, scratch, count, *words = sys.argv[1:]
    options = dict(word.partition("=")[::2] for word in words)
    connection.prepare()
    from cluster.dataset import Means, render_dataset

    trouble = {int(count) - 1: "hang"} if "hang" in options else {}
    source = Boxes(int(count), scratch, trouble, seconds=float(options.get("seconds", 0)))
    means = Means(
        address=options.get("address", "local"),
        workers=int(options.get("workers", 2)),
        foremen=int(options.get("foremen", 1)),
    )
    try:
        render_dataset([source], out, SETTINGS, shard_views=6, means=means)
    except KeyboardInterrupt:
        sys.exit("stopped")
