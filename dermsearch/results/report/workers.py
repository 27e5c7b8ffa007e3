"""Who trained what when, and how long workers were idle."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from dermsearch.results.report.charts import COLOURS, lined, looks, tip, values, x
from dermsearch.results.report.content import Content, PageSection
from dermsearch.results.report.markup import Markup, el, table

APART = 3600.0  # seconds without any work, after which another run of the study began
UNITS = ((2 * 3600.0, "hours", 3600.0), (300.0, "minutes", 60.0), (0.0, "seconds", 1.0))


def workers(content: Content) -> PageSection | None:
    """A line for each process; time in which no process had work is cut out."""
    rows = [row for row in content.results.stages.to_pylist() if row["began"] and row["ended"] and row["process"]]
    if not rows:
        return None
    jobs = placed(rows)
    span = max(job["until"] for job in jobs)
    unit, of = next((unit, of) for least, unit, of in UNITS if span >= least)
    for job in jobs:
        job |= {"from": round(job["from"] / of, 4), "until": round(job["until"] / of, 4)}
    names = sorted({job["task"] for job in jobs})
    colours = [COLOURS[1 + i % (len(COLOURS) - 1)] for i in range(len(names))]
    told = tip(("name", "stage"), "seed", "process", ("took", "took, s"), "status")
    chart = {
        "width": "container",
        "height": lined(jobs, "process", 24),
        "data": values(jobs),
        "mark": {"type": "bar", "height": 15, "stroke": "var(--paper)", "strokeWidth": 0.7, "cursor": "pointer"},
        "encoding": {
            "x": x("from", f"{unit} since the first began"),
            "x2": {"field": "until"},
            "y": {"field": "process", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 220}},
            "color": looks("task", names, colours, {"title": None, "orient": "bottom"}),
            "tooltip": told,
        },
    }
    lines = [[process, str(n), f"{busy / of:.1f}", f"{idle:.0f} %"] for process, n, busy, idle in shares(rows)]
    heads = ["process", "stages", f"at work, {unit}", "idle"]
    note = "Idle: of the time from its first job to its last. Breaks of the study of more than an hour are cut out."
    body = el("div", class_="chart", id="chart-workers") + table(heads, lines, 1, "Workers")
    body += el("p", note, class_="quiet")
    return PageSection("workers", "Who trained what, when", Markup(body), {"chart-workers": chart})


def placed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every stage as a bar, in seconds from the first one's beginning, without long breaks."""
    jobs, rows = [], sorted(rows, key=lambda row: row["began"])
    shift, end = rows[0]["began"], rows[0]["ended"]
    for row in rows:
        if row["began"] - end > APART:
            shift += row["began"] - end
        end = max(end, row["ended"])
        jobs.append(
            {
                "name": row["curriculum"] if row["kind"] != "fit" else f"{row['task']} fitted to {row['curriculum']}",
                "task": row["task"],
                "seed": row["seed"],
                "status": row["status"],
                "process": row["process"],
                "stage": row["key"],
                "from": row["began"] - shift,
                "until": row["ended"] - shift,
                "took": round(row["ended"] - row["began"], 1),
            }
        )
    return jobs


def shares(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int, float, float]]:
    """By process how many stages, seconds at work and the share in percent in which it had none."""
    of: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["began"]):
        of.setdefault(row["process"], []).append(row)
    found = []
    for process, own in of.items():
        busy = sum(row["ended"] - row["began"] for row in own)
        gaps = [max(0.0, b["began"] - a["ended"]) for a, b in pairwise(own)]
        idle = sum(gap for gap in gaps if gap <= APART)
        found.append((process, len(own), busy, 100 * idle / (busy + idle) if busy + idle else 0.0))
    return found
