"""What must be known of a measure to read its numbers: how many cases, of whom, of which data, what chance gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dermsearch.results.tables.measure import Measure, judged
from dermsearch.results.tables.schema import DEFAULTS, Results
from dermsearch.words import many

PATIENTS = "patients"


@dataclass(frozen=True)
class About:
    """What a board says of its measure, as parts of a sentence."""

    chance: float | None = None
    cases: str = ""  # "385 cases of "
    data: str = ""  # " of 600 built-in cases"
    groups: str = PATIENTS  # what intervals are drawn over


def about(results: Results, measure: Measure) -> About:
    """What the tables and the study say of a measure; of a mean over several judges, of all of them together."""
    if measure.parts:
        each = [about(results, part) for part in measure.each]
        chances = [one.chance for one in each if one.chance is not None]
        groups = {one.groups for one in each}
        chance = fmean(chances) if len(chances) == len(each) else None
        return About(chance, "", "", groups.pop() if len(groups) == 1 else PATIENTS)
    rows = results.scores.filter(judged(measure))
    own = rows.filter((pc.field("label") == measure.label) & (pc.field("metric") == measure.metric))
    most = pc.max(own["n"]).as_py()
    cases = f"{many(most, 'case')} of " if most else ""
    return About(chance_of(rows, measure), cases, data_of(results.study, measure.data), groups_of(own))


def chance_of(rows: pa.Table, measure: Measure) -> float | None:
    """What guessing gives: of AUC one half, of balanced accuracy one over the classes that the cases show."""
    if measure.metric in ("auc", "named_auc"):
        return 0.5
    if measure.metric != "balanced_accuracy":
        return None
    of_classes = rows.filter((pc.field("metric") == "recall") & (pc.field("class") != "") & (pc.field("n") > 0))
    seen = of_classes.group_by(["label", "class"]).aggregate([])["label"].to_pylist()
    labels = set(seen) if measure.label == "mean" else {measure.label} & set(seen)
    return fmean(1 / seen.count(label) for label in labels) if labels else None


def groups_of(rows: pa.Table) -> str:
    """What intervals were drawn over; studies of earlier versions do not say."""
    known = [name for name in rows["groups"].unique().to_pylist() if name]
    return known[0] if len(known) == 1 else PATIENTS


def data_of(study: Mapping[str, Any], name: str) -> str:
    """Which data set it is."""
    data = study.get("data") or {}
    one = data if name == DEFAULTS["data"] and "source" in data else data.get(name)
    if not isinstance(one, Mapping):
        return ""
    if one.get("source") == "store" and one.get("path"):
        return f" of {PurePath(str(one['path'])).name}"
    count = one.get("cases")
    return f" of {count:,} built-in cases" if isinstance(count, int) else " of built-in cases"
