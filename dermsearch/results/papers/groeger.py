"""Table 2 of Groeger et al. as data: pre-trained encoders on three data sets that they never saw, macro F1.

The paper trains ColorMe, SimCLR and BYOL with a ResNet and DINO and iBOT with a ViT. A study that trains tasks with
both networks has further lines, which the paper lacks: they tell the task from the network.
"""

from __future__ import annotations

from dermsearch.results.papers.table import EITHER, GIVEN, OTHER, PaperTable, TableColumn, TableLine, TableSection

DATA = {"Fitzpatrick17k": "fitz", "PAD-UFES-20": "pad", "HAM10000": "ham"}
TASKS = {"ColorMe": "resnet: colorme", "SimCLR": "resnet: simclr", "BYOL": "resnet: byol"}
TASKS |= {"DINO": "vit: dino", "iBOT": "vit: ibot"}
TUNED = ("ColorMe", "iBOT")  # that the paper fine-tunes


def family(root: str) -> str:
    """The kind of network that a root of a study is of: vit of vit_tiny_patch16_224, resnet of resnet50."""
    return "vit" if root.startswith("vit") else "resnet" if root.startswith("resnet") else root


def columns(protocol: str) -> tuple[TableColumn, ...]:
    """One for each data set that judges."""
    return tuple(
        TableColumn(name, f"macro-F1 percent|{name}", "macro_f1", "diagnosis", protocol=protocol, data=data)
        for name, data in DATA.items()
    )


LINEAR = (
    TableLine("ImageNet", "Linear Eval.|ImageNet", GIVEN),
    *(TableLine(name, f"Linear Eval.|{name}", identity) for name, identity in TASKS.items()),
)
FINE = (
    TableLine("ImageNet", "Fine-tuned|ImageNet", GIVEN),
    *(TableLine(name, f"Fine-tuned|{name}" * (name in TUNED), identity) for name, identity in TASKS.items()),
)
GUESS = (TableLine("stratified sampling", "Linear Eval.|Stratified sampling", EITHER),)
QUANTITY = "macro F1 (%)"
TABLE_2 = PaperTable(
    "groeger_table2",
    "Groeger et al., Table 2: encoders pre-trained on pooled skin images",
    "test images of three data sets, split by image",
    (
        TableSection("drawn from the shares of the classes", QUANTITY, GUESS, columns("stratified"), takes=()),
        TableSection("linear evaluation", QUANTITY, LINEAR, columns("linear"), takes=(OTHER,)),
        TableSection("fine-tuned", QUANTITY, FINE, columns("finetune"), takes=(OTHER,)),
    ),
    {},
    ("The paper gives one run of each and no spread.",),
    family=family,
)
