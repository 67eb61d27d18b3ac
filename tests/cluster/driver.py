"""`python -m tests.cluster.driver OUT SCRATCH COUNT [hang]`: a driver to be killed. Its last asset may hang."""

import sys

from cluster import connection
from tests.cluster.boxes import SETTINGS, Boxes

if __name__ == "__main__":
    out, scratch, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    connection.quiet()
    from cluster.dataset import Means, render_dataset

    source = Boxes(count, scratch, {count - 1: "hang"} if "hang" in sys.argv[4:] else {})
    render_dataset([source], out, SETTINGS, shard_views=6, means=Means(address="local", workers=2))
