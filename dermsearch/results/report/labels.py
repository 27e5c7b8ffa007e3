"""Scores of single labels and classes, and what is taken for what."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dermsearch.results.board.row import Row
from dermsearch.results.drawing import readable
from dermsearch.results.report.charts import lined, ranges, tip, values
from dermsearch.results.report.content import Content, PageSection, percent
from dermsearch.results.report.markup import Markup, el
from dermsearch.results.tables.measure import Measure, by_stage, judged

CLASSES = ("recall", "auc")  # metrics of a single class, the first that is there


def labels(content: Content) -> PageSection | None:
    """Of the few that matter: a dot for each label and class with its interval."""
    if not content.rows:
        return None
    measure = content.rows[0].measure.each[0]
    found = [*of_labels(content, measure), *of_classes(content, measure)]
    if not found:
        return None
    names = [content.name(row.key) for row in content.shown]
    charts = {}
    for part, title in (("label", f"{readable(measure.metric)} of each label, %"), ("class", "")):
        rows = [row for row in found if row["part"] == part]
        if rows:
            title = title or f"{rows[0]['metric']} of each class, %"
            charts[f"chart-{part}"] = dots(rows, names, title)
    places = Markup("".join(el("div", class_="chart", id=name) for name in charts))
    said = f"By {measure.judge}, on validation; the mean over seeds and draws, intervals over cases."
    return PageSection("labels", "Labels and classes", Markup(el("p", said, class_="quiet") + places), charts)


def dots(rows: list[dict[str, Any]], names: list[str], title: str) -> dict[str, Any]:
    """A line for each label or class, a mark for each curriculum beside one another."""
    y = {"field": "what", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 260, "grid": True}}
    told = tip(("name", "curriculum"), ("what", "of"), ("score", "%"), ("low", "from"), ("high", "to"), ("n", "cases"))
    return {
        "width": "container",
        "height": lined(rows, "what", 9 * len(names) + 4),
        "data": values(rows),
        "layer": ranges(rows, "name", names, title, y, told),
    }


def of_labels(content: Content, measure: Measure) -> list[dict[str, Any]]:
    """The objective's metric of every label."""
    wanted = judged(measure) & (pc.field("class") == "") & (pc.field("metric") == measure.metric)
    return summed(content, content.results.scores.filter(wanted & (pc.field("label") != "mean")), "label")


def of_classes(content: Content, measure: Measure) -> list[dict[str, Any]]:
    """A metric of every class; where there are several labels, of each label's."""
    rows = content.results.scores.filter(judged(measure) & (pc.field("class") != ""))
    there = set(rows["metric"].to_pylist())
    metric = next((name for name in CLASSES if name in there), None)
    if metric is None:
        return []
    return summed(content, rows.filter((pc.field("metric") == metric) & (pc.field("n") > 0)), "class")


def summed(content: Content, table: pa.Table, part: str) -> list[dict[str, Any]]:
    """By curriculum and label or class the mean over seeds and draws."""
    stages = by_stage(content.results, table)
    found = []
    for row in content.shown:
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for each in (each for key in row.keys for each in stages.get(key, [])):
            groups.setdefault((each["label"], each["class"]), []).append(each)
        for (label, cls), rows in groups.items():
            mean = {name: mean_of(rows, name) for name in ("value", "ci_low", "ci_high")}
            what = f"{readable(label)}: {cls}" if cls else readable(label)
            own = {"part": part, "name": content.name(row.key), "what": what, "metric": readable(rows[0]["metric"])}
            ends = {"low": percent(mean["ci_low"], 1), "high": percent(mean["ci_high"], 1)}
            if mean["value"] is not None:
                found.append(own | {"score": percent(mean["value"], 1), "n": rows[0]["n"]} | ends)
    return found


def mean_of(rows: list[dict[str, Any]], name: str) -> float | None:
    """Of a column, where every row has it."""
    known = [row[name] for row in rows if row[name] is not None and row[name] == row[name]]
    return fmean(known) if len(known) == len(rows) else None


def confusions(content: Content) -> PageSection | None:
    """What is taken for what, by the few that matter, all seeds and draws together."""
    if not content.rows:
        return None
    measure = content.rows[0].measure.each[0]
    stages = by_stage(content.results, content.results.confusions.filter(judged(measure)))
    found = [each for row in content.shown for each in counted(content, row, stages)]
    if not found:
        return None
    tools = el("div", class_="tools", id="confusion-tools")
    said = f"Rows: what is true. Of each row the share, in %, that {measure.judge} said; shades follow the share."
    if any(len(row.keys) * row.draws > 1 for row in content.shown):
        said += " n counts a case once for every seed and draw of labels."
    body = tools + el("div", class_="wide", id="confusion-table") + el("p", said, class_="quiet")
    return PageSection("confusions", "What is taken for what", Markup(body), data={"confusions": found})


def counted(content: Content, row: Row, stages: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The matrices of one curriculum, one for each label."""
    counts: dict[str, dict[tuple[str, str], int]] = {}
    for each in (each for key in row.keys for each in stages.get(key, [])):
        of, place = counts.setdefault(each["label"], {}), (each["truth"], each["predicted"])
        of[place] = of.get(place, 0) + each["count"]
    return [
        {
            "name": content.name(row.key),
            "label": readable(label),
            "classes": (classes := sorted({name for place in of for name in place})),
            "counts": [[of.get((true, said), 0) for said in classes] for true in classes],
        }
        for label, of in counts.items()
    ]
