"""The upkeep of a stage store: finding and setting aside what is damaged, and deleting what nobody needs.

What may go is decided by reachability: a stage stays while the tables of a study name it. Whatever was written not
long ago stays too, for a study under way writes its tables later than its stages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dermsearch.data.open import copies, store_folder
from dermsearch.data.prepare.shard import checksum as sum_of_cases
from dermsearch.data.store.case_store import MANIFEST as CASES_MANIFEST
from dermsearch.data.store.case_store import read_manifest
from dermsearch.errors import UserError, first_line
from dermsearch.storage.files import MANIFEST, checksum, unsealed
from dermsearch.storage.stages import StageStore
from dermsearch.study.data import Data
from dermsearch.upkeep.inventory import (
    CASES,
    CLAIM,
    DAMAGED,
    JUDGEMENT,
    LEFTOVER,
    NOTES,
    SEGMENT,
    STAGE,
    UNDER_WAY,
    WEIGHTS,
    Item,
    Used,
    items,
    manifests,
)

# Verifying -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A file that is not as it was written."""

    item: Item
    file: str
    what: str  # "is damaged" | "is missing"


def verify(store: StageStore, progress: Callable[[int, int], None] = lambda done, of: None) -> list[Fault]:
    """Every file whose checksum says that it is not what was written. Reads the whole store."""
    found: list[Fault] = []
    everything = items(store)
    for done, item in enumerate(everything):
        progress(done, len(everything))
        for file, what in CHECKS.get(item.kind, lambda store, item: ())(store, item):
            found.append(Fault(item, file, what))
    progress(len(everything), len(everything))
    return found


def repair(store: StageStore, faults: Iterable[Fault]) -> list[Item]:
    """Move what is damaged to the folder `damaged`: the next run that needs it makes it anew."""
    found = {fault.item.name: fault.item for fault in faults}
    for item in found.values():
        for file in _manifest_first(item):
            target = f"{store.root}/damaged/{file}"
            store.fs.create_dir(target.rpartition("/")[0], recursive=True)
            store.fs.move(f"{store.root}/{file}", target)
        store.forget(item.name)
    return list(found.values())


def _with_manifest(store: StageStore, item: Item) -> Iterator[tuple[str, str]]:
    """A stage or starting weights; what has no manifest is not finished, and counts for nothing."""
    if not item.finished:
        return
    manifest = store.read_sealed(f"{item.name}/{MANIFEST}")
    if manifest is None:
        yield f"{item.name}/{MANIFEST}", "is damaged"
        return
    for name in manifest["files"]:
        path = f"{item.name}/{name}"
        if path not in item.files:
            yield path, "is missing"
        elif store.checked(item.name, name, manifest) is None:
            yield path, "is damaged"


def _judgement(store: StageStore, item: Item) -> Iterator[tuple[str, str]]:
    found = store.read_json(item.name)
    if not isinstance(found, list) and unsealed(found) is None:  # a bare list is of format 1, without a checksum
        yield item.name, "is damaged"
    elif isinstance(found, dict) and store.judgement(item.key) is None:
        file = item.name.replace(".json", ".arrow")
        yield file, "is damaged" if file in item.files else "is missing"


def _under_way(store: StageStore, item: Item) -> Iterator[tuple[str, str]]:
    name = f"{item.name}/state.pt"
    data = store.get(name)
    if data is not None and checksum(data[16:]).encode() != data[:16]:
        yield name, "is damaged"


def _cases(store: StageStore, item: Item) -> Iterator[tuple[str, str]]:
    for name in item.files:
        folder, _, file = name.rpartition("/")
        if file != CASES_MANIFEST:
            continue
        try:
            sums = read_manifest(store.get(name) or b"", name)["files"]
        except UserError:
            yield name, "is damaged, or of another version"
            continue
        for file, expected in sums.items():
            data = store.get(f"{folder}/{file}")
            if data is None:
                yield f"{folder}/{file}", "is missing"
            elif sum_of_cases(pa.py_buffer(data)) != expected:
                yield f"{folder}/{file}", "is damaged"


CHECKS: dict[str, Callable[[StageStore, Item], Iterable[tuple[str, str]]]] = {
    STAGE: _with_manifest,
    SEGMENT: _with_manifest,
    WEIGHTS: _with_manifest,
    JUDGEMENT: _judgement,
    UNDER_WAY: _under_way,
    CASES: _cases,
}

# Deleting --------------------------------------------------------------------------------------------------


def unneeded(store: StageStore, used: Used | None, hours: float, now: float | None = None) -> list[Item]:
    """What may go: nothing that was written within so many hours, and without studies no result of any."""
    everything = items(store)
    known = manifests(store, everything)
    kept = set(known) if used is None else _with_ancestors(used.stages, known)
    cache = (store.local or Path()) / "data"
    folders = [] if used is None else [f for data in used.data for f in _case_folders(data, cache)]
    segments = manifests(store, everything, SEGMENT)
    kept_segments = set(segments) if used is None else set(used.segments)
    weights = {about.get("weights") for key, about in known.items() if key in kept}

    def wanted(state: Item) -> bool:
        """May a stage that some study needs go on from it?"""
        return used is None or state.key in used.stages or used.segments.get(state.key, False)

    def over(key: str) -> bool:
        """Is the stage finished that the state is of, or the state of a segment of?"""
        return key in known or segments.get(key, {}).get("stage") in known

    goes: dict[str, Callable[[Item], bool]] = {
        STAGE: lambda item: item.key not in kept or not item.finished,
        SEGMENT: lambda item: item.key not in kept_segments or not item.finished,
        JUDGEMENT: lambda item: (
            item.name not in item.files or _of_no_study(store.read_json(item.name), kept, kept_segments, used)
        ),
        UNDER_WAY: lambda item: over(item.key) or not wanted(item),
        WEIGHTS: lambda item: used is not None and item.key.partition("-")[0] not in weights,
        CASES: lambda item: used is not None and cache / item.key not in folders,
        NOTES: lambda item: True,
        DAMAGED: lambda item: True,
        LEFTOVER: lambda item: True,
        CLAIM: lambda item: True,
    }
    # A clock that was set back leaves files of the future, which are as good as new.
    since = (time.time() if now is None else now) - 3600 * hours
    claimed = _claimed(store, everything, since)
    return [i for i in everything if i.written < since and i.key not in claimed and i.kind in goes and goes[i.kind](i)]


def _claimed(store: StageStore, everything: Iterable[Item], since: float) -> set[str]:
    """The stages that a run works on which has given a sign of life since, however old their files are."""
    claims = [i for i in everything if i.kind == CLAIM]
    alive = {i.key for i in claims if i.name.startswith("claims/runs/") and i.written >= since}
    return {i.key for i in claims if (store.read_json(i.name) or {}).get("run") in alive}


def delete(store: StageStore, item: Item) -> None:
    """Delete it; killed half-way, it no longer counts."""
    try:
        for name in (*_manifest_first(item), item.name):
            store.remove(name)
    except FileNotFoundError:
        pass  # somebody else was faster
    except OSError as error:
        raise UserError(f"{item.name} cannot be deleted: {first_line(error)}") from None


def _manifest_first(item: Item) -> list[str]:
    return sorted(item.files, key=lambda name: (not name.endswith(f"/{MANIFEST}"), name))


def _with_ancestors(keys: Iterable[str], known: dict[str, dict[str, Any]]) -> set[str]:
    """The stages and all that they were trained from."""
    found: set[str] = set()
    for key in keys:
        while key and key not in found:
            found.add(key)
            key = known.get(key, {}).get("parent", "")
    return found


def _of_no_study(judgement: Any, kept: set[str], segments: set[str], used: Used | None) -> bool:
    """Is a judgement of a stage that goes, or by a protocol that no study names? One that does not say stays."""
    about = unsealed(judgement) or {}
    if not about.get("stage") or about["stage"] in segments:
        return False
    protocol = about.get("protocol")
    return about["stage"] not in kept or (
        used is not None and bool(protocol) and (about["stage"], protocol) not in used.judged
    )


def _case_folders(data: dict[str, Any], cache: Path) -> list[Path]:
    """Where a study's cases may lie among the store's."""
    try:
        found = Data.model_validate(data)
    except ValueError:
        raise UserError("--studies: a study's data section is of another version of dermsearch; run it again") from None
    remote = found.path if found.source == "store" else None
    return [copies(remote, cache)] if remote and "://" in remote else [store_folder(found, cache)]
