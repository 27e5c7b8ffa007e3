"""Files that are nearly what they should be: their structure is known, and one or two things in it are odd."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 1.5, float("nan"), float("inf"), -0.0, 1e308, "", "x", " ",
    "../../etc/passwd", "/", ".", "..", "a/b", "\x00", "\x1b[31m", "\ud800", "é" * 300, "[/x]", "{}", "=1+1", "0x10",
    "1e5", "null", "9" * 5000, [], {}, [[]], [None], [1], ["x"], [{}], {"x": 1}, {"": 0}, {"a": {"b": []}}, [0] * 1000,
]  # fmt: skip
LARGE: list[Callable[[], Any]] = [
    lambda: "x" * 1_000_000,
    lambda: 10**4000,
    lambda: dict.fromkeys(map(str, range(10_000)), 0),
    lambda: list(range(10_000)),
    lambda: nested(150),
]


def nested(deep: int) -> Any:
    """Lists in lists."""
    inner: Any = []
    for _ in range(deep):
        inner = [inner]
    return inner


def odd(draw: random.Random) -> Any:
    """A value that nobody would expect; rarely a large one."""
    return draw.choice(LARGE)() if draw.random() < 0.01 else copy.deepcopy(draw.choice(ODD))


def places(at: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a tree."""
    if isinstance(at, dict | list):
        for key, inner in list(at.items() if isinstance(at, dict) else enumerate(at)):
            yield at, key
            yield from places(inner)


def mutated(content: Any, draw: random.Random) -> Any:
    """The tree with one to three places that hold something else, are gone, are there twice or are called otherwise."""
    content = copy.deepcopy(content)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        found = list(places(content))
        if not found or draw.random() < 0.02:
            return odd(draw)
        at, key = draw.choice(found)
        others = [at[key] for at, key in found]
        how = draw.randrange(6)
        if how == 0:
            del at[key]
        elif how == 1:
            at[key] = copy.deepcopy(draw.choice(others))
        elif how == 2 and isinstance(at, dict):
            at[draw.choice(["x", "", "name", f"{key}x", 3, str(key).upper()])] = at.pop(key)
        elif how == 3 and isinstance(at, dict):
            at[draw.choice(["more", "__class__", "format", "files"])] = odd(draw)
        else:
            at[key] = odd(draw)
    return content


def spoilt(data: bytes, draw: random.Random) -> bytes:
    """The bytes with some flipped, cut, doubled or foreign."""
    if not data:
        return b"?"
    at, some = draw.randrange(len(data)), draw.randrange(1, 40)
    return draw.choice([
        lambda: data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :],
        lambda: data[:at],
        lambda: data[at:],
        lambda: data[:at] + draw.randbytes(some) + data[at + some :],
        lambda: data[:at] + data[at : at + some] + data[at:],
        lambda: b"",
        lambda: data + draw.randbytes(some),
    ])()  # fmt: skip


def json_of(content: Any) -> bytes:
    """As JSON, lone surrogates and all."""
    return json.dumps(content, default=str, skipkeys=True).encode()


def altered(table: pa.Table, draw: random.Random) -> pa.Table:
    """A table with a column that is gone, of another type, without values, or in another order; or other rows."""
    if not table.num_columns:
        return table
    at = draw.randrange(table.num_columns)
    name, n = table.column_names[at], table.num_rows
    how = draw.randrange(7)
    if how == 0:
        return table.drop_columns([name])
    if how == 1:
        return table.set_column(at, name, pa.nulls(n, table.schema.field(at).type))
    if how == 2:
        return table.set_column(at, name, pa.array(["x"] * n))
    if how == 3:
        return table.set_column(at, name, pa.array([draw.choice([-1, 0, 7, 2**31 - 1])] * n, pa.int32()))
    if how == 4:
        return table.slice(0, draw.randrange(n + 1))
    if how == 5:
        return table.take(pa.array([draw.randrange(n) for _ in range(n)])) if n else table
    return table.rename_columns([f"{c}x" if c == name else c for c in table.column_names])
