"""The case store: a data set as memory-mapped Arrow, made once and read by every trial. `layout` names its files.

Opening maps the index alone; shards are mapped when they are first read. Each is compared with its checksum then, once
in a process, at two gigabytes a second. All processes of a machine share the pages. A mixture that a study makes of its
data sets has no images of its own: its index says which case of which store shows them, and it opens these.
"""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from dermsearch.data.case import SPLITS, Column, column_of
from dermsearch.data.decode.bounds import STRIP
from dermsearch.data.domain import DOMAINS, SKIN, Domain
from dermsearch.data.store.columns import Table, encode
from dermsearch.data.store.few import low_label
from dermsearch.data.store.layout import INDEX, MANIFEST, MASK, checksum, dealt_by, read_manifest, shard_file
from dermsearch.errors import UserError, nearest
from dermsearch.regular import bytes_of, without_waiting

NOTHING = np.empty(0, np.uint8)
DEEPEST = 20  # mixtures of mixtures
DECODERS = 4  # threads that decode JPEGs of one batch


class CaseStore:
    """An opened case store; of a mixture, whose images lie in its parts, these may be given where they are open."""

    def __init__(
        self, folder: str | Path, parts: Sequence[CaseStore] | None = None, within: Sequence[Path] = ()
    ) -> None:
        self.folder = Path(folder)
        self._within = (*within, Path(os.path.realpath(folder)))  # the mixtures that it is opened for
        try:
            self.about = read_manifest(bytes_of(self.folder / MANIFEST), str(folder))
        except OSError:
            raise UserError(f"{folder}: is not a case store (no readable {MANIFEST} in it)") from None
        try:
            self._read()
            lent = self.about.get("parts", ())  # {path, fingerprint} of each
            self.parts: list[CaseStore] = [self._part(**part) for part in lent] if parts is None else list(parts)
            self.parts = self.parts if lent else []
        except UserError:
            raise
        except (LookupError, TypeError, AttributeError, ValueError):  # its checksum is right, and others made it
            raise UserError(
                f"{folder}: {MANIFEST} or {INDEX} is not one of this version; make the store again"
            ) from None

    def _read(self) -> None:
        self.index = self._mapped(INDEX)
        self.fingerprint: str = self.about["fingerprint"]
        self.settings: dict[str, Any] = self.about["settings"]
        self.domain_name: str = self.settings.get("domain", SKIN.name)
        self.side: int = self.about["side"]  # the short side of its images
        self.encoded: bool = self.about["encoded"]
        self.split_by = dealt_by(self.about)  # published, patient, lesion or image
        self.classes: dict[str, tuple[str, ...]] = {k: tuple(v) for k, v in self.about["classes"].items()}
        self.modalities: tuple[str, ...] = tuple(self.about["modalities"])
        self.columns: dict[str, Column] = {c["name"]: column_of(c) for c in self.about["columns"]}  # may be inputs
        self.denied: dict[str, str] = self.about.get("denied", {})  # those that may not, and why
        sizes = [f"{side}_{modality}" for modality in self.modalities for side in ("height", "width")]
        ours = ["case", "lesion", "patient", "split", "group", "shard", "at", *map("label_{}".format, self.classes)]
        if lacking := [name for name in [*ours, *sizes] if self.index[name].null_count]:  # or KeyError
            raise ValueError(lacking)
        if not pa.types.is_dictionary(self.index["split"].type):
            raise TypeError("split")
        if type(self.side) is not int:
            raise TypeError("side")
        self._grey = frozenset(self.about.get("grey", ()))
        self._encoded: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._owners: dict[str, np.ndarray] = {}
        self._shard_of, self._place = self.column("shard"), self.column("at")
        self._shards: dict[int, dict[str, tuple[np.ndarray, np.ndarray]]] = {}

    def _part(self, path: str, fingerprint: str) -> CaseStore:
        """A store whose images a mixture shows: the same cases in the same order, in whatever shards."""
        place = os.path.normpath(self.folder / path)
        try:
            if Path(os.path.realpath(place)) in self._within or len(self._within) > DEEPEST:
                raise UserError(f"{place} is a mixture that holds itself, or of mixtures without end")
            part = CaseStore(place, within=self._within)
            if part.fingerprint == fingerprint:
                return part
            why = f"{part.folder} holds other cases now"
        except UserError as error:
            why = str(error)
        raise UserError(
            f"{self.folder}: is a mixture, and a store whose images it shows is not where it was: {why}; put it back, "
            "or run a study that mixes it where it is now"
        )

    def __len__(self) -> int:
        return self.index.num_rows

    @property
    def domain(self) -> Domain:
        """What its images are of; UserError where the package that brings it is not installed."""
        try:
            domain: Domain = DOMAINS.find(self.domain_name)
        except UserError as error:
            raise UserError(f"{self.folder}: {error}") from None
        return domain

    def column(self, name: str) -> np.ndarray:
        """A column of numbers of the index, which has one chunk and no gaps."""
        try:
            return np.from_dlpack(self.index[name].chunk(0))  # Arrow's own way imports pandas first
        except (TypeError, ValueError):  # of another type, or with gaps
            raise UserError(f"{self.folder}: {INDEX} has no numbers in '{name}'; make the store again") from None

    def strings(self, name: str) -> np.ndarray:
        """A column of words of the index: case, lesion or patient; empty where the release does not say."""
        return np.array(self.index[name].to_pylist())

    def split(self, name: str, draw: tuple[int, int] = (0, 0)) -> np.ndarray:
        """The rows of train, val or test; of "train:10" ten of every class of every label, of "train:10%" a tenth.

        `draw` is a seed and the number of a draw with it: which cases the few are.
        """
        base, _, part = name.partition(":")
        rows = np.flatnonzero(np.from_dlpack(self.index["split"].chunk(0).indices) == SPLITS.index(base))
        if not part:
            return rows
        labels = {label: self.label(label)[rows] for label in self.classes}
        return rows[low_label(part, labels, self.groups()[rows], draw)]

    def label(self, name: str) -> np.ndarray:
        """The class index of every case, -1 where it is not known."""
        return self.column(f"label_{name}")

    def groups(self) -> np.ndarray:
        """A number per case, equal for those that must stay together: of one patient, else of one lesion."""
        return self.column("group")

    def patients(self) -> np.ndarray:
        """A number for each case's patient as the release tells it, -1 where it does not; groups join more."""
        return self._codes("patient")

    def lesions(self) -> np.ndarray:
        """A number for each case's lesion: ids are the patient's own. A case that tells none is a lesion by itself."""
        lesion, patient = self._codes("lesion"), self._codes("patient")
        alone = lesion.max(initial=0) + 1 + np.arange(len(lesion))
        return np.where(lesion < 0, alone, lesion) * (patient.max(initial=0) + 2) + patient + 1

    def _codes(self, name: str) -> np.ndarray:
        """Numbers for the words of a column of the index, -1 for the empty one."""
        if name not in self._owners:
            told = pc.dictionary_encode(self.index[name].combine_chunks())
            codes, words = np.from_dlpack(told.indices).astype(np.int64), told.dictionary.to_pylist()
            self._owners[name] = np.where(codes == words.index(""), -1, codes) if "" in words else codes
        return self._owners[name]

    @property
    def grouped(self) -> str:
        """What groups are: patients, else lesions, else images; 'patients and images' where some cases lack both."""
        patient, lesion = (self.strings(name) != "" for name in ("patient", "lesion"))
        kinds = {"patients": patient, "lesions": lesion & ~patient, "images": ~(lesion | patient)}
        return " and ".join(name for name, which in kinds.items() if which.any())

    def metadata(self, name: str) -> list[Any]:
        """One column of metadata as the release tells it; None where it is missing."""
        return self.index[f"meta_{name}"].to_pylist()

    def table(self, names: Sequence[str], rows: np.ndarray) -> Table:
        """Metadata of some cases as inputs; UserError where a name is none."""
        check_columns(self, names)
        for name in names:
            if name not in self._encoded:
                self._encoded[name] = encode(self.columns[name], self.index[f"meta_{name}"])
        values, known = (
            np.stack([self._encoded[n][part][rows] for n in names], 1) if names else np.empty((len(rows), 0), kind)
            for part, kind in enumerate((np.float32, bool))
        )
        return Table(tuple(self.columns[name] for name in names), values, known)

    def with_columns(self, columns: dict[str, Column], values: dict[str, pa.Array], fingerprint: str) -> CaseStore:
        """The same cases with other metadata, which may all be inputs."""
        other = copy.copy(self)
        kept = self.index.select([name for name in self.index.column_names if not name.startswith("meta_")])
        for name, told in values.items():
            kept = kept.append_column(f"meta_{name}", told)
        other.index, other.columns, other.denied, other.fingerprint = kept, columns, {}, fingerprint
        other.about = {**self.about, "metadata": list(columns)}
        other._encoded = {}
        return other

    def has(self, plane: str) -> np.ndarray:
        """Which cases have an image of that modality (or a mask)."""
        if plane not in self.modalities and not (plane == MASK and self.about["masks"]):
            return np.zeros(len(self), bool)
        return self.column(f"height_{plane}") > 0

    @property
    def grey(self) -> tuple[str, ...]:
        """The modalities of whose every picture one channel is kept."""
        if not self.parts:
            return tuple(m for m in self.modalities if m in self._grey)
        lent = {m: [m in part.grey for part in self.parts if m in part.modalities] for m in self.modalities}
        return tuple(m for m, grey in lent.items() if grey and all(grey))

    def channels(self, plane: str, row: int) -> int:
        """How many channels are kept of one picture."""
        if self.parts:
            return self.parts[int(self._shard_of[row])].channels(plane, int(self._place[row]))
        return 1 if plane in self._grey else 3

    def pictures(self, modality: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Images as one canvas, uint8 (n, H, W, 3), and the frame of each in it, (n, 4): top, left, height, width.

        The frame is None where all fill the canvas. A case without such an image has a frame of no size. Grey pictures
        are shown in three channels that are one in memory, and read-only.
        """
        canvas, frame = self.planes(modality, rows)
        return canvas if canvas.shape[3] == 3 else np.broadcast_to(canvas, (*canvas.shape[:3], 3)), frame

    def planes(self, modality: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The same, in one channel where the modality is grey: uint8 (n, H, W, 1 or 3)."""
        return self._canvas(modality, np.asarray(rows), (1 if modality in self.grey else 3,))

    def sides(self, modality: str) -> np.ndarray:
        """(cases, 2): height and width of every case's image; 0 where there is none."""
        return np.stack([self.column(f"height_{modality}"), self.column(f"width_{modality}")], 1)

    def masks(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Lesion masks in the same way: uint8 (n, H, W), 255 inside the lesion."""
        return self._canvas(MASK, np.asarray(rows), ())

    def _canvas(self, plane: str, rows: np.ndarray, channels: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray | None]:
        heights, widths = self.column(f"height_{plane}")[rows], self.column(f"width_{plane}")[rows]
        top = (int(heights.max(initial=0)), int(widths.max(initial=0)))
        if max(top) > STRIP * self.side:  # or an index that was made up would ask for all memory
            raise UserError(f"{self.folder}: {INDEX} does not fit its images; make the store again")
        alike = bool((heights == top[0]).all() and (widths == top[1]).all())
        canvas = (np.empty if alike else np.zeros)((len(rows), *top, *channels), np.uint8)
        try:
            for target, image in zip(canvas, self._images(plane, rows, heights, widths, channels), strict=True):
                target[: image.shape[0], : image.shape[1]] = image
        except UserError:
            raise
        except (LookupError, ValueError, OSError, Image.DecompressionBombError):  # others than those of its shards
            raise UserError(f"{self.folder}: {INDEX} does not fit its images; make the store again") from None
        if alike:
            return canvas, None
        zero = np.zeros_like(heights)
        return canvas, np.stack([zero, zero, heights, widths], 1).astype(np.int64)

    def _images(self, plane: str, rows: np.ndarray, heights: np.ndarray, widths: np.ndarray, channels: tuple) -> Any:
        places = zip(heights.tolist(), self._shard_of[rows].tolist(), self._place[rows].tolist(), strict=True)
        # An image that was left out may still lie in its shard; the index gives it no size.
        kept = [self._bytes(plane, shard, at) if height else NOTHING for height, shard, at in places]
        shapes = [channels] * len(rows)
        if channels and self.parts:  # one may keep them in one channel, another in three
            shapes = [(self.channels(plane, row),) for row in rows.tolist()]
        if not self.encoded:
            sizes = zip(kept, heights.tolist(), widths.tolist(), shapes, strict=True)
            return (data.reshape(h, w, *shape) for data, h, w, shape in sizes)
        if len(kept) >= 2 * DECODERS:
            # Pillow decodes without the interpreter's lock. A machine that gives no more threads raises RuntimeError.
            with suppress(RuntimeError), ThreadPoolExecutor(DECODERS) as pool:
                return list(pool.map(_decoded, kept, shapes))
        return map(_decoded, kept, shapes)

    def kept(self, plane: str, row: int) -> np.ndarray:
        """The bytes of an image (or a mask) as they are kept: raw pixels, or a JPEG."""
        return self._bytes(plane, int(self._shard_of[row]), int(self._place[row]))

    def _bytes(self, plane: str, shard: int, at: int) -> np.ndarray:
        if self.parts:  # of a mixture these say which store, and which of its cases
            return self.parts[shard].kept(plane, at)
        offsets, data = self._shard(shard)[plane]
        return data[offsets[at] : offsets[at + 1]]

    def _mapped(self, name: str) -> pa.Table:
        """A mapped file, after a look at all of it: nothing is studied on cases that are not those written."""
        try:
            os.close(without_waiting(str(self.folder / name), os.O_RDONLY))  # a pipe would make mapping wait
            file = pa.memory_map(str(self.folder / name))
            if checksum(file.read_buffer()) == self.about["files"].get(name):
                file.seek(0)
                return pa.ipc.open_file(file).read_all()
        except (OSError, pa.ArrowInvalid):
            pass
        raise UserError(f"{self.folder}: {name} is missing or damaged; make the store again")

    def _shard(self, number: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Where each image begins, and all bytes, by plane: views of the mapped file."""
        if number not in self._shards:
            table = self._mapped(shard_file(number))
            self._shards[number] = {
                plane: (np.frombuffer(offsets, np.int64), np.frombuffer(data or b"", np.uint8))
                for plane in table.column_names
                for _, offsets, data in [table[plane].chunk(0).buffers()]
            }
        return self._shards[number]


def check_columns(store: CaseStore, names: Sequence[str]) -> None:
    """Refuse what cannot be an input: what the diagnosis decided, what is only kept, and what is not there."""
    for name in names:
        if name in store.columns:
            continue
        if name in store.denied:
            why = f"is no input: {store.denied[name]}"
        elif name in store.about["metadata"]:
            why = f"is kept in {store.folder}, but is no input; choose from: {', '.join(store.columns) or 'none'}"
        else:
            why = f"is no metadata of {store.folder}; {nearest(name, store.columns)}"
        raise UserError(f"data.metadata: '{name}' {why}")


def _decoded(data: np.ndarray, channels: tuple[int, ...]) -> np.ndarray:
    if not len(data):
        return np.empty((0, 0, *channels), np.uint8)
    image = Image.open(io.BytesIO(data.data))
    if channels == (1,):
        image.draft("L", None)  # the brightness alone, which is all of a grey picture
        return np.asarray(image)[..., None]
    return np.asarray(image)
