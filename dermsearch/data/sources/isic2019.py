"""ISIC 2019, training part: 25,331 dermoscopic images in 8 classes, from HAM10000, BCN20000 and MSK.

    ISIC_2019_Training_GroundTruth.csv      image, then a column for each class: 1.0 in one of them
    ISIC_2019_Training_Metadata.csv         age, site, sex and lesion of each image
    ISIC_2019_Training_Input/*.jpg          some names end in _downsampled

The id of a case is its `image`. The column UNK, which is for the challenge's test part, means: no diagnosis.
"""

from __future__ import annotations

from dermsearch.data.sources import base
from dermsearch.storage.files import Folder

COUNTS = {"MEL": 4522, "NV": 12875, "BCC": 3323, "AK": 867, "BKL": 2624, "DF": 239, "VASC": 253, "SCC": 628}
MARKS = (*COUNTS, "UNK")
TABLE, ABOUT = "ISIC_2019_Training_GroundTruth.csv", "ISIC_2019_Training_Metadata.csv"
SHRUNK = "_downsampled"


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every image of the ground truth, with what the metadata table says of it."""
    top, table = base.locate(folder, [TABLE], ["ISIC_2019", "ISIC2019", "isic2019"])
    images = base.ImageFiles(folder, f"{top}ISIC_2019_Training_Input", f"{top}images")
    collector = base.Collector({"diagnosis": {name: name for name in COUNTS}})
    about = by_image(folder, top + ABOUT, collector)
    for where, row in base.read_table(folder, table, ["image", *MARKS], collector.problems):
        image = row["image"]
        known = about.get(image, {})
        diagnosis = collector.marked(image, where, row, MARKS)
        if diagnosis is None:
            continue
        # Copies of the release differ in whether a file keeps the suffix that its row has, and the other way round.
        file = images.stem(image) or images.stem(image + SHRUNK) or images.stem(image.removesuffix(SHRUNK))
        collector.add(
            base.CaseRecord(
                case=image,
                images={"derm": file or ""},
                labels={"diagnosis": diagnosis},
                lesion=base.word(known.get("lesion_id", "")) or "",
                metadata=base.metadata(known, age="age_approx", sex="sex", site="anatom_site_general"),
                where=where,
            )
        )
    return collector.release()


def by_image(folder: Folder, table: str, collector: base.Collector) -> dict[str, dict[str, str]]:
    """The rows of the metadata table by image; a second row of an image is a problem."""
    found: dict[str, dict[str, str]] = {}
    needs = ["image", "age_approx", "anatom_site_general", "lesion_id", "sex"]
    for where, row in base.read_table(folder, table, needs, collector.problems):
        if row["image"] in found:
            collector.problem(row["image"], where, "a second row of this image; the first is used")
        else:
            found[row["image"]] = row
    return found


SOURCE = base.Source(
    name="isic2019",
    title="ISIC 2019 challenge, training data",
    licence="CC BY-NC 4.0",
    citation="Tschandl et al.: HAM10000, Scientific Data 2018; Codella et al.: ISBI 2017 challenge, ISBI 2018; "
    "Combalia et al.: BCN20000, arXiv 1908.02288, 2019",
    home="https://challenge.isic-archive.com/landing/2019/",
    read=read,
    expected=base.Expected(cases=25331, classes={"diagnosis": COUNTS}),
    notes=(
        "Images of one lesion stay in one split; about 2,000 images name no lesion, and the release no patients.",
        "HAM10000 is part of ISIC 2019: pre-training on one and testing on the other leaks.",
    ),
    columns=base.shared("age", "sex", "site"),
)
