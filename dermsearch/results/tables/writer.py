"""The tables of a run while they grow. Rows become Arrow once, and each file is whole whenever it is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from dermsearch.results.tables import schema as tables
from dermsearch.results.tables.schema import PROVENANCE, SCHEMAS

WHOLE = ""  # the key of rows that are a table's only ones: put anew, they replace what was there
COLUMNS = [name for name, _ in PROVENANCE]


class Writer:
    """All tables of one folder, kept in pieces by a key such as a stage's, so that only what is new is converted.

    Files are replaced, never changed: a run that is killed leaves those of its last `save`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pieces: dict[str, dict[str, pa.Table]] = {name: {} for name in SCHEMAS}
        self.saved: dict[str, tuple[list[str], dict[str, str]]] = {}  # by table: which pieces the file has, and whose

    def has(self, name: str, key: str) -> bool:
        """Whether a table has the rows of that key."""
        return key in self.pieces[name]

    def put(self, name: str, key: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add the rows of one key to a table, or put them in the place of those that it had."""
        self.pieces[name][key] = tables.build(name, rows).drop_columns(COLUMNS)
        self.saved.pop(name, None)

    def save(self, order: Iterable[str], provenance: Mapping[str, str]) -> None:
        """Write every table that has changed: its pieces in the order of their keys, all rows of one provenance.

        Keys that are not in the order are left out, so that the files do not depend on which stage was faster.
        """
        place = {key: i for i, key in enumerate([WHOLE, *order])}
        for name, pieces in self.pieces.items():
            now = sorted((key for key in pieces if key in place), key=place.__getitem__), dict(provenance)
            if self.saved.get(name) != now:
                tables.write(self._table(name, now[0], provenance), self.folder / f"{name}.arrow")
                self.saved[name] = now

    def _table(self, name: str, keys: Iterable[str], provenance: Mapping[str, str]) -> pa.Table:
        empty = tables.build(name, []).drop_columns(COLUMNS)
        # In one chunk: of thousands of small ones a reader would have more trouble than of their rows.
        table = pa.concat_tables([empty, *(self.pieces[name][key] for key in keys)]).combine_chunks()
        for column in COLUMNS:
            value = pa.scalar(provenance.get(column), pa.string())
            table = table.append_column(column, pa.repeat(value, len(table)))
        return table.cast(SCHEMAS[name])
