"""One shard of a case store: some records' images, decoded and written, with a head that tells of each.

A shard is made by one process from its records alone, so any number of processes and nodes make a store. The
head is written after its images: where it is, the shard is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

from dermsearch.data.decode import hdf5
from dermsearch.data.decode.bounds import BadImage
from dermsearch.data.decode.image import Form, decode, decode_mask
from dermsearch.data.decode.look import THUMB, thumbnail
from dermsearch.data.store.layout import MASK, NONE, checksum, digest, in_three, shard_file, to_bytes
from dermsearch.errors import UserError, first_line
from dermsearch.storage.files import Folder

HEAD = "preparing/head-"  # with a number, the name of a file
JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}  # in an encoded store
PNG: dict[str, Any] = {"format": "PNG"}
TOGETHER, TOGETHER_BYTES = 64, 8_000_000  # cases whose images take each step together, and most bytes of their files
LARGEST_FILE = 1_000_000_000  # bytes of an image's file: all of them are held in memory
NO_LOOK = bytes(THUMB)
Read = tuple[dict[str, Any], list[bytes | BadImage]]  # a record, and the files of its images


@dataclass
class Plane:
    """An image or mask as it is kept."""

    data: bytes | memoryview  # raw pixels, or a JPEG (PNG for masks)
    size: tuple[int, int]  # height, width
    original: tuple[int, int]
    file: bytes = NONE  # hash of the file it came from
    look: bytes = NO_LOOK
    pixels: bytes = b""  # hash of what they show, told where that of the data is another or these stay elsewhere


@dataclass
class CasePlanes:
    """One case's planes, and what was odd about them: (image, what was done, why)."""

    row: int  # of the records
    planes: dict[str, Plane] = field(default_factory=dict)
    notes: list[tuple[str, str, str]] = field(default_factory=list)


def make_shard(job: dict[str, Any]) -> dict[str, Any]:
    """Decode a job's records and write their shard. A job is plain data, so that it travels to any process."""
    release, store = Folder(job["release"]), Folder(job["store"])
    form = Form(**job["form"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of metadata that nobody reads
        before, masks = seen(job), Folder(job.get("masks", job["release"]))
        groups = in_groups(release, job["records"])
        how = form, job["encoded"], masks, job.get("grey", ())
        entries = [entry for group in groups for entry in read_entries(release, group, *how)]
    write_shard(store, job["number"], entries, job["planes"], before)
    bad = sum(any(done == "left out" for _, done, _ in e.notes) for e in entries)
    return {"number": job["number"], "cases": len(entries), "bad": bad}


def seen(job: dict[str, Any]) -> str:
    """Tells changed images from those that were read: by size and time; of a remote release, slow to ask, nothing."""
    release, masks = (Folder(job.get(key, job["release"])).local for key in ("release", "masks"))
    if release is None:
        return ""
    found = hashlib.blake2b(digest_size=16)
    for record in job["records"]:
        for name, folder in (*((image, release) for image in record["images"].values()), (record["mask"], masks)):
            file, _ = hdf5.parted(name or "") or (name, "")
            try:
                status = os.stat(folder / file) if file and folder else None
            except (OSError, ValueError):
                status = None
            found.update(f"{status and (status.st_size, status.st_mtime_ns)}".encode())
    return found.hexdigest()


def in_groups(release: Folder, records: Iterable[dict[str, Any]]) -> Iterator[list[Read]]:
    """Records with the files of their images, so many at a time as are decoded together."""
    group: list[Read] = []
    size = 0
    for record in records:
        files = each(read_image, repeat(release), record["images"].values())
        group.append((record, files))
        size += sum(len(file) for file in files if isinstance(file, bytes))
        if len(group) == TOGETHER or size > TOGETHER_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def read_entries(
    release: Folder,
    group: list[Read],
    form: Form,
    encoded: bool,
    beside: Folder | None = None,
    grey: Sequence[str] = (),
) -> list[CasePlanes]:
    """Records' images, each decoded or noted with the reason why not; masks lie `beside` or in the release.

    One step for all of them, then the next: a processor runs through one decoder many times faster than through all
    of them in turn, by a third of the time altogether.
    """
    entries = [CasePlanes(record["row"]) for record, _ in group]
    images = [(e, *image) for e, (record, _) in zip(entries, group, strict=True) for image in record["images"].items()]
    taken = [file for _, files in group for file in files]
    colourless = [modality in grey for _, modality, _ in images]
    pictures = each(decode, taken, [name for _, _, name in images], repeat(form), colourless)
    for (entry, modality, name), data, picture, one in zip(images, taken, pictures, colourless, strict=True):
        if isinstance(data, BadImage) or isinstance(picture, BadImage):
            entry.notes.append((name, "left out", str(picture)))
        else:
            entry.notes += [(name, "converted", note) for note in picture.notes]
            told = picture.original, digest(data), encoded, picture.look
            entry.planes[modality] = as_plane(picture.pixels, *told, one)
    masked = [(e, r["mask"]) for e, (r, _) in zip(entries, group, strict=True) if r.get("mask") and e.planes]
    originals = [next(iter(e.planes.values())).original for e, _ in masked]
    files = each(read_image, repeat(beside or release), [name for _, name in masked])
    masks = each(decode_mask, files, originals, repeat(form))
    for (entry, name), original, mask in zip(masked, originals, masks, strict=True):
        if isinstance(mask, BadImage):
            entry.notes.append((name, "mask left out", str(mask)))
        else:
            entry.planes[MASK] = as_plane(mask, original, NONE, encoded)
    return entries


def each(step: Callable[..., Any], *columns: Iterable[Any]) -> list[Any]:
    """A step for every row: what it returns, or why an image is bad, in this step or in one before."""
    results = []
    for row in zip(*columns, strict=False):
        bad = next((x for x in row if isinstance(x, BadImage)), None)
        try:
            results.append(bad or step(*row))
        except BadImage as error:
            results.append(error)
    return results


def read_image(release: Folder, name: str) -> bytes:
    """The bytes of an image's file."""
    inner = hdf5.parted(name)
    if inner and release.local is None:
        raise UserError(f"{release.where}: {inner[0]} is read from this machine only; copy it here")
    try:
        if inner and release.local is not None:
            return hdf5.read(release.local / inner[0], inner[1])
        if release.local is not None:
            check_file(os.stat(release.local / name))
        return release.read(name)
    except (FileNotFoundError, NotADirectoryError):
        raise BadImage("is missing") from None
    except OSError as error:
        if release.local is None:  # the way there is broken, not the image
            raise UserError(
                f"{release.where}: cannot be reached: {first_line(error)}; the same command continues"
            ) from None
        raise BadImage(f"cannot be read: {error.strerror or first_line(error)}") from None


def check_file(status: os.stat_result) -> None:
    """Refuse what would be read for ever, or into more memory than there is."""
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise BadImage("is no regular file")
    if status.st_size > LARGEST_FILE:
        raise BadImage(f"is a file of {status.st_size:,} bytes, more than {LARGEST_FILE:,}")


def as_plane(
    pixels: np.ndarray,
    original: tuple[int, int],
    file: bytes = NONE,
    encoded: bool = False,
    look: bytes = b"",
    grey: bool = False,
) -> Plane:
    """An image (h, w, 3) or mask (h, w) as a store keeps it; what is its own original has no other look.

    Of a grey image one channel is kept, and the hash is that of three: a fingerprint tells what is seen. JPEGs keep
    three, which take next to nothing where they are equal.
    """
    mask, size = pixels.ndim == 2, pixels.shape[:2]
    look = NO_LOOK if mask else look or thumbnail(pixels)
    if grey:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)  # of equal channels it is each of them
    if not encoded:
        data = np.ascontiguousarray(pixels).data.cast("B")
        return Plane(data, size, original, file, look, digest(in_three(data)) if grey else b"")
    out = io.BytesIO()
    shown = Image.fromarray(pixels).convert("RGB") if grey else Image.fromarray(pixels)
    shown.save(out, **(PNG if mask else JPEG))
    return Plane(out.getvalue(), size, original, file, look)


def write_shard(
    store: Folder, number: int, entries: Sequence[CasePlanes], planes: Sequence[str], before: str = ""
) -> None:
    """The shard's images, then its head, which tells how their files were `seen` before they were read."""
    kept = {name: [e.planes.get(name) for e in entries] for name in planes}
    images = {name: one_after_another([p.data if p else b"" for p in kept[name]]) for name in planes}
    data = to_bytes(pa.table(images))
    store.write(shard_file(number), data)
    about = {"checksum": checksum(data), "bytes": data.size, "cases": len(entries), "seen": before}
    told = to_bytes(head_of(entries, planes).replace_schema_metadata({"shard": json.dumps(about)}))
    store.write(head_file(number), checksum(told).encode() + told.to_pybytes())


def head_of(entries: Sequence[CasePlanes], planes: Iterable[str]) -> pa.Table:
    """What is told of some cases' images, in the order of their records."""
    head: dict[str, pa.Array] = {"row": pa.array([e.row for e in entries], pa.int64())}
    for name in planes:
        kept = [e.planes.get(name) for e in entries]
        for i, axis in enumerate(("height", "width")):
            head[f"{axis}_{name}"] = pa.array([p.size[i] if p else 0 for p in kept], pa.int32())
            head[f"original_{axis}_{name}"] = pa.array([p.original[i] if p else 0 for p in kept], pa.int32())
        hashes = [(p.pixels or digest(p.data)) if p else NONE for p in kept]
        head[f"pixel_{name}"] = pa.array(hashes, pa.binary(16))
        if name != MASK:
            head[f"file_{name}"] = pa.array([p.file if p else NONE for p in kept], pa.binary(16))
            head[f"look_{name}"] = pa.array([p.look if p else NO_LOOK for p in kept], pa.binary(THUMB))
    head["notes"] = pa.array([json.dumps(e.notes) if e.notes else "" for e in entries])
    return pa.table(head)


def one_after_another(parts: list[bytes | memoryview]) -> pa.Array:
    """A column of them, in one copy: Arrow's own builder grows as it goes, and costs as much as decoding does."""
    ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    whole = pa.py_buffer(b"".join(parts))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(parts), [None, pa.py_buffer(ends), whole])


def head_file(number: int) -> str:
    """Where its head is, until the store is finished."""
    return f"{HEAD}{number:05d}.arrow"
