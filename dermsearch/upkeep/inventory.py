"""What lies in a stage store: stages, judgements, states of stages under way and the rest, with sizes and ages."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow.fs as pafs

from dermsearch.curriculum import ARROW, ROOT_CURRICULUM
from dermsearch.storage.files import MANIFEST, READERS
from dermsearch.storage.shapes import labelled
from dermsearch.storage.stages import SET_ASIDE, STORE, StageStore

STAGE, JUDGEMENT, WEIGHTS, CASES = "stage", "judgement", "starting weights", "case store"
SEGMENT, UNDER_WAY = "segment of a stage", "state to go on from"
NOTES, DAMAGED, LEFTOVER, OTHER = "notes of Ray Tune", "damaged, moved away", "half-written file", "other"
CLAIM, OPENING, TRASH = "claim of a run", "opening of a test split", "in the trash"
BIN = "trash"  # the folder of what was deleted, by when
KEY, STAMP = "[0-9a-f]{32}", r"\d{4}-\d\d-\d\dT\d{6}Z-[0-9a-f]{6}"
PARTS = r"[^/]+\.safetensors|history\.json|manifest\.json"
DRAWN = r"synthetic-\d+x\d+-[0-9a-f]{12}"
OF_OLD = r"(?:stages|scores|partial)/.+\.[0-9a-f]{8}\.part"  # where an earlier version left what it began
# What the store itself writes: kind -> the name of a folder or file, and of the files in a folder. Nothing else in it
# is ever moved or deleted.
OWN = {
    STAGE: (rf"stages/{KEY}", PARTS),
    SEGMENT: (rf"segments/{KEY}", PARTS),
    JUDGEMENT: (rf"scores/{KEY}\.(?:json|arrow)", ""),
    UNDER_WAY: (rf"partial/{KEY}", r"state\.pt|progress\.json"),
    WEIGHTS: (rf"weights/{KEY}-[^/]+", PARTS),
    CASES: (r"data/[^/.][^/]*", ".+"),
    NOTES: (r"tune/[^/]+-[0-9a-f]{12}", ".+"),
    OPENING: (r"openings/[^/]+", r"[0-9a-f]{32}\.json"),
    CLAIM: (rf"claims/(?:{KEY}(?:\.\d+-{KEY})?|runs/{KEY}(?:-{KEY})?)\.json", ""),
    DAMAGED: (rf"{SET_ASIDE}/(?:{STAMP}|stages|segments|scores|partial|weights|data)", ".+"),
    TRASH: (rf"{BIN}/{STAMP}", ".+"),
    LEFTOVER: (rf"preparing/[0-9a-f]{{32}}(?:\.part)?|{OF_OLD}|data/\.{DRAWN}\.[^/]+", ".+"),
}
FOLDERS = {STAGE, SEGMENT, UNDER_WAY, WEIGHTS, CASES, NOTES, OPENING, DAMAGED, TRASH}
KINDS = (*OWN, OTHER)  # in the order in which they are shown


@dataclass
class Item:
    """A folder of the store, or a single file, that stands or falls as one."""

    kind: str
    name: str  # relative to the store
    files: dict[str, int] = field(default_factory=dict)  # name relative to the store -> bytes
    written: float = 0.0  # the latest of its files, in seconds since 1970 by the clock of the file system
    foreign: list[str] = field(default_factory=list)  # files in it that the store has not written
    links: list[str] = field(default_factory=list)  # what they point to is nobody's business here
    wrong: dict[str, str] = field(default_factory=dict)  # what else is not a file where one belongs, and what it is

    @property
    def key(self) -> str:
        """The last part of its name: a stage's key, or a judgement's."""
        last = self.name.rpartition("/")[2]
        return last.partition(".")[0] if self.kind == CLAIM else last.removesuffix(".json")

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())

    @property
    def finished(self) -> bool:
        """Was its manifest written?"""
        return f"{self.name}/{MANIFEST}" in self.files

    @property
    def own(self) -> bool:
        """Did the store itself make all of it?"""
        return self.kind != OTHER and not (self.foreign or self.links or self.wrong)


@dataclass(frozen=True)
class Seen:
    """Something in the store's folders."""

    path: str
    what: str  # file, folder, link, or what else it is
    bytes: int
    written: float


def items(store: StageStore) -> list[Item]:
    """Everything in the store but its own mark, sorted by name. No link is followed."""
    found: dict[str, Item] = {}
    for entry in entries(store):
        kind, name = place(entry.path)
        if entry.path == STORE or (entry.what == "folder" and kind == OTHER):
            continue
        item = found.setdefault(name, Item(kind, name))
        inside = entry.path[len(name) + 1 :]
        if entry.what == "link":
            item.links.append(entry.path)
            continue
        if entry.what == "file":
            item.files[entry.path] = entry.bytes
        if entry.what == "file" or not inside:  # a folder is touched when something comes into it
            item.written = max(item.written, entry.written)
        if kind in (DAMAGED, TRASH):  # whatever it was
            continue
        fits = bool(inside) and re.fullmatch(OWN.get(kind, ("", ".*"))[1], inside) is not None
        if entry.what not in ("file", "folder"):
            item.wrong[entry.path] = f"is {entry.what}"
        elif not inside and kind in OWN and (entry.what == "folder") != (kind in FOLDERS) and kind != LEFTOVER:
            item.wrong[entry.path] = f"is a {entry.what}"
        elif entry.what == "folder" and fits and kind in (STAGE, SEGMENT, WEIGHTS, UNDER_WAY):
            item.wrong[entry.path] = "is a folder"
        elif entry.what == "file" and inside and not fits:
            item.foreign.append(entry.path)
    return sorted(found.values(), key=lambda i: i.name)


def place(path: str) -> tuple[str, str]:
    """What a path of the store belongs to: its kind, and the name of the item."""
    parts = path.split("/")
    if re.fullmatch(OWN[LEFTOVER][0], path):
        return LEFTOVER, path
    for end in (2, 3):
        name = "/".join(parts[:end])
        for kind, (pattern, _) in OWN.items():
            if len(parts) >= end and re.fullmatch(pattern, name):
                return kind, name.replace(".arrow", ".json") if kind == JUDGEMENT else name  # predictions go with it
    return OTHER, path


def entries(store: StageStore) -> Iterator[Seen]:
    """All that is in the store's folders; of a link only that there is one."""
    if store.local is None:
        for path, info in store.entries(recursive=True).items():
            if info.type == pafs.FileType.File:
                yield Seen(path, "file", info.size, info.mtime_ns / 1e9)
        return
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(store.local / folder) as listing:
                inside = list(listing)
        except FileNotFoundError:
            continue  # somebody else was faster
        except OSError as error:
            yield Seen(folder, f"a folder that cannot be read ({error.strerror})", 0, 0.0)
            continue
        for each in inside:
            path = f"{folder}/{each.name}" if folder else each.name
            try:
                about = each.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            what = KNOWN.get(stat.S_IFMT(about.st_mode), "neither a file nor a folder")
            yield Seen(path, what, about.st_size, about.st_mtime)
            if what == "folder":
                folders.append(path)


KNOWN = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


def shown(name: str) -> str:
    """A name as it can be printed, whatever bytes are in it."""
    return "".join(c if c.isprintable() else "?" for c in name)


def manifests(store: StageStore, among: Iterable[Item], kind: str = STAGE) -> dict[str, dict[str, Any]]:
    """What the makers of the finished stages (or segments) wrote down, by key; damaged manifests are left out."""
    finished = [i for i in among if i.kind == kind and (i.finished or i.links)]
    with ThreadPoolExecutor(READERS) as pool:
        read_all = pool.map(lambda i: store.told(i.name), finished)
        return {i.key: m for i, m in zip(finished, read_all, strict=True) if m is not None and labelled(m)}


def curriculum(key: str, known: dict[str, dict[str, Any]], most: int = 100) -> str:
    """The tasks from the root to that stage, and what is fitted to it; "?" for what is no longer here."""
    about = known.get(key)
    if about is None or not most:
        return "?"
    task = about.get("task")
    if not task:
        return ROOT_CURRICULUM
    if about.get("kind") == "generator":  # it comes of cases, not of a stage
        return f"generator {task}"
    before = curriculum(about.get("parent", ""), known, most - 1)
    if about.get("kind") == "fit":
        return f"{before} + {task}"
    return task if before == ROOT_CURRICULUM else before + ARROW + task
