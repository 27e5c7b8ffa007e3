"""Tables 2 and 3 of Aggarwal as data: loss and accuracy over the epochs, and of the final test.

The paper trains one model, cross-entropy and contrast of equal weight. A study over the weight between them has that
line and, beside it, each of the two alone.
"""

from __future__ import annotations

from dermsearch.results.papers.by_epoch import fill_epochs
from dermsearch.results.papers.predicted import ACCURACY
from dermsearch.results.papers.table import EITHER, PaperTable, TableColumn, TableLine, TableSection

JOINT = "joint_supervised"
TELLING = {JOINT: "weight"}
DATA = "ISIC 2020, split by image"
LOSS = "cross-entropy + weight x contrast"
EPOCHS = (1, 5, 10, 15, 20)

TABLE_2 = PaperTable(
    "aggarwal_table2",
    "Aggarwal, Table 2: training and validation over the epochs",
    DATA,
    (
        TableSection(
            "weight 0.5, as the paper's",
            "",
            tuple(TableLine(f"epoch {n}", f"epoch {n}", f"{JOINT}=0.5") for n in EPOCHS),
            (
                TableColumn("training loss", "Train Loss", "loss", "", split="train", scale=1, digits=3, part=False),
                TableColumn("training accuracy", "Train Accuracy percent", ACCURACY, "", split="train", digits=2),
                TableColumn(
                    "validation loss", "Validation Loss", "loss", "", split="val", scale=1, digits=3, part=False
                ),
                TableColumn("validation accuracy", "Validation Accuracy percent", ACCURACY, "", split="val", digits=2),
            ),
        ),
    ),
    TELLING,
    (
        f"Loss: {LOSS}. Accuracy: of the classifier that is trained with it, in percent; in training of cases drawn so "
        "that classes come equally often, in validation of all.",
        "Validation is without dropout, with the batch's own statistics. Here means over seeds.",
    ),
    filled=fill_epochs,
)
TABLE_3 = PaperTable(
    "aggarwal_table3",
    "Aggarwal, Table 3: the final test",
    DATA,
    (
        TableSection(
            "the classifiers",
            "",
            (
                TableLine("joint, weight 0.5", "final test", f"{JOINT}=0.5"),
                TableLine("cross-entropy alone, weight 0", "", f"{JOINT}=0.0"),
                TableLine("joint, weight 0.25", "", f"{JOINT}=0.25"),
                TableLine("joint, weight 1", "", f"{JOINT}=1.0"),
                TableLine("contrast alone (SimCLR)", "", "simclr"),
                TableLine("no pre-training", "", EITHER),
                TableLine("always the commonest class", "", EITHER, "majority"),
            ),
            (
                TableColumn("loss", "Test Loss", "loss", "diagnosis", scale=1, digits=3, part=False),
                TableColumn("accuracy", "Test Accuracy percent", ACCURACY, "diagnosis", digits=2, axis="%"),
                TableColumn("balanced accuracy", "", "balanced_accuracy", "diagnosis", axis="%"),
                TableColumn("AUC", "", "auc", "diagnosis", axis="%"),
            ),
            takes=(JOINT,),
        ),
    ),
    TELLING,
    (
        "98.2 % of ISIC 2020 is benign: always saying so is more accurate than the printed 94.05 %.",
        "The paper's classifier is trained with the encoder; here a linear one is fitted to the frozen encoder.",
    ),
)
