"""What lies in a stage store: stages, judgements, states of stages under way and the rest, with sizes and ages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from dermsearch.curriculum import ARROW, ROOT_CURRICULUM
from dermsearch.errors import UserError
from dermsearch.results.tables.schema import ENDED, read
from dermsearch.storage.files import MANIFEST, READERS
from dermsearch.storage.stages import STORE, StageStore

STAGE, JUDGEMENT, WEIGHTS, CASES = "stage", "judgement", "starting weights", "case store"
SEGMENT, UNDER_WAY = "segment of a stage", "state to go on from"
NOTES, DAMAGED, LEFTOVER, OTHER = "notes of Ray Tune", "damaged, moved away", "half-written file", "other"
CLAIM = "claim of a run"
OPENING = "opening of a test split"
FOLDERS = {
    "stages": STAGE,
    "segments": SEGMENT,
    "scores": JUDGEMENT,
    "partial": UNDER_WAY,
    "weights": WEIGHTS,
    "data": CASES,
    "tune": NOTES,
    "claims": CLAIM,
    "damaged": DAMAGED,
    "openings": OPENING,
}
KINDS = (*FOLDERS.values(), LEFTOVER, OTHER)  # in the order in which they are shown


@dataclass
class Item:
    """A folder of the store, or a single file, that stands or falls as one."""

    kind: str
    name: str  # relative to the store
    files: dict[str, int] = field(default_factory=dict)  # name relative to the store -> bytes
    written: float = 0.0  # the latest of its files, in seconds since 1970 by the clock of the file system

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


def items(store: StageStore) -> list[Item]:
    """Everything in the store but its own mark, sorted by name."""
    found: dict[str, Item] = {}
    for path, info in store.entries(recursive=True).items():
        if info.type != pafs.FileType.File or path == STORE:
            continue
        first, *rest = path.split("/")
        kind, name = (FOLDERS[first], f"{first}/{rest[0]}") if first in FOLDERS and rest else (OTHER, path)
        if path.endswith(".part"):
            kind, name = LEFTOVER, path
        elif kind == CLAIM:
            name = path
        elif kind == JUDGEMENT:
            name = path.removesuffix(".json").removesuffix(".arrow") + ".json"  # what was predicted goes with it
        item = found.setdefault(name, Item(kind, name))
        item.files[path] = info.size
        item.written = max(item.written, info.mtime_ns / 1e9)
    return sorted(found.values(), key=lambda i: i.name)


def manifests(store: StageStore, among: Iterable[Item], kind: str = STAGE) -> dict[str, dict[str, Any]]:
    """What the makers of the finished stages (or segments) wrote down, by key; damaged manifests are left out."""
    finished = [i for i in among if i.kind == kind and i.finished]
    with ThreadPoolExecutor(READERS) as pool:
        read_all = pool.map(lambda i: store.read_sealed(f"{i.name}/{MANIFEST}"), finished)
        return {i.key: m for i, m in zip(finished, read_all, strict=True) if m is not None}


def curriculum(key: str, known: dict[str, dict[str, Any]]) -> str:
    """The tasks from the root to that stage, and what is fitted to it; "?" for what is no longer here."""
    about = known.get(key)
    if about is None:
        return "?"
    if not about["task"]:
        return ROOT_CURRICULUM
    before = curriculum(about["parent"], known)
    if about.get("kind") == "fit":
        return f"{before} + {about['task']}"
    return about["task"] if before == ROOT_CURRICULUM else before + ARROW + about["task"]


@dataclass
class Used:
    """What the tables of some studies name."""

    stages: dict[str, set[str]] = field(default_factory=dict)  # key -> studies
    segments: dict[str, bool] = field(default_factory=dict)  # key -> may a stage go on from it?
    judged: set[tuple[str, str]] = field(default_factory=set)  # (stage, protocol)
    data: list[dict[str, Any]] = field(default_factory=list)  # the data sections of the studies


def used_by(folders: Iterable[Path]) -> Used:
    """What the studies with results in these folders, or anywhere below, have used."""
    import yaml

    used = Used()
    for folder in folders:
        found = sorted(p.parent.parent for p in folder.rglob("tables/stages.arrow"))
        if not found:
            raise UserError(f"--studies: there are no results of a study in '{folder}' or below")
        for study in found:
            try:
                about = yaml.safe_load((study / "study.yaml").read_text())
                stages, scores = (read(study / "tables" / f"{n}.arrow") for n in ("stages", "scores"))
                segments = study / "tables" / "segments.arrow"  # which studies of earlier versions lack
                for key, more in _segments(read(segments).to_pylist() if segments.is_file() else []):
                    used.segments[key] = used.segments.get(key, False) or more
                data = about["data"]
                used.data += data.values() if all(isinstance(each, dict) for each in data.values()) else [data]
            except (OSError, UserError, pa.ArrowException, yaml.YAMLError, KeyError, TypeError):
                raise UserError(
                    f"--studies: study.yaml or tables of '{study}' are missing or damaged, so nobody can tell what it "
                    "needs; run the study again, or take its folder away"
                ) from None
            judged = list(zip(scores["stage"].to_pylist(), scores["protocol"].to_pylist(), strict=True))
            fits = zip(stages["key"].to_pylist(), stages["task"].to_pylist(), strict=True)  # judged for themselves
            used.judged |= {*judged, *fits}
            for key in (*stages["key"].to_pylist(), *stages["parent"].to_pylist(), *(s for s, _ in judged)):
                used.stages.setdefault(key, set()).add(about["name"])
    return used


def _segments(rows: list[dict[str, Any]]) -> Iterator[tuple[str, bool]]:
    """Each segment, and whether its stage may go on from it: only from the longest, and only while it is not ended."""
    longest = {row["stage"]: row["key"] for row in sorted(rows, key=lambda row: row["until"])}
    for row in rows:
        yield row["key"], row["key"] == longest[row["stage"]] and row["verdict"] not in ENDED
