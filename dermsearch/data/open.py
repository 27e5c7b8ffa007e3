"""From a study's `data` section to an opened case store: found again if it was made before, else made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from dermsearch.config import Data
from dermsearch.data.case import SEVEN_POINT
from dermsearch.data.splits import split_by_group
from dermsearch.data.store import FILE, CaseStore, write_store
from dermsearch.errors import UserError

SYNTHETIC_VERSION = 1  # raise it when the pictures change


def store_folder(data: Data, cache: Path) -> Path:
    """Where the store of these settings lies, whether or not it has been made."""
    if data.source == "store":
        assert data.path is not None
        return Path(data.path).expanduser()
    text = json.dumps([data.source, SYNTHETIC_VERSION, data.cases, data.size, data.seed])
    return cache / f"{data.source}-{data.cases}x{data.size}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"


def is_made(data: Data, cache: Path) -> bool:
    """Is the store there already?"""
    return (store_folder(data, cache) / FILE).is_file()


def open_cases(data: Data, cache: Path) -> CaseStore:
    """The study's cases; built-in data are drawn if no process has done so before."""
    folder = store_folder(data, cache)
    if data.source == "store":
        if not is_made(data, cache):
            raise UserError(f"data.path: there is no case store at {folder}")
        store = CaseStore(folder)
        if store.size != data.size:
            raise UserError(f"data.size: is {data.size}, but the store at {folder} holds images of {store.size} px")
        missing = [m for m in data.modalities if m not in store.modalities]
        if missing:
            raise UserError(f"data.modalities: the store at {folder} has no {missing[0]} images")
        return store
    if is_made(data, cache):
        return CaseStore(folder)
    from dermsearch.data.synthetic import synthetic

    cases = list(synthetic(data.cases, data.size, data.seed))
    splits = split_by_group([c.patient for c in cases], [c.labels["diagnosis"] for c in cases], data.seed)
    settings = {"source": data.source, "version": SYNTHETIC_VERSION, "cases": data.cases, "seed": data.seed}
    return write_store(folder, cases, {c.case: s for c, s in zip(cases, splits, strict=True)}, SEVEN_POINT, settings)
