"""What collections of the ISIC archive have in common: one table and a folder of images, as the archive exports them.

    metadata.csv, or the only .csv there     a row for each image
    images/*.jpg                             or beside the table

The id of a case is its `isic_id`. Label `diagnosis` is `diagnosis_1` (benign, malignant; indeterminate counts as
unknown), label `condition` the disease of `diagnosis_3`, in the words of older exports; older exports themselves,
with `benign_malignant` and `diagnosis`, are read too. A disease that is none of the conditions is unknown. This reader
was written after descriptions of the tables: their words may hold more than it knows.
"""

from __future__ import annotations

from collections.abc import Mapping

from dermsearch.data.sources import base
from dermsearch.errors import UserError
from dermsearch.storage.files import Folder

# How each condition begins in the archive's words, old and new; the first that fits counts.
CONDITIONS = {
    "nevus": ("nevus", "blue nevus"),
    "melanoma": ("melanoma",),
    "basal cell carcinoma": ("basal cell",),
    "squamous cell carcinoma": ("squamous cell", "keratoacanthoma"),
    "actinic keratosis": ("solar or actinic", "actinic"),
    "seborrheic keratosis": ("seborrheic",),
    "solar lentigo": ("solar lentigo",),
    "lichenoid keratosis": ("lichen",),
    "dermatofibroma": ("dermatofibroma",),
    "vascular lesion": ("vascular", "hemangioma", "angioma"),
    "scar": ("scar",),
}
WORDS = {"diagnosis": {"benign": "benign", "malignant": "malignant"}, "condition": {name: name for name in CONDITIONS}}
ROMAN = {"i": 1.0, "ii": 2.0, "iii": 3.0, "iv": 4.0, "v": 5.0, "vi": 6.0}
SITES = ("anatom_site_2", "anatom_site_special")
HISTORY = ("family_hx_mm", "personal_hx_mm")
KNOWN = "it tells how the diagnosis was made"
DENIED = {
    **{f"diagnosis_{n}": "it is the diagnosis" for n in (1, 2, 3)},
    "diagnosis_confirm_type": KNOWN,
    "concomitant_biopsy": "it was decided by who feared a cancer",
    "melanocytic": "it follows from the diagnosis",
}
MODALITY = {"dermoscopic": "derm", "clinical: overview": "clinic", "clinical: close-up": "clinic", "": "derm"}


def read(folder: Folder, columns: base.Columns, tops: tuple[str, ...]) -> base.Release:
    """Every image of the table."""
    top, table = found(folder, tops)
    images, collector = base.ImageFiles(folder, top.rstrip("/")), base.Collector(WORDS)
    for where, row in base.read_table(folder, table, ["isic_id", "lesion_id"], collector.problems):
        image, kind = row["isic_id"], row.get("image_type", "").lower()
        if kind not in MODALITY:
            collector.problem(image, where, f"'{kind}' is no image_type that is known, such as dermoscopic")
            continue
        patient, lesion = (base.word(row.get(f"{of}_id", "")) or "" for of in ("patient", "lesion"))
        fitzpatrick = row.get("fitzpatrick_skin_type", "")
        collector.add(
            base.CaseRecord(
                case=image,
                images={MODALITY[kind]: images.stem(image) or ""},
                labels={"diagnosis": malignancy(row), "condition": condition(row)},
                lesion=lesion,
                patient=patient,
                metadata={
                    "age": base.number(row.get("age_approx", "").removesuffix("+")),
                    "sex": base.sex(row.get("sex", "")),
                    "skin_type": ROMAN.get(fitzpatrick.lower()) or base.skin_type(fitzpatrick),
                    "site": base.word(row.get("anatom_site_1", "") or row.get("anatom_site_general", "")),
                    **{name: base.word(row.get(name, "")) for name in (*SITES, "image_type", "dermoscopic_type")},
                    **{name: base.truth(row.get(name, "")) for name in HISTORY},
                    **{name: base.word(row.get(name, "")) for name in DENIED},
                },
                where=where,
            )
        )
    return collector.release()


def found(folder: Folder, tops: tuple[str, ...]) -> tuple[str, str]:
    """What goes before all names, and the table: metadata.csv, or the only table there."""
    try:
        return base.locate(folder, ["metadata.csv"], tops)
    except UserError:
        tables = [n for n in folder.names() if n.lower().endswith(".csv") and n.count("/") < 2]
        if len(tables) != 1:
            raise
    return tables[0].rpartition("/")[0] + "/" * ("/" in tables[0]), tables[0]


def malignancy(row: Mapping[str, str]) -> str | None:
    """benign or malignant, or what is neither of them for the collector to refuse; None where nobody is sure."""
    told = (row.get("diagnosis_1", "") or row.get("benign_malignant", "")).lower()
    return None if told.startswith("indeterminate") else told


def condition(row: Mapping[str, str]) -> str | None:
    """The disease, by the words that it begins with."""
    told = (row.get("diagnosis_3", "") or row.get("diagnosis", "")).lower()
    if not told and row.get("diagnosis_2", "").lower().endswith("vascular"):
        told = "vascular"  # the archive goes no further there
    return next((name for name, begins in CONDITIONS.items() if told.startswith(begins)), None)
