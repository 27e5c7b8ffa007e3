"""What every source promises, see docs/sources.md."""

from __future__ import annotations

from pathlib import Path

from dermsearch.data.case import SPLITS
from dermsearch.data.domain import DOMAINS
from dermsearch.data.sources.base import IMAGES, SOURCES, CaseRecord, Columns, Release, Source, wrong_id
from dermsearch.errors import UserError
from dermsearch.storage.files import Folder
from dermsearch.testing.claims import claim, named


class WatchedFolder(Folder):
    """Remembers what was read."""

    def __init__(self, where: str | Path) -> None:
        super().__init__(where)
        self.opened: list[str] = []

    def read(self, name: str) -> bytes:
        self.opened.append(name)
        return super().read(name)


def check_source(name: str, release: str | Path, columns: Columns | None = None) -> None:
    """The installed source of that name, on a small copy of its release: a few cases, all of them sound."""
    source: Source = named(SOURCES, name)
    claim(source.title and source.licence, f"{name}: says its title and its licence")
    asked, folder = columns or Columns(), WatchedFolder(release)
    found = source.read(folder, asked)
    pictures = [file for file in folder.opened if file.lower().endswith(IMAGES)]
    claim(not pictures, f"{name}: opens no image, but {', '.join(pictures[:3])}")
    claim(not found.problems, f"{name}: has no problem with a sound copy: {found.problems[:1]}")
    claim(found.records, f"{name}: finds cases in {release}")
    claim(len({r.case for r in found.records}) == len(found.records), f"{name}: every case has an id of its own")
    modalities = DOMAINS.find(source.domain or asked.domain).modalities
    for record in found.records:
        _check(name, folder, found, record, modalities)
    _inputs(name, source, found)
    for label, counts in source.expected.classes.items():
        claim(set(found.classes[label]) == set(counts), f"{name}: expects the classes that {label} has")
    try:
        source.read(Folder(Path(release) / "no_such_folder"), asked)
    except UserError as error:
        claim("\n" not in str(error), f"{name}: says in one sentence that a folder is not the release")
    else:
        claim(False, f"{name}: refuses a folder that is not there, by UserError")


def _check(name: str, folder: Folder, found: Release, record: CaseRecord, modalities: tuple[str, ...]) -> None:
    wrong = wrong_id(record.case)
    claim(wrong is None, f"{name}: an id may become a file's name: {wrong}")
    who = f"{name}: {record.case}"
    claim(record.images and set(record.images) <= set(modalities), f"{who} has images, of {', '.join(modalities)}")
    for file in (*record.images.values(), record.mask):
        claim(file is None or folder.kind(file) == "file", f"{who}: {file!r} is a file of the release")
    claim(set(record.labels) == set(found.classes), f"{who} says every label, {', '.join(found.classes)}")
    for label, word in record.labels.items():
        claim(word is None or word in found.classes[label], f"{who}: {word!r} is a class of {label}")
    claim(record.split in (None, *SPLITS), f"{who}: split is none or one of {', '.join(SPLITS)}, not {record.split!r}")
    claim(record.where, f"{who}: says where it is told, such as 'meta.csv, line 7'")
    claim(set(record.metadata) == set(found.records[0].metadata), f"{who} has the metadata that every case has")
    for column, value in record.metadata.items():
        claim(value is None or isinstance(value, float | str), f"{who}: {column} is a float, a word or None: {value!r}")


def _inputs(name: str, source: Source, found: Release) -> None:
    """What may be an input is there, of its kind, and not denied."""
    inputs, there = (*source.columns, *found.columns), found.records[0].metadata
    claim({c.name for c in inputs} <= set(there), f"{name}: every column is among the metadata")
    both = {c.name for c in inputs} & set(source.denied)
    claim(not both, f"{name}: what is denied is no column: {', '.join(sorted(both))}")
    for record in found.records:
        for column in inputs:
            value, kind = record.metadata[column.name], float if column.kind == "number" else str
            claim(value is None or isinstance(value, kind), f"{name}: {column.name} is a {column.kind}, not {value!r}")
