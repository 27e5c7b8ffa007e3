"""Which number of the scores table is compared, and those numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dermsearch.curriculum import BASELINES, ROOT_CURRICULUM
from dermsearch.errors import UserError, nearest
from dermsearch.results.tables.schema import Results

Score = dict[str, Any]  # a row of the scores table
NAMED = ("protocol", "split", "label", "metric")  # what tells one measure from another


@dataclass(frozen=True)
class Measure:
    """Which number of the scores table is compared."""

    protocol: str
    metric: str
    label: str
    split: str
    caveats: str | None = None  # what speaks against the numbers


def choose(
    results: Results,
    protocol: str | None = None,
    metric: str | None = None,
    label: str | None = None,
    split: str = "val",
) -> Measure:
    """The measure asked for, completed by the study's objective, or by what there is if it is only one."""
    objective = results.study.get("objective") or {}
    asked = {"protocol": protocol, "metric": metric, "label": label, "split": split}
    # A rank is the better the lower it is: nothing that compares measures knows that.
    rows = [s for s in results.scores.to_pylist() if not s["class"] and s["metric"] != "mean_rank"]
    if not rows:
        raise UserError(f"{results.folder}: no encoder has been scored yet")
    chosen: dict[str, str] = {}
    # One after the other, so that a message names only what exists beside what is already chosen.
    for name in NAMED:
        present = sorted({score[name] for score in rows})
        planned = objective.get(name)
        # The objective's label says nothing of a protocol with one of its own, as `pairs` has.
        if len(present) == 1 and (planned is None or name == "label"):
            planned = present[0]
        value: Any = asked[name] or planned
        if value is None:
            raise UserError(f"{name}: must be named, for there are several: {', '.join(present)}")
        if value not in present:
            raise UserError(f"no scores with {name} '{value}': {nearest(value, present)}")
        chosen[name] = value
        rows = [score for score in rows if score[name] == value]
    return Measure(**chosen, caveats=rows[0].get("caveats"))


def read_scores(results: Results, measure: Measure) -> tuple[dict[str, Score], dict[int, Score]]:
    """The scores of one measure by stage, and those of no pre-training by seed."""
    found = list(of_measure(results, measure))
    stages = {score["stage"]: score for score in found if score["curriculum"] not in BASELINES}
    return stages, {score["seed"]: score for score in found if score["curriculum"] == ROOT_CURRICULUM}


def read_baseline(results: Results, measure: Measure, name: str) -> dict[int, Score]:
    """The scores of one measure by seed, of a root that is called so."""
    return {score["seed"]: score for score in of_measure(results, measure) if score["curriculum"] == name}


def of_measure(results: Results, measure: Measure) -> Iterator[Score]:
    """The scores of one measure that are numbers."""
    for score in results.scores.to_pylist():
        if score["class"] or any(score[name] != getattr(measure, name) for name in NAMED):
            continue
        if score["value"] is None or math.isnan(score["value"]):
            continue
        for end in ("ci_low", "ci_high"):
            if score[end] is not None and math.isnan(score[end]):
                score[end] = None
        yield score
