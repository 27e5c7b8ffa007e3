"""The files of a case store, and what tells that they are whole.

store.json            what it is: settings, classes, fingerprint, checksums; written last, so a store is whole or none
index.arrow           a row per case: ids, split, labels, metadata, and where its images are; in a study's mixture
                      which of the stores that store.json names as `parts`, and which of its cases, shows them
images-00000.arrow    shards of images, a column per modality (and for masks): raw pixels, or JPEGs if `encoded`; of
                      the modalities that store.json calls `grey`, raw pixels are one channel
quarantine.arrow      what was left out or odd, and why
README.md             the data card
"""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

import numpy as np
import pyarrow as pa

from dermsearch.errors import UserError

FORMAT = 3
GREY = 4  # the format of a store that keeps raw pixels in one channel, for earlier versions to refuse
MANIFEST, INDEX, QUARANTINE, CARD = "store.json", "index.arrow", "quarantine.arrow", "README.md"
SHARD = "images-"  # with a number, the name of a file
ORIGIN = "origin"  # the label of a mixed store: where a case comes from
MASK = "mask"  # kept as one more plane of a case, beside its modalities
NONE = bytes(16)  # the hash of an image that is not there, or comes from no file


def shard_file(number: int) -> str:
    """Where a shard's images are."""
    return f"{SHARD}{number:05d}.arrow"


def to_bytes(table: pa.Table) -> pa.Buffer:
    """An Arrow file of one record batch, so that a reader can map it whole."""
    table = table.combine_chunks()
    measured = pa.MockOutputStream()  # a buffer that grows takes twice the memory on its way
    _write(table, measured)
    found = pa.allocate_buffer(measured.size())
    _write(table, pa.FixedSizeBufferWriter(found))
    return found


def _write(table: pa.Table, sink: pa.NativeFile) -> None:
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, table.num_rows))


def digest(data: bytes | memoryview) -> bytes:
    """Tells one image from another: most processors have instructions for this one."""
    return hashlib.sha256(data).digest()[:16]


def in_three(data: bytes | memoryview | np.ndarray) -> memoryview:
    """Raw pixels of one channel as they are seen, and as they are told apart: in three that are equal."""
    return np.repeat(np.frombuffer(data, np.uint8), 3).data


def checksum(data: pa.Buffer) -> str:
    """Tells a damaged file from a whole one, at the speed of memory."""
    return f"{zlib.crc32(data):08x}"


def read_manifest(data: bytes, where: str) -> dict[str, Any]:
    """What a store says of itself, if it is whole and of this version."""
    try:
        about = json.loads(data)
        made_by = about["format"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{where}: is not a case store (no readable {MANIFEST} in it)") from None
    if made_by not in (FORMAT, GREY):
        raise UserError(f"{where}: was made by another version of dermsearch; make it again")
    if about.get("checksum") != of_itself(about):
        raise UserError(f"{where}: {MANIFEST} is damaged or was changed by hand; make the store again")
    return about


def dealt_by(about: dict[str, Any]) -> str:
    """How a store's cases were dealt: published, patient, lesion or image; a part of a store as that one's were."""
    return str(about.get("dealt", about["split"]["by"]))


def of_itself(manifest: dict[str, Any]) -> str:
    """The checksum that a manifest carries: of all else in it."""
    rest = {k: v for k, v in manifest.items() if k != "checksum"}
    return f"{zlib.crc32(json.dumps(rest, sort_keys=True).encode()):08x}"
