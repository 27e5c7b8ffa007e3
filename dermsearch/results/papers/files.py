"""A filled table of a paper as CSV (every cell with all that is known), Markdown and LaTeX."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dermsearch.results.latex import escape
from dermsearch.results.papers.table import Cell, Entry, Filled, TableColumn

CSV = [
    *("section", "row", "column", "paper", "paper_note", "here", "low", "high", "seeds", "n"),
    *("protocol", "split", "metric", "label", "class", "status", "paper_corrected", "known", "data"),
]


@dataclass(frozen=True)
class Text:
    """One line of a printed table: whose numbers, and a text for each column; a heading has none."""

    title: str
    whose: str = ""
    texts: tuple[str, ...] = ()
    last: bool = False  # of its entry


def write_files(table: Filled, path: str | Path) -> list[Path]:
    """Write the table beside each other as .csv, .md and .tex, whatever ending the path has."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path.with_name(path.name + ending) for ending in (".csv", ".md", ".tex")]
    with paths[0].open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV)
        writer.writerows(csv_rows(table))
    paths[1].write_text(markdown(table), encoding="utf-8")
    paths[2].write_text(latex(table), encoding="utf-8")
    return paths


def csv_rows(table: Filled) -> Iterator[list[str]]:
    """One row per cell. What was measured has two digits more than in print."""
    for section, entries in table.blocks:
        for entry in entries:
            for cell in entry.cells:
                column, value = cell.column, cell.value
                measured = (
                    [number(end, column, 2) for end in (value.mean, value.low, value.high)] if value else [""] * 3
                )
                counts = [str(value.seeds), str(value.n)] if value else ["", ""]
                where = [cell.protocol, cell.split, column.metric, column.label, column.cls]
                status = "done" if value else "not judged" if entry.status == "done" else entry.status
                told = [section.title, entry.title, column.heading, cell.printed, cell.finding]
                yield [*told, *measured, *counts, *where, status, cell.corrected, entry.known, cell.data]


def number(value: float | None, column: TableColumn, more: int = 0) -> str:
    """A number with the digits of its column."""
    if value is None:
        return ""
    text = f"{value:.{column.digits + more}f}"
    return text if float(text) else text.removeprefix("-")


def interval(cell: Cell) -> str:
    """Both ends of a measured interval."""
    if cell.value is None or cell.value.low is None or cell.value.high is None:
        return ""
    low, high = number(cell.value.low, cell.column), number(cell.value.high, cell.column)
    return f"{low} to {high}" if low.startswith("-") else f"{low}–{high}"


def texts(table: Filled) -> Iterator[Text]:
    """The table line by line: a heading for a section, then up to three lines for each row of the paper."""
    for section, entries in table.blocks:
        yield Text(section.title)
        for entry in entries:
            yield from entry_texts(table, entry)


def entry_texts(table: Filled, entry: Entry) -> Iterator[Text]:
    """The paper's numbers, those measured here and their intervals, as far as there are any."""
    lines = []
    if entry.printed:
        lines.append(("paper", tuple(cell.printed + table.mark(cell) for cell in entry.cells)))
        if any(cell.corrected for cell in entry.cells):
            lines.append(("paper, corrected", tuple(cell.corrected for cell in entry.cells)))
    if entry.measured:
        lines.append(("here", tuple(number(c.value.mean, c.column) if c.value else "" for c in entry.cells)))
        if any(interval(cell) for cell in entry.cells):
            lines.append(("95 % interval", tuple(interval(cell) for cell in entry.cells)))
    elif entry.status != "not run":
        lines.append((f"here: {entry.status}", ("",) * len(entry.cells)))
    lack = ("",) * (len(widest(table)) - len(entry.cells))  # of a section with fewer columns than another
    for i, (whose, cells) in enumerate(lines):
        yield Text(entry.title if i == 0 else "", whose, (*cells, *lack), i == len(lines) - 1)


def widest(table: Filled) -> tuple[TableColumn, ...]:
    """The columns of the section that has most; those of others are the first of them."""
    return max((section.columns for section, _ in table.blocks), key=len)


def title(table: Filled) -> str:
    """What stands above the table."""
    units = dict.fromkeys(section.quantity for section, _ in table.blocks if section.quantity)
    return f"{table.form.title}, beside study {table.study}" + (f". {', '.join(units)}" if units else "")


def markdown(table: Filled) -> str:
    """The table for a reader of plain text and for GitHub."""
    named = [table.heading(column) for column in widest(table)]
    rows = [["", "", *named]]
    for line in texts(table):
        rows.append(
            [line.title, line.whose, *line.texts] if line.texts else [f"**{line.title}**", *[""] * (len(named) + 1)]
        )
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    left = 2  # columns of words; numbers are flush right
    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    out = [f"# {title(table)}", ""]
    for row in [rows[0], rule, *rows[1:]]:
        flush = [
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        out.append(f"| {' | '.join(flush)} |")
    return "\n".join([*out, "", *(f"* {note}" for note in table.notes), ""])


def latex(table: Filled) -> str:
    """The table for a paper that loads booktabs."""
    named = [table.heading(column) for column in widest(table)]
    wide = len(named) + 2
    body: list[str] = []
    for line in texts(table):
        if not line.texts:
            body += ([r"\midrule"] if body else []) + [
                rf"\multicolumn{{{wide}}}{{l}}{{\textit{{{escape(line.title)}}}}} \\"
            ]
            continue
        small = r"\scriptsize " if line.whose.startswith("95") else ""
        cells = [f"{small}{escape(text)}" if text else "" for text in (line.whose, *line.texts)]
        body.append(f"{escape(line.title)} & {' & '.join(cells)} " + r"\\" + (r" \addlinespace" if line.last else ""))
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            rf"\begin{{table{'*' * (wide > 6)}}}",
            r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{escape(title(table))}}}",
            rf"\label{{tab:{table.form.name.replace('_', '-')}}}",
            rf"\begin{{tabular}}{{ll{'r' * len(named)}}}",
            r"\toprule",
            f" & & {' & '.join(escape(name) for name in named)} " + r"\\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
            r"\medskip",
            r"\begin{minipage}{\linewidth}\scriptsize\raggedright",
            *(escape(note) + r"\par" for note in table.notes),
            r"\end{minipage}",
            rf"\end{{table{'*' * (wide > 6)}}}",
            "",
        ]
    )
