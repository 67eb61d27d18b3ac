"""Text of strangers on its way to a terminal, a log or a table: keys, names, licences, flags, messages.

Whatever it holds, it stays one line that UTF-8 can hold, and commands nothing: an escape sequence would move the
cursor, change the title, or write where it likes.
"""


def printable(text: object, longest: int | None = None) -> str:
    """`text` (or what `str` makes of it) in one line: what a terminal does not show is spelled out (half of a surrogate
    pair, a control character, a mark that turns the direction of writing); what is longer than `longest` is cut.
    """
    text = str(text)
    if not text.isprintable():
        text = "".join(each if each.isprintable() else _spelled(each) for each in text[: longest and longest + 1])
    return text if longest is None or len(text) <= longest else f"{text[: longest - 3]}..."


def _spelled(character: str) -> str:
    return " " if character.isspace() else character.encode("unicode_escape").decode()
