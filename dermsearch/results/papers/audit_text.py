"""An audit as text for a terminal or a file, and as plain data for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dermsearch.papers.audit import CONSISTENT, MEANING, TRIPLE, Finding, Mean, RowAudit
from dermsearch.papers.counts import in_digits
from dermsearch.results.papers.audit_scores import ScoresAudit
from dermsearch.words import many

HEADINGS = ("Sens", "Spec", "Prec")
COUNTS = ("TP", "FP", "FN", "TN")
SHOWN = 20  # disagreements in a study's scores


def audit_lines(audits: Sequence[RowAudit]) -> list[str]:
    """A verdict for every row, then one table per finding."""
    lines = aligned([[audit.row, verdict(audit)] for audit in audits], left=2)
    for audit in audits:
        for kind in [kind for kind in audit.verdicts if kind != CONSISTENT]:
            lines += ["", *finding_lines(audit, kind)]
        for mean in [mean for mean in audit.means if mean.wrong]:
            lines += ["", f"{audit.row}: {mean.label} is not the mean of its row", *mean_lines(mean)]
    good = sum(audit.consistent for audit in audits)
    if any(f.true and f.verdict != CONSISTENT for audit in audits for f in audit.findings):
        lines += [
            "",
            "Left of >: as printed. Right: by the counts, true and false positives, false and true negatives.",
        ]
    return [*lines, "", f"{good} of {len(audits)} {'row is' if len(audits) == 1 else 'rows are'} consistent."]


def verdict(audit: RowAudit) -> str:
    """A row's verdict in a few words."""
    found = [
        f"{kind} ({count} of {many(len(audit.findings), 'label')})"
        for kind, count in audit.verdicts.items()
        if kind != CONSISTENT
    ]
    found += [f"{mean.label} is not the mean" for mean in audit.means if mean.wrong]
    return ", ".join(found) or CONSISTENT


def finding_lines(audit: RowAudit, kind: str) -> list[str]:
    """What is printed and what the counts give, for all labels of a row with the same verdict."""
    findings = [finding for finding in audit.findings if finding.verdict == kind]
    known = any(finding.true for finding in findings)
    titles = ["label", *HEADINGS, *((">", *HEADINGS, *COUNTS) if known else ()), "note"]
    body = [finding_cells(finding, known) for finding in findings]
    body += [mean_cells(mean, kind) for mean in audit.means if mean.repaired.get(kind)]
    return [f"{audit.row}: {MEANING.get(kind, kind)}", *aligned([titles, *body], indent=2)]


def mean_cells(mean: Mean, kind: str) -> list[str]:
    """A printed mean, and what it becomes with the repairs of this kind and of those before it."""
    printed = [str(mean.printed.get(name, "")) for name in TRIPLE]
    true = [
        in_digits(mean.repaired[kind][n], mean.printed[n].digits) if n in mean.repaired[kind] else "" for n in TRIPLE
    ]
    note = "with this" if kind == next(iter(mean.repaired)) else "with this and what is above"
    return [mean.label, *printed, ">", *true, *[""] * len(COUNTS), note]


def finding_cells(finding: Finding, known: bool) -> list[str]:
    """One label: its printed cells, and with `known` counts those that the counts give."""
    claim = finding.claim
    printed = [str(claim.cells.get(name, "")) for name in TRIPLE]
    if not known:
        return [claim.label, *printed, finding.note]
    width = max((cell.digits for cell in claim.triple.values()), default=1)
    true = [in_digits(100 * finding.true[name], width) if name in finding.true else "" for name in TRIPLE]
    many = f"one of {finding.fits} that fit" if finding.fits > 1 else ""
    counts = [str(count) for count in finding.matrix or [""] * 4]
    return [claim.label, *printed, ">", *true, *counts, "; ".join(filter(None, [finding.note, many]))]


def mean_lines(mean: Mean) -> list[str]:
    """The printed means that are not those of their cells."""
    body = [
        [name, str(mean.printed[name]), in_digits(mean.plain[name], mean.printed[name].digits)] for name in mean.wrong
    ]
    return aligned([["metric", "printed", "mean of the cells"], *body], indent=2)


def aligned(rows: Sequence[Sequence[str]], indent: int = 0, left: int = 1) -> list[str]:
    """Columns of equal width, the first ones and the last to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < left or i == len(row) - 1 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return lines


def scores_lines(audit: ScoresAudit) -> list[str]:
    """What does not agree in a study's scores, or that everything does."""
    lines = []
    if audit.rates:
        body = [[row, cls, *(f"{value:.1f}" for value in found.values())] for row, cls, found in audit.rates]
        lines = [*aligned([["row", "label", *HEADINGS], *body], left=2), ""]
    for wrong in audit.wrong[:SHOWN]:
        stored = "nothing" if wrong.stored is None else f"{wrong.stored:.6g}"
        lines.append(f"{wrong.where}: {wrong.what} is {stored}, must be {wrong.expected:.6g}")
    if len(audit.wrong) > SHOWN:
        lines.append(f"... and {len(audit.wrong) - SHOWN} more")
    if audit.unchecked:
        lines.append(f"Without confusion cells, so not checked: {many(audit.unchecked, 'judgement')} of a label.")
    return [*lines, f"{audit.compared - len(audit.wrong)} of {many(audit.compared, 'number')} agree."]


def audit_data(audits: Sequence[RowAudit]) -> dict[str, Any]:
    """An audit as plain data; rates in percent, as printed."""
    return {"consistent": all(audit.consistent for audit in audits), "rows": [row_data(audit) for audit in audits]}


def row_data(audit: RowAudit) -> dict[str, Any]:
    """One row as plain data."""
    return {
        "row": audit.row,
        "consistent": audit.consistent,
        "verdicts": dict(audit.verdicts),
        "labels": [
            {
                "label": finding.claim.label,
                "verdict": finding.verdict,
                "printed": {name: cell.value for name, cell in finding.claim.triple.items()},
                "by_counts": {name: 100 * finding.true[name] for name in TRIPLE if name in finding.true},
                "counts": dict(zip(("tp", "fp", "fn", "tn"), finding.matrix, strict=True)) if finding.matrix else {},
                "fits": finding.fits,
                "note": finding.note,
            }
            for finding in audit.findings
        ],
        "means": [
            {
                "label": mean.label,
                "printed": {name: cell.value for name, cell in mean.printed.items()},
                "of_the_cells": dict(mean.plain),
                "wrong": list(mean.wrong),
                "by_counts": {kind: dict(values) for kind, values in mean.repaired.items()},
            }
            for mean in audit.means
        ],
    }


def scores_data(audit: ScoresAudit) -> dict[str, Any]:
    """A study's audit as plain data."""
    return {"consistent": audit.consistent, **asdict(audit)}
