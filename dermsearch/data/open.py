"""From a study's `data` section to an opened case store: found, fetched from where it lies, or drawn."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from dermsearch.config import Data
from dermsearch.data.case import SEVEN_POINT
from dermsearch.data.files import Folder, first_line
from dermsearch.data.splits import Split
from dermsearch.data.store import FORMAT, MANIFEST, CaseStore
from dermsearch.errors import UserError

SYNTHETIC_VERSION = 1  # raise it when the pictures change


def store_folder(data: Data, cache: Path) -> Path:
    """Where the store of these settings lies on this machine, whether or not it is there yet."""
    if data.source == "store":
        assert data.path is not None
        return fetched(data.path, cache) if "://" in data.path else Path(data.path).expanduser()
    text = json.dumps([data.source, SYNTHETIC_VERSION, FORMAT, data.cases, data.size, data.seed])
    return cache / f"{data.source}-{data.cases}x{data.size}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"


def is_made(data: Data, cache: Path) -> bool:
    """Is the store on this machine already?"""
    return (store_folder(data, cache) / MANIFEST).is_file()


def open_cases(data: Data, cache: Path) -> CaseStore:
    """The study's cases; built-in data are drawn if no process has done so before."""
    if data.source == "store":
        assert data.path is not None
        return open_store(data, fetch(data.path, cache) if "://" in data.path else store_folder(data, cache))
    folder = store_folder(data, cache)
    if is_made(data, cache):
        return CaseStore(folder)
    from dermsearch.data.build import write_store
    from dermsearch.data.synthetic import synthetic

    settings = {"source": data.source, "version": SYNTHETIC_VERSION, "cases": data.cases, "seed": data.seed}
    drawn = synthetic(data.cases, data.size, data.seed)
    return write_store(folder, drawn, Split("patient", seed=data.seed), SEVEN_POINT, settings)


def open_store(data: Data, folder: Path) -> CaseStore:
    """A prepared store, if it can serve the study."""
    if not (folder / MANIFEST).is_file():
        raise UserError(f"data.path: there is no case store at {folder}; `dermsearch data prepare` makes one")
    store = CaseStore(folder)
    if store.side < data.size:
        raise UserError(
            f"data.size: is {data.size}, but the store at {folder} holds images of {store.side} px; "
            f"prepare it with --side {data.size} or more"
        )
    missing = [m for m in data.modalities if m not in store.modalities]
    if missing:
        raise UserError(
            f"data.modalities: the store at {folder} has no {missing[0]} images, only {' and '.join(store.modalities)}"
        )
    return store


def fetched(uri: str, cache: Path) -> Path:
    """Where a remote store is kept on this machine."""
    name = uri.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    return cache / f"{name}-{hashlib.blake2b(uri.encode(), digest_size=6).hexdigest()}"


def fetch(uri: str, cache: Path) -> Path:
    """Copy a remote store to this machine once, whole or not at all; training maps its pages from there."""
    target, remote = fetched(uri, cache), Folder(uri)
    try:
        manifest = remote.read(MANIFEST)
    except OSError as error:
        if (target / MANIFEST).is_file():
            return target  # fetched before, and now out of reach
        raise UserError(f"data.path: there is no case store at {uri}: {first_line(error)}") from None
    if (target / MANIFEST).is_file():
        if json.loads((target / MANIFEST).read_bytes())["fingerprint"] == json.loads(manifest)["fingerprint"]:
            return target
        shutil.rmtree(target)  # another store was prepared there since
    cache.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=cache))
    try:
        for name in (*json.loads(manifest)["files"], MANIFEST):
            (part / name).write_bytes(remote.read(name))
        os.rename(part, target)
    except OSError as error:  # another process was faster, or the disk is full
        if not (target / MANIFEST).is_file():
            raise UserError(f"data.path: {uri} cannot be copied to {target}: {first_line(error)}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target
