"""HIBA: 1,635 dermoscopic and clinical images of lesions from the Hospital Italiano de Buenos Aires, with patients.

An export of the ISIC archive, see `isic_archive`; it unpacks to a table and images/.
"""

from __future__ import annotations

from functools import partial

from dermsearch.data.case import columns
from dermsearch.data.sources.base import Expected, Source, shared
from dermsearch.data.sources.isic_archive import DENIED, HISTORY, SITES, read

SOURCE = Source(
    name="hiba",
    title="HIBA skin lesions: Hospital Italiano de Buenos Aires",
    licence="CC BY 4.0",
    citation="Ricci Lara et al.: A dataset of skin lesion images collected in Argentina for the evaluation of AI "
    "tools in this population. Scientific Data 10, 712, 2023",
    home="https://doi.org/10.34970/587329",
    read=partial(read, tops=("hiba", "HIBA")),
    expected=Expected(cases=1635, classes={"diagnosis": {"benign": 871, "malignant": 764}}),
    notes=(
        "A case is an image: 1,280 are dermoscopic and 355 clinical, some of them of the same lesion.",
        "image_type tells how a picture was taken, which it shows itself: leave it out where it would be all that is "
        "learnt.",
    ),
    columns=(
        *shared("age", "sex", "skin_type", "site"),
        *columns("patient", words=HISTORY),
        *columns("lesion", words=(*SITES, "image_type")),
    ),
    denied=DENIED,
)
