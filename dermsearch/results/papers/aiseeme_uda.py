"""Tables 4 to 6 of AISEEME D4 as data: from made or real cases to real ones, without alignment, by DCAN and by theirs.

A study fills them whose data sets have the names that stand here: one target with two sources is two data sets of the
same store. What is measured is of the encoder that the study begins with: the paper pre-trains by no task here.
"""

from __future__ import annotations

from dermsearch.results.papers.table import EITHER, PaperTable, TableColumn, TableLine, TableSection

METHODS = {"No Alignment": "source_only", "DCAN Alignment": "dcan", "Our Alignment": "our_alignment"}
ALSO = {"AdaBN": "adabn", "DANN": "dann"}  # that the paper does not have
TUNED = "finetune"  # on the target itself
# Of a target and a source as printed: the data set that a line's fit is judged on.
DATA = {
    ("CheXpert", "Synthetic"): "chexpert",
    ("CheXpert", "ChestX-ray8"): "chexpert_from_chestxray14",
    ("ChestX-ray8", "Synthetic"): "chestxray14",
    ("ChestX-ray8", "ChestXpert"): "chestxray14_from_chexpert",
}
COLUMNS = (
    TableColumn("balanced accuracy", "Balanced Acc percent", "balanced_accuracy", "finding", axis="%"),
    TableColumn("collapsed", "", "collapsed", "finding", axis="%"),
)


def section(target: str, source: str) -> TableSection:
    """A pair of data sets: what the paper has of it, and two methods beside."""
    data = DATA[target, source]
    at = f"target={target}|source={source}|"
    lines = [TableLine(name.lower(), at + name, EITHER, fit, data) for name, fit in METHODS.items()]
    lines += [TableLine(name, "", EITHER, fit, data) for name, fit in ALSO.items()]
    return TableSection(f"{source} to {target}", "", tuple(lines), COLUMNS, takes=())


def itself(target: str) -> TableSection:
    """A target learnt from its own labels."""
    printed, data = f"target={target}|source={target}|No Alignment", DATA[target, "Synthetic"]
    line = TableLine("no alignment", printed, EITHER, TUNED, data)
    return TableSection(f"{target} itself", "", (line,), COLUMNS[:1], takes=())


def form(number: int, what: str, sections: tuple[TableSection, ...]) -> PaperTable:
    """One of the three tables."""
    notes = (
        "Collapsed: 100 where nearly all cases are put into one class, whose score is 50 or 25 %.",
        "The paper gives one run of each, no spread and no number of test images.",
    )
    title = f"AISEEME D4, Table {number}: {what}"
    return PaperTable(f"aiseeme_table{number}", title, "chest radiographs of the target", sections, {}, notes)


MADE = section("CheXpert", "Synthetic"), section("ChestX-ray8", "Synthetic")
REAL = section("CheXpert", "ChestX-ray8"), section("ChestX-ray8", "ChestXpert")
UDA = (
    form(4, "none or pneumothorax", (MADE[0], REAL[0], MADE[1], REAL[1])),
    form(5, "none or any finding", (MADE[0], itself("CheXpert"))),
    form(6, "four classes", (MADE[0], itself("CheXpert"), MADE[1], itself("ChestX-ray8"))),
)
