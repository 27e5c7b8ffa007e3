"""Table 2 of AISEEME D4 with both of its columns as data: accuracy, and the share of attention inside the lungs."""

from __future__ import annotations

from itertools import permutations

from dermsearch.curriculum import Curriculum
from dermsearch.results.papers.table import GIVEN, RANDOM, PaperTable, TableColumn, TableLine, TableSection

PRINTED = {"relative_location": "Rel-Loc", "moco_v2": "MoCo v2", "swav": "SwAV", "rotation": "Rotation"}
ATTENTION = "attention"


def line(*tasks: str) -> TableLine:
    """A curriculum, and how the paper spells it; SwAV alone is spelt in another way."""
    printed = " + ".join(PRINTED[task] for task in tasks)
    return TableLine(printed, "Swav" if tasks == ("swav",) else printed, str(Curriculum(tasks)))


TABLE_2 = PaperTable(
    "aiseeme_table2",
    "AISEEME D4, Table 2: accuracy, and attention inside the lungs",
    "chest radiographs of SIIM-COVID-19, validation",
    (
        TableSection(
            "Curricula",
            "percent",
            (
                TableLine("ImageNet", "ImageNet", GIVEN),
                TableLine("Scratch", "Scratch", RANDOM),
                *(line(*tasks) for length in (1, 2) for tasks in permutations(PRINTED, length)),
                *(line(*tasks) for tasks in permutations(PRINTED, 3) if tasks[0] == "moco_v2"),
            ),
            (
                TableColumn("accuracy", "Validation Acc percent", "balanced_accuracy", "pneumonia"),
                TableColumn("inside", "AIL percent", "ail", "pneumonia", protocol=ATTENTION),
                TableColumn("mask area", "", "area", "pneumonia", protocol=ATTENTION),
                TableColumn("occlusion", "", "occlusion", "pneumonia", protocol=ATTENTION),
            ),
        ),
    ),
    {},
    (
        "The paper gives no mask area, and an even map scores it: 28 to 37 by how the masks take the heart.",
        "The header says accuracy, the caption balanced accuracy.",
    ),
)
