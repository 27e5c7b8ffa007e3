"""What a data set's release is read into: records that name images, before any image is opened.

A source is one file that knows one release layout. It reads tables and lists files, and never opens an image:
that is `data.prepare`'s work, in parallel. A row that cannot be used becomes a `Problem`, and reading goes on;
a release that is not what it should be is a `UserError` that names the file and what is missing.
"""

from __future__ import annotations

import math
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dermsearch.data.case import METADATA, Column
from dermsearch.delimited import rows_of, separator_of
from dermsearch.errors import UserError, nearest
from dermsearch.registry import Registry
from dermsearch.storage.files import Folder
from dermsearch.words import many

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".dcm", ".dicom")
LONGEST = 200  # bytes of a case's id
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


class TableRow(Mapping[str, float | str | None]):
    """Metadata of one of hundreds of thousands of cases, all of the same columns, in a fifth of a dict's memory."""

    __slots__ = ("_numbers", "_places", "_words")

    def __init__(self, places: Mapping[str, int], numbers: Iterable[float | None], words: Iterable[str | None]) -> None:
        """`places` is the same object for all cases: the names of the numbers, then those of the words, numbered."""
        self._places = places
        self._numbers = array("d", (math.nan if number is None else number for number in numbers))
        self._words = tuple(words)

    def __getitem__(self, name: str) -> float | str | None:
        place = self._places[name]
        if place >= len(self._numbers):
            return self._words[place - len(self._numbers)]
        value = self._numbers[place]
        return None if value != value else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@dataclass(slots=True)
class CaseRecord:
    """A case as a release tells of it. Empty `lesion` or `patient`: the release does not say."""

    case: str
    images: dict[str, str]  # modality -> file, relative to the release's folder
    labels: dict[str, str | None] = field(default_factory=dict)  # label -> class, None: unknown
    lesion: str = ""
    patient: str = ""
    metadata: Mapping[str, float | str | None] = field(default_factory=dict)
    mask: str | None = None  # file
    split: str | None = None  # published: train, val or test
    where: str = ""  # "meta.csv, line 7": what a message names


@dataclass
class Problem:
    """A row of a release that no record could be made of. It can be printed, whatever the row holds."""

    case: str
    where: str
    reason: str

    def __post_init__(self) -> None:
        self.case, self.reason = shown(self.case, 100), shown(self.reason, 500)


@dataclass
class Release:
    """All that a release's tables say."""

    records: list[CaseRecord]
    classes: dict[str, tuple[str, ...]]  # label -> its classes, in the order of heads and tables
    problems: list[Problem] = field(default_factory=list)
    columns: tuple[Column, ...] = ()  # metadata that may be inputs, where the tables decide


@dataclass(frozen=True)
class Columns:
    """Which column of a user's own table holds what (`csv`), and the modality of a folder's images (`folder`)."""

    images: dict[str, str] = field(default_factory=dict)  # modality -> column
    labels: tuple[str, ...] = ()
    case: str | None = None
    lesion: str | None = None
    patient: str | None = None
    split: str | None = None
    mask: str | None = None
    metadata: tuple[str, ...] = ()  # NAME, or NAME:patient where it tells of the patient
    modality: str = "derm"
    fold: int = 0  # of a release that has several published splits
    table: str | None = None  # the table's file (`csv`); None: the only .csv there
    tables: str | None = None  # the table's folder, where images lie in another one, which is then the release's
    domain: str = "skin"  # what the images are of
    uncertain: str | None = None  # what a label is that nobody is sure of (`chexpert`): unknown, absent or present


@dataclass(frozen=True)
class Expected:
    """What the authors published of their data set; `check` compares."""

    cases: int | None = None
    lesions: int | None = None
    patients: int | None = None
    splits: dict[str, int] = field(default_factory=dict)  # split -> cases
    classes: dict[str, dict[str, int]] = field(default_factory=dict)  # label -> class -> cases


@dataclass(frozen=True)
class Source:
    """A data set: what it is called, what may be done with it, and how its release is read."""

    name: str
    title: str
    licence: str
    citation: str
    home: str
    read: Callable[[Folder, Columns], Release]
    expected: Expected = Expected()
    notes: tuple[str, ...] = ()  # what a user should know of it, a sentence each
    columns: tuple[Column, ...] = ()  # the metadata that may be inputs; all else is kept, to be looked at
    domain: str | None = "skin"  # what the images are of; None: what the user says
    # What never may, and why: "it follows ..." Kept as metadata or not, such as the release's name of its label.
    denied: Mapping[str, str] = field(default_factory=dict)


SHIPPED = (
    *("derm7pt", "ham10000", "isic2019", "isic2020", "pad_ufes_20", "fitzpatrick17k", "ph2", "mednode", "sd198"),
    *("slice3d", "hiba", "bcn20000", "siim_covid", "chexpert", "chestxray14", "folder", "csv"),
)
SOURCES = Registry(
    "data set that dermsearch knows",
    "dermsearch.sources",
    {name: f"dermsearch.data.sources.{name}:SOURCE" for name in SHIPPED},
)


def shared(*names: str) -> tuple[Column, ...]:
    """Columns under the names that all data sets share."""
    return tuple(METADATA[name] for name in names)


class Collector:
    """Gathers the records of a release. A record that breaks a rule that all data sets share becomes a problem.

    `words` says for each label which class a word of the release means; the classes keep the order of the words.
    A record is added with the release's own words as labels and leaves with classes.
    """

    def __init__(self, words: Mapping[str, Mapping[str, str]]) -> None:
        self.words = words
        self.hint = ""  # what to do about a path that leads out of the release's folder
        self.records: list[CaseRecord] = []
        self.problems: list[Problem] = []
        self._first: dict[str, str] = {}  # case -> where it was met first
        self._any_case = {label: {w.lower(): c for w, c in known.items()} for label, known in words.items()}

    def add(self, record: CaseRecord) -> None:
        """Keep a record, without the modalities that have no file (""), or the reason why it is left out."""
        reason = wrong_id(record.case) or self._wrong(record)
        if reason:
            self.problem(record.case, record.where, reason)
            return
        self._first[record.case] = record.where
        record.images = {modality: path for modality, path in record.images.items() if path}
        record.labels = {label: self._class(label, text) for label, text in record.labels.items()}
        self.records.append(record)

    def problem(self, case: str, where: str, reason: str) -> None:
        """A row is left out."""
        self.problems.append(Problem(case, where, reason))

    def marked(self, case: str, where: str, row: dict[str, str], columns: Sequence[str]) -> str | None:
        """The one column of a row that is marked with 1 or X; None, and a problem, where it is not one."""
        found = [c for c in columns if row[c].lower() == "x" or number(row[c]) == 1]
        if len(found) == 1:
            return found[0]
        said = f"{' and '.join(found)} are marked" if found else f"none of {', '.join(columns)} is marked"
        self.problem(case, where, f"{said} where one should be")
        return None

    def release(self) -> Release:
        """All that was gathered."""
        classes = {label: tuple(dict.fromkeys(known.values())) for label, known in self.words.items()}
        return Release(self.records, classes, self.problems)

    def _class(self, label: str, text: str | None) -> str | None:
        known = word(text or "")
        return None if known is None else self.words[label].get(known) or self._any_case[label].get(known.lower())

    def _wrong(self, record: CaseRecord) -> str | None:
        if record.case in self._first:
            return f"this case is already in {self._first[record.case]}"
        paths = [path for path in (*record.images.values(), record.mask) if path]
        for path in paths:
            if not inside(path):
                return f"{path[:100]!r} is no path inside the release's folder{self.hint}"
        if not any(record.images.values()):
            return "is missing: no image file of it is in the folder"
        for label, text in record.labels.items():
            if not printable(text or ""):
                return f"its {label} has characters that cannot be printed"
            if word(text or "") and self._class(label, text) is None:
                return f"'{text}' is no class of {label}; {nearest(text, self.words[label])}"
        return None


def wrong_id(case: str) -> str | None:
    """Why this cannot be the id of a case, which may become part of a file's name; None where it can."""
    if not case.strip():
        return "it has no id"
    if ".." in case or case.startswith(".") or "/" in case or "\\" in case or not printable(case):
        return f"{case[:100]!r} is no safe id: it holds a path or a character that cannot be printed"
    if len(case.encode()) > LONGEST:
        return f"its id has {len(case.encode())} bytes; {LONGEST} is the most"
    return None


def inside(path: str) -> bool:
    """Whether a relative path cannot leave the folder that it is relative to."""
    absolute = path.startswith("/") or path[1:2] == ":"
    return not absolute and ".." not in path.split("/") and "\\" not in path and printable(path)


def printable(text: str) -> bool:
    """Whether no character of it is a control character."""
    return text.isprintable() or not any(map(control, text))


def control(character: str) -> bool:
    """NUL, a line end and other characters that are not to be printed."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def shown(text: str, most: int) -> str:
    """Text of a release as it may stand in a message: no control characters, not too long."""
    return "".join(" " if control(c) else c for c in text[:most])


def path_id(path: str) -> str:
    """An id from a file's path, for releases that give none: melanoma/1.jpg -> melanoma__1.jpg"""
    return path.replace("/", "__")


def locate(folder: Folder, names: Sequence[str], tops: Sequence[str] = ()) -> tuple[str, str]:
    """(what goes before all names of the release, the first of `names` that is there with it).

    The folder is the release itself, then the first is empty, or it holds the release in one of `tops`, the folders
    that its archive unpacks to.
    """
    for top in ("", *(f"{t}/" for t in tops)):
        for name in names:
            if folder.kind(top + name) != "none":
                return top, top + name
    if folder.kind() != "folder":
        raise UserError(f"there is no folder '{folder.where}'")
    deeper = f", nor in its {' or '.join(tops)}" if tops else ""
    raise UserError(f"{folder.where}: has no {' or '.join(names)}{deeper}; name the folder of the release")


def read_table(
    folder: Folder, name: str, needs: Sequence[str], problems: list[Problem], separator: str | None = ","
) -> Iterator[tuple[str, dict[str, str]]]:
    """(where, row) for each usable row of a delimited text file with a header; values are stripped.

    Without a separator the header shows it. A row with too few or too many fields becomes a problem.
    """
    text, table = folder.text(name), f"{folder.where}: {name}"
    rows = rows_of(text, table, separator or separator_of(text))
    _, header = next(rows, (1, []))
    check_header(table, header, needs)
    for line, fields in rows:
        where = f"{name}, line {line}"
        if len(fields) == len(header) and any(fields):
            yield where, dict(zip(header, fields, strict=True))
        elif any(fields):
            count = f"{many(len(fields), 'field')} where the header has {len(header)}"
            problems.append(Problem(fields[0], where, count))


def check_header(where: str, header: Sequence[str], needs: Sequence[str]) -> None:
    """A table has each column that its reader needs, once."""
    if not any(header):
        raise UserError(f"{where} is empty")
    for column in needs:
        if column not in header:
            raise UserError(f"{where} has no column '{column}'; {nearest(column, [shown(h, 100) for h in header])}")
        if header.count(column) > 1:
            raise UserError(f"{where} has {header.count(column)} columns '{column}'; one is right")


def number(text: str) -> float | None:
    """A number as a release writes it; None where it is missing, unknown or no number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None


def word(text: str) -> str | None:
    """A word; None for the many ways of writing that it is missing."""
    return None if text.lower() in ("", "nan", "na", "n/a", "none", "null", "unknown", "unk", "-1") else text


def sex(text: str) -> str | None:
    """male or female, however it is written; else None."""
    return {"m": "male", "male": "male", "f": "female", "female": "female"}.get(text.lower())


def skin_type(text: str) -> float | None:
    """A Fitzpatrick skin type, 1 to 6; else None."""
    value = number(text)
    return value if value in (1, 2, 3, 4, 5, 6) else None


def metadata(row: Mapping[str, str], **columns: str) -> dict[str, float | str | None]:
    """What a row tells under the names that all data sets share, each from its column; other names are words."""
    readers = {"age": number, "sex": sex, "skin_type": skin_type}
    return {name: readers.get(name, word)(row.get(column, "")) for name, column in columns.items()}


def truth(text: str) -> str | None:
    """ "true" or "false", however it is written; else None."""
    return {"true": "true", "yes": "true", "1": "true", "false": "false", "no": "false", "0": "false"}.get(text.lower())


def hidden(path: str) -> bool:
    """Files that a system leaves beside the user's: .DS_Store, __MACOSX/a.jpg"""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


class ImageFiles:
    """The image files of a release, listed once and found without regard to case, by path or by bare name."""

    def __init__(self, folder: Folder, *under: str) -> None:
        listed = [n for u in (under or ("",)) for n in folder.names(u) if n.lower().endswith(IMAGES) and not hidden(n)]
        self.folder, self.names = folder, listed
        self._paths = {n.lower(): n for n in listed} | {n: n for n in listed}
        self._stems: dict[str, str] = {}
        for name in listed:
            self._stems.setdefault(stem(name).lower(), name)

    def path(self, name: str) -> str:
        """The listed file at this path, else the path itself: preparing will find it missing."""
        return self._paths.get(name) or self._paths.get(name.lower(), name)

    def stem(self, name: str) -> str | None:
        """The listed file with this bare name, whatever its folder and extension."""
        return self._stems.get(name.lower())


def stem(name: str) -> str:
    """images/ISIC_1.jpg -> ISIC_1"""
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
