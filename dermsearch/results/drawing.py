"""What the figures share: names, colours and how a figure is saved."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dermsearch.curriculum import ROOT_CURRICULUM, Curriculum, titled
from dermsearch.errors import UserError
from dermsearch.papers.published import IMAGENET
from dermsearch.results.tables.file import replacing
from dermsearch.results.tables.measure import Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a home that cannot be written to is no news

READABLE = {
    "relative_location": "Relative location",
    "moco_v2": "MoCo v2",
    "odc": "ODC",
    "simclr": "SimCLR",
    "byol": "BYOL",
    "swav": "SwAV",
    "dino": "DINO",
    "ibot": "iBOT",
    "rotation": "Rotation",
    "colorme": "ColorMe",
    "sm3": "SM3",
    "slimp": "SLIMP",
    "auc": "AUC",
    "macro_f1": "macro F1",
    "knn": "k-NN",
    "finetune": "fine-tuning",
    "linear_handover": "linear with heads handed over",
    "pairs": "pair matching",
    "ail": "attention inside the mask",
    "val": "validation",
    "no_pre_training": ROOT_CURRICULUM,
    IMAGENET: IMAGENET,
}

# Okabe and Ito's colours, told apart with any colour vision; a mark has a shape as well, for print in grey.
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
INK, GREY, PALE = "#222222", "#8A8A8A", "#DDDDDD"
ORDERS = {  # ordering mark: colour, marker, what the legend says
    "C": (GREEN, "o", "C (rising)"),
    "AC": (VERMILION, "s", "AC (falling)"),
    "MC": (BLUE, "D", "MC (mixed)"),
    "": (INK, "^", "single task"),
    "?": (PURPLE, "v", "order unknown"),
}
SERIES = ((GREY, "o"), (BLUE, "D"), (VERMILION, "s"), (GREEN, "^"), (PURPLE, "v"), (ORANGE, "P"))  # of curricula
SIZES = {"o": 5.5, "s": 5.5, "D": 5.2, "^": 6.8, "v": 6.8}  # markers of the same weight to the eye

STAMP = 0.13  # inches below a figure, for where its tables come from
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",  # words stay words: searchable, and in the reader's font
    "svg.hashsalt": "dermsearch",  # the same tables give the same file
}


def readable(name: str) -> str:
    """A task, metric or protocol as a reader expects it."""
    return READABLE.get(name, name.replace("_", " "))


def chain(curriculum: Curriculum, settings: Mapping[str, str] | None = None, root: str = "") -> str:
    """A curriculum as a reader expects it, with what must be told of its tasks' settings in brackets."""
    told, names = settings or {}, curriculum.tasks or (curriculum.baseline,)
    text = " → ".join(readable(name) + (f" [{told[name]}]" if name in told else "") for name in names)
    return titled(root, text)


def judge_name(measure: Measure) -> str:
    """Who judges, as a reader expects it."""
    return measure.judge.replace(measure.protocol, readable(measure.protocol), 1)


def quantity(measure: Measure) -> str:
    """The axis of a measure, with its unit."""
    of = "mean over labels" if measure.label == "mean" else f"of {readable(measure.label)}"
    joint = ", " if measure.label == "mean" else " "
    return f"{readable(measure.metric)}{joint}{of}, {readable(measure.split)} (%)"


def grid(ax: Axes, axis: Literal["both", "x"] = "both") -> None:
    """Faint lines behind what is drawn."""
    ax.grid(axis=axis, color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)


def line_panel(ax: Axes, tall: float) -> None:
    """A panel of lines one below the other, so many inches tall, whose names stand at its left."""
    ax.set_ylim(tall, 0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    grid(ax, "x")


def beside(ax: Axes, text: str, x: float, y: float, points: float, **look: Any) -> None:
    """A line's word, so many points beside a place: x is a share of the panel's width."""
    place = ax.get_yaxis_transform()
    ax.annotate(text, (x, y), (points, 0), xycoords=place, textcoords="offset points", va="center", **look)


def save(figure: Figure, path: str | Path, origin: str = "") -> list[Path]:
    """Write a figure as PNG and as SVG beside each other, and as PDF too where the path ends so.

    `origin` of its tables stands in its lower right corner and in the files' metadata.
    """
    path = Path(path)
    if not path.stem:
        raise UserError(f"'{path}': must be the name of a file, such as why.png")
    # Without dates: the same tables give the same file.
    endings: dict[str, dict[str, Any]] = {
        ".png": {"Source": origin},
        ".svg": {"Date": None, "Source": origin},
        ".pdf": {"CreationDate": None, "Subject": origin},
    }
    if origin:
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        engine, room = figure.get_layout_engine(), STAMP / figure.get_figheight()
        if isinstance(engine, ConstrainedLayoutEngine):  # or what it lays out reaches into the corner
            engine.set(rect=(0, room, 1, 1 - room))
        figure.text(0.995, 0.04 / figure.get_figheight(), origin, ha="right", va="bottom", fontsize=5.5, color=GREY)
    bare = path.with_suffix("") if path.suffix[1:].isalpha() else path  # of weight_0.5 the dot begins no ending
    paths = {bare.with_name(bare.name + e): about for e, about in endings.items() if e != ".pdf" or path.suffix == e}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for file, about in paths.items():
            with replacing(file) as new:
                figure.savefig(new, format=file.suffix[1:], dpi=150, facecolor="white", metadata=about)
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror}") from None
    return list(paths)
