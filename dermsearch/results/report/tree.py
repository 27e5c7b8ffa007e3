"""The stage tree: a line for each stage under its parent, with its score, to be folded; and what a click opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from dermsearch.curriculum import ROOT_CURRICULUM, Curriculum, titled
from dermsearch.results.board.leaderboard import apart, points
from dermsearch.results.pictures.tree import titles
from dermsearch.results.report.content import Content, PageSection, percent, spelled
from dermsearch.results.report.markup import Markup, el
from dermsearch.results.tables.lineages import Key, Lineage, flatten

HEADS = ("stage", "", "score, % [95 %]", "Δ no pre-training", "time", "status")


def tree(content: Content) -> PageSection:
    """The tree as data: the page's script makes its lines, folds them and opens what is behind one."""
    headline, detail = titles(content.results, content.lines)
    tools = el("div", class_="tools", id="tree-tools")
    body = el("p", f"{headline}; {detail}.", class_="quiet") + tools + el("div", class_="wide", id="tree-table")
    data = {"heads": HEADS, "nodes": [node(content, key) for key in content.keys], "axis": axis(content)}
    data["encoders"] = encoders(content.results.study)
    return PageSection("tree", "Stage tree", Markup(body), data={"tree": data})


def encoders(study: Mapping[str, Any]) -> list[str]:
    """The folders that `dermsearch export -o encoder` writes."""
    data, branches = study.get("data") or {}, (study.get("encoder") or {}).get("branches")
    first = data if "modalities" in data else next((each for each in data.values() if isinstance(each, dict)), {})
    seen = first.get("modalities") or []
    return [f"encoder/{modality}" for modality in seen] if branches == "separate" and len(seen) > 1 else ["encoder"]


def axis(content: Content) -> list[float]:
    """From the lowest to the highest end of an interval, in percent."""
    ends = [end for row in content.rows for end in (row.low, row.high, row.score) if end is not None]
    return [percent(min(ends)) or 0.0, percent(max(ends)) or 0.0] if ends else [0.0, 100.0]


def node(content: Content, key: Key) -> dict[str, Any]:
    """One line of the tree: numbers as the leaderboard prints them, and bare ones to draw by."""
    row, line = content.by_key.get(key), content.lines.get(key)
    score = row.score if row else None
    ends = f" [{points(row.low)}, {points(row.high)}]" if row and row.low is not None else ""
    return {
        "id": content.ids[key],
        "parent": content.ids.get(line.parent) if line else None,
        "task": spelled(Curriculum((key.curriculum.last,)), content.told.get(key)) if line else root_name(key),
        "name": content.name(key),
        "curriculum": str(key.curriculum),
        "score": percent(score),
        "low": percent(row.low) if row else None,
        "high": percent(row.high) if row else None,
        "text": points(score) + ends,
        "gap": apart(row.to_none) if row else "",
        "order": row.order if row else "",
        "seconds": seconds(line),
        "status": line.status if line else "root",
        "reused": bool(line and line.reused),
        "error": line.error if line else "",
        "settings": settings(key),
        "stages": [stage(each) for each in line.stages] if line else [],
    }


def root_name(key: Key) -> str:
    """What a tree begins with."""
    return titled(key.root, str(key.curriculum) or ROOT_CURRICULUM)


def seconds(line: Lineage | None) -> float | None:
    """Spent training this stage alone, the mean over its seeds."""
    known = [s["seconds"] for s in line.stages if s["seconds"] is not None] if line else []
    return round(fmean(known), 1) if known else None


def settings(key: Key) -> list[tuple[str, str]]:
    """Of the last task, one below the other."""
    told = json.loads(key.settings[-1] or "{}") if key.settings else {}
    return [(name, json.dumps(value)) for name, value in flatten(told).items()] if isinstance(told, dict) else []


def stage(row: dict[str, Any]) -> dict[str, Any]:
    """What is known of one seed."""
    names = ("key", "seed", "status", "seconds", "epochs", "device", "node", "workers", "error")
    return {name: row[name] for name in names}
