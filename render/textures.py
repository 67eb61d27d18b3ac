"""Images of an untrusted asset: found through `Folder`, bounded by the size their header states, then decoded.

A problem with a texture costs the texture and never the asset: the material keeps its factors and the mesh gets a flag.
"""

import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image

from render.folder import Folder
from render.limits import Limits
from render.mesh import Rejected

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_MOST_SCANS = 100  # of a JPEG: a progressive one has about ten; each costs a pass over the whole image


class Textures:
    """Decodes the images of one asset, each once. `flags` collects what was lost."""

    def __init__(self, folder: Folder, limits: Limits) -> None:
        self.folder = folder
        self.limits = limits
        self.flags: set[str] = set()
        self._decoded: dict[object, np.ndarray | None] = {}
        self._pixels_left = limits.textures_pixels
        self._bytes_left = limits.folder_bytes

    def from_file(self, name: str, *, uri: bool) -> np.ndarray | None:
        """Pixels (h,w,4) uint8 of a file beside the asset, or None with a flag. Raises Rejected for hostile names."""
        path = self.folder.find(name, uri=uri)
        if path is None:
            self.flags.add("missing_texture")
            return None
        if path not in self._decoded:
            if path.stat().st_size > self.limits.file_bytes:
                self.flags.add("texture_too_large")
                self._decoded[path] = None
            else:
                self._decoded[path] = self._decode(self.folder.read(path), tga=path.suffix.lower() == ".tga")
        return self._decoded[path]

    def from_bytes(self, key: object, read: Callable[[], bytes]) -> np.ndarray | None:
        """Pixels (h,w,4) uint8 of an embedded image, or None with a flag; `key` is its identity in the asset.

        `read` may raise Rejected: the image is then corrupt, but the geometry may be whole.
        """
        if key not in self._decoded:
            self._decoded[key] = self._embedded(read)
        return self._decoded[key]

    def _embedded(self, read: Callable[[], bytes]) -> np.ndarray | None:
        if self._bytes_left <= 0:
            self.flags.add("texture_too_large")
            return None
        try:
            data = read()
        except Rejected as problem:
            if problem.reason == "path_outside_folder":
                raise
            self.flags.add("corrupt_texture")
            return None
        self._bytes_left -= len(data)  # a thousand images may share the bytes of one
        return self._decode(data)

    def baked(self, key: object, pixels: int, make: Callable[[], np.ndarray]) -> np.ndarray | None:
        """An image of so many pixels that `make` computes from others, made once for each `key`.

        It counts like one that is decoded: a hundred materials may each combine the same two images in another way.
        """
        if key not in self._decoded:
            self._decoded[key] = make() if self._allowed(pixels) else None
        return self._decoded[key]

    def _allowed(self, pixels: int) -> bool:
        if pixels > min(self.limits.texture_pixels, self._pixels_left):
            self.flags.add("texture_too_large")
            return False
        self._pixels_left -= pixels  # before decoding: damaged images cost as much time as sound ones
        return True

    def _decode(self, data: bytes, tga: bool = False) -> np.ndarray | None:
        if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > _MOST_SCANS:
            self.flags.add("corrupt_texture")
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of large images; the limit below decides
                # TGA has no magic number: Pillow would take almost any bytes for one.
                return self._pixels(Image.open(io.BytesIO(data), formats=("TGA",) if tga else _FORMATS))
        except (MemoryError, Rejected):
            raise
        except Image.DecompressionBombError:
            self.flags.add("texture_too_large")
        except Exception:
            self.flags.add("unsupported_texture" if _is_known_but_unsupported(data) else "corrupt_texture")
        return None

    def _pixels(self, image: Image.Image) -> np.ndarray | None:
        count = image.width * image.height
        if not self._allowed(count):
            return None
        if image.mode.startswith("I;16"):
            # Pillow's own conversion clips 16-bit grey at 255 instead of scaling it.
            grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
            rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
        elif image.mode in ("I", "F"):
            grey = np.clip(np.asarray(image, np.float64) / (256 if image.mode == "I" else 1), 0, 255).astype(np.uint8)
            rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
        else:
            rgba = np.array(image.convert("RGBA"))
        if count == 0:
            self.flags.add("corrupt_texture")
            return None
        return np.ascontiguousarray(rgba)


def _is_known_but_unsupported(data: bytes) -> bool:
    """KTX2, KTX, DDS, TIFF and EXR are intact files that we do not decode."""
    return data.startswith((b"\xabKTX 20\xbb", b"\xabKTX 11\xbb", b"DDS ", b"II*\0", b"MM\0*", b"v/1\x01"))
