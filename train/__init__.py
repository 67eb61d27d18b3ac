"""The `train` room: shards in, a trained run out, and what is done with a run (evaluate, predict).

`load` reads a typed config, `train` runs it, `load_run` opens the result. The room knows the model and the shards, and
nothing of rendering.
"""
