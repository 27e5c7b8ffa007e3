"""CheXpert: frontal chest radiographs of 64,740 patients, with 14 labels read from reports. Lateral views are left out.

    train.csv, valid.csv                                        a row for each image; the second may be missing
    train/patient00001/study1/view1_frontal.jpg                 valid/ likewise; -small or full

The id of a case is its path below train or valid. A label is 1, 0, -1 (the report is not sure) or empty (it says
nothing, taken for absent). `--uncertain` says what -1 is: unknown (the default), absent or present. `finding` is known
where one finding stands alone, support devices not counted. Images of which a report says nothing, or of findings only
that they are not there, are left out.
"""

from __future__ import annotations

import re

from dermsearch.data.domain import CHEST
from dermsearch.data.sources import base
from dermsearch.data.sources.findings import ABSENT, EACH, FINDING, PRESENT, alone
from dermsearch.storage.files import Folder

CLEAR, DEVICES = "No Finding", "Support Devices"
NAMES = (
    *("Pneumothorax", "Pneumonia", "Cardiomegaly", "Enlarged Cardiomediastinum", "Lung Opacity", "Lung Lesion"),
    *("Edema", "Consolidation", "Atelectasis", "Pleural Effusion", "Pleural Other", "Fracture", DEVICES),
)
LABELS = {name: name.lower().replace(" ", "_") for name in NAMES}
PLACE = re.compile(r"(?:.*/)?((?:train|valid)/((patient\d+)/[^/]+)/[^/]+)")
SURE = {1.0: PRESENT, 0.0: ABSENT}


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every frontal image of both tables."""
    top, table = base.locate(folder, ["train.csv"], ["CheXpert-v1.0-small", "CheXpert-v1.0"])
    unsure = {None: None, "unknown": None, "absent": ABSENT, "present": PRESENT}[columns.uncertain]
    collector = base.Collector({"finding": FINDING, **dict.fromkeys(LABELS.values(), EACH)})
    tables = [table, *([f"{top}valid.csv"] if folder.kind(f"{top}valid.csv") == "file" else [])]
    needs = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", CLEAR, *NAMES]
    for where, row in (each for name in tables for each in base.read_table(folder, name, needs, collector.problems)):
        values = {name: base.number(row[name]) for name in (CLEAR, *NAMES)}
        if row["Frontal/Lateral"] != "Frontal" or not any(values.values()):
            continue
        place = PLACE.fullmatch(row["Path"])
        if not place:
            collector.problem(row["Path"], where, "its Path has no train or valid, patient, study and view")
            continue
        told = {
            LABELS[name]: SURE.get(value, unsure) if (value := values[name]) is not None else ABSENT for name in NAMES
        }
        age = base.number(row["Age"])
        collector.add(
            base.CaseRecord(
                case=base.path_id(place[1].split("/", 1)[1].rsplit(".", 1)[0]),
                images={"xray": top + place[1]},
                labels={"finding": alone(told, values[CLEAR] == 1, (LABELS[DEVICES],)), **told},
                lesion=place[2],
                patient=place[3],
                metadata={"age": age if age else None, "sex": base.sex(row["Sex"]), "view": row["AP/PA"] or None},
                where=where,
            )
        )
    return collector.release()


SOURCE = base.Source(
    name="chexpert",
    title="CheXpert: chest radiographs with uncertainty labels",
    licence="Stanford University Dataset Research Use Agreement: research, not commercial",
    citation="Irvin, Rajpurkar et al.: CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert "
    "Comparison. AAAI, 2019",
    home="https://stanfordmlgroup.github.io/competitions/chexpert/",
    read=read,
    notes=(
        "Labels were read from reports by a program; those of the valid folder are radiologists'.",
        "The valid folder's 200 patients are dealt with all others: they are too few to select on.",
        "Chest drains stand beside most pneumothoraces: a classifier may read the drain.",
    ),
    columns=CHEST.columns,
    domain="chest",
)
