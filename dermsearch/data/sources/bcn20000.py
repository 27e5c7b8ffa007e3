"""BCN20000: 18,946 dermoscopic images of 5,440 lesions from the Hospital Clinic of Barcelona.

An export of the ISIC archive, see `isic_archive`; it names no patients.
"""

from __future__ import annotations

from functools import partial

from dermsearch.data.case import columns
from dermsearch.data.sources.base import Expected, Source, shared
from dermsearch.data.sources.isic_archive import DENIED, read

SOURCE = Source(
    name="bcn20000",
    title="BCN20000: dermoscopic lesions in the wild",
    licence="CC BY-NC 4.0",
    citation="Combalia et al.: BCN20000: dermoscopic lesions in the wild. arXiv 1908.02288, 2019",
    home="https://arxiv.org/abs/1908.02288",
    read=partial(read, tops=("bcn20000", "BCN20000")),
    expected=Expected(cases=18946, lesions=5440),
    notes=(
        "Images of one lesion stay in one split; the release names no patients.",
        "12,413 of its images are part of ISIC 2019: pre-training on one and testing on the other leaks.",
    ),
    columns=(*shared("age", "sex", "site"), *columns("lesion", words=["anatom_site_special"])),
    denied=DENIED,
)
