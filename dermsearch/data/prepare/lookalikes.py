"""The images of whole stores, compared: the same file, the same pixels, or nearly the same picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dermsearch.data.decode.look import LOOKS, THUMB, thumbnail
from dermsearch.data.prepare.build import fixed
from dermsearch.data.prepare.duplicates import known_again
from dermsearch.data.store.case_store import CaseStore


@dataclass
class StoreImages:
    """All images of a store, of every modality, in one list."""

    store: CaseStore
    modality: np.ndarray
    rows: np.ndarray
    files: list[bytes]
    pixels: list[bytes]
    looks: np.ndarray  # uint8 (n, THUMB)

    @classmethod
    def of(cls, store: CaseStore) -> StoreImages:
        """Those that are there; a left-out image keeps its hashes in the index, and is not."""
        rows = [np.flatnonzero(store.has(m)) for m in store.modalities]
        modality = np.repeat(store.modalities, [len(r) for r in rows])

        def all_of(kind: str) -> list[bytes]:
            columns = zip(store.modalities, rows, strict=True)
            return [h for m, r in columns for h in store.index[f"{kind}_{m}"].take(pa.array(r)).to_pylist()]

        looks = [looks_of(store, m, r) for m, r in zip(store.modalities, rows, strict=True)]
        return cls(store, modality, np.concatenate(rows), all_of("file"), all_of("pixel"), np.concatenate(looks))

    def take(self, which: np.ndarray) -> StoreImages:
        """Some of them."""
        files, pixels = [self.files[i] for i in which], [self.pixels[i] for i in which]
        return StoreImages(self.store, self.modality[which], self.rows[which], files, pixels, self.looks[which])

    def name(self, i: int) -> str:
        """ham10000:ISIC_1 (derm)"""
        return f"{name_of(self.store)}:{self.store.index['case'][int(self.rows[i])].as_py()} ({self.modality[i]})"


def looks_of(store: CaseStore, modality: str, rows: np.ndarray) -> np.ndarray:
    """The looks of a store's images, uint8 (n, THUMB): of the originals, or of what is kept where it has no others."""
    if knows_originals(store):
        return fixed(store.index, f"look_{modality}", THUMB)[rows]
    kept = (store.pictures(modality, rows[i : i + 1])[0][0] for i in range(len(rows)))
    return np.frombuffer(b"".join(map(thumbnail, kept)), np.uint8).reshape(-1, THUMB)


def knows_originals(store: CaseStore) -> bool:
    """Whether a store has the looks of its originals, as this version makes them."""
    return store.about.get("looks") == LOOKS


def copies(some: CaseStore, real: CaseStore, modality: str) -> list[tuple[str, str]]:
    """Cases that are nearly the picture of a training case, which stands beside; of the real store its validation."""
    one, two = StoreImages.of(some), StoreImages.of(real)
    train = np.isin(two.rows, real.split("train")) & (two.modality == modality)
    two = two.take(np.flatnonzero(train))
    mine = np.isin(one.rows, real.split("val")) if some is real else np.ones(len(one.rows), bool)
    one = one.take(np.flatnonzero(mine & (one.modality == modality)))
    names, theirs = some.strings("case"), real.strings("case")
    return [(str(names[one.rows[i]]), str(theirs[two.rows[j]])) for i, j in known_again(one.looks, two.looks)]


def name_of(store: CaseStore) -> str:
    """The name of its folder."""
    return store.folder.expanduser().resolve().name
