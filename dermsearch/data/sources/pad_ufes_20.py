"""PAD-UFES-20: 2,298 clinical images, taken with telephones, of 1,891 lesions of 1,373 patients, with 22 features.

    metadata.csv                         a row for each image; `img_id` is its file's name
    images/imgs_part_1/*.png             and imgs_part_2, imgs_part_3, or all in images/

The id of a case is its `img_id` without .png. A `lesion_id` is unique within its patient only: 250 of the 1,641 are
those of two patients' lesions. So a lesion is known by both. Every feature of patient and lesion is kept as metadata:
`gender`, `region` and `fitspatrick` under the names sex, site and skin_type that all data sets share, the others
under their own.
"""

from __future__ import annotations

from dermsearch.data.case import columns
from dermsearch.data.sources import base
from dermsearch.storage.files import Folder

COUNTS = {"BCC": 845, "ACK": 730, "NEV": 244, "SEK": 235, "SCC": 192, "MEL": 52}
HISTORY = ("skin_cancer_history", "cancer_history")
LIFE = ("smoke", "drink", "pesticide", *HISTORY, "has_piped_water", "has_sewage_system")
SIGNS = ("itch", "grew", "hurt", "changed", "bleed", "elevation")
TRUTHS = (*LIFE, *SIGNS, "biopsed")
WORDS = ("background_father", "background_mother")
SIZES = ("diameter_1", "diameter_2")
NUMBERS = ("age", *SIZES)
NEEDS = (
    *("img_id", "patient_id", "lesion_id", "diagnostic", "gender", "region", "fitspatrick"),
    *(*NUMBERS, *WORDS, *TRUTHS),
)


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every image of the metadata table."""
    top, table = base.locate(folder, ["metadata.csv"], ["PAD-UFES-20", "pad_ufes_20"])
    images = base.ImageFiles(folder, f"{top}images", *(f"{top}imgs_part_{part}" for part in (1, 2, 3)))
    collector = base.Collector({"diagnosis": {name: name for name in COUNTS}})
    for where, row in base.read_table(folder, table, NEEDS, collector.problems):
        case = row["img_id"].removesuffix(".png")
        patient, lesion = base.word(row["patient_id"]) or "", base.word(row["lesion_id"]) or ""
        collector.add(
            base.CaseRecord(
                case=case,
                images={"clinic": images.stem(case) or ""},
                labels={"diagnosis": row["diagnostic"]},
                lesion=f"{patient}_{lesion}" if patient and lesion else lesion,
                patient=patient,
                metadata={
                    **base.metadata(row, sex="gender", site="region", skin_type="fitspatrick"),
                    **{name: base.number(row[name]) for name in NUMBERS},
                    **{name: base.word(row[name]) for name in WORDS},
                    **{name: base.truth(row[name]) for name in TRUTHS},
                },
                where=where,
            )
        )
    return collector.release()


SOURCE = base.Source(
    name="pad_ufes_20",
    title="PAD-UFES-20: smartphone images of skin lesions with clinical data",
    licence="CC BY 4.0",
    citation="Pacheco et al.: PAD-UFES-20: a skin lesion dataset composed of patient data and clinical images "
    "collected from smartphones. Data in Brief 32, 106221, 2020",
    home="https://doi.org/10.17632/zr7vgbcyr2.1",
    read=read,
    expected=base.Expected(cases=2298, lesions=1891, patients=1373, classes={"diagnosis": COUNTS}),
    notes=(
        "There is no published split; the images of a patient stay in one.",
        "Most features of the patient are missing in 804 rows.",
    ),
    columns=(
        *base.shared("age", "sex", "skin_type", "site", "elevation"),
        *columns("patient", words=(*WORDS, *LIFE)),
        *columns("lesion", numbers=SIZES, words=SIGNS[:-1]),
    ),
    denied={"biopsed": "it follows from the diagnosis: every cancer was biopsied"},
)
