"""The images that a branch of the encoders trains on: one modality of the training cases, or all pooled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from dermsearch.data.store.ahead import Ahead, carrier
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.columns import Table, of_patients
from dermsearch.data.store.layout import ORIGIN
from dermsearch.data.store.strata import Strata
from dermsearch.data.views.pictures import Pictures
from dermsearch.errors import UserError
from dermsearch.settings import Pixels


@dataclass(frozen=True)
class Look:
    """How a study looks at the images of a store."""

    size: int  # side of a view
    border: float = 0.0  # cut from every edge, as a share of the short side
    statistics: str = "imagenet"  # what pixels are normalised by


def pictures(store: CaseStore, modality: str, rows: np.ndarray, look: Look, device: torch.device) -> Pictures:
    """Images of a store on the device, as views are made from them."""
    canvas, frame = store.planes(modality, rows)
    pixels = torch.from_numpy(canvas).to(device).permute(0, 3, 1, 2)
    mean, deviation = store.domain.statistics[look.statistics]
    found = Pictures(pixels, frame, mean, deviation)
    return found.cut(look.border) if look.border else found


READ = 1024  # images that are copied at once
HOST = torch.device("cpu")


def room(device: torch.device) -> int:
    """Bytes that are free there. On a CPU none are needed: the store's files lie in its memory already."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


class CasePool:
    """Case by case, each with the images that it has: a pooled set mixes its modalities as evenly as the cases do."""

    def __init__(
        self,
        store: CaseStore,
        modalities: Sequence[str],
        rows: np.ndarray,
        device: torch.device,
        look: Look | None = None,
    ) -> None:
        self.store, self.modalities, self.device = store, tuple(modalities), device
        self.look = look or Look(store.side)
        there = np.stack([store.has(m)[rows] for m in modalities], 1)  # (cases, modalities)
        case, self.modality = np.nonzero(there)  # of every unit
        self.rows = np.asarray(rows)[case]
        self._people: dict[tuple[str, ...], tuple[np.ndarray, Table]] = {}
        self.where: Pixels = "auto"  # where images lie: see `compute.pixels`
        self.ahead: Ahead | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        """The side of a whole image as tasks see it."""
        return self.look.size

    @property
    def cases(self) -> np.ndarray:
        """The row of the store of every unit."""
        return self.rows

    def labels(self, name: str, units: np.ndarray) -> np.ndarray:
        """The units' classes of a label, -1 where a case has none."""
        return self.store.label(name)[self.cases[np.asarray(units)]]

    def table(self, names: Sequence[str], units: np.ndarray) -> Table:
        """The units' metadata as inputs."""
        return self.store.table(names, self.cases[np.asarray(units)])

    def patients(self, units: np.ndarray) -> np.ndarray:
        """A number for each unit's patient, -1 where it is not known."""
        return self.store.patients()[self.cases[np.asarray(units)]]

    def lesions(self, units: np.ndarray) -> np.ndarray:
        """A number for each unit's lesion."""
        return self.store.lesions()[self.cases[np.asarray(units)]]

    def people(self, names: Sequence[str], patients: np.ndarray) -> Table:
        """Patients' metadata as inputs, by their numbers: what the cases of this pool tell, and no others."""
        if tuple(names) not in self._people:
            rows = np.unique(self.cases)
            self._people[tuple(names)] = of_patients(self.store.table(names, rows), self.store.patients()[rows])
        known, table = self._people[tuple(names)]
        place = np.searchsorted(known, patients)
        return Table(table.columns, table.values[place], table.known[place])

    def groups(self, units: np.ndarray) -> np.ndarray:
        """A number per unit, equal for those of one patient, or of one lesion where patients are not known."""
        return self.store.groups()[self.cases[np.asarray(units)]]

    @property
    def strata(self) -> Strata | None:
        """The weights of a mixture's stores; None where every unit comes as often as any other."""
        weights = self.store.settings.get("weights")
        return None if weights is None else Strata(self.store.label(ORIGIN)[self.cases], np.array(weights, float))

    def there(self, units: np.ndarray) -> np.ndarray:
        """Has each unit an image of its own? In this pool units are images."""
        return np.ones(len(units), bool)

    def pixels(self, units: np.ndarray) -> Pictures:
        """The units' images on the device."""
        units = np.asarray(units)
        if self.resident is not None:
            return self.resident.take(units)
        found = self.ahead.take(units) if self.ahead else None
        return self._read(units) if found is None else found

    def expect(self, batches: Iterable[np.ndarray]) -> None:
        """These units are asked for next, in this order: a device that does not hold them gets each one batch ahead."""
        if self.resident is None and self.ahead is None and (send := carrier(self.device)):
            self.ahead = Ahead(lambda units: self._read(units, HOST), send)
        if self.ahead:
            self.ahead.expect(batches)

    @cached_property
    def resident(self) -> Pictures | None:
        """All of the images, on a device of its own memory that has room: then no step copies any."""
        sides = [self.store.sides(m)[self.rows] for m in self.modalities]
        height, width = np.concatenate(sides).max(0, initial=0).tolist()
        channels = 3 if set(self.modalities) - set(self.store.grey) else 1
        needed, free = channels * height * width * len(self), room(self.device)
        if self.where == "device" and free < needed:
            has = f"the images take {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free"
            raise UserError(f"compute.pixels: device: {has}; give auto, or pinned")
        if self.where == "pinned" or not 0 < needed <= free // (1 if self.where == "device" else 4):
            return None
        parts = (self._read(units) for units in np.array_split(np.arange(len(self)), -(-len(self) // READ)))
        return together(parts, (len(self), height, width, channels))

    def close(self) -> None:
        """No image is on its way any more."""
        if self.ahead:
            self.ahead.close()
            self.ahead = None

    def _read(self, units: np.ndarray, device: torch.device | None = None) -> Pictures:
        device = device or self.device
        if len(self.modalities) == 1:
            return pictures(self.store, self.modalities[0], self.rows[units], self.look, device)
        parts, places = [], []
        for number, modality in enumerate(self.modalities):
            at = np.flatnonzero(self.modality[units] == number)
            if len(at):
                parts.append(pictures(self.store, modality, self.rows[units[at]], self.look, device))
                places.append(at)
        return together(parts).take(np.argsort(np.concatenate(places), kind="stable"))


class PairedPool(CasePool):
    """Case by case through one modality, for tasks that look at several: a unit is a case, the same in each pool.

    Another case's image stands in where one is missing, so that every process has as many rows; `there` tells.
    """

    def __init__(
        self,
        store: CaseStore,
        modality: str,
        rows: np.ndarray,
        device: torch.device,
        look: Look | None = None,
        among: Sequence[str] = (),
    ) -> None:
        """`among` are all modalities that are looked at: a case that lacks them all is left out."""
        rows = np.asarray(rows)
        self._cases = rows[np.any([store.has(m)[rows] for m in (modality, *among)], axis=0)]
        super().__init__(store, (modality,), self._cases, device, look)
        own = store.has(modality)[self._cases]
        if not own.any():
            raise UserError(f"data.modalities: no training case has an image of modality '{modality}'")
        present = np.flatnonzero(own)
        shown = np.where(own, np.arange(len(own)), present[np.arange(len(own)) % len(present)])
        self.rows, self._own = self._cases[shown], own

    @property
    def cases(self) -> np.ndarray:
        """The units themselves, whoever's image stands in for theirs."""
        return self._cases

    def there(self, units: np.ndarray) -> np.ndarray:
        """Has the case this image itself?"""
        return self._own[np.asarray(units)]


def one_by_one(
    store: CaseStore, modality: str, rows: np.ndarray, look: Look, device: torch.device, batch: int
) -> Iterator[Pictures]:
    """Pictures of these rows, so many at once, all with an image; to a GPU they are sent a batch ahead."""
    pool = CasePool(store, (modality,), rows, device, look)
    coming = [np.arange(start, min(start + batch, len(rows))) for start in range(0, len(rows), batch)]
    with closing(pool):
        pool.expect(coming)
        for units in coming:
            yield pool.pixels(units)


def together(parts: Iterable[Pictures], shape: tuple[int, int, int, int] | None = None) -> Pictures:
    """Pictures one after another, on a canvas that holds the largest, and colours where any has them.

    Where its shape is told (pictures, height, width, channels), no more than one part is held beside it.
    """
    if shape is None:
        parts = list(parts)
        channels, height, width = (max(p.pixels.shape[axis] for p in parts) for axis in (1, 2, 3))
        shape = sum(map(len, parts)), height, width, channels
    canvas, frames, alike, start = None, [], True, 0
    for part in parts:
        if canvas is None:
            canvas = torch.zeros(shape, dtype=torch.uint8, device=part.pixels.device)
        h, w = part.pixels.shape[2:]
        canvas[start : start + len(part), :h, :w] = part.pixels.permute(0, 2, 3, 1)
        start += len(part)
        frames.append(part.frames)
        alike = alike and part.frame is None and (h, w) == shape[1:3]
    assert canvas is not None and start == len(canvas)
    return Pictures(canvas.permute(0, 3, 1, 2), None if alike else np.concatenate(frames), part.mean, part.std)
