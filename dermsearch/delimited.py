"""Delimited text: what reads the tables of a data set's release, of a paper and of a user's own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from dermsearch.errors import UserError


def decoded(data: bytes, where: str) -> str:
    """A file's text: UTF-8, with or without a byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{where}, line {line}: is not UTF-8 text; save it as UTF-8") from None


def separator_of(text: str) -> str:
    """What separates the cells of a table, as its first line shows."""
    return max(",;\t|", key=text.partition("\n")[0].partition("\r")[0].count)


def rows_of(text: str, where: str, separator: str = ",") -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each row, the header and empty ones too; cells are stripped. Any line ends will do."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for row in rows:
            yield rows.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise UserError(f"{where}, line {rows.line_num}: {error}, so it is not CSV") from None
