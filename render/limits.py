"""How large an untrusted asset may be. Every bound is checked against a header or a count, before allocation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of one asset; what exceeds them is rejected, textures are dropped with the flag "texture_too_large"."""

    file_bytes: int = 1 << 30  # each file
    folder_bytes: int = 2 << 30  # all files of the asset together
    json_bytes: int = 128 << 20  # the JSON of a glTF
    json_values: int = 10_000_000  # in that JSON; each may take 80 bytes once it is parsed
    line_bytes: int = 4 << 20  # each line of a text format
    faces: int = 10_000_000
    vertices: int = 30_000_000  # three for each face of an unindexed soup
    nodes: int = 100_000  # and surfaces they place, materials, channels of a clip
    texture_pixels: int = 8192 * 8192  # each image
    textures_pixels: int = 4 * 8192 * 8192  # all images of the asset together: 1 GiB decoded


DEFAULT = Limits()
