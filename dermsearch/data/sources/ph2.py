"""PH2: 200 dermoscopic images of melanocytic lesions with their masks: common nevi, atypical nevi, melanomas.

    PH2Dataset/PH2_dataset.xlsx          a row for each image below some rows of title, classes marked with X
    PH2Dataset/PH2_dataset.txt           the same between ||, the class as 0, 1 or 2; read where there is no .xlsx
    PH2Dataset/PH2 Dataset images/IMDxxx/IMDxxx_Dermoscopic_Image/IMDxxx.bmp
    PH2Dataset/PH2 Dataset images/IMDxxx/IMDxxx_lesion/IMDxxx_lesion.bmp

The id of a case is the image's name. The dermoscopic criteria are kept as metadata, in the release's letters.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

from dermsearch.data.sources import base
from dermsearch.errors import UserError, first_line
from dermsearch.storage.files import Folder
from dermsearch.words import many

CLASSES = ("common nevus", "atypical nevus", "melanoma")
SHEET, TEXT = "PH2_dataset.xlsx", "PH2_dataset.txt"
NAMED = {"name": "image name"}  # the text file's word, the sheet's


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every image of the sheet, or of the text file where there is no sheet."""
    top, table = base.locate(folder, [SHEET, TEXT], ["PH2Dataset"])
    images = base.ImageFiles(folder, top.rstrip("/"))
    collector = base.Collector({"diagnosis": {name: name for name in CLASSES}})
    for where, row in sheet(folder, table) if table.endswith(SHEET) else text(folder, table, collector):
        case = row.pop("image name")
        if table.endswith(SHEET):
            diagnosis = collector.marked(case, where, row, CLASSES)
        else:
            code = row.pop("clinical diagnosis")
            diagnosis = dict(zip("012", CLASSES, strict=True)).get(code, code)
        if diagnosis is not None:
            collector.add(
                base.CaseRecord(
                    case=case,
                    images={"derm": images.stem(case) or ""},
                    labels={"diagnosis": diagnosis},
                    metadata={name: base.word(value) for name, value in row.items() if name not in CLASSES},
                    mask=images.stem(f"{case}_lesion"),
                    where=where,
                )
            )
    return collector.release()


def sheet(folder: Folder, table: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of the sheet, below the row that begins with 'Image Name'."""
    try:
        import openpyxl
    except ImportError:
        raise UserError(
            f"{folder.where}: reading {table} needs openpyxl: pip install openpyxl; "
            f"or leave {TEXT} alone there, which needs nothing"
        ) from None
    try:
        book = openpyxl.load_workbook(io.BytesIO(folder.read(table)), read_only=True, data_only=True)
        lines = [["" if v is None else str(v).strip() for v in row] for row in book.worksheets[0].values]
    except Exception as error:  # openpyxl raises many kinds for one mistake: this is no sheet
        raise UserError(f"{folder.where}: {table} cannot be read as a sheet: {first_line(error)}") from None
    start = next((n for n, line in enumerate(lines) if line and plain(line[0]) == "image name"), None)
    if start is None:
        raise UserError(f"{folder.where}: {table} has no row that begins with 'Image Name'")
    header = [plain(name) for name in lines[start]]
    base.check_header(f"{folder.where}: {table}", header, ["image name", *CLASSES])
    for n, line in enumerate(lines[start + 1 :], start + 2):
        if any(line):
            line += [""] * (len(header) - len(line))
            yield f"{table}, line {n}", {name: line[i] for i, name in enumerate(header) if name}


def text(folder: Folder, table: str, collector: base.Collector) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of the text file; what follows them explains the letters and has no bars at its start."""
    lines = [(n, line) for n, line in enumerate(folder.text(table).splitlines(), 1) if line.startswith("||")]
    header = [NAMED.get(h, h) for h in map(plain, fields(lines[0][1] if lines else ""))]
    base.check_header(f"{folder.where}: {table}", header, ["image name", "clinical diagnosis"])
    for n, line in lines[1:]:
        row = fields(line)
        where = f"{table}, line {n}"
        if len(row) == len(header):
            yield where, dict(zip(header, row, strict=True))
        else:
            collector.problem(row[0], where, f"{many(len(row), 'field')} where the header has {len(header)}")


def fields(line: str) -> list[str]:
    """Between || or, among the criteria, single bars."""
    return [field.strip() for field in re.split(r"\|+", line.strip().strip("|"))]


def plain(name: str) -> str:
    """Asymmetry (0/1/2) -> asymmetry"""
    return " ".join(name.split("(")[0].split()).lower()


SOURCE = base.Source(
    name="ph2",
    title="PH2 dermoscopic image database",
    licence="for research and education; it may not be redistributed",
    citation="Mendonca, Ferreira, Marques, Marcal, Rozeira: PH2 - A dermoscopic image database for research and "
    "benchmarking. IEEE EMBC, 2013",
    home="https://www.fc.up.pt/addi/ph2%20database.html",
    read=read,
    expected=base.Expected(
        cases=200, classes={"diagnosis": {"common nevus": 80, "atypical nevus": 80, "melanoma": 40}}
    ),
    notes=("There is no published split, and neither patients nor lesions are named.",),
    denied={"histological diagnosis": "it follows from the label"},
)
