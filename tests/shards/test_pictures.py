"""Sheets and point clouds: they show where the surfaces are, in the frame that the format says."""

import base64
import io
import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
import trimesh
from PIL import Image
from rich.console import Console

from shards import colorize, layer_pictures, layered_points, over_checkerboard, sheet, terminal, write_points
from shards.exr import write_exr
from shards.pointcloud import HIDDEN
from shards.sheet import BACKDROP, strip
from tests.shards.scenes import spheres_clip, spheres_view


def brightness(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(float) @ [0.2126, 0.7152, 0.0722]


def test_near_is_bright_and_nothing_is_dark() -> None:
    depth = np.linspace(1, 3, 50, dtype=np.float32).reshape(5, 10)
    valid = np.ones((5, 10), bool)
    valid[2, 3] = False
    rgb = colorize(depth, valid)
    assert (np.diff(brightness(rgb)[valid]) < 0).all()
    assert tuple(rgb[2, 3]) == BACKDROP
    assert (colorize(depth, np.zeros_like(valid)) == BACKDROP).all()


def test_copies_are_dimmer_than_true_hits() -> None:
    view = spheres_view(3)
    image, *layers = layer_pictures(view)
    assert len(layers) == 6
    copied = view.hits == 2
    # layer 2 shows there what layer 1 has truly, dimmed
    assert (brightness(layers[2][copied]) < 0.5 * brightness(layers[1][copied]) + 1).all()
    both = view.hits >= 3
    assert both.any()
    assert (layers[2][both] == colorize(view.depth, np.broadcast_to(view.valid, view.depth.shape))[2][both]).all()
    opaque = view.rgba[..., 3] == 255
    np.testing.assert_array_equal(image[opaque], view.rgba[opaque][:, :3])


def test_the_checkerboard_shows_through_alpha() -> None:
    rgba = np.zeros((48, 48, 4), np.uint8)
    assert len(np.unique(over_checkerboard(rgba))) == 2
    rgba[..., 3] = 255
    assert (over_checkerboard(rgba) == 0).all()


def test_a_sheet_has_a_row_per_view_and_a_tile_per_layer(tmp_path: Path) -> None:
    page = sheet([spheres_view(0), spheres_view(1, 64, 20), spheres_clip(2, frames=9)], tmp_path / "s.png", tile=40)
    assert page.size[0] == 7 * 44 + 4
    assert page.size[1] == (2 + 4) * 62 + 4
    with Image.open(tmp_path / "s.png") as saved:
        assert saved.size == page.size
    with pytest.raises(ValueError, match="empty"):
        sheet([])


def test_layered_points_are_the_true_hits() -> None:
    view = spheres_view(3)
    xyz, rgb = layered_points(view)
    assert len(xyz) == int(view.hits.sum())
    projected = (view.K @ (xyz / xyz[:, 2:]).T.astype(float))[:2].T
    np.testing.assert_allclose(projected % 1, 0.5, atol=1e-3)  # every point lies behind the centre of a pixel
    visible = int(view.valid.sum())
    np.testing.assert_array_equal(rgb[:visible], view.rgba[view.valid][:, :3])
    assert (rgb[visible:] == HIDDEN).all()


def cloud(n: int = 100) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 3)).astype(np.float32), rng.integers(0, 256, (n, 3), dtype=np.uint8)


def test_ply_keeps_the_camera_frame(tmp_path: Path) -> None:
    xyz, rgb = cloud()
    loaded = trimesh.load(write_points(tmp_path / "a.ply", xyz, rgb))
    np.testing.assert_array_equal(np.asarray(loaded.vertices, np.float32), xyz)
    np.testing.assert_array_equal(loaded.colors[:, :3], rgb)


def test_glb_is_y_up_with_linear_colours(tmp_path: Path) -> None:
    xyz, rgb = cloud()
    path = write_points(tmp_path / "a.glb", xyz, rgb)
    (loaded,) = trimesh.load(path).geometry.values()
    np.testing.assert_array_equal(np.asarray(loaded.vertices, np.float32), xyz * np.float32([1, -1, -1]))
    data = path.read_bytes()
    assert struct.unpack_from("<4sII", data) == (b"glTF", 2, len(data))
    json_length = struct.unpack_from("<I", data, 12)[0]
    colors = np.frombuffer(data, "<f4", offset=20 + json_length + 8 + xyz.nbytes).reshape(-1, 4)[:, :3]
    # back through the sRGB transfer function: a float loses nothing of 8 bits
    srgb = np.where(colors <= 0.0031308, colors * 12.92, 1.055 * colors ** (1 / 2.4) - 0.055)
    np.testing.assert_array_equal(np.rint(255 * srgb), rgb)


@pytest.mark.parametrize("suffix", ["ply", "glb"])
def test_no_points_are_a_file_too(tmp_path: Path, suffix: str) -> None:
    path = write_points(tmp_path / f"a.{suffix}", np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    assert path.stat().st_size > 0


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    xyz, rgb = cloud(3)
    with pytest.raises(ValueError, match=r"\.ply, \.glb, not as \.obj"):
        write_points(tmp_path / "a.obj", xyz, rgb)
    with pytest.raises(ValueError, match="uint8"):
        write_points(tmp_path / "a.ply", xyz, rgb.astype(float))
    with pytest.raises(ValueError, match="1 of 3 points"):
        write_points(tmp_path / "a.ply", np.where(np.arange(3)[:, None] == 1, np.nan, xyz), rgb)
    assert list(tmp_path.iterdir()) == []


def test_exr_has_the_layers_and_linear_premultiplied_colours(tmp_path: Path) -> None:
    view = spheres_view(3)
    path = write_exr(tmp_path / "a.exr", view)
    file = OpenEXR.File(str(path))
    channels = {name: channel.pixels for name, channel in file.channels().items()}
    assert set(channels) == {"RGBA", "hits", *(f"L{l}.Z" for l in range(6))}
    np.testing.assert_array_equal(np.stack([channels[f"L{l}.Z"] for l in range(6)]), view.depth)
    np.testing.assert_array_equal(channels["hits"], view.hits)
    rgba = channels["RGBA"].astype(float)
    alpha = rgba[..., 3:]
    np.testing.assert_allclose(alpha[..., 0] * 255, view.rgba[..., 3], atol=0.1)
    linear = np.divide(rgba[..., :3], alpha, out=np.zeros_like(rgba[..., :3]), where=alpha > 0)
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    shown = view.rgba[..., 3] > 0
    np.testing.assert_allclose(255 * srgb[shown], view.rgba[shown][:, :3], atol=0.3)  # a half has 11 bits
    about = json.loads(file.header()["worldtrace"])
    np.testing.assert_array_equal(about["K"], view.K)
    assert (about["key"], about["regime"]) == (view.key, view.regime)
    again = write_exr(tmp_path / "b.exr", view)
    assert again.read_bytes() == path.read_bytes()
    assert sorted(tmp_path.iterdir()) == [path, again]


def printed(picture: Image.Image, environment: dict[str, str], **console: Any) -> str:
    """What a terminal would be sent; empty where there is no way to show a picture."""
    out = io.StringIO()
    screen = Console(file=out, **({"force_terminal": True, "color_system": "truecolor", "width": 40} | console))
    if (way := terminal.way(screen, environment)) is not None:
        terminal.draw(picture, screen, way)
    return out.getvalue()


def test_a_terminal_shows_pixels_as_half_blocks() -> None:
    """The escape sequences are read back: every pixel has its own colour and place."""
    rgb = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    lines = printed(Image.fromarray(rgb), {}).splitlines()
    assert len(lines) == 3
    for v, line in enumerate(lines):
        cells = re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▄+", line)
        colors = np.array(cells, int).reshape(5, 2, 3)
        np.testing.assert_array_equal(colors[:, 1], rgb[2 * v])
        np.testing.assert_array_equal(colors[:, 0], rgb[2 * v + 1])
    wide = printed(Image.new("RGB", (400, 100)), {})
    assert {line.count("▄") for line in wide.splitlines()} == {40}
    assert len(wide.splitlines()) == 5


@pytest.mark.parametrize(
    ("environment", "pattern"),
    [
        ({"TERM": "xterm-kitty"}, r"\x1b_G[^;]*;([^\x1b]*)\x1b\\"),
        ({"TERM_PROGRAM": "WezTerm"}, r"\x1b\]1337;File=inline=1:([^\x07]*)\x07"),
    ],
)
def test_terminals_with_pictures_get_the_picture(environment: dict[str, str], pattern: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8))
    text = printed(noise, environment)
    parts = re.findall(pattern, text)
    assert all(len(part) <= 4096 for part in parts) or "1337" in text
    with Image.open(io.BytesIO(base64.b64decode("".join(parts)))) as back:
        np.testing.assert_array_equal(np.asarray(back), np.asarray(noise))
    assert "▄" in printed(noise, environment | {"TMUX": "/tmp/x"})  # which would swallow the picture


def test_a_strip_has_the_pictures_in_rows() -> None:
    view = spheres_view(3, 40, 40)
    page = np.asarray(strip(view, 40, 4))
    assert page.shape == (80, 160, 3)
    for place, picture in enumerate(layer_pictures(view)):
        row, column = divmod(place, 4)
        np.testing.assert_array_equal(page[40 * row :, 40 * column :][:40, :40], picture)
    assert (page[40:, 120:] == BACKDROP).all()


def test_copies_of_a_single_layer_are_not_drawn() -> None:
    view = replace(spheres_view(3, 40, 40), single_layer=True)
    assert strip(view, 40, 4).size == (80, 40)
    assert sheet([view], tile=40).size[0] == 2 * 44 + 4
    assert sheet([view, spheres_view(4)], tile=40).size[0] == 7 * 44 + 4


def test_no_terminal_shows_nothing() -> None:
    assert printed(Image.new("RGB", (4, 4)), {}, force_terminal=False) == ""
    assert printed(Image.new("RGB", (4, 4)), {}, color_system=None) == ""
