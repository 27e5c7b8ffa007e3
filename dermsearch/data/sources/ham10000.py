"""HAM10000: 10,015 dermoscopic images of 7,470 pigmented lesions, with a diagnosis and a lesion mask each.

    HAM10000_metadata.csv                                a row for each image, also found without .csv
    HAM10000_images_part_1/*.jpg, HAM10000_images_part_2/*.jpg   or images/*.jpg
    HAM10000_segmentations_lesion_tschandl/*_segmentation.png    or masks/*.png, or none

Several images may show one lesion (`lesion_id`). The id of a case is its `image_id`.
"""

from __future__ import annotations

from dermsearch.data.sources import base
from dermsearch.storage.files import Folder

COUNTS = {"nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115}
NEEDS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
FOLDERS = (
    "HAM10000_images_part_1",
    "HAM10000_images_part_2",
    "images",
    "HAM10000_segmentations_lesion_tschandl",
    "masks",
)


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every image of the metadata table."""
    top, table = base.locate(folder, ["HAM10000_metadata.csv", "HAM10000_metadata"], ["ham10000", "HAM10000"])
    images = base.ImageFiles(folder, *(top + name for name in FOLDERS))
    collector = base.Collector({"diagnosis": {name: name for name in COUNTS}})
    for where, row in base.read_table(folder, table, NEEDS, collector.problems):
        collector.add(
            base.CaseRecord(
                case=row["image_id"],
                images={"derm": images.stem(row["image_id"]) or ""},
                labels={"diagnosis": row["dx"]},
                lesion=row["lesion_id"],
                metadata=base.metadata(row, age="age", sex="sex", site="localization", dx_type="dx_type"),
                mask=images.stem(f"{row['image_id']}_segmentation"),
                where=where,
            )
        )
    return collector.release()


SOURCE = base.Source(
    name="ham10000",
    title="HAM10000: Human Against Machine with 10000 training images",
    licence="CC BY-NC 4.0",
    citation="Tschandl, Rosendahl, Kittler: The HAM10000 dataset, a large collection of multi-source dermatoscopic "
    "images of common pigmented skin lesions. Scientific Data 5, 180161, 2018",
    home="https://doi.org/10.7910/DVN/DBW86T",
    read=read,
    expected=base.Expected(cases=10015, lesions=7470, classes={"diagnosis": COUNTS}),
    notes=(
        "Images of one lesion stay in one split; the release names no patients.",
        "HAM10000 is part of ISIC 2019: pre-training on one and testing on the other leaks.",
    ),
    columns=base.shared("age", "sex", "site"),
    denied={"dx_type": "it tells how the diagnosis was made, and all 3,704 lesions that were followed up are nevi"},
)
