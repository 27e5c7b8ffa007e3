"""ISIC 2020, training part: 33,126 dermoscopic images of 2,056 patients, 584 of them of melanoma.

    ISIC_2020_Training_GroundTruth.csv      a row for each image (Kaggle calls it train.csv)
    ISIC_2020_Training_Duplicates.csv       pairs of images that show the same, where it is there
    train/*.jpg                             or jpeg/train, ISIC_2020_Training_JPEG/train, images

The id of a case is its `image_name`. Images of the duplicates list get one lesion, so that no split parts them.
Label `diagnosis` is `target` (benign, malignant); label `condition` is the finer `diagnosis` column, which is
unknown for most benign images.
"""

from __future__ import annotations

from dermsearch.data.sources import base
from dermsearch.storage.files import Folder

CONDITIONS = {
    "nevus": 5193,
    "melanoma": 584,
    "seborrheic keratosis": 135,
    "lentigo NOS": 44,
    "lichenoid keratosis": 37,
    "solar lentigo": 7,
    "cafe-au-lait macule": 1,
    "atypical melanocytic proliferation": 1,
}
WORDS = {"diagnosis": {"0": "benign", "1": "malignant"}, "condition": {name: name for name in CONDITIONS}}
NEEDS = ("image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge", "diagnosis", "target")
FOLDERS = ("jpeg", "ISIC_2020_Training_JPEG", "train", "images")
DUPLICATES = "ISIC_2020_Training_Duplicates.csv"


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every image of the ground truth."""
    names = ["ISIC_2020_Training_GroundTruth.csv", "train.csv"]
    top, table = base.locate(folder, names, ["ISIC_2020", "ISIC2020", "isic2020"])
    images = base.ImageFiles(folder, *(top + name for name in FOLDERS))
    collector = base.Collector(WORDS)
    lesions = duplicates(folder, top + DUPLICATES, collector)
    for where, row in base.read_table(folder, table, NEEDS, collector.problems):
        collector.add(
            base.CaseRecord(
                case=row["image_name"],
                images={"derm": images.stem(row["image_name"]) or ""},
                labels={"diagnosis": row["target"], "condition": row["diagnosis"]},
                lesion=lesions.get(row["image_name"], ""),
                patient=base.word(row["patient_id"]) or "",
                metadata=base.metadata(row, age="age_approx", sex="sex", site="anatom_site_general_challenge"),
                where=where,
            )
        )
    return collector.release()


def duplicates(folder: Folder, table: str, collector: base.Collector) -> dict[str, str]:
    """A common lesion for each image of the duplicates list: the first name of all that are the same."""
    same: dict[str, set[str]] = {}
    if folder.kind(table) == "file":
        for _, row in base.read_table(folder, table, ["image_name_1", "image_name_2"], collector.problems):
            first, second = row["image_name_1"], row["image_name_2"]
            joined = same.get(first, {first}) | same.get(second, {second})
            same.update(dict.fromkeys(joined, joined))
    return {image: min(joined) for image, joined in same.items()}


SOURCE = base.Source(
    name="isic2020",
    title="SIIM-ISIC melanoma classification 2020, training data",
    licence="CC BY-NC 4.0",
    citation="Rotemberg et al.: A patient-centric dataset of images and metadata for identifying melanomas using "
    "clinical context. Scientific Data 8, 34, 2021",
    home="https://doi.org/10.34970/2020-ds01",
    read=read,
    expected=base.Expected(
        cases=33126, patients=2056, classes={"diagnosis": {"benign": 32542, "malignant": 584}, "condition": CONDITIONS}
    ),
    notes=(
        "A constant answer 'benign' is right for 98.2% of the images: look at balanced accuracy and AUC.",
        "425 pairs of images are duplicates; with ISIC_2020_Training_Duplicates.csv in the folder each pair is one "
        "lesion and stays in one split. Without it the release names no lesions.",
    ),
    columns=base.shared("age", "sex", "site"),
)
