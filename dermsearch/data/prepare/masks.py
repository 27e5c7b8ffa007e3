"""Masks from a folder of their own, beside any source: each is found by the name of its case or of its image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from dermsearch.data.sources.base import IMAGES, CaseRecord, hidden, stem
from dermsearch.errors import UserError
from dermsearch.storage.files import Folder

ENDINGS = ("_mask", "-mask", "_masks", "_lung", "_lungs", "_segmentation", "_seg")


def lay_masks(records: Sequence[CaseRecord], where: str, release: str = "") -> Folder:
    """Give each record the mask of its name: of the same path as its first image, of its id, or of the image's name.

    The name may end as _mask, _segmentation and such; an image's bare name counts where no other image has it. A mask
    that the source names itself is left aside. No image of the release is a mask, if masks lie among them.
    """
    folder = Folder(where)
    if folder.kind() != "folder":
        raise UserError(f"--masks: there is no folder '{folder.where}'")
    images = {place(release, image) for record in records for image in record.images.values()}
    files = [name for name in folder.names() if name.lower().endswith(IMAGES) and not hidden(name)]
    files = [name for name in files if place(where, name) not in images]
    by_path = {plain(name): name for name in reversed(files)}
    by_stem = {plain(name).rpartition("/")[2]: name for name in reversed(files)}
    bare = Counter(stem(first(record)).lower() for record in records)
    for record in records:
        image = first(record)
        alone = bare[stem(image).lower()] == 1
        record.mask = (
            by_path.get(plain(image))
            or by_stem.get(record.case.lower())
            or (by_stem.get(stem(image).lower()) if alone else None)
        )
    if not any(record.mask for record in records):
        raise UserError(
            f"--masks: no file in {folder.where} is called as a case or its image, "
            f"such as {records[0].case}.png or {records[0].case}_mask.png"
        )
    return folder


def place(folder: str, name: str) -> str:
    """A file's path from anywhere, however its folder is written."""
    return f"{folder}/{name}" if "://" in folder else os.path.abspath(os.path.expanduser(f"{folder}/{name}"))


def first(record: CaseRecord) -> str:
    """The image that a record's mask is of."""
    return next(iter(record.images.values()))


def plain(name: str) -> str:
    """A/b_mask.png -> a/b"""
    head, _, tail = name.rpartition("/")
    bare = stem(tail).lower()
    bare = next((bare.removesuffix(each) for each in ENDINGS if bare.endswith(each)), bare)
    return f"{head.lower()}/{bare}" if head else bare
