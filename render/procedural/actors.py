"""Actors: walking figures over a skeleton, some people, some animals."""

from render.mesh import Mesh
from render.procedural.animals import animal
from render.procedural.looks import Palette
from render.procedural.people import human
from render.procedural.skeleton import Skin
from shards.randomness import generator


def make_actor(seed: int, index: int) -> Mesh:
    """Actor `index`: two people in three, the rest animals."""
    rng = generator(seed, "procedural", "actors", index)
    return (human if rng.random() < 0.66 else animal)(rng, Palette(rng))


def skin_of(actor: Mesh) -> Skin:
    """The skin, walk and skeleton behind an actor's `pose`; ValueError for a mesh of another origin."""
    skin = getattr(actor.pose, "__self__", None)
    if not isinstance(skin, Skin):
        raise ValueError("this mesh has no skin of the procedural actors: pass one that make('actors', ...) gave")
    return skin
