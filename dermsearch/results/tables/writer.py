"""The tables of a run while they grow. Rows become Arrow once, and each file is whole whenever it is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
                table = joined(name, [(provenance, pieces.gathered(now[0]))])
                tables.write(table, self.folder / f"{name}.arrow")
                self.saved[name] = now
                del table


class Pieces:
    """Rows of one table by key: in one chunk of memory those that were gathered, since a thousand small tables of
    Arrow take many times the room of their rows.
    """

    def __init__(self, name: str) -> None:
        self.whole = tables.build(name, []).drop_columns(COLUMNS)
        self.new: dict[str, pa.Table] = {}
        self.places: dict[str, tuple[int, int] | None] = {}  # by key: from where to where in the whole; None: it is new

    def put(self, key: str, table: pa.Table) -> None:
        """The rows of that key from here on."""
        self.new[key], self.places[key] = table, None

    def gathered(self, keys: Iterable[str]) -> pa.Table:
        """The rows of these keys in this order, in one chunk."""
        parts, ends, length = [self.whole.slice(0, 0)], list[tuple[str, int, int]](), 0
        begin = end = 0  # what lies side by side in the whole is one part
        for key in keys:
            place = self.places[key]
            if place is None or place[0] != end:
                parts.append(self.whole.slice(begin, end - begin))
                begin = end = place[0] if place else 0
            if place is None:
                parts.append(self.new[key])
                size = len(parts[-1])
            else:
                size, end = place[1] - place[0], place[1]
            ends.append((key, length, length := length + size))
        parts.append(self.whole.slice(begin, end - begin))
        table = worded(pa.concat_tables(parts).unify_dictionaries().combine_chunks())
        self._keep(table, ends)
        return table

    def _keep(self, table: pa.Table, ends: Iterable[tuple[str, int, int]]) -> None:
        """Instead of what it was gathered from; rows of other keys, of which there are hardly ever any, stay apart."""
        found = {key: (begin, end) for key, begin, end in ends}
        for key in self.places.keys() - found.keys():
            if (place := self.places[key]) is not None:
                self.put(key, self.whole.take(pa.array(range(*place), pa.int64())))
        self.whole = table
        self.new = {key: rows for key, rows in self.new.items() if key not in found}
        self.places |= found


def worded(table: pa.Table) -> pa.Table:
    """A table in one chunk, its dictionaries without words that no row has, in the order in which rows have them."""
    for at, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) and len(table):
            column = table.column(at).chunk(0)
            which = column.indices.drop_null().unique()
            place = np.zeros(len(column.dictionary), np.int32)
            place[which] = np.arange(len(which))
            indices = pa.array(place, field.type.index_type).take(column.indices)
            words = pa.DictionaryArray.from_arrays(indices, column.dictionary.take(which))
            table = table.set_column(at, field, words)
    return table


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
