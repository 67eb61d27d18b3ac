"""Whatever text goes into the page comes out of it as that text, and as nothing else."""

from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from shards.markup import LONGEST, Html, join, table, tag, text

# markup, white space, what turns or hides text, letters of several planes
ALPHABET = "<>&;\"'=/!-ab \t\n\r\x00\x7f\u00a0\u00e9\u200b\u2028\u202e\u2066\ufeff\U0001f600"


class Tags(HTMLParser):
    """The tags and the text of a document."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.words += data


@settings(max_examples=200)
@given(st.text(alphabet=ALPHABET, max_size=40))
def test_text_stays_text_between_tags_and_in_attributes(words: str) -> None:
    parsed = Tags(tag("p", words, title=words))
    ((name, attributes),) = parsed.tags
    assert name == "p"
    shown = "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in words)
    assert parsed.words == attributes["title"] == shown


def test_scripts_and_quotes_are_text() -> None:
    hostile = "\"'></td><script>alert(1)</script><img src=x onerror=alert(2)>&amp;"
    parsed = Tags(table([hostile, "n"], [[hostile, hostile]], hostile))
    assert {name for name, _ in parsed.tags} == {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert parsed.words.count("<script>alert(1)</script>") == 4
    assert not any("onerror" in attributes for _, attributes in parsed.tags)


def test_what_turns_or_hides_text_is_marked() -> None:
    assert text("a\u202egpj.b\x00c\nd\u200be") == "a\ufffdgpj.b\ufffdc d\ufffde"


def test_long_text_loses_its_middle() -> None:
    assert len(text("x" * 5000 + "end")) == LONGEST + 1
    assert text("x" * 5000 + "end").endswith("end")


def test_markup_is_not_escaped_twice() -> None:
    assert join(tag("b", "<"), "<", Html("<i>")) == "<b>&lt;</b>&lt;<i>"
    assert tag("img", alt="a", hidden=True, src=None, class_="c", aria_label="l") == (
        '<img alt="a" hidden class="c" aria-label="l">'
    )
