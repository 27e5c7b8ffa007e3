"""Of pictures that lie here a case store, for `dermsearch init`: the commands that one would have given oneself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermsearch.cli.ask import Asker
from dermsearch.errors import UserError, nearest

if TYPE_CHECKING:
    from dermsearch.data.store.case_store import CaseStore

LABELS = ("diagnosis", "dx", "label", "class", "target", "finding")  # what the column of labels is often called
CLINICAL = ("clin", "photo", "macro")  # what a column of clinical pictures has in its name
MOST_CLASSES = 30
NOBODY = "none"


@dataclass(frozen=True)
class Spreadsheet:
    """A table's columns, with their values."""

    path: str
    columns: dict[str, list[str]]

    @property
    def pictures(self) -> dict[str, str]:
        """The columns that name pictures, by modality: a clinical one beside a dermoscopic one."""
        from dermsearch.data.sources.base import IMAGES

        found: dict[str, str] = {}
        for name, values in self.columns.items():
            words = [value for value in values if value]
            if words and all(value.lower().endswith(IMAGES) for value in words):
                found.setdefault("clinic" if any(part in name.lower() for part in CLINICAL) else "derm", name)
        return found

    @property
    def label(self) -> str | None:
        """The column that is called like a label, else the first one with a few words in it."""
        few = {name for name, values in self.columns.items() if 1 < len({*values} - {""}) <= MOST_CLASSES}
        rest = [name for name in self.columns if name in few and name not in self.pictures.values()]
        return next((name for word in LABELS for name in rest if word == name.lower()), rest[0] if rest else None)

    def owner(self, kind: str) -> str | None:
        """The column of patients or lesions."""
        return next((name for name in self.columns if kind in name.lower()), None)


def read_columns(path: str) -> Spreadsheet:
    """The whole table but for its damaged rows, which `prepare` tells of."""
    from dermsearch.data.sources.base import read_table
    from dermsearch.storage.files import Folder

    folder = Folder(os.path.dirname(path) or ".")
    rows = [row for _, row in read_table(folder, os.path.basename(path), (), [], separator=None)]
    if not rows:
        raise UserError(f"{path}: has no rows")
    return Spreadsheet(path, {name: [row[name] for row in rows] for name in rows[0] if name})


def made(where: str, name: str, ask: Asker) -> CaseStore:
    """The store that `where` is, or that is made of it in data/NAME."""
    from dermsearch.data.store.case_store import CaseStore
    from dermsearch.data.store.layout import MANIFEST

    if (Path(where) / MANIFEST).is_file():
        return CaseStore(where)
    source, told = order(where, ask)
    out = str(Path("data") / name)
    _prepare(source, where.partition(":")[2] or where, out, told, ask)
    return CaseStore(out)


def order(where: str, ask: Asker) -> tuple[str, dict[str, Any]]:
    """What `dermsearch data prepare` is told: the source, and which columns of a table are what."""
    from dermsearch.data.sources.base import SOURCES

    source, colon, _ = where.partition(":")
    if colon:
        if source not in SOURCES:
            raise UserError(f"--data: '{source}' is no data set that is known; {nearest(source, SOURCES.names())}")
        return source, {}
    if Path(where).is_dir():
        return "folder", {"modality": ask("What the pictures are (derm, clinic)", "derm", None, _modality)}
    table = read_columns(where)
    columns = (*table.columns, NOBODY)

    def column(question: str, guess: str | None) -> str | None:
        found = ask(question, guess or NOBODY, None, lambda text: _column(text, columns))
        return None if found == NOBODY else found

    images = [f"{m}={c}" for m in ("derm", "clinic") if (c := column(f"Column of {m} pictures", table.pictures.get(m)))]
    label = column("Column of the diagnosis", table.label)
    owners = {kind: column(f"Column of {kind}s", table.owner(kind)) for kind in ("patient", "lesion")}
    return "csv", {"image": images, "label": [label] if label else [], **owners}


def _prepare(source: str, path: str, out: str, told: dict[str, Any], ask: Asker) -> None:
    from dermsearch.cli.data import prepare

    command = f"dermsearch data prepare {source} {path} -o {out} {words(told)}".rstrip()
    print(command)
    try:
        prepare(source, path, out, **told)
    except UserError as error:
        if not str(error).startswith("--split-by"):
            raise
        if not ask.sure("Nobody says which pictures are of one person. Is each of another person?"):
            raise UserError(
                "--data: pictures of one person would be learnt from and judged on; name the column of patients in a "
                f"table, or prepare it with `{command} --split-by image`, then `dermsearch init --data {out}`"
            ) from None
        prepare(source, path, out, **told, split_by="image")


def words(told: dict[str, Any]) -> str:
    """Options as a command has them."""
    given = {name: value if isinstance(value, list) else [value] for name, value in told.items() if value}
    return " ".join(f"--{name} {value}" for name, values in given.items() for value in values)


def _modality(text: str) -> str:
    if text not in ("derm", "clinic", "xray"):
        raise UserError(f"pictures: '{text}' is no modality; choose derm, clinic or xray")
    return text


def _column(text: str, columns: Sequence[str]) -> str:
    if text not in columns:
        raise UserError(f"column: the table has no '{text}'; {nearest(text, columns)}")
    return text
