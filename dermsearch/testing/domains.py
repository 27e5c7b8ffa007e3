"""What every domain promises, see docs/domains.md."""

from __future__ import annotations

import numpy as np

from dermsearch.data.case import Case
from dermsearch.data.domain import DOMAINS, Domain
from dermsearch.testing.claims import claim, named, numbered

MANY, FEW, SIDE = 9, 4, 40


def check_domain(name: str) -> None:
    """The installed domain of that name, by a few cases that it draws."""
    domain: Domain = named(DOMAINS, name)
    numbered(domain)
    for label, cls in domain.named.items():
        claim(cls in domain.labels.get(label, ()), f"{name}: {cls!r}, which papers report, is a class of {label}")
    claim(set(domain.grey) <= set(domain.modalities), f"{name}: what is grey is one of its modalities")
    many, few, bare = (list(domain.draw(n, side, 5)) for n, side in ((MANY, SIDE), (FEW, SIDE), (MANY, None)))
    claim(len(many) == len(bare) == MANY and len(few) == FEW, f"{name}: draws as many cases as it is asked for")
    kept = not any(case.images or case.mask is not None for case in bare)
    claim(kept, f"{name}: draws no image where the size is None")
    for case, other in zip(many, bare, strict=True):
        _check(domain, case)
        claim(_told(case) == _told(other), f"{name}: a case is the same with and without its images")
    for case, other in zip(few, many, strict=False):
        alike = all(np.array_equal(case.images[m], other.images[m]) for m in case.images)
        claim(alike and _told(case) == _told(other), f"{name}: case i is the same in any number of cases")


def _told(case: Case) -> tuple[object, ...]:
    return case.case, case.lesion, case.patient, case.labels, case.metadata


def _check(domain: Domain, case: Case) -> None:
    who = f"{domain.name}: {case.case}"
    claim(case.patient or case.lesion, f"{who} says whose it is")
    claim(set(case.images) <= set(domain.modalities), f"{who} has images of {', '.join(domain.modalities)} alone")
    for modality, image in case.images.items():
        kept = image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8
        claim(kept, f"{who}: an image is uint8 ({SIDE}, {SIDE}, 3), not {image.dtype} {image.shape}")
        kept = modality not in domain.grey or bool((image == image[..., :1]).all())
        claim(kept, f"{who}: an image of a grey modality, as {modality}, has three equal channels")
    claim(set(case.labels) == set(domain.labels), f"{who} says every label, {', '.join(domain.labels)}")
    for label, cls in case.labels.items():
        claim(0 <= cls < len(domain.labels[label]), f"{who}: {label} is the number of a class, not {cls}")
    columns = {column.name for column in domain.columns}
    claim(columns <= set(case.metadata), f"{who} has the metadata of every column, {', '.join(sorted(columns))}")
