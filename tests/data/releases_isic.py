"""Small copies of releases that come from the ISIC archive or from its challenge of 2024."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from data.writing import csv_table, images, table

from dermsearch.data.sources import slice3d as release


def slice3d_rows() -> Iterator[dict[str, str]]:
    """Six patients with one to five tiles, every column; a value is empty, a site unknown, two lesions known."""
    rng, number = random.Random(0), 15670
    for patient in range(6):
        for tile in range(1 + patient % 5):
            number += 1
            cancer = (patient, tile) == (1, 1)
            row = {"isic_id": f"ISIC_{number:07d}", "target": str(int(cancer)), "patient_id": f"IP_{patient:07d}"}
            row |= {
                "age_approx": "" if patient == 4 else f"{60 + 5 * patient}.0",
                "sex": ["male", "female"][patient % 2],
            }
            row |= {"anatom_site_general": ["posterior torso", "head/neck", ""][tile % 3], "image_type": "TBP tile"}
            row |= {name: f"{rng.uniform(0, 50):.4f}" for name in release.NUMBERS}
            row |= {"tbp_tile_type": "3D: XP", "tbp_lv_location": "Unknown", "tbp_lv_location_simple": "Torso Back"}
            row |= dict.fromkeys(release.DENIED.keys() - row.keys(), "")
            row |= {
                "lesion_id": "IL_0000001" if cancer else "",
                "iddx_full": "Malignant::Melanoma" if cancer else "Benign",
            }
            yield row | {"attribution": "A hospital, with a comma", "copyright_license": "CC-BY"}


def slice3d(root: Path) -> Path:
    """As Kaggle has it, with tiles in their folder, one of which no row tells of."""
    rows = list(slice3d_rows())
    csv_table(root / "train-metadata.csv", rows)
    images(root / "train-image/image", *(f"{row['isic_id']}.jpg" for row in rows), "ISIC_9999999.jpg")
    table(root / "test-metadata.csv", ["isic_id,patient_id", "ISIC_0015657,IP_1"])
    return root


def slice3d_archive(root: Path) -> Path:
    """As the archive has it: truth, supplement and the rest are three tables."""
    rows, folder = list(slice3d_rows()), root / "ISIC_2024"
    of_supplement = {"isic_id", *release.DENIED} - {"image_type"}
    parts = {"GroundTruth": {"isic_id", "target"}, "Supplement": of_supplement}
    parts["Metadata"] = rows[0].keys() - (of_supplement | {"target"}) | {"isic_id"}
    for name, keep in parts.items():
        told = [{("malignant" if k == "target" else k): v for k, v in row.items() if k in keep} for row in rows]
        if name == "GroundTruth":
            told = [row | {"malignant": f"{row['malignant']}.0"} for row in told]
        csv_table(folder / f"ISIC_2024_Training_{name}.csv", told)
    images(folder / "ISIC_2024_Training_Input", *(f"{row['isic_id']}.jpg" for row in rows))
    return folder


ARCHIVE = (
    "isic_id,attribution,copyright_license,age_approx,anatom_site_1,anatom_site_2,anatom_site_special,"
    "concomitant_biopsy,dermoscopic_type,diagnosis_1,diagnosis_2,diagnosis_3,diagnosis_confirm_type,family_hx_mm,"
    "fitzpatrick_skin_type,image_type,lesion_id,patient_id,personal_hx_mm,sex"
)


def hiba(root: Path) -> Path:
    """Five images of three patients: an age of 85+, Roman skin types, a lesion seen twice, one without a disease."""
    rows = [
        "ISIC_0000001,H,CC-BY,45,Head and neck,Face,,True,contact polarized,Malignant,x,Basal cell carcinoma,"
        "histopathology,False,II,dermoscopic,IL_1,IP_1,False,male",
        "ISIC_0000002,H,CC-BY,45,Head and neck,Face,,True,,Malignant,x,Basal cell carcinoma,histopathology,False,II,"
        "clinical: overview,IL_1,IP_1,False,male",
        'ISIC_0000003,H,CC-BY,85+,Trunk,,acral NOS,False,contact non-polarized,Benign,x,"Nevus, Acral",,,III,'
        "dermoscopic,IL_2,IP_2,True,female",
        "ISIC_0000004,H,CC-BY,,,,,False,,Benign,Benign soft tissue proliferations - Vascular,,,True,,"
        "clinical: close-up,IL_3,IP_3,,",
        "ISIC_0000005,H,CC-BY,30,Trunk,,,True,,Malignant,x,Melanoma in situ,histopathology,,vi,dermoscopic,IL_4,IP_3,,",
    ]
    table(root / "HIBA/metadata.csv", [ARCHIVE, *rows])
    images(root / "HIBA/images", *(f"{row.split(',')[0]}.jpg" for row in rows))
    return root / "HIBA"


def bcn20000(root: Path) -> Path:
    """Four images of two lesions and of none; one is not diagnosed."""
    rows = [
        "isic_id,attribution,copyright_license,age_approx,anatom_site_general,anatom_site_special,concomitant_biopsy,"
        "diagnosis_1,diagnosis_2,diagnosis_3,diagnosis_confirm_type,image_type,lesion_id,melanocytic,sex",
        "ISIC_0053453,H,CC-BY-NC,40,anterior torso,,False,Benign,x,Nevus,,dermoscopic,IL_1,True,female",
        "ISIC_0053454,H,CC-BY-NC,40,anterior torso,,False,Benign,x,Nevus,,dermoscopic,IL_1,True,female",
        "ISIC_0053455,H,CC-BY-NC,75,head/neck,,True,Indeterminate,x,Solar or actinic keratosis,histopathology,"
        "dermoscopic,IL_2,,male",
        "ISIC_0053456,H,CC-BY-NC,,,oral or genital,,,,,,dermoscopic,,,",
    ]
    table(root / "metadata.csv", rows)
    images(root / "images", *(f"{row.split(',')[0]}.jpg" for row in rows[1:]))
    return root
