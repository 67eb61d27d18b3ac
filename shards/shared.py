"""What the frames of a clip have in common is said once: maps parted into what all agree on and the rest of each."""

import json
from collections.abc import Sequence
from typing import Any

from .errors import CorruptSample

Map = dict[str, Any]


def parted(frames: Sequence[Map]) -> tuple[Map, list[Map]]:
    """JSON maps -> (the part that is the same in all, what is left of each); `merged` puts them together again.

    Values that are maps in every frame are parted in turn. Two values are the same if their JSON text is: 1 and 1.0
    are not.
    """
    shared: Map = {}
    rest: list[Map] = [{} for _ in frames]
    for name in sorted({name for frame in frames for name in frame}):
        values = [frame[name] for frame in frames if name in frame]
        everywhere = len(values) == len(frames)
        if everywhere and len({json.dumps(value, sort_keys=True) for value in values}) == 1:
            shared[name] = values[0]
            continue
        if everywhere and all(isinstance(value, dict) for value in values):
            common, left = parted(values)
            if common:
                shared[name] = common
                values = left
        present = iter(values)
        for frame, own in zip(frames, rest):
            if name in frame:
                value = next(present)
                if not (name in shared and value == {}):
                    own[name] = value
    return shared, rest


def merged(shared: Any, own: Any) -> Map:
    """A frame as it was. CorruptSample where both say something of the same value."""
    if not isinstance(shared, dict) or not isinstance(own, dict):
        raise CorruptSample("a frame, or what frames share, is not a map")
    whole = {**shared, **own}
    for name in shared.keys() & own.keys():
        whole[name] = merged(shared[name], own[name])
    return whole
