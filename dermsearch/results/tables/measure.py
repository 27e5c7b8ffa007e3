"""Which number of the scores table is compared, and those numbers."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dermsearch.curriculum import BASELINES
from dermsearch.errors import UserError, nearest
from dermsearch.results.tables.schema import DEFAULTS, FIT, Results

JUDGE = ("protocol", "data", "labelled")
MEAN = "mean"  # over several judges
LESS = ("collapsed",)  # of which less is better
NAMED = (*JUDGE, "split", "label", "metric")  # what tells one measure from another
Baselines = dict[tuple[str, str], dict[int, "Score"]]  # by name and root, then by seed


@dataclass(frozen=True)
class Measure:
    """Which number of the scores table is compared."""

    protocol: str
    metric: str
    label: str
    split: str
    data: str = DEFAULTS["data"]
    labelled: str = DEFAULTS["labelled"]
    caveats: str | None = None  # what speaks against the numbers
    parts: tuple[str, ...] = ()  # of a mean over several judges, these, as a user writes them

    @property
    def judge(self) -> str:
        """Who judges, as a user writes it: linear, linear@ham, finetune@pad:20; of a mean all of them."""
        if self.parts:
            return f"{self.protocol} of {', '.join(self.parts)}"
        return spelt(self.protocol, self.data, self.labelled)

    @property
    def less(self) -> bool:
        """Is less of it better?"""
        return self.metric in LESS

    @property
    def each(self) -> list[Measure]:
        """Of a mean what it is the mean of, else itself."""
        found = []
        for part in self.parts:
            told: dict[str, Any] = {name: said or DEFAULTS.get(name) for name, said in judge_of(part).items()}
            found.append(replace(self, **told, parts=()))
        return found or [self]


@dataclass(frozen=True)
class Score:
    """What a stage, or a root, came to in one measure."""

    stage: str
    curriculum: str
    root: str
    seed: int
    n: int
    values: tuple[float, ...]  # one per draw of the labels
    below: float | None  # how far its interval over patients goes below it, on the mean over the draws
    above: float | None
    groups: str = ""  # what that interval is over: patients, lesions, images; of earlier versions it is not said
    draws: tuple[int, ...] = ()  # which draw each value is of; of a mean over judges with other draws it is not said

    @property
    def value(self) -> float:
        """The mean over the draws."""
        return fmean(self.values)

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], stage: str) -> Score:
        """One stage's rows of the table, a row per draw."""
        rows = sorted(rows, key=lambda row: row["draw"] or 0)
        ends = [[row["value"] - row["ci_low"], row["ci_high"] - row["value"]] for row in rows if bounded(row)]
        below, above = map(fmean, zip(*ends, strict=True)) if ends else (None, None)
        first, values = rows[0], tuple(row["value"] for row in rows)
        n = max(row["n"] or 0 for row in rows)
        who = first["curriculum"], first["root"] or "", first["seed"]
        draws = tuple(row["draw"] or 0 for row in rows)
        return cls(stage, *who, n, values, below, above, first.get("groups") or "", draws)

    @classmethod
    def mean(cls, scores: Sequence[Score]) -> Score:
        """Over several judges. Their cases are others, so what each is unsure of is not the others'."""
        alike = len({(len(score.values), score.draws) for score in scores}) == 1
        values = zip(*(s.values for s in scores), strict=True) if alike else [[s.value for s in scores]]
        draws = scores[0].draws if alike else ()
        below, above = (
            math.hypot(*known) / len(known) if len(known) == len(ends) else None
            for ends in ([s.below for s in scores], [s.above for s in scores])
            for known in [[end for end in ends if end is not None]]
        )
        groups, n = {score.groups for score in scores}, sum(score.n for score in scores)
        said = groups.pop() if len(groups) == 1 else ""
        whole = tuple(map(fmean, values))
        return replace(scores[0], values=whole, below=below, above=above, n=n, groups=said, draws=draws)


def judged(measure: Measure, names: Iterable[str] = (*JUDGE, "split")) -> pc.Expression:
    """Which rows are of this measure's judge and split, or have in common with it what is named."""
    return reduce(operator.and_, [pc.field(name) == getattr(measure, name) for name in names])


def bounded(row: Mapping[str, Any]) -> bool:
    """Whether a row of the table has an interval."""
    return all(row[end] is not None and not math.isnan(row[end]) for end in ("ci_low", "ci_high"))


def spelt(protocol: str, data: str = DEFAULTS["data"], labelled: str = DEFAULTS["labelled"]) -> str:
    """A judge as a user writes it, what goes without saying left out: the reverse of `judge_of`."""
    of = f"@{data}" if data != DEFAULTS["data"] else ""
    return protocol + of + (f":{labelled}" if labelled != DEFAULTS["labelled"] else "")


def judge_of(text: object) -> dict[str, str | None]:
    """`finetune@pad:20` in its parts; what it does not say is None."""
    if text is None:
        return dict.fromkeys(JUDGE)
    parts = re.fullmatch(r"([^@:]+)(?:@([^@:]+))?(?::([^@:]+))?", str(text))  # a damaged study says anything
    if parts is None:
        raise UserError(f"protocol: must be written as linear, linear@ham or finetune@pad:20, not '{text}'")
    return dict(zip(JUDGE, parts.groups(), strict=True))


def first_data(study: Mapping[str, Any]) -> str:
    """The data set that a protocol without the name of one judges on."""
    data = study.get("data")
    named = isinstance(data, Mapping) and data and all(isinstance(each, Mapping) for each in data.values())
    return next(iter(data)) if named and data else str(DEFAULTS["data"])


def choose(
    results: Results,
    protocol: str | None = None,
    metric: str | None = None,
    label: str | None = None,
    split: str = "val",
) -> Measure:
    """The measure asked for, completed by the study's objective, or by what there is if it is only one.

    A protocol may be asked for with its data set and its number of labels: finetune@pad:20.
    """
    objective = results.study.get("objective") or {}
    if objective.get("mean") and protocol in (None, MEAN):
        few = f":{objective['labelled']}" if objective.get("labelled") else ""
        asked_of = metric or objective.get("metric"), label or objective.get("label"), split
        found = [choose(results, name + few, *asked_of) for name in objective["mean"]]
        said = "; ".join(dict.fromkeys(each.caveats for each in found if each.caveats)) or None
        return replace(found[0], protocol=MEAN, data="", labelled="", caveats=said, parts=tuple(m.judge for m in found))
    asked = {**judge_of(protocol), "split": split, "label": label, "metric": metric}
    planned = {**objective, **judge_of(objective.get("protocol")), "labelled": objective.get("labelled")}
    planned["data"] = judge_of(protocol or objective.get("protocol"))["data"] or first_data(results.study)
    # A rank is no share, as which scores are told and compared.
    whole = (pc.field("class") == "") & (pc.field("metric") != "mean_rank")
    rows = results.scores.select([*NAMED, "class", "caveats"]).filter(whole)
    if not len(rows):
        raise UserError(f"{results.folder}: no encoder has been scored yet")
    chosen: dict[str, Any] = {}
    # One after the other, so that a message names only what exists beside what is already chosen.
    for name in NAMED:
        present = sorted(rows[name].unique().to_pylist())
        value = asked[name] or likely(name, planned.get(name), present)
        if value is None:
            how = f"; as --protocol {spelt(**chosen, **{name: present[0]})}" if name in JUDGE[1:] else ""
            raise UserError(f"{name}: must be named, for there are several: {', '.join(present)}{how}")
        if value not in present:
            raise UserError(f"no scores with {name} {value!r}: {nearest(value, present)}")
        chosen[name] = value
        rows = rows.filter(pc.field(name) == value)
    return Measure(**chosen, caveats=rows["caveats"][0].as_py())


def likely(name: str, planned: str | None, present: list[str]) -> str | None:
    """What is meant where nothing is asked for; None where that cannot be told."""
    # The objective's label, data and number of labels say nothing of a protocol that has others.
    loose = name in ("label", "data", "labelled")
    if len(present) == 1 and (planned is None or loose):
        return present[0]
    if loose and name != "label" and planned not in present:
        return DEFAULTS[name] if DEFAULTS[name] in present else None
    return planned


def read_scores(results: Results, measure: Measure) -> tuple[dict[str, Score], Baselines]:
    """The scores of one measure by stage, and those of what has no pre-training by name and root, then by seed.

    What a fit's predictions came to is the score of the stage that it was fitted to; of a mean over several judges a
    stage has a score where all of them gave one.
    """
    if measure.parts:
        return averaged([read_scores(results, each) for each in measure.each])
    wanted = judged(measure, NAMED) & (pc.field("class") == "") & pc.is_finite(pc.field("value"))
    found = by_stage(results, results.scores.filter(wanted))
    scores = {stage: Score.of(rows, stage) for stage, rows in found.items()}
    baselines: Baselines = {}
    for score in scores.values():
        if score.curriculum in BASELINES:
            baselines.setdefault((score.curriculum, score.root), {})[score.seed] = score
    return {key: score for key, score in scores.items() if score.curriculum not in BASELINES}, baselines


def averaged(found: Sequence[tuple[dict[str, Score], Baselines]]) -> tuple[dict[str, Score], Baselines]:
    """The means over several judges, of what all of them have judged."""
    scores, others = zip(*found, strict=True)
    baselines: Baselines = {}
    for key in (key for key in others[0] if all(key in other for other in others)):
        of = [other[key] for other in others]
        baselines[key] = {s: Score.mean([each[s] for each in of]) for s in of[0] if all(s in each for each in of)}
    whole = [stage for stage in scores[0] if all(stage in of for of in scores)]
    return {stage: Score.mean([of[stage] for of in scores]) for stage in whole}, baselines


def failures(results: Results, measure: Measure) -> dict[str, str]:
    """Why a stage has no score of this measure, by stage: its judgement failed."""
    if measure.parts:
        return {stage: why for each in measure.each for stage, why in failures(results, each).items()}
    found = by_stage(results, results.judgements.filter(judged(measure) & (pc.field("status") == "failed")))
    return {stage: rows[0]["reason"] or "" for stage, rows in found.items()}


def by_stage(results: Results, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Rows by the stage that they are of; those of a fit by the stage that it was fitted to."""
    fits = results.stages.filter(pc.field("kind") == FIT)
    fitted = dict(zip(fits["key"].to_pylist(), fits["parent"].to_pylist(), strict=True))
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        groups.setdefault(fitted.get(row["stage"], row["stage"]), []).append(row)
    return groups
