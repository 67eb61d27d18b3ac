"""The `cluster` room: drives `render` on Ray, over sources of assets, into one dataset of shards.

`cluster.dataset.render_dataset(sources, folder, settings)` is `worldtrace render` as a function. What is committed on
disk is all the state there is: a job that was stopped is continued by calling it again.
"""

from cluster.sources import AssetRef, Source, parse

__all__ = ["AssetRef", "Source", "parse"]
