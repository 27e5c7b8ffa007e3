"""The case store: a data set as one memory-mapped Arrow file, decoded, made once and read by every trial.

`cases.arrow` holds one row per case: ids, split, a class index per label (-1: unknown), metadata, and per
modality the image as size * size * 3 bytes. Its schema carries the settings, the classes of each label and
the fingerprint of its content. Opening maps the file; pixels are read when they are used, and all processes
of a machine share the same pages.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dermsearch.data.case import METADATA, SPLITS, Case
from dermsearch.errors import UserError

FILE = "cases.arrow"
FORMAT = 1


class CaseStore:
    """An opened case store."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self._map = pa.memory_map(str(self.folder / FILE))
            reader = pa.ipc.open_file(self._map)
            about = json.loads(reader.schema.metadata[b"dermsearch"])
        except (OSError, pa.ArrowInvalid, TypeError, KeyError, ValueError):
            raise UserError(f"{folder}: is not a case store (no readable {FILE} in it)") from None
        if about.get("format") != FORMAT:
            raise UserError(f"{folder}: was made by another version of dermsearch; make it again")
        self.table = reader.read_all()
        self.fingerprint: str = about["fingerprint"]
        self.size: int = about["size"]
        self.settings: dict[str, Any] = about["settings"]
        self.classes: dict[str, tuple[str, ...]] = {k: tuple(v) for k, v in about["classes"].items()}
        self.modalities: tuple[str, ...] = tuple(about["modalities"])

    def __len__(self) -> int:
        return self.table.num_rows

    def split(self, name: str) -> np.ndarray:
        """The rows of train, val or test."""
        return np.flatnonzero(self._strings("split") == name)

    def label(self, name: str) -> np.ndarray:
        """The class index of every case, -1 where it is not known."""
        return self.table[f"label_{name}"].to_numpy()

    def patients(self) -> np.ndarray:
        """The patient of every case."""
        return self._strings("patient")

    def pixels(self, modality: str) -> np.ndarray:
        """(cases, size, size, 3) uint8, a view of the mapped file."""
        return self._bytes(f"image_{modality}", (self.size, self.size, 3))

    def masks(self) -> np.ndarray:
        """(cases, size, size) uint8, 255 inside the lesion."""
        return self._bytes("mask", (self.size, self.size))

    def metadata(self, name: str) -> list[Any]:
        """One column of metadata; None where it is missing."""
        return self.table[name].to_pylist()

    def _strings(self, name: str) -> np.ndarray:
        return np.array(self.table[name].to_pylist())

    def _bytes(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        chunk = self.table[name].chunk(0)
        width = int(np.prod(shape))
        flat = np.frombuffer(chunk.buffers()[1], np.uint8, count=len(chunk) * width, offset=chunk.offset * width)
        return flat.reshape(len(chunk), *shape)


def write_store(
    folder: str | Path,
    cases: Iterable[Case],
    split_of: dict[str, str],
    classes: dict[str, tuple[str, ...]],
    settings: dict[str, Any],
) -> CaseStore:
    """Write a store whole or not at all. `split_of` names the split of every case."""
    folder = Path(folder)
    rows = list(cases)
    size = next(iter(rows[0].images.values())).shape[0]
    modalities = tuple(rows[0].images)
    arrays: dict[str, pa.Array] = {
        "case": pa.array([c.case for c in rows]),
        "lesion": pa.array([c.lesion for c in rows]),
        "patient": pa.array([c.patient for c in rows]),
        "split": pa.array([split_of[c.case] for c in rows]),
    }
    for name in classes:
        arrays[f"label_{name}"] = pa.array([c.labels.get(name, -1) for c in rows], pa.int16())
    for name in METADATA:
        arrays[name] = pa.array([c.metadata.get(name) for c in rows])
    for m in modalities:
        arrays[f"image_{m}"] = _fixed([c.images[m] for c in rows], size * size * 3)
    if rows[0].mask is not None:
        arrays["mask"] = _fixed([c.mask for c in rows], size * size)
    about = {
        "format": FORMAT,
        "size": size,
        "modalities": modalities,
        "classes": classes,
        "settings": settings,
        "fingerprint": _fingerprint(arrays, settings),
    }
    table = pa.table(arrays).replace_schema_metadata({"dermsearch": json.dumps(about)})
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    part.chmod(0o755)
    try:
        with pa.OSFile(str(part / FILE), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=max(1, len(rows)))
        try:
            os.rename(part, folder)
        except OSError:  # another process was faster, with the same content
            if CaseStore(folder).fingerprint != about["fingerprint"]:
                raise UserError(f"{folder}: holds other cases already") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return CaseStore(folder)


def _fixed(images: list[Any], width: int) -> pa.Array:
    data = np.ascontiguousarray(np.stack(images), np.uint8)
    return pa.Array.from_buffers(pa.binary(width), len(images), [None, pa.py_buffer(data)])


def _fingerprint(arrays: dict[str, pa.Array], settings: dict[str, Any]) -> str:
    """blake2b over the content of every column and the settings."""
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for name, array in arrays.items():
        digest.update(name.encode())
        if pa.types.is_fixed_size_binary(array.type):
            digest.update(array.buffers()[1])
        else:
            digest.update(json.dumps(array.to_pylist()).encode())
    return digest.hexdigest()


def describe(store: CaseStore) -> Iterator[str]:
    """A store in a few lines: how many cases, and the class balance of each split."""
    counts = ", ".join(f"{len(store.split(s))} {s}" for s in SPLITS)
    yield f"{store.folder}: {len(store)} cases ({counts}), {store.size} px, {' + '.join(store.modalities)}"
    for name, classes in store.classes.items():
        cells = []
        for index, label in enumerate(classes):
            shares = [np.mean(store.label(name)[store.split(s)] == index) for s in SPLITS]
            cells.append(f"{label} {'/'.join(f'{100 * x:.0f}' for x in shares)}")
        yield f"  {name:<24}{'  '.join(cells)}"
    yield "  (per cent of train/val/test)"
