"""`worldtrace shards reshard`: the same samples in the same order, in shards of another size."""

from ..rewrite import choice
from ..rewrite.inputs import open_input
from ..rewrite.rewrite import Output, rewrite
from ..store import open_store
from ..terminal import say
from .arguments import Directory
from .rewriting import Bytes, Out, Samples, SkipDamaged, Threads, copying, cut_of, tell


def reshard(
    directory: Directory,
    out: Out,
    samples: Samples = None,
    size: Bytes = None,
    skip_damaged: SkipDamaged = False,
    workers: Threads = None,
) -> None:
    """Copy a dataset into shards of another size; samples, their order and their hash stay what they are."""
    source = open_input(directory)
    cut = cut_of(samples, size)
    header = {**choice.header("reshard", [source], cut), "statistics": source.config.get("statistics")}
    output = Output(open_store(out), header)
    with copying() as advance:
        (made,) = rewrite(
            [source],
            [choice.everything(source)],
            [output],
            cut,
            skip_damaged=skip_damaged,
            workers=workers,
            advance=advance,
        )
    tell(made)
    if made.hash == source.hash:
        say("the samples and their order are those that were read")
