"""A table of your own, one row for each case, with the columns named in the command: no code is needed.

    --image derm=COLUMN                  files, relative to the table's folder; several for several modalities
    --root FOLDER                        files are relative to this folder, or name it: /here/a.jpg, ../there/a.jpg
    --label COLUMN                       its words are the classes: sorted, or by size where all are whole numbers
    --case, --lesion, --patient, --split, --mask, --metadata     each a COLUMN, where there is one
    --metadata COLUMN:patient            it tells of the patient, not of one lesion

The table is separated by commas, semicolons, tabs or bars, as its header shows. Without --case the id is the first
image's path with __ for /. A split is train, val (valid, validation) or test. A column of metadata of which every
value is a number becomes numbers. Empty, NA, none, unknown and -1 mean that a value is missing.
"""

from __future__ import annotations

import os
from dataclasses import replace

from dermsearch.data.case import METADATA, Column, Level
from dermsearch.data.sources import base
from dermsearch.delimited import rows_of, separator_of
from dermsearch.errors import UserError, nearest
from dermsearch.storage.files import Folder

MOST = 32_767  # classes: their numbers have 16 bits in a store


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every row of the table."""
    images, folder = base.ImageFiles(folder), Folder(columns.tables) if columns.tables else folder
    table = columns.table or only_table(folder)
    levels = dict(level_of(text) for text in columns.metadata)
    told: dict[str, str] = {}
    for column in levels:
        if (other := told.setdefault(column.lower(), column)) != column:
            raise UserError(f"--metadata: '{other}' and '{column}' would be one column of the store; name one of them")
    named = [*columns.images.values(), *columns.labels, *levels]
    named += [c for c in (columns.case, columns.lesion, columns.patient, columns.split, columns.mask) if c]
    check_images(folder, table, columns)
    damaged: list[base.Problem] = []
    rows = list(base.read_table(folder, table, named, damaged, separator=None))
    words = {label: classes([row[label] for _, row in rows]) for label in columns.labels}
    for label, own in words.items():
        if len(own) > MOST:
            raise UserError(f"--label {label}: has {len(own):,} different words, more than {MOST:,}: it is no label")
    collector = base.Collector(words)
    collector.problems += damaged
    collector.hint = "" if columns.tables else "; --root names the folder that all images lie in"
    known = {c: [base.number(v) for _, row in rows if (v := base.word(row[c]))] for c in levels if c.lower() != "sex"}
    numeric = {c for c, numbers in known.items() if None not in numbers}

    def file(row: dict[str, str], column: str | None) -> str:
        path = (base.word(row[column]) if column else None) or ""
        path = path.replace("\\", "/").removeprefix("./")  # tables from Windows have backslashes
        return images.path(below(images.folder, folder, path) if columns.tables else path)

    for where, row in rows:
        paths = {modality: file(row, column) for modality, column in columns.images.items()}
        case = row[columns.case] if columns.case else base.path_id(next(filter(None, paths.values()), ""))
        split = base.word(row[columns.split]) if columns.split else None
        if split and split.lower() not in base.SPLIT_WORDS:
            collector.problem(case, where, f"'{split}' is no split; {nearest(split.lower(), base.SPLIT_WORDS)}")
            continue
        collector.add(
            base.CaseRecord(
                case=case,
                images=paths,
                labels={label: row[label] for label in columns.labels},
                lesion=(base.word(row[columns.lesion]) if columns.lesion else None) or "",
                patient=(base.word(row[columns.patient]) if columns.patient else None) or "",
                metadata={c.lower(): value(c, row[c], c in numeric) for c in levels},
                mask=file(row, columns.mask) or None,
                split=base.SPLIT_WORDS[split.lower()] if split else None,
                where=where,
            )
        )
    inputs = (Column(c.lower(), "number" if c in numeric else "word", level) for c, level in levels.items())
    return replace(collector.release(), columns=tuple(inputs))


def below(root: Folder, tables: Folder, path: str) -> str:
    """A path of a table as one below the root: it is meant so, or it is absolute, or climbs from the table's folder."""
    if not path.startswith(("/", "../")):
        return path
    whole = os.path.normpath(os.path.join(tables.root, path))
    return whole.removeprefix(root.root.rstrip("/") + "/")


def level_of(text: str) -> tuple[str, Level]:
    """Smoker:patient -> ("Smoker", "patient"). Of the lesion where nothing is said, but for names that all share."""
    name, mark, level = text.rpartition(":")
    if mark and level in ("patient", "lesion"):
        return name, "patient" if level == "patient" else "lesion"
    return text, METADATA[text.lower()].level if text.lower() in METADATA else "lesion"


def only_table(folder: Folder) -> str:
    """The .csv of the folder, if it has one."""
    tables = [name for name in folder.names() if name.lower().endswith(".csv") and "/" not in name]
    if len(tables) != 1:
        said = f"has several tables, name one of them: {', '.join(tables)}" if tables else "has no .csv table"
        raise UserError(f"{folder.where}: {said}")
    return tables[0]


def check_images(folder: Folder, table: str, columns: base.Columns) -> None:
    """A command that names no image is a mistake."""
    if columns.images:
        return
    text, where = folder.text(table), f"{folder.where}: {table}"
    _, names = next(rows_of(text, where, separator_of(text)), (1, []))
    base.check_header(where, names, [])
    raise UserError(
        f"{folder.where}: say which column of {table} names the images, for example --image derm=COLUMN; "
        f"its columns are {', '.join(base.shown(name, 100) for name in names)}"
    )


def classes(values: list[str]) -> dict[str, str]:
    """The distinct words of a column, sorted; by size where all are whole numbers."""
    words = sorted({known for value in values if (known := base.word(value)) and base.printable(known)})
    whole = all((n := base.number(name)) is not None and n.is_integer() for name in words)
    return {name: name for name in (sorted(words, key=float) if whole else words)}


def value(column: str, text: str, numeric: bool) -> float | str | None:
    """A value of metadata."""
    if column.lower() == "sex":
        return base.sex(text)
    known = base.word(text)
    return base.number(known) if known and numeric else known


SOURCE = base.Source(
    name="csv",
    title="a table of your own",
    licence="yours",
    citation="",
    home="",
    read=read,
    domain=None,
    notes=("Name the column of patients if there is one: without it, images of one patient may be in several splits.",),
)
