"""How surfaces look: a palette per object, and from it materials with textures or vertex colours."""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from render.mesh import Material, Texture
from render.procedural import textures

VertexColour = Callable[[np.ndarray], np.ndarray]  # (V,3) positions -> (V,3) linear colours


@dataclass(frozen=True, eq=False)
class Look:
    """A material, how often its texture repeats over a piece, and vertex colours if it has any."""

    material: Material
    tiling: tuple[float, float] = (1.0, 1.0)
    colour: VertexColour | None = None


class Palette:
    """A few colours that go together, drawn once per object, and the looks made of them; `muted` is how often grey."""

    def __init__(self, rng: np.random.Generator, muted: float = 0.4) -> None:
        self.rng = rng
        mood = rng.integers(6)
        hue = rng.random()
        spread = rng.choice([0.04, 0.12, 0.33, 0.5])
        saturation = (0.75, 0.4, 0.95, 0.15, 0.55, 0.65)[mood]
        value = (0.75, 0.85, 0.9, 0.6, 0.45, 0.65)[mood]
        if rng.random() < muted:
            saturation *= 0.45
        self.colours = []
        for k in range(5):
            h = (hue + spread * k + rng.normal(0, 0.03)) % 1.0
            s = np.clip(saturation + rng.normal(0, 0.12), 0, 1)
            v = np.clip(value + rng.normal(0, 0.18), 0.12, 1)
            self.colours.append(np.array(colorsys.hsv_to_rgb(h, float(s), float(v))))
        self.colours.append(np.full(3, rng.uniform(0.75, 0.97)))  # a white
        self.colours.append(np.full(3, rng.uniform(0.06, 0.3)))  # a dark

    def colour(self) -> np.ndarray:
        """One of the colours, sRGB (3,) in 0..1."""
        return self.colours[self.rng.integers(len(self.colours))]

    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        a, b = self.rng.choice(len(self.colours), 2, replace=False)
        return self.colours[a], self.colours[b]

    def plain(self, colour: np.ndarray | None = None, roughness: float | None = None) -> Look:
        rough = float(self.rng.uniform(0.15, 1.0)) if roughness is None else roughness
        return Look(Material("plain", _factor(self.colour() if colour is None else colour), roughness=rough))

    def metal(self) -> Look:
        tints = ([0.95, 0.93, 0.88], [0.97, 0.78, 0.4], [0.95, 0.64, 0.5], [0.55, 0.57, 0.6], [0.25, 0.25, 0.27])
        tint = np.array(tints[self.rng.integers(len(tints))])
        return Look(Material("metal", _factor(tint), metallic=1.0, roughness=float(self.rng.uniform(0.08, 0.6))))

    def patterned(self, pattern: Callable[..., Texture] | None = None, tiling: float | None = None) -> Look:
        maker = textures.PATTERNS[self.rng.integers(len(textures.PATTERNS))] if pattern is None else pattern
        return self.printed(maker(self.rng, *self.pair()), tiling=tiling, name=maker.__name__)

    def printed(self, texture: Texture, tiling: float | None = None, name: str = "printed") -> Look:
        times = float(self.rng.integers(1, 4)) if tiling is None else tiling
        material = Material(name, base_color_texture=texture, roughness=float(self.rng.uniform(0.3, 1.0)))
        return Look(material, (times, times))

    def wood(self, tiling: float | None = None) -> Look:
        light = np.array(colorsys.hsv_to_rgb(self.rng.uniform(0.05, 0.1), self.rng.uniform(0.35, 0.7), 0.75))
        texture = textures.wood(self.rng, light * self.rng.uniform(0.6, 1.1), light * self.rng.uniform(0.35, 0.75))
        return self.printed(texture, tiling, "wood")

    def cutout(self, pattern: Callable[..., Texture], tiling: float = 1.0, colours: tuple | None = None) -> Look:
        """A texture with holes: alpha mode MASK."""
        texture = pattern(self.rng, *(self.pair() if colours is None else colours))
        rough = float(self.rng.uniform(0.4, 1.0))
        material = Material("cutout", base_color_texture=texture, roughness=rough, alpha_mode="MASK")
        return Look(material, (tiling, tiling))

    def glass(self) -> Look:
        tint = 1 - 0.5 * self.rng.random(3) * self.rng.random()
        alpha = float(self.rng.uniform(0.2, 0.5))
        return Look(Material("glass", (*_factor(tint)[:3], alpha), roughness=0.05, alpha_mode="BLEND"))

    def glow(self) -> Look:
        warm = np.array([1.0, 0.85, 0.6]) if self.rng.random() < 0.7 else self.colour()
        strength = float(self.rng.uniform(0.6, 1.0))
        emissive = tuple(float(c) for c in linear(warm) * strength)
        return Look(Material("glow", _factor(warm), roughness=0.6, emissive=emissive))  # type: ignore[arg-type]

    def shaded(self) -> Look:
        """Vertex colours that vary over space: along a direction, or in waves."""
        a, b = (linear(c) for c in self.pair())
        direction = self.rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        waves, phase, smooth = self.rng.uniform(1, 9), self.rng.uniform(0, 6), self.rng.random() < 0.5

        def colour(positions: np.ndarray) -> np.ndarray:
            extent = np.ptp(positions, axis=0).max() or 1.0
            t = (positions - positions.mean(axis=0)) @ direction / extent
            mix = np.clip(t + 0.5, 0, 1) if smooth else 0.5 + 0.5 * np.sin(waves * 3 * t + phase)
            return a + mix[:, None] * (b - a)

        rough = float(self.rng.uniform(0.2, 1.0))
        return Look(Material("shaded", roughness=rough, metallic=float(self.rng.random() < 0.1)), colour=colour)

    def any(self) -> Look:
        """Whatever an object of unspecified stuff may be made of."""
        kinds = (
            self.plain,
            self.plain,
            self.patterned,
            self.patterned,
            self.shaded,
            self.shaded,
            self.metal,
            self.wood,
        )
        return kinds[self.rng.integers(len(kinds))]()

    def solid(self) -> Look:
        """For furniture: wood, paint, sometimes metal."""
        kinds = (self.wood, self.wood, self.plain, self.plain, self.metal, self.shaded)
        return kinds[self.rng.integers(len(kinds))]()

    def cloth(self) -> Look:
        kinds = (textures.weave, textures.plaid, textures.stripes, textures.noise, textures.dots, textures.checker)
        return self.patterned(kinds[self.rng.integers(len(kinds))], tiling=float(self.rng.integers(2, 6)))


def linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB in 0..1 to linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4)


def _factor(srgb: np.ndarray) -> tuple[float, float, float, float]:
    r, g, b = (float(c) for c in linear(np.clip(srgb, 0, 1)))
    return r, g, b, 1.0
