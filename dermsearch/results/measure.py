"""Which number of the scores table is compared, and those numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from dermsearch.errors import UserError, nearest
from dermsearch.results.tables import ROOT_CURRICULUM, Results

Score = dict[str, Any]  # a row of the scores table


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
    rows = [score for score in results.scores.to_pylist() if not score["class"]]
    if not rows:
        raise UserError(f"{results.folder}: no encoder has been scored yet")
    chosen: dict[str, str] = {}
    # One after the other, so that a message names only what exists beside what is already chosen.
    for name in ("protocol", "split", "label", "metric"):
        present = sorted({score[name] for score in rows})
        value: Any = asked[name] or objective.get(name) or (present[0] if len(present) == 1 else None)
        if value not in present:
            raise UserError(f"no scores with {name} '{value}': {nearest(value, present)}")
        chosen[name] = value
        rows = [score for score in rows if score[name] == value]
    return Measure(**chosen, caveats=rows[0].get("caveats"))


def read_scores(results: Results, measure: Measure) -> tuple[dict[str, Score], dict[int, Score]]:
    """The scores of one measure by stage, and those of no pre-training by seed."""
    stages: dict[str, Score] = {}
    root: dict[int, Score] = {}
    for score in results.scores.to_pylist():
        if score["class"] or any(score.get(name) != value for name, value in asdict(measure).items()):
            continue
        if score["value"] is None or math.isnan(score["value"]):
            continue
        for end in ("ci_low", "ci_high"):
            if score[end] is not None and math.isnan(score[end]):
                score[end] = None
        if score["curriculum"] == ROOT_CURRICULUM:
            root[score["seed"]] = score
        else:
            stages[score["stage"]] = score
    return stages, root
