"""What the study asks, in a sentence, and what it settles so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dermsearch.results.board.about import data_of
from dermsearch.results.board.leaderboard import apart, footnotes, points
from dermsearch.results.drawing import readable
from dermsearch.results.report.content import Content, PageSection
from dermsearch.results.report.markup import Markup, el
from dermsearch.results.tables.measure import first_data


def question(content: Content) -> PageSection:
    """The first thing that a reader sees."""
    said = [el("p", asked(content), class_="asked")]
    if content.rows:
        from dermsearch.results.board.settled import further, settled

        told = settled(content.rows, content.results)
        said += [el("p", told)] * bool(told) + [figures(content)]
        commands = further(content.rows, content.results)
        said += [el("p", f"{why}: ", el("code", command), class_="quiet") for why, command in commands]
        said += [el("p", f"Caution: {content.rows[0].measure.caveats}", class_="caution")] * bool(
            content.rows[0].measure.caveats
        )
    else:
        said.append(el("p", "Nothing has been scored yet.", class_="quiet"))
    return PageSection("question", "The question", Markup("".join(said)))


def asked(content: Content) -> str:
    """From the study file alone."""
    study = content.results.study
    curriculum: dict[str, Any] = study.get("curriculum") or {}
    tasks = [str(name) for name in curriculum.get("tasks") or {}]
    length = curriculum.get("length") or [1, len(tasks)]
    low, high = (length[0], length[-1]) if isinstance(length, list) and length else (length, length)
    many = (f"{low} to {high} of " if low != high else f"{high} of ") * bool(tasks)
    names = ", ".join(tasks) or "its tasks"
    which = f"Which task alone, of {names}," if high == 1 else f"Which curriculum of {many}{names}"
    encoder = (study.get("encoder") or {}).get("name") or "an encoder"
    objective: dict[str, Any] = study.get("objective") or {}
    metric = readable(str(objective.get("metric") or "balanced_accuracy"))
    named = objective.get("label") or "mean"
    label = "as a mean over labels" if named == "mean" else f"of {readable(str(named))}"
    judges = objective.get("mean") or [objective.get("protocol") or "its protocol"]
    number = labelled(study, objective, str(judges[0]))
    of = data_of(study, first_data(study))
    who = encoder if isinstance(encoder, str) else "its encoders"
    return (
        f"{which} gives {who} the best {metric} {label}, "
        f"judged by {', '.join(map(str, judges))}{few(number)} on validation cases{of}?"
    )


def labelled(study: Mapping[str, Any], objective: Mapping[str, Any], judge: str) -> str:
    """How many labels the judge learns from where the study compares: all, 20 of every class, or 10%."""
    of = (study.get("downstream") or {}).get(judge)
    found = objective.get("labelled") or (of.get("labelled") if isinstance(of, dict) else None) or "all"
    return str(found[0] if isinstance(found, list) else found)


def few(number: str) -> str:
    """That in words; nothing where it learns from all."""
    if number == "all":
        return ""
    return f" from {number} of the labels" if number.endswith("%") else f" from {number} labelled cases of every class"


def figures(content: Content) -> Markup:
    """The few numbers that answer: the best, the best task alone, no pre-training, and how far each is from that.

    Of paired differences the intervals are narrower than those of the scores, which overlap where these do not hold 0.
    """
    cells = []
    for row in content.shown:
        what = "without pre-training" if not row.length else "best task alone" if row.length == 1 else "best"
        what = "best, a task alone" if row.length == 1 and len(content.shown) < 3 else what
        ends = "" if row.low is None else f"[{points(row.low)}, {points(row.high)}]"
        gap = f"Δ no pre-training {apart(row.to_none)}" if row.length and row.to_none else ""
        number = el("span", f"{points(row.score)} %", class_="big")
        cells.append(
            el(
                "div",
                el("div", what, class_="label"),
                el("div", number, " ", el("span", ends, class_="quiet num")),
                el("div", content.name(row.key) if row.length else "", class_="quiet"),
                el("div", gap, class_="num quiet") if gap else "",
                class_="figure",
            )
        )
    return Markup("".join([el("div", *cells, class_="figures"), el("details", NOTES, *notes(content))]))


NOTES = el("summary", "How to read these numbers")


def notes(content: Content) -> list[Markup]:
    """The leaderboard's footnotes."""
    from dermsearch.results.board.about import about

    known = about(content.results, content.rows[0].measure)
    return [el("p", note, class_="quiet") for note in footnotes(content.rows, known)]
