import re

from hypothesis import example, given
from hypothesis import strategies as st

from report.document import Column, Continuation, Document, Section, Table
from report.markdown import code_span, fenced, prose, render_markdown
from report.printable import one_line, printable

PIECES = ("`", "```", "````", "|", "<b>", "&", "*", "_", "\\", "\n", "\r", "\x1b", "\x00", "\ud800", "# ", "](")
ANY_TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=5)).map("".join)


@given(ANY_TEXT)
@example("```\n````")
def test_no_text_closes_its_own_fence(text: str) -> None:
    first, *body, last = fenced(text, "text")
    assert first == f"{last}text"
    assert set(last) == {"`"}
    assert last not in "\n".join(body)
    assert "\n".join(body) == printable(text).removesuffix("\n")


@given(ANY_TEXT)
def test_prose_holds_no_markup(text: str) -> None:
    escaped = prose(text)
    assert not re.search(r"[<>\n]", escaped)
    assert not re.search(r"(?<!\\)(\\\\)*[`*_\[\]|~$]", escaped)


@given(ANY_TEXT)
def test_a_code_span_stays_in_its_cell(text: str) -> None:
    span = code_span(text)
    assert "\n" not in span
    assert not re.search(r"(?<!\\)\|", span)
    assert bool(span) == bool(one_line(text))


def test_columns_of_a_table_line_up() -> None:
    table = Table((Column("name"), Column("count", right=True)), (("a", "1"), ("a longer name", "1,234")))
    text = render_markdown(Document("t", "good", "s", "v", (), (Section("x", (table,)),)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert lines[1].endswith(":|") or lines[1].endswith(": |")


def test_a_continuation_is_fenced() -> None:
    sample = Continuation("step 1", "<b>", "```\n# no heading")
    text = render_markdown(Document("t", "good", "s", "v", (), (Section("x", (sample,)),)))
    assert "````text\n```\n# no heading\n````" in text
