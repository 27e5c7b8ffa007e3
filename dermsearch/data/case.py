"""A case: one lesion at one visit, an image per modality, labels, metadata and a lesion mask."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

MODALITIES = ("derm", "clinic", "xray")
SPLITS = ("train", "val", "test")

# The seven-point checklist and the diagnosis, with the infrequent classes grouped as derm7pt's
# authors do. The order of labels and classes is the order of every table and every head.
SEVEN_POINT: dict[str, tuple[str, ...]] = {
    "diagnosis": ("BCC", "NEV", "MEL", "MISC", "SK"),
    "pigment_network": ("absent", "typical", "atypical"),
    "blue_whitish_veil": ("absent", "present"),
    "vascular_structures": ("absent", "regular", "irregular"),
    "pigmentation": ("absent", "regular", "irregular"),
    "streaks": ("absent", "regular", "irregular"),
    "dots_and_globules": ("absent", "regular", "irregular"),
    "regression_structures": ("absent", "present"),
}

# The class of each label whose sensitivity, specificity and precision the papers report.
NAMED: dict[str, str] = {
    "diagnosis": "MEL",
    "pigment_network": "atypical",
    "blue_whitish_veil": "present",
    "vascular_structures": "irregular",
    "pigmentation": "irregular",
    "streaks": "irregular",
    "dots_and_globules": "irregular",
    "regression_structures": "present",
}

METADATA = ("age", "sex", "site", "skin_type", "elevation")


@dataclass
class Case:
    """One row of a case store. Images are uint8 (side, side, 3); `mask` is uint8 (side, side), 0 or 255."""

    case: str
    lesion: str
    patient: str
    images: dict[str, np.ndarray]
    labels: dict[str, int]  # label name -> class index
    metadata: dict[str, float | str | None] = field(default_factory=dict)
    mask: np.ndarray | None = None
