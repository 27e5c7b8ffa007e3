"""Tables I to III of SM3 as data: which curriculum of a study is which row, and which score is which column."""

from __future__ import annotations

from dermsearch.curriculum import Curriculum
from dermsearch.results.papers.table import (
    EITHER,
    GIVEN,
    OTHER,
    RANDOM,
    PaperTable,
    TableColumn,
    TableLine,
    TableSection,
)

FUSIONS = ("concat", "sep_shared", "sep_sep")
RELATIONS = ("no_proj", "proj", "msa", "tel", "te")
LABELS = {  # the paper's abbreviation: its column, our label, the class that is reported
    "BWV": ("BWV_PRS", "blue_whitish_veil", "present"),
    "DaG": ("DaG_IR", "dots_and_globules", "irregular"),
    "PIG": ("PIG_IR", "pigmentation", "irregular"),
    "PN": ("PN_ATP", "pigment_network", "atypical"),
    "RS": ("RS_PRS", "regression_structures", "present"),
    "STR": ("STR_IR", "streaks", "irregular"),
    "VS": ("VS_IR", "vascular_structures", "irregular"),
    "DIAG": ("DIAG_MEL", "diagnosis", "MEL"),
}
CONTRAST, PSEUDO = "paired_contrast", "pseudo_labels"
TELLING = {CONTRAST: "fusion", PSEUDO: "relation"}
TEST = "derm7pt, its 395 test cases, on which the released code also chooses the epoch"


def fusion(name: str) -> str:
    """The identity of the contrastive stage alone."""
    return f"{CONTRAST}={name}"


def relation(name: str) -> str:
    """The identity of both stages; the paper varies the second on its final choice of the first."""
    return str(Curriculum((f"{CONTRAST}=sep_sep", f"{PSEUDO}={name}")))


def half(cases: int) -> float:
    """The AUC in percent of a guess."""
    return 50.0


def per_label(printed: str, metric: str) -> tuple[TableColumn, ...]:
    """A column for each label's reported class, and their mean."""
    chance = half if metric == "auc" else None
    own = [
        TableColumn(k, f"{printed}|{at}", metric, label, cls, chance=chance) for k, (at, label, cls) in LABELS.items()
    ]
    return (*own, TableColumn("AVG", f"{printed}|AVG", f"named_{metric}", "mean", chance=chance))


def matching(split: str, printed: bool) -> tuple[TableColumn, ...]:
    """Where a dermoscopic image finds its own clinical one among all; the paper has training cases only."""
    rank = "rank of the own image (log scale)"
    share = "share of images"
    numbers = (
        ("mean rank", "AvgRank_of_413", "mean_rank", lambda n: (n + 1) / 2, rank),
        ("Acc@1", "Acc@1", "acc_at_1", lambda n: 1 / n, share),
        ("Acc@5", "Acc@5", "acc_at_5", lambda n: min(5 / n, 1.0), share),
    )
    return tuple(
        TableColumn(
            heading,
            at * printed,
            metric,
            "pairs",
            "derm to clinic",
            "pairs",
            split,
            scale=1.0,
            digits=2,
            chance=chance,
            cases=413 * printed,
            axis=axis,
            log=axis == rank,
        )
        for heading, at, metric, chance, axis in numbers
    )


AUC = per_label("AUC", "auc")
STARTS = (TableLine("ImageNet", "ImageNet", GIVEN), TableLine("random weights", "", RANDOM))
FUSED = (
    TableLine("no fusion (SimCLR)", "SimCLR", fusion("none")),
    *(TableLine(name, f"MMSSL_{name}", fusion(name)) for name in FUSIONS),
)
METHODS = (
    TableLine("Baseline-50-ImageNet, fine-tuned", "Baseline-50-ImageNet", GIVEN, "finetune"),
    TableLine("SimCLR", "SimCLR", fusion("none"), "linear"),
    TableLine("SM3-linear", "SM3-linear", relation("tel"), "linear_handover"),
    TableLine("SM3-linear, classifier alone", "", relation("tel"), "linear"),
    TableLine("SM3-finetune", "SM3-finetune", relation("tel"), "finetune"),
    TableLine("given weights, linear", "", GIVEN, "linear"),
    TableLine("random weights, linear", "", RANDOM, "linear"),
    TableLine("random weights, fine-tuned", "", RANDOM, "finetune"),
    TableLine("random predictions", "", EITHER, "stratified"),
    TableLine("majority class", "", EITHER, "majority"),
)
METRICS = {
    "AUC": ("AUC", "auc"),
    "Sens": ("sensitivity", "recall"),
    "Spec": ("specificity", "specificity"),
    "Prec": ("precision", "precision"),
}

TABLE_1 = PaperTable(
    "sm3_table1",
    "SM3, Table I",
    TEST,
    tuple(
        TableSection(name.capitalize() if name != "AUC" else name, f"{name} (%)", METHODS, per_label(at, metric))
        for at, (name, metric) in METRICS.items()
    ),
    TELLING,
    (
        "SM3-linear: the paper speaks of a classifier alone; the released code, whose numbers these are, trains label "
        "heads, relation module and classifiers together, as is done here.",
        "Only the self-supervised rows and the baseline of the paper's table are shown.",
    ),
)
TABLE_2 = PaperTable(
    "sm3_table2",
    "SM3, Table II",
    TEST,
    (
        TableSection("Without the two tasks", "AUC (%)", STARTS, AUC),
        TableSection("Fusion of the two images", "AUC (%)", FUSED, AUC, (CONTRAST,)),
        TableSection(
            "Relation between labels, after sep_sep",
            "AUC (%)",
            tuple(TableLine(name, f"MLSSL_{name}", relation(name)) for name in RELATIONS),
            AUC,
            (PSEUDO,),
        ),
    ),
    TELLING,
    ("The released code starts all of its pre-training from ImageNet weights and contains 'tel' only.",),
)
TABLE_3 = PaperTable(
    "sm3_table3",
    "SM3, Table III",
    "derm7pt, its 413 training cases",
    (
        TableSection("Training cases", "", (*STARTS, *FUSED), matching("train", True), (CONTRAST, OTHER)),
        TableSection("Validation cases", "", (*STARTS, *FUSED), matching("val", False), (CONTRAST, OTHER)),
    ),
    TELLING,
    (
        "Rank of the own clinical image among all, for each dermoscopic one: 1 is best, chance is (cases + 1) / 2. "
        "Acc@k: share of ranks up to k.",
        "The paper's text says that sep_shared gains 0.22 in Acc@1 over concat, its table 0.12; it calls a mean rank "
        "of 7.23 among 413 the first 1 %, which is 1.75 %.",
    ),
)
FORMS = {form.name: form for form in (TABLE_1, TABLE_2, TABLE_3)}
