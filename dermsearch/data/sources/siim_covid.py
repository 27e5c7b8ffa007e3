"""SIIM-FISABIO-RSNA COVID-19 detection 2021, training part: 6,334 chest radiographs of 6,054 studies, in DICOM.

    train_study_level.csv                a row for each study: its id with _study, 1 in one of four columns
    train_image_level.csv                a row for each image: its id with _image, and its study
    train/<study>/<series>/<image>.dcm

The id of a case is the image's, without _image. A study is one lesion, so that no split parts its images. The boxes
of the image table are not read.
"""

from __future__ import annotations

from dermsearch.data.sources import base
from dermsearch.storage.files import Folder

CLASSES = {
    "Negative for Pneumonia": "negative",
    "Typical Appearance": "typical",
    "Indeterminate Appearance": "indeterminate",
    "Atypical Appearance": "atypical",
}
STUDIES, IMAGES = "train_study_level.csv", "train_image_level.csv"


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every image whose study has one class."""
    top, table = base.locate(folder, [IMAGES], ["siim-covid19-detection"])
    images = base.ImageFiles(folder, f"{top}train")
    pneumonia = {name: "absent" if its == "negative" else "present" for name, its in CLASSES.items()}
    collector = base.Collector({"diagnosis": CLASSES, "pneumonia": pneumonia})
    studies: dict[str, str | None] = {}
    for where, row in base.read_table(folder, top + STUDIES, ["id", *CLASSES], collector.problems):
        study = row["id"].removesuffix("_study")
        if study in studies:
            collector.problem(study, where, "a second row of this study; the first is used")
        else:
            studies[study] = collector.marked(study, where, row, tuple(CLASSES))
    for where, row in base.read_table(folder, table, ["id", "StudyInstanceUID"], collector.problems):
        case, study = row["id"].removesuffix("_image"), row["StudyInstanceUID"]
        diagnosis = studies.get(study)
        if diagnosis is None:
            collector.problem(case, where, f"its study '{study}' has no usable row in {STUDIES}")
            continue
        collector.add(
            base.CaseRecord(
                case=case,
                images={"xray": images.stem(case) or ""},
                labels={"diagnosis": diagnosis, "pneumonia": diagnosis},
                lesion=study,
                where=where,
            )
        )
    return collector.release()


SOURCE = base.Source(
    name="siim_covid",
    title="SIIM-FISABIO-RSNA COVID-19 detection challenge, training data",
    licence="the challenge's rules: research, not commercial",
    citation="Lakhani et al.: The 2021 SIIM-FISABIO-RSNA Machine Learning COVID-19 Challenge: Annotation and Standard "
    "Exam Classification of COVID-19 Chest Radiographs. Journal of Digital Imaging, 2023",
    home="https://www.kaggle.com/competitions/siim-covid19-detection",
    read=read,
    domain="chest",
    expected=base.Expected(cases=6334, lesions=6054),
    notes=(
        "The images are DICOM: pip install pydicom.",
        "Label pneumonia is negative against the rest.",
        "The release names no patients; the images of a study stay in one split.",
    ),
)
