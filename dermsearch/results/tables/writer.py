"""The tables of a run while they grow. Rows become Arrow once, and each file is whole whenever it is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from dermsearch.results.tables import schema as tables
from dermsearch.results.tables.schema import OPENED, PROVENANCE, SCHEMAS

WHOLE = ""  # the key of rows that are a table's only ones: put anew, they replace what was there
COLUMNS = [name for name, _ in PROVENANCE]


class Writer:
    """All tables of one folder, kept in pieces by a key such as a stage's, so that only what is new is converted.

    Files are replaced, never changed: a run that is killed leaves those of its last `save`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pieces: dict[str, dict[str, pa.Table]] = {name: {} for name in SCHEMAS if name not in OPENED}
        self.saved: dict[str, tuple[list[str], dict[str, str]]] = {}  # by table: which pieces the file has, and whose

    def has(self, name: str, key: str) -> bool:
        """Whether a table has the rows of that key."""
        return key in self.pieces[name]

    def put(self, name: str, key: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add the rows of one key to a table, or put them in the place of those that it had."""
        self.pieces[name][key] = tables.build(name, rows).drop_columns(COLUMNS)
        self.saved.pop(name, None)

    def put_tables(self, name: str, key: str, parts: Iterable[tuple[Mapping[str, Any], pa.Table]]) -> None:
        """The same with rows that are Arrow already; columns that a part lacks have the one value that goes with it."""
        self.pieces[name][key] = joined(name, parts).drop_columns(COLUMNS)
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
        table = pa.concat_tables([empty, *(self.pieces[name][key] for key in keys)]).unify_dictionaries()
        table = table.combine_chunks()
        return joined(name, [(provenance, table)])


def joined(name: str, parts: Iterable[tuple[Mapping[str, Any], pa.Table]]) -> pa.Table:
    """Tables below one another in the named schema; what one lacks is, in all of its rows, what goes with it."""
    schema = SCHEMAS[name]
    tables = [schema.empty_table()]
    for own, part in parts:
        there = set(part.column_names)
        columns = [part[f.name] if f.name in there else repeated(own.get(f.name), f.type, len(part)) for f in schema]
        tables.append(pa.Table.from_arrays(columns, schema=schema))
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def repeated(value: Any, kind: pa.DataType, length: int) -> pa.Array:
    """A column of one value; a word that is written once is a dictionary of one."""
    if not pa.types.is_dictionary(kind):
        return pa.repeat(pa.scalar(value, kind), length)
    which = pa.repeat(pa.scalar(None if value is None else 0, kind.index_type), length)
    return pa.DictionaryArray.from_arrays(which, pa.array([] if value is None else [value], kind.value_type))
