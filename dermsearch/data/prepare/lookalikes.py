"""The images of whole stores, compared: the same file, the same pixels, or nearly the same picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa

from dermsearch.data.prepare.duplicates import LEVELS, close, thumbnail
from dermsearch.data.store.case_store import CaseStore


@dataclass
class StoreImages:
    """All images of a store, of every modality, in one list."""

    store: CaseStore
    modality: np.ndarray
    rows: np.ndarray
    files: list[bytes]
    pixels: list[bytes]
    looks: np.ndarray

    @classmethod
    def of(cls, store: CaseStore) -> StoreImages:
        """Those that are there; a left-out image keeps its hashes in the index, and is not."""
        rows = [np.flatnonzero(store.has(m)) for m in store.modalities]
        modality = np.repeat(store.modalities, [len(r) for r in rows])

        def all_of(kind: str) -> list[pa.ChunkedArray]:
            return [store.index[f"{kind}_{m}"].take(pa.array(r)) for m, r in zip(store.modalities, rows, strict=True)]

        files, pixels = ([h for column in all_of(kind) for h in column.to_pylist()] for kind in ("file", "pixel"))
        looks = np.concatenate([c.to_numpy() for c in all_of("look")]).astype(np.uint64)
        return cls(store, modality, np.concatenate(rows), files, pixels, looks)

    def take(self, which: np.ndarray) -> StoreImages:
        """Some of them."""
        files, pixels = [self.files[i] for i in which], [self.pixels[i] for i in which]
        return StoreImages(self.store, self.modality[which], self.rows[which], files, pixels, self.looks[which])

    def name(self, i: int) -> str:
        """ham10000:ISIC_1 (derm)"""
        return f"{name_of(self.store)}:{self.store.index['case'][int(self.rows[i])].as_py()} ({self.modality[i]})"

    def thumb(self, i: int) -> np.ndarray:
        """Its grey thumbnail, from the pixels."""
        canvas, _ = self.store.pictures(str(self.modality[i]), self.rows[i : i + 1])
        return np.frombuffer(thumbnail(canvas[0]), np.uint8).astype(np.int16)


def lookalikes(one: StoreImages, two: StoreImages) -> Iterator[tuple[int, int]]:
    """Pairs that are nearly the same picture: by their hashes, and then by thumbnails of those alone."""
    first, second = cache(one.thumb), cache(two.thumb)
    for i, j in close(one.looks, two.looks).tolist():
        if np.abs(first(i) - second(j)).mean() <= LEVELS:
            yield i, j


def name_of(store: CaseStore) -> str:
    """The name of its folder."""
    return store.folder.expanduser().resolve().name
