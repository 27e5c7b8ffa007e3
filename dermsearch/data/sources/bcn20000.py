"""BCN20000: 18,946 dermoscopic images of 5,440 lesions from the Hospital Clinic of Barcelona.

An export of the ISIC archive, see `isic_archive`; it names no patients.
"""

from __future__ import annotations

from dermsearch.data.case import columns as of_level
from dermsearch.data.sources.base import Columns, Expected, Release, Source, shared
from dermsearch.data.sources.isic_archive import DENIED
from dermsearch.data.sources.isic_archive import read as read_export
from dermsearch.storage.files import Folder


def read(folder: Folder, columns: Columns) -> Release:
    """Every image of the table."""
    return read_export(folder, columns, ("bcn20000", "BCN20000"))


SOURCE = Source(
    name="bcn20000",
    title="BCN20000: dermoscopic lesions in the wild",
    licence="CC BY-NC 4.0",
    citation="Combalia et al.: BCN20000: dermoscopic lesions in the wild. arXiv 1908.02288, 2019",
    home="https://arxiv.org/abs/1908.02288",
    read=read,
    expected=Expected(cases=18946, lesions=5440),
    notes=(
        "Images of one lesion stay in one split; the release names no patients.",
        "12,413 of its images are part of ISIC 2019: pre-training on one and testing on the other leaks.",
    ),
    columns=(*shared("age", "sex", "site"), *of_level("lesion", words=["anatom_site_special"])),
    denied=DENIED,
)
