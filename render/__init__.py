"""The `render` room: an asset goes in, layered views come out.

`load` and `procedural.make` give a `Mesh`; `render_views` gives its views with the ordered surfaces behind every pixel;
`peel` is the depth peeling alone. Of `shards` it uses the contract and the randomness.
"""

from render import device, procedural
from render.load import load
from render.mesh import Material, Mesh, Rejected, Room, Texture
from render.peel import peel
from render.settings import RenderSettings, settings_of
from render.views import Rendered, render_views

device.start()

__all__ = [
    "Material",
    "Mesh",
    "Rejected",
    "RenderSettings",
    "Rendered",
    "Room",
    "Texture",
    "load",
    "peel",
    "procedural",
    "render_views",
    "settings_of",
]
