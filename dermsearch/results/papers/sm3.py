"""Tables I to III of SM3 as data: which curriculum of a study is which row, and which score is which column."""

from __future__ import annotations

from dermsearch.curriculum import Curriculum
from dermsearch.papers.corrected import corrected_cells
from dermsearch.results.papers.aggarwal import TABLE_2 as EPOCHS
from dermsearch.results.papers.aggarwal import TABLE_3 as FINAL
from dermsearch.results.papers.aiseeme import TABLE_2 as BOTH
from dermsearch.results.papers.aiseeme_uda import UDA
from dermsearch.results.papers.groeger import TABLE_2 as GROEGER
from dermsearch.results.papers.predicted import ACCURACY, GAIN
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
SELF_SUPERVISED = (
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
KNOWN = {  # how well a system is known: the letter beside its name
    "A": "exactly, by its authors' code",
    "B": "network and losses by code that is very probably the authors'",
    "C": "inputs, outputs and sampling, but not the optimisation",
    "D": "by one re-implementation of others, for another task",
    "E": "by its abstract alone: our design",
}
SYSTEMS = (  # printed row, how well it is known, the fit
    ("Inception-Combined", "C", "inception_combined"),
    ("HcCNN", "D", "hccnn"),
    ("GIIN", "E", "giin"),
    ("AMFAM", "B", "amfam"),
    ("F4M-FS", "A", "fusion_m4net"),
)
COMMON = "common"  # a data set of that name judges the systems by their common recipe


def systems(data: str = "", told: str = "") -> tuple[TableLine, ...]:
    """Every system on what the study begins with and behind both stages, on the study's data set or another."""
    own, sm3 = not data, relation("tel")
    starts = tuple(
        TableLine(f"{title}{told}", title if own else "", EITHER, fit, data, known) for title, known, fit in SYSTEMS
    )
    more = (
        TableLine(f"F4M, both stages{told}", "", EITHER, "fusion_m4net_svm", data, "A"),
        TableLine(f"baseline{told}", "", EITHER, "baseline", data, "A"),
    )
    behind = tuple(
        TableLine(f"{title} + SM3{told}", "FM4-FS + SM3" * (own and fit == "fusion_m4net"), sm3, fit, data, known)
        for title, known, fit in (*SYSTEMS[:-1], ("FM4-FS", "A", "fusion_m4net"))
    )
    last = (
        TableLine(f"F4M, both stages + SM3{told}", "", sm3, "fusion_m4net_svm", data, "A"),
        TableLine(f"baseline + SM3{told}", "", sm3, "baseline", data, "A"),
    )
    return (*starts, *more, *behind, *last)


METHODS = (
    *systems(),
    *systems(COMMON, ", common recipe"),
    TableLine("metadata only", "", EITHER, "metadata_only"),
    TableLine("SSD-KD", "SSD-KD", "ssd_kd", "linear", known="A"),
    TableLine("SSD-KD, fine-tuned", "", "ssd_kd", "baseline", known="A"),
    *SELF_SUPERVISED,
)
METRICS = {
    "AUC": ("AUC", "auc"),
    "Sens": ("sensitivity", "recall"),
    "Spec": ("specificity", "specificity"),
    "Prec": ("precision", "precision"),
}

UNPRINTED = {"balanced accuracy": "balanced_accuracy", "accuracy": ACCURACY}


def of_labels(metric: str) -> tuple[TableColumn, ...]:
    """A column for each whole label, and their mean, which the paper does not print."""
    return (
        *(TableColumn(k, "", metric, label) for k, (_, label, _) in LABELS.items()),
        TableColumn("AVG", "", metric, "mean"),
    )


TABLE_1 = PaperTable(
    "sm3_table1",
    "SM3, Table I",
    TEST,
    (
        *(
            TableSection(name.capitalize() if name != "AUC" else name, f"{name} (%)", METHODS, per_label(at, metric))
            for at, (name, metric) in METRICS.items()
        ),
        *(TableSection(n.capitalize(), f"{n} (%)", METHODS, of_labels(m)) for n, m in UNPRINTED.items()),
        TableSection("AUC above the baseline", "difference of AUC (percent points)", METHODS, of_labels(GAIN)),
    ),
    TELLING,
    (
        *(f"({letter}) known {how}." for letter, how in KNOWN.items()),
        "Systems are trained by their own recipe, or by a common one, and answer for the last epoch; the rows of the "
        "paper chose theirs each in its own way.",
        "Printed F4M-FS is one run of five; over the five of its authors the mean AUC is 83.65 with a spread of 0.30. "
        "Printed GIIN is of other test cases. Printed averages of accuracy stand against 61.8 of the majority class.",
        "AUC above the baseline: patients are drawn together for both, seeds are paired.",
        "SM3-linear: the paper speaks of a classifier alone; the released code, whose numbers these are, trains label "
        "heads, relation module and classifiers together, as is done here.",
    ),
    corrected_cells,
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
FORMS = {form.name: form for form in (TABLE_1, TABLE_2, TABLE_3, *UDA, GROEGER, EPOCHS, FINAL)}
FORMS |= {"aiseeme_table2_both": BOTH}
