"""Objects: every index is of some family, in blocks of shuffled families, and of its own shape and looks."""

from render.mesh import Mesh
from render.procedural import buildings, forms, furniture, lamps, plants, vehicles, vessels
from render.procedural.looks import Palette
from shards.randomness import generator

_FILES = (vessels, furniture, lamps, plants, forms, buildings, vehicles)
FAMILIES = {name: build for file in _FILES for name, build in file.FAMILIES.items()}


def family(seed: int, index: int) -> str:
    """Name of the family of object `index`: each comes once in every len(FAMILIES) consecutive indices."""
    block, place = divmod(index, len(FAMILIES))
    order = generator(seed, "procedural", "objects", "families", block).permutation(len(FAMILIES))
    return list(FAMILIES)[order[place]]


def make_object(seed: int, index: int) -> Mesh:
    """Object `index`: about its real size in metres, standing on y = 0 near the origin."""
    name = family(seed, index)
    rng = generator(seed, "procedural", "objects", index, name)
    return FAMILIES[name](rng, Palette(rng)).mesh()
