"""Validation and test apart: what the test split was opened for."""

from __future__ import annotations

from dermsearch.errors import UserError
from dermsearch.results.board.opened import HEADINGS, cells, notes, opened
from dermsearch.results.report.content import Content, PageSection
from dermsearch.results.report.markup import Markup, el, table


def tested(content: Content) -> PageSection | None:
    """The table that `dermsearch test` prints, or that nobody has looked."""
    try:
        found = opened(content.results) if content.rows else None
    except UserError:
        return None
    if found is None:
        how = el("code", f"dermsearch test {content.results.folder}")
        said = "The test split has not been opened: everything above is validation, which also chose. "
        return PageSection("tested", "On the test split", el("p", said, how, " opens it, and counts.", class_="quiet"))
    lines = [cells(each, content.name(each.test.key)) for each in found.tested]
    heads = [heading.replace("-\n", "-").replace("\n", " ") for heading in HEADINGS]
    sentences = "\n".join(notes(found)).replace(";\n", "; ").splitlines()
    below = [el("p", note, class_="quiet") for note in sentences]
    return PageSection("tested", "On the test split", Markup(table(heads, lines, 2, "Test split") + "".join(below)))
