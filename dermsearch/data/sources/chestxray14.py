"""NIH ChestX-ray14: 112,120 frontal chest radiographs of 30,805 patients, with 14 findings read from reports.

    Data_Entry_2017_v2020.csv               a row for each image, or Data_Entry_2017.csv
    images_001/images/*.png ... images_012  or images/*.png
    train_val_list.txt, test_list.txt       the official split, by patient, where both are there
    BBox_List_2017.csv                      boxes around some findings, where it is there

The id of a case is its image's name without .png. `finding` is known where one stands alone. The first table has ages
above 400, which are taken for unknown. A box is kept as "pneumonia 10 20 30 40": left, top, width and height in pixels
of the original; it is no input, since it was drawn around what was found.
"""

from __future__ import annotations

from collections import defaultdict

from dermsearch.data.domain import CHEST
from dermsearch.data.sources import base
from dermsearch.data.sources.findings import ABSENT, EACH, FINDING, PRESENT, alone
from dermsearch.delimited import rows_of
from dermsearch.storage.files import Folder

CLEAR = "No Finding"
NAMES = (
    *("Pneumothorax", "Pneumonia", "Cardiomegaly", "Atelectasis", "Effusion", "Infiltration", "Mass", "Nodule"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)
LABELS = {name: name.lower() for name in NAMES}
NEEDS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}
BOXES = "BBox_List_2017.csv"
OLDEST = 120


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every image of the table."""
    top, table = base.locate(folder, TABLES, ["ChestX-ray14", "CXR8", "NIH"])
    there = sorted(name for name in folder.entries(top.rstrip("/")) if name.startswith(f"{top}images"))
    folders = (name for name in there if folder.kind(name) == "folder")  # archives may lie beside
    images = base.ImageFiles(folder, *folders)
    collector = base.Collector({"finding": FINDING, **dict.fromkeys(LABELS.values(), EACH)})
    splits, boxes = split_of(folder, top), boxes_of(folder, top)
    for where, row in base.read_table(folder, table, NEEDS, collector.problems):
        name, words = row["Image Index"], row["Finding Labels"].split("|")
        other = [word for word in words if word not in (*NAMES, CLEAR)]
        if other:
            collector.problem(name, where, f"'{other[0]}' is none of the 14 findings")
            continue
        told: dict[str, str | None] = {LABELS[each]: PRESENT if each in words else ABSENT for each in NAMES}
        age = base.number(row["Patient Age"])
        collector.add(
            base.CaseRecord(
                case=base.stem(name),
                images={"xray": images.stem(base.stem(name)) or ""},
                labels={"finding": alone(told, words == [CLEAR]), **told},
                patient=row["Patient ID"],
                metadata={
                    "age": None if age is None or age > OLDEST else age,
                    "sex": base.sex(row["Patient Gender"]),
                    "view": row["View Position"] or None,
                    "boxes": "; ".join(boxes[name]) or None,
                },
                split=splits.get(name),
                where=where,
            )
        )
    return collector.release()


def split_of(folder: Folder, top: str) -> dict[str, str]:
    """The official split of each image; empty unless both lists are there."""
    if any(folder.kind(top + name) != "file" for name in LISTS):
        return {}
    return {line.strip(): split for name, split in LISTS.items() for line in folder.text(top + name).splitlines()}


def boxes_of(folder: Folder, top: str) -> dict[str, list[str]]:
    """The boxes of each image."""
    found: dict[str, list[str]] = defaultdict(list)
    if folder.kind(top + BOXES) == "file":
        for _, cells in rows_of(folder.text(top + BOXES), f"{folder.where}: {top}{BOXES}"):  # its header has no numbers
            corner = [value for value in map(base.number, cells[2:]) if value is not None][:4]
            if len(corner) == 4:
                found[cells[0]].append(" ".join([cells[1].lower(), *(f"{value:.0f}" for value in corner)]))
    return found


SOURCE = base.Source(
    name="chestxray14",
    title="NIH ChestX-ray14",
    licence="free of restrictions, with the NIH Clinical Center and the paper named",
    citation="Wang et al.: ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised "
    "Classification and Localization of Common Thorax Diseases. CVPR, 2017",
    home="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    read=read,
    expected=base.Expected(cases=112120, patients=30805),
    notes=(
        "Labels were read from reports by a program, and many are wrong.",
        "Only 322 images show pneumonia alone, against 60,361 without a finding.",
    ),
    columns=CHEST.columns,
    domain="chest",
    denied={"boxes": "they were drawn around what was found"},
)
