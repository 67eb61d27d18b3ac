"""`preview`: an asset as it would be rendered, on one picture to be looked at: image, layers, hits, facing, normals.

A block of tiles for every view:

    image   depth of layer 0  1  2 ...    one scale per view, near bright; forward-filled copies dimmed
    hits    facing of layer 0 1  2 ...    surfaces behind the pixel; front of the triangle blue, back red
    notes   normals of layer 0 1 2 ...    camera frame: red right, green up, blue towards the viewer

All tiles show the part of the image that holds the asset; the whole of it stands small in the corner of the notes.
A view that the verdict refuses is shown where it can be, and named in any case.
"""

import textwrap
import time
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from render.layer_faces import LayerFaces, layer_faces
from render.mesh import Mesh
from render.settings import RenderSettings
from render.views import Rendered, render_views
from shards import Clip, LayeredView, Origin, layer_pictures
from shards.sheet import BACKDROP

CLIP_FRAMES = 4  # of a clip, evenly spaced
FRONT, BACK = (70, 130, 230), (230, 80, 60)
TEXT, WARNING, REFUSED = (225, 225, 225), (255, 190, 70), (255, 110, 100)
UNNAMED = Origin("preview", "preview", "0" * 64)
GAP, LABEL = 4, 18


def preview(
    mesh: Mesh,
    settings: RenderSettings,
    origin: Origin = UNNAMED,
    seconds: Mapping[str, float] | None = None,
    tile: int = 168,
) -> tuple[Image.Image, Rendered]:
    """The picture of `settings.views` views (clips: four frames of each), and what `render_views` said of them.

    With the asset's own `origin` these are the views that a job with the same settings makes. `seconds` of earlier
    stages (loading) are named beside those of rendering. `tile` is the height and width in pixels of one picture.
    Raises Rejected where the asset cannot be normalised, ValueError where the backend cannot run here.
    """
    begin = time.perf_counter()
    rendered = render_views(mesh, origin, settings)
    shown = {number_of(sample): sample for sample in rendered.samples}
    if any(reason == "too_few_pixels" for _, reason, _ in rendered.rejected):
        # A view depends on its number alone, so these are the refused ones, rendered without asking for pixels.
        patient = settings.model_copy(update={"min_coverage": 0.0})
        shown |= {number_of(sample): sample for sample in render_views(mesh, origin, patient).samples}
    spent = {**(seconds or {}), **rendered.seconds, "in all": sum((seconds or {}).values())}
    spent["in all"] += time.perf_counter() - begin

    refused = {view: f"{reason}: {message}" for view, reason, message in rendered.rejected}
    blocks: list[Image.Image] = []
    for view in range(settings.views):
        if view in refused:
            blocks.append(_line(f"view {view} is rejected, {refused[view]}", REFUSED, settings.layers, tile))
        if view in shown:
            sample = shown[view]
            blocks += [_block(mesh, frame, settings, tile) for frame in frames_of(sample)]
    heading = _heading(mesh, settings, origin, rendered, spent)
    return _page([_heading_block(heading, settings.layers, tile), *blocks]), rendered


def number_of(sample: LayeredView | Clip) -> int:
    """The number of the view (or clip) among those of its asset."""
    frame = sample.frames[0] if isinstance(sample, Clip) else sample
    return int(frame.info["view"])


def frames_of(sample: LayeredView | Clip) -> list[LayeredView]:
    """The frames to be shown: a view itself, up to CLIP_FRAMES of a clip from its first to its last."""
    if not isinstance(sample, Clip):
        return [sample]
    chosen = np.unique(np.linspace(0, len(sample.frames) - 1, CLIP_FRAMES).round().astype(int))
    return [sample.frames[t] for t in chosen]


def hits_picture(hits: np.ndarray, layers: int) -> np.ndarray:
    """hits (H,W) uint8 -> (H,W,3) uint8: none is the backdrop, 1 to `layers` go from violet to yellow."""
    return _scale(layers)[hits]


def facing_picture(facing: np.ndarray) -> np.ndarray:
    """facing (...,H,W) int8 -> (...,H,W,3) uint8: the front of a triangle FRONT, its back BACK, no hit the backdrop."""
    return np.array([BACKDROP, FRONT, BACK], np.uint8)[facing]


def normals_picture(normal: np.ndarray) -> np.ndarray:
    """Unit normals (...,H,W,3), camera frame, 0 where none -> uint8 as normal maps have it: +x right, +y up, +z to the
    viewer, each from -1 .. 1 to 0 .. 255.
    """
    colors = np.rint((normal * [1, -1, -1] * 0.5 + 0.5) * 255).astype(np.uint8)
    return np.where((normal != 0).any(axis=-1, keepdims=True), colors, np.array(BACKDROP, np.uint8))


def _scale(layers: int) -> np.ndarray:
    """Colours (layers + 1, 3) uint8 of 0 .. layers hits."""
    from matplotlib import colormaps

    colors = colormaps["viridis"](np.linspace(0.05, 1, layers), bytes=True)[:, :3]
    return np.concatenate([[BACKDROP], colors]).astype(np.uint8)


def _block(mesh: Mesh, view: LayeredView, settings: RenderSettings, tile: int) -> Image.Image:
    """The three rows of tiles of one image."""
    faces: LayerFaces = layer_faces(mesh, view, settings.near)
    pictures = [
        [*layer_pictures(view)],
        [hits_picture(view.hits, view.layers), *facing_picture(faces.facing)],
        [*normals_picture(faces.normal)],
    ]
    part = part_of(view.valid | (view.rgba[..., 3] > 0))  # glass is no surface, and part of the image
    depths = [f"L{l}  {100 * float((view.hits > l).mean()):.1f} %" for l in range(view.layers)]
    fronts = [_front_share(faces.facing[l], l) for l in range(view.layers)]
    frame = view.info.get("frame")
    name = f"view {view.info['view']}" if frame is None else f"clip {view.info['view']} frame {frame}"
    labels = [[name, *depths], ["hits", *fronts], [f"normals L{l}" for l in range(view.layers)]]

    block, draw = _canvas(1 + view.layers, 3, tile)
    for row, (line, texts) in enumerate(zip(pictures, labels, strict=True)):
        for column, (picture, text) in enumerate(zip(line, texts, strict=True), start=1 if row == 2 else 0):
            x, y = _corner(column, row, tile)
            block.paste(_fitted(picture[part], tile), (x, y + LABEL))
            draw.text((x + 2, y + 2), text, fill=TEXT, font=_font(12))
    _legend(draw, view.layers, *_corner(0, 1, tile), tile)
    x, y = _corner(0, 2, tile)
    _notes(draw, view, x, y, tile)
    if part != (slice(0, view.size[0]), slice(0, view.size[1])):
        inset = _inset(pictures[0][0], part, round(tile / 3.5))
        block.paste(inset, (x + tile - inset.width, y + LABEL + tile - inset.height))
    return block


def part_of(shown: np.ndarray, margin: float = 0.06) -> tuple[slice, slice]:
    """Rows and columns of shown (H,W) bool that hold all its pixels, with a margin; the whole if there is none."""
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    if not len(rows):
        return slice(0, shown.shape[0]), slice(0, shown.shape[1])
    around = 2 + round(margin * max(np.ptp(rows), np.ptp(columns)))

    def grown(found: np.ndarray, size: int) -> slice:
        return slice(max(int(found[0]) - around, 0), min(int(found[-1]) + 1 + around, size))

    return grown(rows, shown.shape[0]), grown(columns, shown.shape[1])


def _inset(picture: np.ndarray, part: tuple[slice, slice], longest: int) -> Image.Image:
    """The whole picture, small, with a frame around `part`."""
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(picture).resize(size, Image.Resampling.BOX)
    rows, columns = part
    box = [round(scale * edge) for edge in (columns.start, rows.start, columns.stop, rows.stop)]
    box[2:] = [max(box[k], min(box[k + 2], size[k]) - 1) for k in (0, 1)]
    ImageDraw.Draw(image).rectangle(box, outline=REFUSED)
    return image


def _front_share(facing: np.ndarray, layer: int) -> str:
    found = int(np.count_nonzero(facing))
    return f"front L{layer}  {100 * np.count_nonzero(facing > 0) / found:.0f} %" if found else f"front L{layer}  no hit"


def _legend(draw: ImageDraw.ImageDraw, layers: int, x: int, y: int, tile: int) -> None:
    """Swatches of 1 .. layers hits beside the label of the tile."""
    width = max(6, min(14, (tile - 36) // layers))
    for count, color in enumerate(_scale(layers)[1:].tolist(), start=1):
        left = x + 32 + (count - 1) * width
        draw.rectangle((left, y + 3, left + width - 2, y + LABEL - 4), fill=tuple(color))
        if layers < 10:
            draw.text((left + width // 2 - 3, y + 3), str(count), fill=(0, 0, 0) if count > 2 else TEXT, font=_font(9))


def _notes(draw: ImageDraw.ImageDraw, view: LayeredView, x: int, y: int, tile: int) -> None:
    """Camera, light and numbers of the view in the tile at (x, y); its flags first and in a colour of their own."""
    info, z = view.info, view.depth[view.hit]
    camera, numbers, light = info["camera"], info["measures"], info["light"]["lights"]
    names = {"azimuth": "az", "elevation": "el", "yaw": "yaw", "pitch": "pitch"}
    angles = ", ".join(f"{short} {camera[name]:.0f}" for name, short in names.items() if name in camera)
    kinds = [str(one["kind"]) for one in light]
    lines = [
        f"z {z.min():.3g} .. {z.max():.3g}",
        "light " + (", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)) or "ambient only"),
        f"fov {camera['fov']:.0f}, {angles}",
        f"cut off at the {camera['cropped']}" if camera.get("cropped") else "",
        f"pixels {numbers['pixels']}",
        f"pairs L1/L0 {numbers['pairs_1_0']:.2f}, L3/L2 {numbers['pairs_3_2']:.2f}",
        f"alpha / A {numbers['alpha_iou']:.4f}",
        f"holes {100 * numbers['holes']:.2g} %",
        f"overflow {info['overflow']} of {info['slots']} slots",
        f"exposure {info['exposure']:.2f}",
        "" if info.get("time") is None else f"time {info['time']:.2f} s",
    ]
    font, step = _font(11), 13
    across = max(12, int(tile / draw.textlength("0", font=font) * 1.05))
    flags = textwrap.wrap("flags: " + (", ".join(info["flags"]) or "none"), across)
    colored = [(line, WARNING if info["flags"] else TEXT) for line in flags]
    colored += [(part, TEXT) for line in lines if line for part in textwrap.wrap(line, across)]
    for number, (line, color) in enumerate(colored[: (tile + LABEL) // step]):
        draw.text((x + 2, y + 2 + number * step), line, fill=color, font=font)


def _heading(
    mesh: Mesh, settings: RenderSettings, origin: Origin, rendered: Rendered, seconds: Mapping[str, float]
) -> list[tuple[str, tuple[int, int, int]]]:
    """The lines above the views: what the asset is, how it was rendered, what became of it."""
    textures = {id(m.base_color_texture) for m in mesh.materials if m.base_color_texture is not None}
    modes = sorted({m.alpha_mode for m in mesh.materials} - {"OPAQUE"})
    asset = f"{len(mesh.faces):,} faces, {len(mesh.vertices):,} vertices, {len(mesh.materials)} materials"
    asset += f", {len(textures)} base colour textures" + (f", alpha {' and '.join(modes)}" if modes else "")
    asset += f", animated {mesh.duration:.2f} s" if mesh.pose is not None and mesh.duration > 0 else ""
    s = settings
    how = f"{s.regime}, {s.height} x {s.width}, {s.samples} x {s.samples} samples a pixel, {s.layers} layers, "
    how += f"seed {s.seed}, backend {_backend(rendered, s)}"
    kept = f"{len(rendered.samples)} of {s.views} views kept"
    for view, reason, _ in rendered.rejected:
        kept += f", view {view} rejected as {reason}"
    took = "seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
    lines = [(f"{origin.source}/{origin.uid}", TEXT), (asset, TEXT), (how, TEXT), (took, TEXT)]
    lines.append((kept, REFUSED if rendered.rejected else TEXT))
    if mesh.flags:
        lines.append((f"flags of the asset: {', '.join(sorted(mesh.flags))}", WARNING))
    return lines


def _backend(rendered: Rendered, settings: RenderSettings) -> str:
    frames = [frame for sample in rendered.samples for frame in frames_of(sample)]
    return str(frames[0].info["backend"]) if frames else settings.backend


def _heading_block(lines: Sequence[tuple[str, tuple[int, int, int]]], layers: int, tile: int) -> Image.Image:
    width = _corner(1 + layers, 0, tile)[0]
    wrapped = [(part, color) for text, color in lines for part in textwrap.wrap(text, max(20, width // 7))]
    block = Image.new("RGB", (width, 6 + 16 * len(wrapped)), BACKDROP)
    draw = ImageDraw.Draw(block)
    for number, (line, color) in enumerate(wrapped):
        draw.text((GAP + 2, 4 + 16 * number), line, fill=color, font=_font(13 if number else 15))
    return block


def _line(text: str, color: tuple[int, int, int], layers: int, tile: int) -> Image.Image:
    return _heading_block([("", color), (text, color)], layers, tile)


def _canvas(columns: int, rows: int, tile: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (_corner(columns, 0, tile)[0], _corner(0, rows, tile)[1] + 2 * GAP), BACKDROP)
    return image, ImageDraw.Draw(image)


def _corner(column: int, row: int, tile: int) -> tuple[int, int]:
    """The upper left corner (x, y) of a tile with its label."""
    return GAP + column * (tile + GAP), GAP + row * (tile + LABEL + GAP)


def _fitted(picture: np.ndarray, tile: int) -> Image.Image:
    """picture (H,W,3) in the middle of a square of `tile` pixels."""
    image = Image.fromarray(picture)
    scale = tile / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image = image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)
    square = Image.new("RGB", (tile, tile), BACKDROP)
    square.paste(image, ((tile - size[0]) // 2, (tile - size[1]) // 2))
    return square


def _page(blocks: Sequence[Image.Image]) -> Image.Image:
    page = Image.new("RGB", (max(b.width for b in blocks), sum(b.height for b in blocks)), BACKDROP)
    y = 0
    for block in blocks:
        page.paste(block, (0, y))
        y += block.height
    return page


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
