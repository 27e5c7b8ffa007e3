"""derm7pt: 1,011 lesions, each with a dermoscopic and a clinical image, a diagnosis and the seven-point checklist.

    release_v0/meta/meta.csv                             a row for each lesion
    release_v0/meta/{train,valid,test}_indexes.csv       its numbers of rows, from 0: the published split
    release_v0/images/<34 folders>/*.jpg, *.JPG          named by the columns `derm` and `clinic`

Infrequent words are grouped into 24 classes as the authors group them. The id of a case is its `case_num`.
"""

from __future__ import annotations

from dermsearch.data.sources import base
from dermsearch.storage.files import Folder
from dermsearch.words import many

PLAIN = {"absent": "absent", "regular": "regular", "irregular": "irregular"}
WORDS = {
    "diagnosis": {
        "basal cell carcinoma": "BCC",
        "blue nevus": "NEV",
        "clark nevus": "NEV",
        "combined nevus": "NEV",
        "congenital nevus": "NEV",
        "dermal nevus": "NEV",
        "recurrent nevus": "NEV",
        "reed or spitz nevus": "NEV",
        "melanoma": "MEL",
        "melanoma (in situ)": "MEL",
        "melanoma (less than 0.76 mm)": "MEL",
        "melanoma (0.76 to 1.5 mm)": "MEL",
        "melanoma (more than 1.5 mm)": "MEL",
        "melanoma metastasis": "MEL",
        "dermatofibroma": "MISC",
        "lentigo": "MISC",
        "melanosis": "MISC",
        "miscellaneous": "MISC",
        "vascular lesion": "MISC",
        "seborrheic keratosis": "SK",
    },
    "pigment_network": {"absent": "absent", "typical": "typical", "atypical": "atypical"},
    "blue_whitish_veil": {"absent": "absent", "present": "present"},
    "vascular_structures": {
        "absent": "absent",
        "arborizing": "regular",
        "comma": "regular",
        "hairpin": "regular",
        "within regression": "regular",
        "wreath": "regular",
        "dotted": "irregular",
        "linear irregular": "irregular",
    },
    "pigmentation": {
        "absent": "absent",
        "diffuse regular": "regular",
        "localized regular": "regular",
        "diffuse irregular": "irregular",
        "localized irregular": "irregular",
    },
    "streaks": PLAIN,
    "dots_and_globules": PLAIN,
    "regression_structures": {
        "absent": "absent",
        "blue areas": "present",
        "white areas": "present",
        "combinations": "present",
    },
}
INDEXES = {"train": "train_indexes.csv", "val": "valid_indexes.csv", "test": "test_indexes.csv"}
KEPT = ("level_of_diagnostic_difficulty", "management", "case_id", "notes")


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every row of meta.csv that exactly one of the index files names."""
    top, table = base.locate(folder, ["meta/meta.csv"], ["release_v0"])
    images = base.ImageFiles(folder, f"{top}images")
    collector = base.Collector(WORDS)
    named = published(folder, top, collector)
    needs = ["case_num", "derm", "clinic", *WORDS]
    damaged: list[base.Problem] = []
    good = -1
    for good, (where, row) in enumerate(base.read_table(folder, table, needs, damaged)):
        index = good + len(damaged)  # a damaged row counts as a row
        splits = named.get(index, [])
        if len(splits) != 1:
            files = " and ".join(INDEXES[s] for s in splits)
            said = f"is in both {files}" if files else f"is in none of {', '.join(INDEXES.values())}"
            collector.problem(row["case_num"], where, f"row {index} (from 0) {said}")
            continue
        collector.add(
            base.CaseRecord(
                case=row["case_num"],
                images={m: images.path(f"{top}images/{row[m]}") if row[m] else "" for m in ("derm", "clinic")},
                labels={label: row[label] for label in WORDS},
                metadata={
                    **base.metadata(row, sex="sex", site="location", elevation="elevation"),
                    "seven_point_score": base.number(row.get("seven_point_score", "")),
                    **{name: base.word(row.get(name, "")) for name in KEPT},
                },
                split=splits[0],
                where=where,
            )
        )
    collector.problems += damaged
    rows = good + 1 + len(damaged)
    for index in sorted(i for i in named if i >= rows):
        files = " and ".join(INDEXES[s] for s in named[index])
        collector.problem("", files, f"names row {index}, and {table} has {many(rows, 'row')}, counted from 0")
    return collector.release()


def published(folder: Folder, top: str, collector: base.Collector) -> dict[int, list[str]]:
    """For each number of a row the splits whose index files name it."""
    named: dict[int, list[str]] = {}
    for split, file in INDEXES.items():
        for where, row in base.read_table(folder, f"{top}meta/{file}", ["indexes"], collector.problems):
            index = base.number(row["indexes"])
            if index is None or index != int(index) or index < 0:
                collector.problem("", where, f"'{row['indexes']}' is no number of a row")
            elif split not in (splits := named.setdefault(int(index), [])):
                splits.append(split)
    return named


SOURCE = base.Source(
    name="derm7pt",
    title="Seven-point checklist dermatology dataset (derm7pt)",
    licence="for research, to registered users; it may not be redistributed",
    citation="Kawahara, Daneshvar, Argenziano, Hamarneh: Seven-Point Checklist and Skin Lesion Classification using "
    "Multitask Multimodal Neural Nets. IEEE Journal of Biomedical and Health Informatics 23(2), 2019",
    home="https://derm.cs.sfu.ca",
    read=read,
    expected=base.Expected(
        cases=1011,
        splits={"train": 413, "val": 203, "test": 395},
        classes={
            "diagnosis": {"BCC": 42, "NEV": 575, "MEL": 252, "MISC": 97, "SK": 45},
            "pigment_network": {"absent": 400, "typical": 381, "atypical": 230},
            "blue_whitish_veil": {"absent": 816, "present": 195},
            "vascular_structures": {"absent": 823, "regular": 117, "irregular": 71},
            "pigmentation": {"absent": 588, "regular": 118, "irregular": 305},
            "streaks": {"absent": 653, "regular": 107, "irregular": 251},
            "dots_and_globules": {"absent": 229, "regular": 334, "irregular": 448},
            "regression_structures": {"absent": 758, "present": 253},
        },
    ),
    notes=(
        "The release names no patients, so a patient's lesions may be in several splits.",
        "In 9 cases a dermoscopic image stands in for the clinical one; their `notes` say so.",
    ),
    columns=base.shared("sex", "site", "elevation"),
    denied={
        "seven_point_score": "it is the sum of the labels",
        "management": "it was decided with the diagnosis known",
        "level_of_diagnostic_difficulty": "it was judged with the diagnosis known",
    },
)
