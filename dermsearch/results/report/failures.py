"""What failed, was ended or was never begun, each with its reason."""

from __future__ import annotations

from dermsearch.results.report.content import Content, PageSection
from dermsearch.results.report.markup import Markup, el, table


def failures(content: Content) -> PageSection:
    """Stages, then judgements, then beginnings that were not gone on with."""
    stages = [[content.name(key), line.status, line.error] for key, line in content.lines.items() if line.error]
    judged = [
        [row["curriculum"], f"{row['protocol']}, seed {row['seed']}", row["reason"] or ""]
        for row in content.results.judgements.to_pylist()
        if row["status"] == "failed"
    ]
    fits = [
        [f"{row['task']} fitted to {row['curriculum']}", row["status"], row["error"] or ""]
        for row in content.results.stages.to_pylist()
        if row["kind"] == "fit" and row["status"] != "done"
    ]
    lines = [*stages, *fits, *judged]
    if not lines:
        return PageSection("failures", "Failures", el("p", "Nothing failed.", class_="quiet"))
    bugs = content.results.folder / "errors"
    note = f"Tracebacks of bugs: {bugs}" if bugs.is_dir() else ""
    body = table(["curriculum", "what", "why"], lines, 3, "Failures") + (el("p", note, class_="quiet") if note else "")
    return PageSection("failures", "Failures", Markup(body))
