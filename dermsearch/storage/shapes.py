"""What histories and judgements look like: a checksum says that a file is as it was written, not that it is one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from dermsearch.results.tables.schema import SAID

NUMBERS = ("value", "ci_low", "ci_high", "n")


def epochs(rows: Any) -> bool:
    """Is it a history: a row per epoch, from the first on?"""
    return isinstance(rows, list) and all(isinstance(r, dict) and r.get("epoch") == n for n, r in enumerate(rows, 1))


def labelled(about: dict[str, Any]) -> bool:
    """Are the names in a manifest names, by which stages are found and strung together?"""
    return all(isinstance(about.get(name, ""), str) for name in ("task", "parent", "weights", "study", "stage"))


def judged(judgement: dict[str, Any]) -> bool:
    """Has a judgement what tables are made of? Of a row a number may be missing, but be nothing else than finite."""
    rows: Any = judgement.get("rows")
    return (
        number(judgement.get("seconds"))
        and isinstance(judgement.get("stage", ""), str)
        and bool(rows)
        and worded(rows, ("split", "label", "class", "metric"))
        and all("value" in row and all(row.get(n) is None or number(row[n]) for n in NUMBERS) for row in rows)
        and worded(judgement.get("confusions"), ("split", "label", "truth", "predicted"))
    )


def said(data: bytes) -> pa.Table | None:
    """What a classifier says of every case, from a file of Arrow; None where it is none."""
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        table.validate(full=True)
    except (pa.ArrowException, ValueError, OSError):
        return None
    return table if table.schema.equals(pa.schema(SAID)) else None


def worded(rows: Any, words: Sequence[str]) -> bool:
    """Are these rows, each of which has a text under every one of these names?"""
    if not isinstance(rows, list):
        return False
    return all(isinstance(row, dict) and all(isinstance(row.get(word), str) for word in words) for row in rows)


def number(value: Any) -> bool:
    """Is it a finite number?"""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max
