"""Fitzpatrick17k: 16,577 clinical images from two atlases, 114 conditions, with the skin type.

    fitzpatrick17k.csv                   a row for each image
    <any folder>/<md5hash>.jpg           the release gives addresses; whoever has it loads the images

The id of a case is its `md5hash`. Three labels: `diagnosis` (the three-way partition), `nine_partition`, `condition`.
"""

from __future__ import annotations

from dermsearch.data.sources import base
from dermsearch.storage.files import Folder

THREE = {"benign": 2234, "malignant": 2263, "non-neoplastic": 12080}
NINE = {
    "inflammatory": 10886,
    "malignant epidermal": 1352,
    "genodermatoses": 1194,
    "benign dermal": 1067,
    "benign epidermal": 931,
    "malignant melanoma": 573,
    "benign melanocyte": 236,
    "malignant cutaneous lymphoma": 182,
    "malignant dermal": 156,
}
LABELS = {"diagnosis": "three_partition_label", "nine_partition": "nine_partition_label", "condition": "label"}


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every row of the table whose image is there; the conditions are those that occur in the table."""
    top, table = base.locate(folder, ["fitzpatrick17k.csv"], ["fitzpatrick17k"])
    images = base.ImageFiles(folder, top.rstrip("/"))
    needs = ["md5hash", "fitzpatrick_scale", "fitzpatrick_centaur", "qc", *LABELS.values()]
    words = {"diagnosis": {name: name for name in THREE}, "nine_partition": {name: name for name in NINE}}
    damaged: list[base.Problem] = []
    rows = list(base.read_table(folder, table, needs, damaged))
    conditions = sorted({c for _, row in rows if (c := base.word(row["label"]))})
    collector = base.Collector(words | {"condition": {name: name for name in conditions}})
    collector.problems += damaged
    for where, row in rows:
        collector.add(
            base.CaseRecord(
                case=row["md5hash"],
                images={"clinic": images.stem(row["md5hash"]) or ""},
                labels={label: row[column] for label, column in LABELS.items()},
                metadata={
                    "skin_type": base.skin_type(row["fitzpatrick_scale"]),
                    "fitzpatrick_centaur": base.skin_type(row["fitzpatrick_centaur"]),
                    "qc": base.word(row["qc"]),
                },
                where=where,
            )
        )
    return collector.release()


SOURCE = base.Source(
    name="fitzpatrick17k",
    title="Fitzpatrick17k",
    licence="CC BY-NC-SA 3.0 for the annotations; the images belong to the atlases",
    citation="Groh et al.: Evaluating Deep Neural Networks Trained on Clinical Images in Dermatology with the "
    "Fitzpatrick 17k Dataset. CVPR Workshops, 2021",
    home="https://github.com/mattgroh/fitzpatrick17k",
    read=read,
    expected=base.Expected(cases=16577, classes={"diagnosis": THREE, "nine_partition": NINE}),
    notes=(
        "There is no published split, and neither patients nor lesions are named.",
        "Complete, the release has 114 conditions; images whose addresses no longer answer are listed as problems.",
        "It holds near duplicates and images that show no skin; `qc` tells what a dermatologist saw of a sample.",
    ),
    columns=base.shared("skin_type"),
    denied={"qc": "a dermatologist wrote it with the label in sight"},
)
