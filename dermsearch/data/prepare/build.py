"""From shards to a finished store: duplicates, groups, splits, the index, the fingerprint, and the manifest last."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from dermsearch.data.case import METADATA, SPLITS, Case, Column
from dermsearch.data.decode.look import LOOKS, THUMB
from dermsearch.data.prepare.divide import NOTE, divide, note, torn
from dermsearch.data.prepare.duplicates import identical, near_identical
from dermsearch.data.prepare.shard import CasePlanes, as_plane, head_file, write_shard
from dermsearch.data.sources.base import CaseRecord
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.columns import fit
from dermsearch.data.store.layout import (
    CARD,
    FORMAT,
    GREY,
    INDEX,
    MANIFEST,
    MASK,
    ORIGIN,
    QUARANTINE,
    checksum,
    of_itself,
    shard_file,
    to_bytes,
)
from dermsearch.data.store.splits import Split
from dermsearch.data.store.unfinished import growing
from dermsearch.errors import UserError
from dermsearch.storage.files import Folder

SHARD_BYTES, SHARD_CASES = 24_000_000, 512  # what a kill can lose; memory for larger ones is not used again


@dataclass
class Ingredients:
    """All that a finished store is made of beside its shards."""

    records: Sequence[CaseRecord]
    classes: dict[str, tuple[str, ...]]
    modalities: tuple[str, ...]
    side: int
    encoded: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    split: Split = field(default_factory=Split)
    about: dict[str, Any] = field(default_factory=dict)  # title, licence, citation, what was published
    notes: list[dict[str, str]] = field(default_factory=list)  # rows of the quarantine table so far
    keep_duplicates: bool = False
    columns: Sequence[Column] = ()  # the metadata that may be inputs
    grey: Sequence[str] = ()  # modalities of which one channel is kept
    looks: int = LOOKS  # the version of the looks; 0: some are of what is kept of an image, not of the original


AS_NAMED = (1.0, 0.0, 0.0)  # shares that leave a published split without validation cases as it is


def read_heads(store: Folder, shards: int) -> tuple[pa.Table, list[dict[str, Any]]]:
    """What the shards tell of their cases, in the order of the records, and of themselves."""
    tables = [read_head(store, n) for n in range(shards)]
    about = [json.loads(t.schema.metadata[b"shard"]) for t in tables]
    where = [(np.full(len(table), number), np.arange(len(table))) for number, table in enumerate(tables)]
    return joined(tables, where), about


def joined(heads: Iterable[pa.Table], where: Iterable[tuple[ArrayLike, ArrayLike]]) -> pa.Table:
    """Heads as one, with the shard in which each image lies and its place there."""
    tables = []
    for table, places in zip(heads, where, strict=True):
        for name, values in zip(("shard", "at"), places, strict=True):
            table = table.append_column(name, pa.array(np.asarray(values, np.int32)))
        tables.append(table)
    return pa.concat_tables(tables).replace_schema_metadata(None).combine_chunks()


def read_head(store: Folder, head: int | str) -> pa.Table:
    """What one shard tells of its cases; by its number or its file's name."""
    name = head if isinstance(head, str) else head_file(head)
    data = store.read(name)
    if checksum(pa.py_buffer(data[8:])).encode() != data[:8]:
        raise UserError(f"{store.where}: {name} is damaged; the same command makes it again")
    return pa.ipc.open_file(pa.BufferReader(data[8:])).read_all()


def notes_of(heads: pa.Table, records: Sequence[CaseRecord]) -> list[dict[str, str]]:
    """What was odd about images, as rows of the quarantine table."""
    rows = []
    for text, row in zip(heads["notes"].to_pylist(), heads["row"].to_pylist(), strict=True):
        for image, done, why in json.loads(text) if text else ():
            rows.append(note(records[row], image, done, why))
    return rows


def finish(store: Folder, heads: pa.Table, shards: list[dict[str, Any]], given: Ingredients) -> dict[str, Any]:
    """Write index, quarantine table, card and manifest; returns the manifest."""
    from dermsearch.data.store.card import card

    records = given.records
    has = {m: heads[f"height_{m}"].to_numpy() > 0 for m in given.modalities}
    notes = list(given.notes)
    links = mark_duplicates(heads, given, has, notes)
    kept = np.flatnonzero(np.any(list(has.values()), axis=0))
    if not len(kept):
        first = f"; the first reason: {notes[0]['image']} {notes[0]['reason']}" if notes else ""
        raise UserError(f"no image could be used{first}")
    chosen = [records[row] for row in kept.tolist()]
    groups, splits, split = divide(records, next(iter(given.classes), None), given.split, links, kept)
    if split["by"] == "published":
        notes += torn(chosen, groups, splits)
    heads = heads if len(kept) == len(heads) else heads.take(kept)
    columns = index_columns(heads, chosen, given, {m: has[m][kept] for m in has}, groups, splits)
    given.records = records = chosen = []  # half a million are half a gigabyte, and the index tells all of them
    train = pa.array(np.flatnonzero(np.array(splits) == "train"))
    fitted = [fit(c, columns[f"meta_{c.name}"].take(train)) for c in given.columns if f"meta_{c.name}" in columns]
    index = to_bytes(pa.table(columns))
    quarantine = to_bytes(pa.Table.from_pylist(notes, schema=NOTE))
    manifest: dict[str, Any] = {
        "format": GREY if given.grey and not given.encoded else FORMAT,
        "side": given.side,
        "encoded": given.encoded,
        **({"grey": given.grey} if given.grey else {}),
        "modalities": given.modalities,
        "classes": given.classes,
        "metadata": [c.removeprefix("meta_") for c in columns if c.startswith("meta_")],
        "columns": [asdict(column) for column in fitted],
        "masks": MASK in {c.removeprefix("height_") for c in columns},
        "settings": given.settings,
        "split": split,
        "fingerprint": fingerprint(columns, given, split),
        "cases": len(kept),
        "looks": given.looks,
        "duplicates": "kept" if given.keep_duplicates else "left out",
        **given.about,
        "files": {
            INDEX: checksum(index),
            QUARANTINE: checksum(quarantine),
            **{shard_file(n): about["checksum"] for n, about in enumerate(shards)},
        },
        "notes_by_kind": dict(Counter(n["done"] for n in notes)),
        "bytes": sum(about["bytes"] for about in shards),
    }
    manifest = json.loads(json.dumps(manifest))  # as who opens the store will read it
    manifest["checksum"] = of_itself(manifest)
    store.write(INDEX, index)
    store.write(QUARANTINE, quarantine)
    store.write(CARD, card(manifest, pa.table(columns), notes).encode())
    store.write(MANIFEST, json.dumps(manifest, indent=1).encode())
    store.remove("preparing")
    return manifest


def mark_duplicates(
    heads: pa.Table, given: Ingredients, has: dict[str, np.ndarray], notes: list[dict[str, str]]
) -> list[tuple[int, int]]:
    """Take images out that occur again, or link the cases that hold them; every one is noted."""
    links: list[tuple[int, int]] = []
    seen: set[tuple[str, int]] = set()
    modalities = given.modalities

    def mark(first: tuple[str, int], again: tuple[str, int], reason: str) -> None:
        (modality, row), (_, original) = again, first
        if again in seen:
            return
        seen.add(again)
        record, other = given.records[row], given.records[original]
        done = "kept"
        if row != original:
            links.append((row, original))
            if not given.keep_duplicates:
                has[modality][row] = False
                done = "left out"
        differ = [k for k, v in record.labels.items() if k != ORIGIN and v and other.labels.get(k) not in (None, v)]
        which = f"{reason} {other.images.get(first[0], '')}" + (f", but its {differ[0]} differs" if differ else "")
        notes.append(note(record, record.images.get(modality, ""), done, which))

    present = [(m, int(row)) for m in modalities for row in np.flatnonzero(has[m])]
    present.sort(key=lambda p: p[1])
    files = {m: fixed(heads, f"file_{m}", 16) for m in modalities}
    told = [p for p in present if files[p[0]][p[1]].any()]  # drawn images come from no file
    if told:
        which, rows = (np.array(each) for each in zip(*((modalities.index(m), row) for m, row in told), strict=True))
        for a, b in identical(np.stack([files[m] for m in modalities])[which, rows]):
            mark(told[a], told[b], "is the same file as")
    for m in modalities if told else ():
        rows = np.flatnonzero(has[m])
        looks = fixed(heads, f"look_{m}", THUMB)
        for a, b in near_identical(looks if len(rows) == len(looks) else looks[rows]):
            mark((m, int(rows[a])), (m, int(rows[b])), "is nearly the same picture as")
    return links


def fixed(heads: pa.Table, name: str, width: int) -> np.ndarray:
    """A column of fixed-size bytes as uint8 (n, width)."""
    chunk = heads[name].chunk(0)
    data = np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * width, chunk.offset * width)
    return data.reshape(len(chunk), width)


def index_columns(
    heads: pa.Table,
    records: Sequence[CaseRecord],
    given: Ingredients,
    has: dict[str, np.ndarray],
    groups: np.ndarray,
    splits: list[str],
) -> dict[str, pa.Array]:
    """The index: who, where, what."""
    codes = pa.array([SPLITS.index(s) for s in splits], pa.int8())
    columns: dict[str, Any] = {
        "case": pa.array([r.case for r in records]),
        "lesion": pa.array([r.lesion for r in records]),
        "patient": pa.array([r.patient for r in records]),
        "group": pa.array(groups, pa.int32()),
        "split": pa.DictionaryArray.from_arrays(codes, pa.array(SPLITS)),
    }
    for label, classes in given.classes.items():
        number = {name: i for i, name in enumerate(classes)}
        columns[f"label_{label}"] = pa.array([number.get(r.labels.get(label) or "", -1) for r in records], pa.int16())
    kinds = {column.name: column.kind for column in given.columns}
    for name in dict.fromkeys(key for r in records for key in r.metadata):
        values = [r.metadata.get(name) for r in records]
        numbers = all(isinstance(v, float | int) for v in values if v is not None)
        columns[f"meta_{name}"] = (
            pa.array(values, pa.float64(), from_pandas=True)  # NaN is missing
            if kinds.get(name, "number" if numbers else "word") == "number"
            else pa.array([None if v is None else str(v) for v in values], pa.string())
        )
    columns |= {"shard": heads["shard"], "at": heads["at"]}
    for plane in (*given.modalities, MASK):
        if f"height_{plane}" not in heads.column_names:
            continue
        there = has.get(plane, np.ones(len(records), bool))
        for axis in ("height", "width", "original_height", "original_width"):
            columns[f"{axis}_{plane}"] = pa.array(np.where(there, heads[f"{axis}_{plane}"].to_numpy(), 0), pa.int32())
        columns[f"pixel_{plane}"] = heads[f"pixel_{plane}"]
        if plane != MASK:
            columns |= {f"{kind}_{plane}": heads[f"{kind}_{plane}"] for kind in ("file", "look")}
    return columns


def fingerprint(columns: dict[str, Any], given: Ingredients, split: dict[str, Any]) -> str:
    """blake2b over pixels, labels, splits and settings: not over where they lie or which shard holds them."""
    told: list[Any] = [given.settings, given.side, given.encoded, given.classes, split]
    own = {c.name: (c.kind, c.level) for c in given.columns if f"meta_{c.name}" in columns}
    for name, shared in METADATA.items():
        if own.get(name) == (shared.kind, shared.level):
            del own[name]  # what all data sets share goes without saying
    told += [own] if own else []
    digest = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16)
    for name in sorted(columns):
        if name in ("shard", "at") or name.startswith(("file_", "look_", "original_")):
            continue
        digest.update(name.encode())
        column = columns[name]
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if pa.types.is_fixed_size_binary(column.type):
            digest.update(fixed(pa.table({"x": column}), "x", column.type.byte_width).tobytes())
        else:
            digest.update(json.dumps(column.to_pylist()).encode())
    return digest.hexdigest()


def shard_cases(side: int, planes: int) -> int:
    """How many cases a shard holds."""
    return max(16, min(SHARD_CASES, SHARD_BYTES // (4 * side * side * planes)))


def write_store(
    folder: str | Path,
    cases: Iterable[Case],
    split: dict[str, str] | Split,
    classes: Mapping[str, tuple[str, ...]],
    settings: dict[str, Any],
    columns: Sequence[Column] = (),
    about: Mapping[str, Any] = MappingProxyType({}),
    grey: Collection[str] = (),
    planes: Sequence[str] = (),
) -> CaseStore:
    """Write cases that are in memory, or drawn one by one, as a store: whole or not at all.

    `split` names the split of every case, or says how to deal them; `columns` are the metadata that may be inputs;
    `about` is what the card says of where the cases come from; of `grey` modalities one channel is kept. `planes` are
    the modalities, and the mask, where the first cases may lack one that others have.
    """
    how, named = (split, None) if isinstance(split, Split) else (Split("published", AS_NAMED), split)
    folder = Path(folder)
    with growing(folder) as part:
        part.chmod(0o755)
        store, shards, side = Folder(part), 0, 0
        records: list[CaseRecord] = []
        rest = iter(cases)
        while chunk := list(islice(rest, SHARD_CASES)):
            planes = planes or planes_of(chunk)
            side = side or min(next(iter(chunk[0].images.values())).shape[:2])
            write_shard(store, shards, [_entry(c, len(records) + i, grey) for i, c in enumerate(chunk)], planes)
            records += [record_of(c, classes, named[c.case] if named is not None else None) for c in chunk]
            shards += 1
        heads, told = read_heads(store, shards)
        modalities = tuple(plane for plane in planes if plane != MASK)
        given = Ingredients(records, dict(classes), modalities, side, settings=settings, split=how, columns=columns)
        without_colour = [m for m in modalities if m in grey]
        manifest = finish(store, heads, told, replace(given, about=dict(about), grey=without_colour))
        try:
            os.rename(part, folder)
        except OSError:  # another process was faster, with the same content
            if CaseStore(folder).fingerprint != manifest["fingerprint"]:
                raise UserError(f"{folder}: holds other cases already") from None
    return CaseStore(folder)


def planes_of(cases: Sequence[Case]) -> tuple[str, ...]:
    """The modalities of which some of the cases have an image, and the mask where one has it."""
    masked = any(case.mask is not None for case in cases)
    return (*dict.fromkeys(m for case in cases for m in case.images), *[MASK] * masked)


def _entry(case: Case, row: int, grey: Collection[str]) -> CasePlanes:
    pixels = case.images if case.mask is None else {**case.images, MASK: case.mask}
    return CasePlanes(row, {name: as_plane(x, x.shape[:2], grey=name in grey) for name, x in pixels.items()})


def record_of(case: Case, classes: Mapping[str, tuple[str, ...]], split: str | None = None) -> CaseRecord:
    """A case that is in memory as a release would tell of it."""
    labels = {n: classes[n][i] if (i := case.labels.get(n, -1)) >= 0 else None for n in classes}
    return CaseRecord(case.case, {}, labels, case.lesion, case.patient, dict(case.metadata), split=split)
