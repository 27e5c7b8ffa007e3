"""Small tables of a user's own: CSV files read with care, every mistake one sentence with its line."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from dermsearch.delimited import decoded, rows_of
from dermsearch.errors import UserError
from dermsearch.papers.counts import Printed

LARGEST = 10**6  # cases
NOTHING = ("", "-", "–", "—")  # what stands in a cell without a number


@dataclass(frozen=True)
class SheetLine:
    """One line of a sheet by its columns; it knows where it stands, for messages."""

    file: str
    number: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")

    def error(self, column: str, what: str) -> UserError:
        """A mistake in one cell, as a sentence."""
        return UserError(f"{self.file}, line {self.number}, {column}: {what}")

    def text(self, column: str) -> str:
        """A cell that may not be empty."""
        if not self[column]:
            raise self.error(column, "is empty")
        return self[column]

    def count(self, column: str) -> int:
        """A cell that must hold a whole number of cases."""
        text = self.text(column)
        if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > LARGEST:
            raise self.error(column, f"'{text}' must be a whole number of cases, at most {LARGEST}")
        return int(text)

    def printed(self, column: str, percent: bool, decimals: int = 2) -> Printed | None:
        """A cell that holds a rate as printed, in so many decimals at least; None where it is empty or a dash."""
        text = self[column]
        if text in NOTHING:
            return None
        self.plain(column)
        cell = Printed.of(text, percent, decimals)
        if cell.value > 100:
            raise self.error(column, f"{text} is not between 0 and 100 (percent), or 0 and 1 in the whole table")
        return cell

    def plain(self, column: str) -> float:
        """A cell that must hold a number, with the commonest other ways to write one named."""
        text = self.text(column)
        if re.fullmatch(r"([0-9]{1,10}(\.[0-9]{0,20})?|\.[0-9]{1,20})([eE]-?[0-9]{1,2})?", text):
            return float(text)
        bare = text.rstrip("% ").replace(",", ".")
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", bare):
            why = "with a decimal point" if "," in text else "without the sign"
            raise self.error(column, f"write {bare} {why}, not '{text}'")
        raise self.error(column, f"'{text[:40]}' must be a number such as 77.3, or empty")


def read_sheet(path: Path) -> list[SheetLine]:
    """The lines of a CSV file; columns by their names in lower case. Empty lines are passed over."""
    try:
        text = decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not text.strip():
        raise UserError(f"{path}: is empty")
    lines: list[SheetLine] = []
    header: list[str] = []
    for number, cells in rows_of(text, str(path)):
        if not any(cells):
            continue
        if not header:
            header = head(path, cells)
        elif len(cells) != len(header):
            raise UserError(f"{path}, line {number}: has {len(cells)} cells, its header {len(header)}")
        else:
            lines.append(SheetLine(str(path), number, dict(zip(header, cells, strict=True))))
    if not lines:
        raise UserError(f"{path}: has a header but no line below it")
    return lines


def head(path: Path, cells: list[str]) -> list[str]:
    """The names of the columns."""
    names = [cell.lower() for cell in cells]
    for mark, called in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and mark in names[0]:
            raise UserError(f"{path}: its columns are separated by {called}; save it with commas")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice:
        raise UserError(f"{path}: has two columns '{twice}'")
    return names


def need(lines: list[SheetLine], columns: Collection[str]) -> None:
    """Refuse a sheet without one of the columns."""
    for column in columns:
        if column not in lines[0].cells:
            raise UserError(f"{lines[0].file}: has no column '{column}'; it has {', '.join(lines[0].cells)}")
