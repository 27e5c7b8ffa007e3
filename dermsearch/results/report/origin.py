"""Where the numbers come from: versions, seeds, keys, what speaks against them, and the study file itself."""

from __future__ import annotations

from typing import Any

from dermsearch.errors import public
from dermsearch.regular import bytes_of
from dermsearch.results.report.content import Content, PageSection
from dermsearch.results.report.markup import Markup, el, table
from dermsearch.words import many


def origin(content: Content) -> PageSection:
    """Everything that tells these results from others."""
    results = content.results
    stages = results.stages.to_pylist()
    seeds = sorted({row["seed"] for row in stages} | set(results.scores["seed"].to_pylist()))
    caveats = sorted({row["caveats"] for row in stages if row["caveats"]})
    stores = sorted({row["stores"] for row in stages if row["stores"]})
    roots = sorted({row["parent"] for row in stages if row["depth"] == 1 and row["parent"]})
    devices = sorted({f"{row['device']} ({many(row['workers'] or 1, 'worker')})" for row in stages if row["device"]})
    lines = [
        ["study", results.study.get("name") or results.folder.name],
        ["made by", results.origin],
        ["libraries", "; ".join(sorted({row["libraries"] for row in stages if row["libraries"]}))],
        ["seeds", ", ".join(map(str, seeds))],
        ["trained on", "; ".join(devices)],
        ["fingerprints of its data", "; ".join(stores)],
        ["keys of its roots", ", ".join(roots[:8]) + " ..." * (len(roots) > 8)],
        ["caveats", "; ".join(caveats) or "none known"],
        ["tables", "; ".join(f"{name} {len(table_):,}" for name, table_ in results.tables.items() if len(table_))],
    ]
    facts = table(["", ""], [line for line in lines if line[1]], 2, "Provenance")
    text = study_text(content)
    copy = el("button", "Copy the study file", type="button", class_="copy", data_copies="study-file")
    file = el("details", el("summary", "The study file"), copy, el("pre", text, id="study-file", tabindex="0"))
    return PageSection("origin", "Provenance", Markup(facts + file))


def study_text(content: Content) -> str:
    """The study as it was resolved, without the secrets of its addresses."""
    path = content.results.folder / "study.yaml"
    try:
        return public(bytes_of(path).decode("utf-8"))
    except OSError:
        return written(content.results.study)


def written(study: dict[str, Any]) -> str:
    """The same from what was read of it."""
    import yaml

    return public(yaml.safe_dump(study, sort_keys=False))
