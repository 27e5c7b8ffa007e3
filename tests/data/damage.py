"""A healthy release to damage, and what its store holds."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from dermsearch.data.decode.image import Form
from dermsearch.data.prepare.engines import on_cores
from dermsearch.data.prepare.prepare import Order, prepare
from dermsearch.data.prepare.progress import Watcher
from dermsearch.data.sources.base import Columns
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import QUARANTINE

CASES = 8
VICTIM = "c3"  # the case that is damaged
LEFT_OUT, CONVERTED, KEPT, MASK_OUT = "left out", "converted", "kept", "mask left out"
COLUMNS = Columns(
    images={"derm": "image", "clinic": "photo"},
    labels=("dx",),
    case="id",
    lesion="lesion",
    patient="patient",
    split="part",
    mask="mask",
)


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """Soft blots, other ones for every seed."""
    blots = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 95} if kind == "JPEG" else {}) | options)
    return out.getvalue()


@dataclass
class Copy:
    """A release of the `csv` source: healthy, until a kind of damage is done to it."""

    root: Path
    rows: list[dict[str, str]] = field(default_factory=list)
    columns: Columns = COLUMNS

    @property
    def victim(self) -> dict[str, str]:
        return self.rows[int(VICTIM[1:])]

    @property
    def table(self) -> Path:
        return self.root / "cases.csv"

    def image(self, name: str, data: bytes, column: str = "image") -> None:
        """The damaged case's image is this file."""
        if self.victim[column]:
            (self.root / self.victim[column]).unlink()
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.victim[column] = name

    def parts(self, *words: str) -> None:
        """A published split."""
        for row, word in zip(self.rows, words, strict=True):
            row["part"] = word

    def save(self) -> None:
        with self.table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def order(self, **other: Any) -> Order:
        given: dict[str, Any] = {"form": Form(32), "columns": self.columns, "max_bad": 0.5}
        return Order("csv", str(self.root), str(self.root.parent / "store"), **(given | other))


def healthy(root: Path) -> Copy:
    """Eight cases of four patients."""
    root.mkdir(parents=True)
    copy = Copy(root)
    for n in range(CASES):
        (root / f"c{n}.jpg").write_bytes(encode(picture(n)))
        where = {"id": f"c{n}", "image": f"c{n}.jpg", "photo": "", "mask": "", "dx": "mel" if n % 2 else "nv"}
        copy.rows.append({**where, "lesion": f"l{n}", "patient": f"p{n // 2}", "part": ""})
    copy.save()
    return copy


def make(order: Order) -> CaseStore:
    prepare(order, on_cores(1), Watcher())
    return CaseStore(order.store)


def quarantine(store: CaseStore) -> list[dict[str, str]]:
    return pa.ipc.open_file(store.folder / QUARANTINE).read_all().to_pylist()


def pixels(store: CaseStore) -> dict[str, np.ndarray]:
    """The dermoscopic image of every case that has one."""
    rows = np.flatnonzero(store.has("derm"))
    names = store.strings("case")[rows].tolist()
    return {name: store.pictures("derm", np.array([row]))[0][0] for name, row in zip(names, rows, strict=True)}


GOOD = picture(int(VICTIM[1:]))
JPEG, PNG = encode(GOOD), encode(GOOD, "PNG")
