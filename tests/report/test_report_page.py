from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from report.document import Bar, Bars, Code, Column, Continuation, Document, Highlight, Items, Paragraph, Section, Table
from report.page import POLICY, render_page
from report.printable import printable

PIECES = (
    "<b>",
    "</p>",
    "</td>",
    "</pre>",
    "<script>",
    "<!--",
    "-->",
    "&lt;",
    "&",
    '"',
    "'",
    "\n",
    "\r",
    "\x1b",
    "\ud800",
)
ANY_TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=5)).map("".join)
VOID = {"meta"}


class Outline(HTMLParser):
    """Collects the tags and the text of a page, and fails when an element is closed that was not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - the name that HTMLParser calls it by
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def document(text: str) -> Document:
    table = Table((Column(text), Column(text, right=True), Column(text, code=True)), ((text, text, text),), text)
    blocks = (
        Paragraph(text),
        Items((text,)),
        table,
        Bars((text, text, text), (Bar(text, 0.5, text, text),)),
        Code(text, summary=text),
        Continuation(text, text, text),
    )
    return Document(text, "good", text, text, (Highlight(text, text, text),), (Section("Same", blocks),))


SAME_TAGS = outline(render_page(document("plain"))).tags


@given(ANY_TEXT.filter(lambda text: bool(printable(text).strip())))
def test_no_text_changes_the_elements_of_a_page(text: str) -> None:
    assert outline(render_page(document(text))).tags == SAME_TAGS


@given(ANY_TEXT)
def test_a_continuation_is_shown_as_it_is(text: str) -> None:
    page = Document("t", "good", "s", "v", (), (Section("x", (Continuation("n", text, text),)),))
    assert printable(text) * 2 in "".join(outline(render_page(page)).words)


def test_the_pages_policy_forbids_every_load() -> None:
    assert POLICY.startswith("default-src 'none'")
    assert POLICY in render_page(document("x")).replace("&#x27;", "'")
