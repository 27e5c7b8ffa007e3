"""`report.html`: the sections of one study, in the order in which a reader wants them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dermsearch.results.report.boards import boards
from dermsearch.results.report.content import Content, PageSection
from dermsearch.results.report.cost import cost
from dermsearch.results.report.failures import failures
from dermsearch.results.report.few import few
from dermsearch.results.report.labels import confusions, labels
from dermsearch.results.report.learning import learning
from dermsearch.results.report.origin import origin
from dermsearch.results.report.page import body_of, put, tail
from dermsearch.results.report.question import question
from dermsearch.results.report.tested import tested
from dermsearch.results.report.tree import tree
from dermsearch.results.report.why import why
from dermsearch.results.report.workers import workers
from dermsearch.results.tables.schema import SCHEMAS, Results, build, load, read_study

NAME = "report.html"
SECTIONS: tuple[Callable[[Content], PageSection | None], ...] = (
    question,
    tree,
    boards,
    tested,
    cost,
    few,
    labels,
    confusions,
    why,
    learning,
    workers,
    failures,
    origin,
)
STILL: Mapping[str, Any] = {"alive": False}  # no run is known of


def report(folder: str | Path, path: Path | None = None) -> Path:
    """Write the report of a study's folder, from its tables alone; where it lies."""
    folder = Path(folder)
    path = path or folder / NAME
    put(study_page(load(folder)) + tail({**STILL, "written": time.time(), "folder": str(folder)}), path)
    return path


def study_page(results: Results, whole: bool = True) -> str:
    """The page up to what tells of a run; while one is under way, without what takes long."""
    content = Content(results, whole)
    sections = [section for make in SECTIONS if (section := make(content)) is not None]
    title = str(results.study.get("name") or results.folder.name)
    return body_of(title, sections, str(results.folder))


def begun(folder: Path) -> Results:
    """The tables of a folder, be they still to come."""
    if all((folder / "tables" / f"{name}.arrow").is_file() for name in ("stages", "trials", "scores", "epochs")):
        return load(folder)
    return Results(folder, read_study(folder), {name: build(name, []) for name in SCHEMAS})
