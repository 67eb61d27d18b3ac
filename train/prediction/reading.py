"""Any picture as RGBA: a file, a PIL image or an array, of whatever mode, turned upright, within bounds."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

Picture = str | Path | Image.Image | np.ndarray

MAX_PIXELS = 100_000_000  # 400 MB of RGBA
# Every other reader of PIL stays shut: a photo.png that is PostScript inside would be run by Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")
SIXTEEN_BITS = 257  # 65535 / 255


def rgba_of(picture: Picture, name: str = "the image") -> np.ndarray:
    """(h,w,4) uint8, straight sRGB; opaque where the picture has no alpha.

    A file is turned upright as its EXIF orientation says; greyscale, palette, CMYK and 16-bit pictures are converted,
    colour profiles are not applied. An array is (h,w), (h,w,1), (h,w,3) or (h,w,4): uint8, uint16, bool, or float in
    [0, 1]. `name` is what errors call it. FileNotFoundError, or ValueError with what was found and what to do.
    """
    if isinstance(picture, np.ndarray):
        return _from_array(picture, name)
    if isinstance(picture, Image.Image):
        check_pixels(picture.width, picture.height, name)
        return _from_upright(ImageOps.exif_transpose(picture), name)
    if not isinstance(picture, str | Path):
        raise ValueError(f"{name}: a {type(picture).__name__} is no picture; give a file, a PIL image or an array")
    path = Path(picture)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such image")
    if not path.is_file():
        raise ValueError(f"{path}: not a file; give a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound is below
            with open_picture(path) as image:
                check_pixels(image.width, image.height, str(path))
                ImageOps.exif_transpose(image, in_place=True)
                return _from_upright(image, str(path))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error}); give a PNG, JPEG or WebP") from None


def open_picture(path: Path) -> Image.Image:
    """As `PIL.Image.open` does it, of the formats that pictures have."""
    Image.init()  # a PIL without AVIF says so only then
    return Image.open(path, formats=[each for each in FORMATS if each in Image.OPEN])


def name_of(picture: Picture) -> str:
    """The file's name, or "image"."""
    file = getattr(picture, "filename", "") if isinstance(picture, Image.Image) else picture
    return Path(file).name or "image" if isinstance(file, str | Path) else "image"


def check_pixels(width: int, height: int, name: str) -> None:
    """ValueError for a picture that is too large to be read, before it is."""
    if width * height > MAX_PIXELS:
        raise ValueError(f"{name}: {width}x{height} pixels; at most {MAX_PIXELS} are read, so scale it down")
    if width * height == 0:
        raise ValueError(f"{name}: {width}x{height} pixels; there is nothing to see")


def wxh(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def _from_upright(upright: Image.Image, name: str) -> np.ndarray:
    if upright.mode == "F" or upright.mode.startswith("I"):  # PIL would clip these to 255 rather than scale them
        return _from_array(_sixteen_bits(np.asarray(upright), name), name)
    if upright.mode in ("CMYK", "YCbCr", "HSV"):  # which have no alpha, and no direct way to RGBA
        upright = upright.convert("RGB")
    try:
        return np.asarray(upright.convert("RGBA"))
    except ValueError as error:
        raise ValueError(f"{name}: colours of mode {upright.mode} cannot be read ({error}); save it as RGB") from None


def _sixteen_bits(values: np.ndarray, name: str) -> np.ndarray:
    """Pixels of PIL's modes I and F, as 16-bit grey or as floats in [0, 1]."""
    if values.dtype.kind == "f":
        return values
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"{name}: grey values from {values.min()} to {values.max()}; save it with 8 or 16 bits")
    return values.astype(np.uint16)


def _from_array(values: np.ndarray, name: str) -> np.ndarray:
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4):
        raise ValueError(f"{name}: an array of shape {values.shape}; give (height, width), or with 1, 3 or 4 channels")
    check_pixels(values.shape[1], values.shape[0], name)
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise ValueError(f"{name}: floats from {low:g} to {high:g}; give them in [0, 1], or as uint8")
        values = np.round(values * 255).astype(np.uint8)
    elif values.dtype == np.uint16:
        values = np.round(values / SIXTEEN_BITS).astype(np.uint8)
    elif values.dtype == np.bool_:
        values = values * np.uint8(255)
    elif values.dtype != np.uint8:
        raise ValueError(f"{name}: an array of {values.dtype}; give uint8, uint16, bool, or float in [0, 1]")
    if values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    if values.shape[2] == 3:
        values = np.dstack([values, np.full(values.shape[:2], 255, np.uint8)])
    return np.ascontiguousarray(values)
