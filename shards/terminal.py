"""What commands print: lines and tables that nothing in them can break, and pictures.

A picture is an image where the terminal can show one, else two coloured pixels a character.
"""

import base64
import io
import os
from collections.abc import Mapping
from typing import Literal

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style

from .printable import printable

KITTY_CHUNK = 4096  # bytes of base64 in one escape sequence, as kitty's graphics protocol has it
Way = Literal["kitty", "iterm", "blocks"]


def say(text: str, err: bool = False) -> None:
    """One line on stdout (or stderr), whatever stands in it."""
    typer.echo(printable(text), err=err)


def console(width: int | None = None) -> Console:
    """Prints tables and texts as they are: brackets in a licence are no markup. Cells of strangers want `printable`."""
    return Console(width=width, markup=False, emoji=False, highlight=False)


def way(console: Console, environment: Mapping[str, str] = os.environ) -> Way | None:
    """How this terminal can show a picture; None where it is none, or has too few colours.

    Kitty and Ghostty have kitty's graphics protocol, iTerm2 and WezTerm their own, unless they are inside of tmux or
    screen, which do not pass it on; all others get half blocks of 24-bit (or 256) colours.
    """
    if not console.is_terminal or console.color_system in (None, "standard"):
        return None
    multiplexed = "TMUX" in environment or environment.get("TERM", "").startswith("screen")
    if not multiplexed and environment.get("TERM") in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    if not multiplexed and environment.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm"):
        return "iterm"
    return "blocks"


def draw(picture: Image.Image, console: Console, way: Way) -> None:
    """Print `picture`; as half blocks at most as wide as the terminal."""
    if way == "blocks":
        console.print(half_blocks(picture, console.width), end="")
    else:
        console.file.write(kitty(picture) if way == "kitty" else iterm(picture))
    console.file.flush()


def half_blocks(picture: Image.Image, columns: int) -> Segments:
    """Lower half blocks: the upper pixel is the background of the character, the lower one its foreground."""
    scale = min(1.0, columns / picture.width)
    width, rows = max(1, int(picture.width * scale)), max(1, round(picture.height * scale / 2))
    pixels = np.asarray(picture.convert("RGB").resize((width, 2 * rows), Image.Resampling.BOX))
    segments = []
    for v in range(rows):
        for u in range(width):
            above, below = pixels[2 * v, u], pixels[2 * v + 1, u]
            segments.append(Segment("▄", Style(color=_hex(below), bgcolor=_hex(above))))
        segments.append(Segment.line())
    return Segments(segments)


def kitty(picture: Image.Image) -> str:
    """https://sw.kovidgoyal.net/kitty/graphics-protocol: transmit a PNG in chunks and display it."""
    data = _png(picture)
    chunks = [data[i : i + KITTY_CHUNK] for i in range(0, len(data), KITTY_CHUNK)]
    parts = [
        f"\x1b_G{'a=T,f=100,' if i == 0 else ''}m={int(i + 1 < len(chunks))};{chunk}\x1b\\"
        for i, chunk in enumerate(chunks)
    ]
    return "".join(parts) + "\n"


def iterm(picture: Image.Image) -> str:
    """https://iterm2.com/documentation-images.html: an inline file."""
    return f"\x1b]1337;File=inline=1:{_png(picture)}\x07\n"


def _png(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def _hex(color: np.ndarray) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
