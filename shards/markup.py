"""HTML that cannot be broken by what it shows: text is escaped unless this file made it.

Names of assets, licences and messages come from files of strangers. Whatever they hold, it ends up as text.
"""

import html
import unicodedata
from collections.abc import Collection, Iterable, Sequence

LONGEST = 300  # characters of one text that is shown; the middle of a longer one is left out


class Html(str):
    """Markup that was made by `tag` or `join`, and is not escaped again."""


def text(value: object, longest: int = LONGEST) -> Html:
    """Any value as escaped text, in one line, cut in its middle to `longest` characters.

    Control and format characters, which could turn the text around it, are shown as the mark of what is unknown.
    """
    plain = str(value)
    if len(plain) > longest:
        plain = f"{plain[: longest // 2]}…{plain[-(longest // 2) :]}"
    if not plain.isprintable():
        plain = "".join(_visible(character) for character in plain)
    return Html(html.escape(plain))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """`<name attributes>children</name>`. Children that are not Html are escaped; None and False are left out.

    Attributes: `class_` is class, an underscore is a hyphen, True is the bare name.
    """
    opening = "".join(
        f" {_name(key)}" if value is True else f' {_name(key)}="{_quoted(value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in ("img", "meta", "br", "hr"):
        return Html(f"<{name}{opening}>")
    return Html(f"<{name}{opening}>{join(*children)}</{name}>")


def join(*children: object) -> Html:
    """Children one after the other."""
    return Html("".join(c if isinstance(c, Html) else text(c) for c in children if c is not None and c is not False))


def table(
    head: Sequence[object], rows: Iterable[Sequence[object]], caption: object = None, words: Collection[int] = ()
) -> Html:
    """A table that may be scrolled sideways on a phone. The first column names its row; the others are numbers, set to
    the right, but for those numbered in `words`.
    """

    def kind(index: int) -> str | None:
        return "words" if index in words else "number" if index else None

    def cell(index: int, value: object) -> Html:
        return tag("td", value, class_=kind(index)) if index else tag("th", value, scope="row")

    top = [tag("th", value, scope="col", class_=kind(i)) for i, value in enumerate(head)]
    body = [tag("tr", *[cell(i, value) for i, value in enumerate(row)]) for row in rows]
    parts = [tag("caption", caption) if caption else None, tag("thead", tag("tr", *top)), tag("tbody", *body)]
    return tag("div", tag("table", *parts), class_="scroll", tabindex="0", role="region", aria_label=caption or head[0])


def _visible(character: str) -> str:
    if character.isspace():
        return " "
    return "\ufffd" if unicodedata.category(character)[0] == "C" else character


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _quoted(value: object) -> str:
    return value if isinstance(value, Html) else text(value)
