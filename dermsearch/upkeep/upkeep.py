"""The upkeep of a stage store: finding and setting aside what is damaged, and deleting what nobody needs.

What may go is decided by reachability: a stage stays while the tables of a study name it. Whatever was written not
long ago stays too, for a study under way writes its tables later than its stages. What the store has not made itself
stays, and so does whatever is a link or holds one. What goes lies in the trash for some days.
"""

from __future__ import annotations

import re
import shutil
import time
from calendar import timegm
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
from dermsearch.fit.base import unfilled
from dermsearch.models.artifact import ENCODERS, GENERATOR, PREDICTOR, Part
from dermsearch.models.encoders import Encoders
from dermsearch.models.weights import finite, misfit
from dermsearch.storage.files import MANIFEST, StoreLost, named, parsed, unsealed
from dermsearch.storage.leases import claimed_by
from dermsearch.storage.shapes import epochs, judged, labelled
from dermsearch.storage.stages import (
    HISTORY,
    PREDICTIONS,
    SET_ASIDE,
    NoTensors,
    StageStore,
    file_of,
    stamp,
    state_in,
    unpacked,
)
from dermsearch.study.data import Data
from dermsearch.upkeep.inventory import (
    BIN,
    CASES,
    CLAIM,
    DAMAGED,
    DRAWN,
    JUDGEMENT,
    LEFTOVER,
    NOTES,
    OPENING,
    OTHER,
    SEGMENT,
    STAGE,
    TRASH,
    UNDER_WAY,
    WEIGHTS,
    Item,
    items,
    manifests,
)
from dermsearch.upkeep.used import Used

# Verifying -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A file that is not as it was written."""

    item: Item
    file: str
    what: str  # such as "is damaged" or "is missing"


def verify(store: StageStore, progress: Callable[[int, int], None] = lambda done, of: None) -> list[Fault]:
    """Every file whose checksum says that it is not what was written. Reads the whole store."""
    found: list[Fault] = []
    everything = items(store)
    for done, item in enumerate(everything):
        progress(done, len(everything))
        found += [Fault(item, file, what) for file, what in item.wrong.items() if item.kind != OTHER]
        try:
            for file, what in CHECKS.get(item.kind, lambda store, item: ())(store, item):
                found.append(Fault(item, file, what))
        except StoreLost as error:
            if store.local is None:
                raise
            found.append(Fault(item, item.name, f"cannot be read: {error}"))  # of another user, for example
    progress(len(everything), len(everything))
    return found


def repair(store: StageStore, faults: Iterable[Fault]) -> list[Item]:
    """Move what is damaged to the folder `damaged`: the next run that needs it makes it anew.

    What holds a link is left alone, and of a folder with files of somebody else's so are they.
    """
    to = f"{SET_ASIDE}/{stamp()}"
    faulty = {fault.item.name: fault.item for fault in faults if not fault.item.links}
    for item in faulty.values():
        for name in [f for f in _manifest_first(item) if f not in item.foreign] if item.foreign else _pieces(item):
            _move(store, name, f"{to}/{name}")
    return list(faulty.values())


def _with_manifest(store: StageStore, item: Item) -> Iterator[tuple[str, str]]:
    """A stage or starting weights; what has no manifest is not finished, and counts for nothing."""
    path = f"{item.name}/{MANIFEST}"
    if not item.finished:
        return
    manifest = unsealed(store.read_json(path))
    if manifest is None:
        yield path, "is damaged"
    elif named(manifest, path) is None:
        yield path, f"is that of {manifest['name']}"
    elif (manifest := store.told(item.name)) is None:
        yield path, "names no files"
    elif not isinstance(manifest.get("parts", {}), dict) or not labelled(manifest):
        yield path, "is no manifest"
    else:
        for name in manifest["files"]:
            yield from _file_of(store, item, name, manifest)


def _file_of(store: StageStore, item: Item, name: str, manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A file of a stage: it has to be what was written, and to hold what it should."""
    path = f"{item.name}/{name}"
    if path not in item.files:
        if path not in item.links and path not in item.wrong:
            yield path, "is missing"
        return
    data = store.checked(item.name, name, manifest)
    if data is None:
        yield path, "is damaged"
    elif name == HISTORY and not epochs(parsed(data)):
        yield path, "is no history"
    elif name.endswith(file_of("")):
        wrong = _unfit(name, data, manifest.get("parts", {}))
        if wrong:
            yield path, f"cannot be loaded: {wrong}"


def _unfit(name: str, data: bytes, parts: dict[str, Any]) -> str:
    """What is wrong with a part; encoders and predictors must fit the network that their maker wrote down."""
    try:
        state = unpacked(data)
    except NoTensors as error:
        return str(error)
    try:
        if name == file_of(PREDICTOR) and isinstance(parts.get(PREDICTOR), dict):
            wanted = unfilled(Part(parts[PREDICTOR], state)).state_dict()
        elif name == file_of(ENCODERS):
            of = parts[ENCODERS]
            wanted = Encoders.empty(of["name"], of["modalities"], of["branches"]).state_dict()
        else:
            return ""
    except (LookupError, TypeError, ValueError, RuntimeError):  # not told, or of another version or package
        return "" if all(map(finite, state.values())) else "not all numbers are finite"
    return misfit(state, wanted)


def _opening(store: StageStore, item: Item) -> Iterator[tuple[str, str]]:
    """One that is damaged still tells that somebody looked, and stays; that of other data says nothing of these."""
    for name in item.files:
        found = unsealed(store.read_json(name))
        if found is not None and named(found, name) is None:
            yield name, f"is that of {found['name']}"


def _judgement(store: StageStore, item: Item) -> Iterator[tuple[str, str]]:
    content = store.read_json(item.name) if item.files else None
    found = unsealed(content)
    if item.name not in item.files or (isinstance(content, list) and content):  # the latter is of format 1
        return
    if found is None:
        yield item.name, "is damaged"
    elif named(found, item.name) is None:
        yield item.name, f"is that of {found['name']}"
    elif not (judged(found) if "name" in found else found.get("rows")):  # earlier versions had other columns
        yield item.name, "is no judgement"
    elif PREDICTIONS in found and store.predictions(item.key) is None:
        file = item.name.replace(".json", ".arrow")
        yield file, "is damaged" if file in item.files else "is missing"


def _under_way(store: StageStore, item: Item) -> Iterator[tuple[str, str]]:
    name = f"{item.name}/state.pt"
    data = store.get(name) if name in item.files else None
    if data is None:
        return
    try:
        state = state_in(data)
    except ValueError as error:
        yield name, f"is {error}"
        return
    if named(state, name) is None:
        yield name, f"is that of {state['name']}"
    elif not epochs(parsed(state.get("history"))):
        yield name, "has no history"


def _cases(store: StageStore, item: Item) -> Iterator[tuple[str, str]]:
    for name in item.files:
        folder, _, file = name.rpartition("/")
        if file != CASES_MANIFEST:
            continue
        about = _about_cases(store, folder)
        if about is None:
            yield name, "is damaged, or of another version"
            continue
        for file, expected in about["files"].items():
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
    OPENING: _opening,
    CASES: _cases,
}

# Deleting --------------------------------------------------------------------------------------------------


def unneeded(store: StageStore, used: Used | None, hours: float, now: float | None = None) -> list[Item]:
    """What may go: nothing that was written within so many hours, and without studies no result of any."""
    everything = items(store)
    hidden = next((i for i in everything if i.name in ("stages", "segments")), None)
    if hidden is not None:
        what = "is a link" if hidden.links else next(iter(hidden.wrong.values()), "is a file")
        raise UserError(f"'{hidden.name}' in the store {what}: what is in it is not seen, so nothing else is deleted")
    known = manifests(store, everything)
    kept = set(known) if used is None else _with_ancestors(used.stages, known)
    made = {key: about for key, about in known.items() if about.get("kind") == GENERATOR}  # no study names them
    kept |= made.keys() | {str(about.get("judge")) for about in made.values()}
    needed = set() if used is None else {name for data in used.data for name in _case_folders(data)}
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
        CASES: lambda item: used is not None and item.key not in needed and _drawn_or_copied(store, item),
        **dict.fromkeys((NOTES, DAMAGED, LEFTOVER, CLAIM), lambda item: True),
    }
    # A clock that was set back leaves files of the future, which are as good as new.
    since = (time.time() if now is None else now) - 3600 * hours
    claimed = _claimed(store, everything, since)
    old = (i for i in everything if i.own and i.written < since and i.key not in claimed)
    return [i for i in old if i.kind in goes and goes[i.kind](i)]


def _claimed(store: StageStore, everything: Iterable[Item], since: float) -> set[str]:
    """The stages that a run works on which has given a sign of life since, however old their files are."""
    claims = [i for i in everything if i.kind == CLAIM]
    alive = {i.key for i in claims if i.name.startswith("claims/runs/") and i.written >= since}
    return {i.key for i in claims if claimed_by(store, i.name) in alive}


def put_away(store: StageStore, going: Iterable[Item]) -> None:
    """Move it to the trash, from where it can be moved back; what somebody else has moved meanwhile is done."""
    to = f"{BIN}/{stamp()}"
    for item in going:
        for name in _pieces(item):
            _move(store, name, f"{to}/{name}")


def outdated(store: StageStore, days: float, now: float | None = None) -> list[Item]:
    """What has been in the trash for so many days."""
    since = (time.time() if now is None else now) - 86400 * days
    return [i for i in items(store) if i.kind == TRASH and i.name not in i.links and thrown(i) <= since]


def thrown(item: Item) -> float:
    """When that came into the trash, in seconds since 1970."""
    return timegm(time.strptime(item.key.rpartition("-")[0], "%Y-%m-%dT%H%M%SZ"))


def empty(store: StageStore, trash: Iterable[Item]) -> None:
    """Delete it for good; a link in it goes, what it points to stays."""
    for item in trash:
        try:
            if store.local is not None:
                shutil.rmtree(store.local / item.name)
            else:
                store.remove(item.name)
        except FileNotFoundError:
            pass  # somebody else was faster
        except OSError as error:
            raise UserError(f"{item.name} cannot be deleted: {first_line(error)}") from None


def _move(store: StageStore, name: str, to: str) -> None:
    try:
        store.move(name, to)
    except FileNotFoundError:
        pass  # somebody else was faster
    except OSError as error:
        raise UserError(f"{name} cannot be moved to {to}: {first_line(error)}") from None


def _pieces(item: Item) -> list[str]:
    """What has to be moved: the folder or file of its name, and what lies beside it."""
    return [item.name, *(name for name in item.files if not name.startswith(item.name))]


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
    stage, protocol = about.get("stage"), about.get("protocol")
    if not stage or not isinstance(stage, str) or stage in segments:
        return False
    named_by_none = used is not None and isinstance(protocol, str) and (stage, protocol) not in used.judged
    return stage not in kept or (bool(protocol) and named_by_none)


def _case_folders(data: dict[str, Any]) -> list[str]:
    """What a study's cases may be called among the store's."""
    try:
        found = Data.model_validate(data)
    except (ValueError, RecursionError):
        raise UserError("--studies: a study's data section is of another version of dermsearch; run it again") from None
    if found.source == "mix":
        return []  # never a candidate
    if found.source == "store":
        return [copies(found.path, Path()).name] if found.path and "://" in found.path else []
    return [store_folder(found, Path()).name]


def _drawn_or_copied(store: StageStore, item: Item) -> bool:
    """Are these built-in cases, or copies of a remote store, rather than what somebody prepared there?"""
    drawn = bool(re.fullmatch(DRAWN, item.key))
    if f"{item.name}/{CASES_MANIFEST}" in item.files:
        about = _about_cases(store, item.name)
        return drawn and (about is None or about.get("settings", {}).get("source") == "synthetic")
    if drawn:  # half drawn, or half deleted
        return True
    inside = {name.removeprefix(f"{item.name}/").partition("/")[0] for name in item.files}
    return bool(re.fullmatch(r".+-[0-9a-f]{12}", item.key) and inside) and all(
        each.startswith(".")
        or (_about_cases(store, f"{item.name}/{each}") or {}).get("fingerprint") == each  # by which copies are called
        for each in inside
    )


def _about_cases(store: StageStore, folder: str) -> dict[str, Any] | None:
    """What the manifest of a case store says; None where it is none, or of another version."""
    try:
        return read_manifest(store.get(f"{folder}/{CASES_MANIFEST}") or b"", folder)
    except UserError:
        return None
