"""From a study's `data` section to an opened case store: found, fetched from where it lies, or drawn."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from dermsearch.data.domain import DOMAINS, Domain, setting_of
from dermsearch.data.store.borrowed import lay
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import FORMAT, MANIFEST, checksum, read_manifest
from dermsearch.data.store.splits import Split
from dermsearch.data.store.unfinished import clear, growing
from dermsearch.errors import UserError, first_line, nearest, public
from dermsearch.registry import attribute
from dermsearch.regular import bytes_of
from dermsearch.storage.files import Folder
from dermsearch.study.data import Data, Variant

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")  # the name of a file of a store


def store_folder(data: Data, cache: Path) -> Path:
    """Where the store of these settings lies on this machine, whether or not it is there yet."""
    if data.source == "store":
        assert data.path is not None
        return latest(data.path, cache) if "://" in data.path else Path(data.path).expanduser()
    domain = domain_of(data)
    told = [data.source, domain.version, FORMAT, data.cases, data.size, data.seed, *setting_of(domain).values()]
    told += drawn_as(data).values()
    text = json.dumps(told)
    return cache / f"{data.source}-{data.cases}x{data.size}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"


def is_made(data: Data, cache: Path) -> bool:
    """Is the store on this machine already?"""
    return (store_folder(data, cache) / MANIFEST).is_file()


def drop_damaged(data: Data, cache: Path) -> None:
    """Built-in cases that are not what was drawn are deleted, to be drawn again; a driver does so, before its workers.

    A store that somebody prepared is not touched: `dermsearch data check` tells what became of it.
    """
    folder = store_folder(data, cache)
    if data.source != "synthetic" or not os.path.lexists(folder):
        return
    try:
        files = read_manifest(bytes_of(folder / MANIFEST), str(folder))["files"]
        sound = all(checksum(pa.py_buffer(bytes_of(folder / name))) == said for name, said in files.items())
    except (OSError, UserError):
        sound = False
    if not sound:
        _delete(folder)


def _delete(folder: Path) -> None:
    """What lies where built-in cases are to lie: a folder with all in it; of a link, the link alone."""
    try:
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink()
    except OSError as error:
        raise UserError(
            f"{folder}: holds damaged built-in cases and cannot be deleted, to draw them again: {first_line(error)}"
        ) from None


def open_cases(data: Data, cache: Path) -> CaseStore:
    """The study's cases, with the rows that they borrow; built-in data are drawn if no process has done so before."""
    store = _own_cases(data, cache)
    if data.table is None:
        return store
    try:
        return lay(store, Path(data.table).expanduser())
    except UserError as error:
        raise UserError(f"data.table: {error}") from None


def _own_cases(data: Data, cache: Path) -> CaseStore:
    if data.source == "store":
        assert data.path is not None
        if "://" not in data.path:
            return open_store(data, store_folder(data, cache))
        try:
            folder = fetch(data.path, cache)
        except UserError as error:
            raise UserError(f"data.path: {error}") from None
        return open_store(data, folder)
    folder = store_folder(data, cache)
    if os.path.lexists(folder) and not is_made(data, cache):  # in this order: another process may be putting it there
        _delete(folder)
    if is_made(data, cache):
        return CaseStore(folder)
    from dermsearch.data.prepare.build import write_store

    clear(cache, f".{data.source}-*")
    domain = domain_of(data)
    settings: dict[str, Any] = {
        "source": data.source,
        "version": domain.version,
        "cases": data.cases,
        "seed": data.seed,
    }
    settings |= setting_of(domain) | drawn_as(data)
    drawn = domain.draw(data.cases, data.size, data.seed)
    try:
        how = Split(seed=data.seed)
        return write_store(folder, drawn, how, domain.labels, settings, domain.columns, grey=domain.grey)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"{cache}: built-in cases cannot be written there: {first_line(error)}") from None


def drawn_for_training(data: Data) -> int:
    """How many of the built-in cases will be for training, told without drawing one; of very many, at most."""
    from dermsearch.data.prepare.build import record_of
    from dermsearch.data.prepare.divide import divide

    if data.transductive:
        return data.cases
    if data.cases > 5000:
        return math.ceil(0.72 * data.cases)
    domain = domain_of(data)
    records = [record_of(case, domain.labels) for case in domain.draw(data.cases, None, data.seed)]
    return divide(records, next(iter(domain.labels), None), Split(seed=data.seed), [])[1].count("train")


def domain_of(data: Data) -> Domain:
    """What the images of a data set are of, with the drawer that it asks for."""
    try:
        domain: Domain = DOMAINS.find(data.domain)
    except UserError as error:
        raise UserError(f"data.domain: {error}") from None
    if isinstance(data.variant, str):
        if data.variant not in domain.variants:
            hint = nearest(data.variant, domain.variants)
            raise UserError(f"data.variant: domain '{domain.name}' has no '{data.variant}'; {hint}")
        return replace(domain, drawer=domain.variants[data.variant])
    if data.variant is not None:
        if domain.varied is None:
            names = ", ".join(domain.variants) or "none"
            raise UserError(
                f"data.variant: domain '{domain.name}' has variants by name alone ({names}), not by settings"
            )
        return attribute(domain.varied)(domain, data.variant)
    if data.drawn is None:
        return domain
    if domain.tabled is None:
        raise UserError(f"data.drawn: domain '{domain.name}' draws no patients with several lesions")
    drawer = partial(
        attribute(domain.tabled.drawer), lesions=data.drawn.lesions, by_class=data.drawn.missing == "class"
    )
    return replace(domain, drawer=drawer, columns=domain.tabled.columns)


def drawn_as(data: Data) -> dict[str, Any]:
    """What a built-in store's settings say of how its cases are drawn: nothing where that is as always."""
    if isinstance(data.variant, Variant):
        told = data.variant.model_dump(mode="json", exclude_defaults=True)
        return {"variant": told} if told else {}
    if data.variant is not None:
        return {"variant": data.variant}
    return {} if data.drawn is None else {"drawn": data.drawn.model_dump()}


def open_store(data: Data, folder: Path) -> CaseStore:
    """A prepared store, if it can serve the study."""
    if not (folder / MANIFEST).is_file():
        raise UserError(f"data.path: there is no case store at {folder}; `dermsearch data prepare` makes one")
    store = CaseStore(folder)
    if store.domain_name != data.domain:
        raise UserError(
            f"data.domain: is '{data.domain}', but the store at {folder} holds images of domain '{store.domain_name}'"
        )
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


def copies(uri: str, cache: Path) -> Path:
    """Where copies of the remote store are kept on this machine, each in a folder named by its fingerprint."""
    uri = public(uri)  # whoever reads it
    name = uri.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    return cache / f"{name}-{hashlib.blake2b(uri.encode(), digest_size=6).hexdigest()}"


def latest(uri: str, cache: Path) -> Path:
    """The copy that was used last; where they are kept, if there is none."""
    whole = [path.parent for path in copies(uri, cache).glob(f"[!.]*/{MANIFEST}")]
    return max(whole, key=lambda folder: folder.stat().st_mtime, default=copies(uri, cache))


def fetch(uri: str, cache: Path) -> Path:
    """Copy a remote store to this machine once, whole or not at all; training maps its pages from there.

    A store that was made anew there is copied beside the one that another process may still be reading.
    """
    remote, before = Folder(uri), latest(uri, cache)
    try:
        manifest = remote.read(MANIFEST)
    except OSError as error:
        if before != copies(uri, cache):
            return before  # fetched before, and now out of reach
        raise UserError(f"there is no case store at {uri}: {first_line(error)}") from None
    files, fingerprint = contents(manifest, uri)
    target = copies(uri, cache) / fingerprint
    try:
        if not (target / MANIFEST).is_file():
            clear(target.parent, ".*")
            copy(remote, files, manifest, target)
        os.utime(target)
    except OSError as error:
        raise UserError(f"{uri} cannot be copied to {target}: {first_line(error)}") from None
    return target


def contents(manifest: bytes, uri: str) -> tuple[dict[str, str], str]:
    """The files of a store with their checksums, and its fingerprint."""
    about = read_manifest(manifest, uri)
    if about.get("parts"):
        raise UserError(f"{uri}: is a mixture of a study and has no images of its own; `data mix` makes one that has")
    files, fingerprint = about.get("files"), str(about.get("fingerprint", ""))
    if not isinstance(files, dict) or not all(map(PLAIN.fullmatch, (*files, fingerprint))):  # none may leave its folder
        raise UserError(f"{uri}: its {MANIFEST} is damaged; make the store again")
    return files, fingerprint


def copy(remote: Folder, files: dict[str, str], manifest: bytes, target: Path) -> None:
    """Copy a store's files to a folder, which appears when all are there and are what the manifest says."""
    with growing(target) as part:
        for name, expected in files.items():
            data = remote.read(name)
            if checksum(pa.py_buffer(data)) != expected:
                raise UserError(f"{remote.where}: {name} is damaged; copy or make the store there again")
            (part / name).write_bytes(data)
        (part / MANIFEST).write_bytes(manifest)
        try:
            os.rename(part, target)
        except OSError:
            if not (target / MANIFEST).is_file():  # no other process was faster
                raise
