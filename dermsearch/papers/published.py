"""The curriculum tables of papers, in this project's names. The CSV files are in results/published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermsearch.curriculum import ARROW, ROOT_CURRICULUM
from dermsearch.errors import UserError, nearest
from dermsearch.papers.sheet import read_sheet

IMAGENET = "ImageNet supervised"

# Rows of the papers in our names; a curriculum is split into its tasks first.
NAMES = {
    "Rel. loc.": "relative_location",
    "Rel-Loc": "relative_location",
    "MoCo v2": "moco_v2",
    "ODC": "odc",
    "SwAV": "swav",
    "Swav": "swav",
    "Rotation": "rotation",
    "No pretraining": ROOT_CURRICULUM,
    "Scratch": ROOT_CURRICULUM,
    "Supervised ImageNet": IMAGENET,
    "ImageNet": IMAGENET,
}


@dataclass(frozen=True)
class CurriculumTable:
    """How a paper prints its curricula, and what a figure must say of them."""

    column: str  # of the CSV file: the one with the score
    separator: str
    title: str
    quantity: str
    data: str


TABLES = {
    "aiseeme_table1": CurriculumTable(
        "Balanced accuracy percent",
        " > ",
        "AISEEME D4, Table 1",
        "balanced accuracy",
        "ISIC-2019 validation",
    ),
    "aiseeme_table2": CurriculumTable(
        "Validation Acc percent",
        " + ",
        "AISEEME D4, Table 2",
        "balanced accuracy",
        "chest X-ray validation",
    ),
}


def published_folder() -> Path:
    """Where the papers' tables are: inside the package (a wheel) or at the top of the checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "published", package.parent / "results" / "published"):
        if folder.is_dir():
            return folder
    raise UserError("the published tables are missing: neither in the package nor in results/published")


def named_tables(study: Mapping[str, Any], also: Iterable[str] = ()) -> list[str]:
    """The published tables that a study names, at its top or in its objective, one or a list.

    A name must be one of the curriculum tables, or one of those that are `also` known.
    """
    named = study.get("published") or (study.get("objective") or {}).get("published") or []
    names = [named] if isinstance(named, str) else list(named)
    known = [*TABLES, *also]
    for name in names:
        if name not in known:
            raise UserError(f"published: '{name}' is not a published table; {nearest(name, known)}")
    return names


def published_rows(name: str) -> list[dict[str, str]]:
    """The cells of a published table as its CSV file has them, one row per cell."""
    return [dict(line.cells) for line in read_sheet(published_folder() / f"{name}.csv")]


def table(name: str) -> CurriculumTable:
    """What is known of a published curriculum table beside its numbers."""
    if name not in TABLES:
        raise UserError(f"no published curriculum table '{name}': {nearest(name, TABLES)}")
    return TABLES[name]


def published(name: str) -> dict[str, float]:
    """The scores of a published table as fractions, by curriculum ("odc > moco_v2") or baseline."""
    form = table(name)
    scores = {}
    for row in published_rows(name):
        tasks = row["row"].split(form.separator)
        # A row without a name of ours, like the winner of a challenge, is another method altogether.
        if row["column_metric"] == form.column and all(task in NAMES for task in tasks):
            scores[ARROW.join(NAMES[task] for task in tasks)] = round(float(row["value"]) / 100, 6)
    return scores
