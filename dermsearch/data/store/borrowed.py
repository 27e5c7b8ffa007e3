"""Rows of metadata that a store's cases borrow from another store's, in a file that a study names as `data.table`.

    case         of this store, all of them, in its order
    reference    the case whose row it is; empty of a mean
    similarity   by which it was chosen
    missing      the columns of which nothing is known
    ...          the columns

What the file is of stands in its schema: fingerprints, stage, settings, and the columns as the reference fitted them to
its training cases. It holds for the store alone that it was made for, and is addressed by its content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from dermsearch.data.case import Column, column_of
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError, first_line
from dermsearch.regular import bytes_of

ABOUT = b"borrowed"
FORMAT = 1


def write(path: Path, table: pa.Table, columns: Mapping[str, Column], about: Mapping[str, Any]) -> str:
    """Write the table whole or not at all; returns its address."""
    told = {"format": FORMAT, **about, "columns": [asdict(column) for column in columns.values()]}
    told["address"] = address(table, told)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_file(str(part), table.schema.with_metadata({ABOUT: json.dumps(told)})) as file:
            file.write_table(table)
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {first_line(error)}") from None
    return str(told["address"])


def read(path: Path) -> tuple[dict[str, Any], pa.Table]:
    """What the table is of, and its rows; UserError where it is none, or not what was written."""
    try:
        table = pa.ipc.open_file(pa.BufferReader(bytes_of(path))).read_all()
        told = json.loads((table.schema.metadata or {})[ABOUT])
        whole = told["format"] == FORMAT and told["address"] == address(table, told)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; `dermsearch data borrow` makes one") from None
    except (OSError, pa.ArrowException, LookupError, ValueError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged or no table of borrowed rows; `dermsearch data borrow` makes one")
    return told, table


def lay(store: CaseStore, path: Path) -> CaseStore:
    """The store with borrowed rows in the place of its own metadata; to keys it is another one."""
    told, table = read(path)
    if told["store"] != store.fingerprint or table["case"].to_pylist() != store.strings("case").tolist():
        raise UserError(f"{path} was borrowed for another store than {store.folder}; borrow again with this one")
    columns = {c["name"]: column_of(c) for c in told["columns"]}
    values = {name: table[name].combine_chunks() for name in columns}
    key = hashlib.blake2b(f"{store.fingerprint} {told['address']}".encode(), digest_size=16).hexdigest()
    return store.with_columns(columns, values, key)


def address(table: pa.Table, told: Mapping[str, Any]) -> str:
    """Of the content: rows, columns and what they are of."""
    words = {key: value for key, value in told.items() if key != "address"}
    found = hashlib.blake2b(json.dumps(words, sort_keys=True).encode(), digest_size=16)
    for name in table.column_names:
        found.update(name.encode() + json.dumps(table[name].to_pylist()).encode())
    return found.hexdigest()
