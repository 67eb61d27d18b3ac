"""The `cluster` room: drives `render` on Ray, over sources of assets, into one dataset of shards.

Its doors are `cluster.dataset.render_dataset(sources, folder, settings)`, which is `worldtrace render` as a function,
and `cluster.sources.parse(text)`. What is committed on disk is all the state there is: a job that was stopped is
continued by calling it again. Nothing is imported here: the command line must not wait for Ray, nor a commit for the
renderer.
"""
