"""The tables of a run while they grow. Rows become Arrow once, and each file is whole whenever it is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
        self.pieces = {name: Pieces(name) for name in SCHEMAS if name not in OPENED}
        self.saved: dict[str, tuple[list[str], dict[str, str]]] = {}  # by table: which pieces the file has, and whose

    def has(self, name: str, key: str) -> bool:
        """Whether a table has the rows of that key."""
        return key in self.pieces[name].places

    def put(self, name: str, key: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add the rows of one key to a table, or put them in the place of those that it had."""
        self._put(name, key, tables.build(name, rows))

    def put_tables(self, name: str, key: str, parts: Iterable[tuple[Mapping[str, Any], pa.Table]]) -> None:
        """The same with rows that are Arrow already; columns that a part lacks have the one value that goes with it."""
        self._put(name, key, joined(name, parts))

    def _put(self, name: str, key: str, table: pa.Table) -> None:
        self.pieces[name].put(key, table.drop_columns(COLUMNS))
        self.saved.pop(name, None)

    def save(self, order: Iterable[str], provenance: Mapping[str, str]) -> None:
        """Write every table that has changed: its pieces in the order of their keys, all rows of one provenance.

        Keys that are not in the order are left out, so that the files do not depend on which stage was faster.
        """
        place = {key: i for i, key in enumerate([WHOLE, *order])}
        for name, pieces in self.pieces.items():
            now = sorted((key for key in pieces.places if key in place), key=place.__getitem__), dict(provenance)
            if self.saved.get(name) != now:
                tables.write(joined(name, [(provenance, pieces.gathered(now[0]))]), self.folder / f"{name}.arrow")
                self.saved[name] = now


class Pieces:
    """Rows of one table by key. Those that were gathered lie in one chunk of memory, since a thousand small tables of
    Arrow take many times the room of their rows; and only there, column by column.
    """

    def __init__(self, name: str) -> None:
        empty = tables.build(name, []).drop_columns(COLUMNS)
        self.schema = empty.schema
        self.columns = dict(zip(empty.column_names, empty.columns, strict=True))  # of what was gathered
        self.new: dict[str, pa.Table] = {}
        self.places: dict[str, tuple[int, int] | None] = {}  # by key: from where to where in that; None: it is new

    def put(self, key: str, table: pa.Table) -> None:
        """The rows of that key from here on."""
        self.new[key], self.places[key] = table, None

    def gathered(self, keys: Sequence[str]) -> pa.Table:
        """The rows of these keys in this order, in one chunk."""
        chosen = set(keys)
        others = [key for key in self.places if key not in chosen]  # hardly ever any: they lie behind
        parts = list[pa.Table | tuple[int, int]]()  # new ones, or rows of what was gathered before
        places, length, wanted = dict[str, tuple[int, int] | None](), 0, 0
        for key in [*keys, *others]:
            place = self.places[key]
            if place is None:
                parts.append(self.new[key])
            elif parts and isinstance(parts[-1], tuple) and parts[-1][1] == place[0]:  # side by side: one part
                parts[-1] = (parts[-1][0], place[1])
            else:
                parts.append(place)
            size = len(self.new[key]) if place is None else place[1] - place[0]
            places[key] = (length, length := length + size)
            wanted += size if key in chosen else 0
        for field in self.schema:
            old = self.columns[field.name]
            chunks = [p[field.name] if isinstance(p, pa.Table) else old.slice(p[0], p[1] - p[0]) for p in parts]
            flat = [chunk for each in chunks for chunk in each.chunks if len(chunk)]
            column = pa.chunked_array(flat, field.type).unify_dictionaries().combine_chunks()
            self.columns[field.name] = pa.chunked_array([worded(column)], field.type)
        self.places, self.new = places, {}
        return pa.table(self.columns, self.schema).slice(0, wanted)


def worded(column: pa.Array) -> pa.Array:
    """A dictionary without words that no row has, in the order in which rows have them; another column as it is."""
    if not isinstance(column, pa.DictionaryArray):
        return column
    which = column.indices.drop_null().unique()
    place = np.zeros(len(column.dictionary), np.int32)
    place[which] = np.arange(len(which))
    indices = pa.array(place, column.type.index_type).take(column.indices)
    return pa.DictionaryArray.from_arrays(indices, column.dictionary.take(which))


def joined(name: str, parts: Iterable[tuple[Mapping[str, Any], pa.Table]]) -> pa.Table:
    """Tables below one another in the named schema; what one lacks is, in all of its rows, what goes with it."""
    schema = SCHEMAS[name]
    tables = list[pa.Table]()
    for own, part in parts:
        there = set(part.column_names)
        columns = [part[f.name] if f.name in there else repeated(own.get(f.name), f.type, len(part)) for f in schema]
        tables.append(pa.Table.from_arrays(columns, schema=schema))
    if len(tables) == 1:  # nothing is copied
        return tables[0]
    return pa.concat_tables(tables or [schema.empty_table()]).unify_dictionaries().combine_chunks()


def repeated(value: Any, kind: pa.DataType, length: int) -> pa.Array:
    """A column of one value; a word that is written once is a dictionary of one."""
    if not pa.types.is_dictionary(kind):
        return pa.repeat(pa.scalar(value, kind), length)
    which = pa.repeat(pa.scalar(None if value is None else 0, kind.index_type), length)
    return pa.DictionaryArray.from_arrays(which, pa.array([] if value is None else [value], kind.value_type))
