"""An explanation as words: a few sentences, aligned tables for a terminal, and one CSV file with every number."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dermsearch.curriculum import Curriculum
from dermsearch.errors import UserError
from dermsearch.results.board.leaderboard import points
from dermsearch.results.explain.effects import LEVEL, Effect
from dermsearch.results.explain.evidence import Evidence
from dermsearch.results.explain.explain import FEW_SEEDS, Explanation
from dermsearch.results.explain.importance import too_few
from dermsearch.results.explain.regret import Step, cost_to, progress
from dermsearch.results.tables.file import replacing
from dermsearch.words import many, unit_of

if TYPE_CHECKING:
    from rich.console import RenderableType

UNTOLD = "cannot be told"
LONGEST = 24  # lines of a table of effects
SHOWN = 12  # curricula without a score; the CSV file has all
TARGETS = (0.02, 0.01, 0.0)  # behind the best score
WORDS = ("beyond", "against", "told?", "why")  # headings of columns that hold no number
PLACE = {"last": "comes last", "first": "comes first"}


def interval(effect: Effect, sign: str = "+") -> str:
    """The value with its interval in percent points; an interval that nothing is left over for is not drawn."""
    ends = f" [{points(effect.low, sign)}, {points(effect.high, sign)}]" if effect.low is not None else ""
    return points(effect.value, sign) + ends


def chance(p: float | None) -> str:
    """A p-value as printed."""
    if p is None or p < 0.001:
        return "" if p is None else "< 0.001"
    text = f"{p:.3f}"
    return text if (float(text) < LEVEL) == (p < LEVEL) else f"{p:.4f}"


def verdict(effect: Effect) -> str:
    """What may be said of an effect."""
    if not effect.told:
        return UNTOLD
    return "yes" if effect.part in ("share", "setting") else "better" if effect.value > 0 else "worse"


def findings(found: Explanation) -> list[str]:
    """The sentences above the tables: what was looked at, and whether the last task or the order explains more."""
    evidence = found.evidence
    count = f"{counted(evidence)} of {', '.join(evidence.tasks)}"
    said = [
        "; ".join(filter(None, [count, many(len(evidence.seeds), "seed"), evidence.cases, evidence.quantity])) + "."
    ]
    said.append(comparison(found.shares))
    told = [e for e in (*found.tasks, *found.places, *found.pairs) if e.told]
    best = sorted(told, key=lambda e: -abs(e.value))[:3]
    said += [f"{named(e)}: {interval(e)} points against {e.against}." for e in best]
    return [line for line in said if line]


def comparison(shares: Iterable[Effect]) -> str:
    """Does the last task explain more than the order of single scores, or the other way round? By what each adds."""
    by = {(e.name, e.against): e for e in shares}
    last, order = "the last task", "rising or falling"
    if not all(key in by for key in ((last, ""), (order, ""), (last, order), (order, last))):
        return ""
    more, less = (last, order) if by[last, order].told else (order, last)
    first, second = by[more, less], by[less, more]
    if first.told and (first.low or 0.0) > (second.high or 0.0):
        return (
            f"{more[0].upper()}{more[1:]} explains more of the differences than {less}: "
            f"{interval(by[more, ''], '')} % against {interval(by[less, ''], '')} %; it adds {interval(first, '')} % "
            f"to what {less} explains, which adds {interval(second, '')} % to it."
        )
    told = [f"{e.name} adds to {e.against}" for e in (first, second) if e.told]
    lone = all(e.adjusted is None for e in by.values())
    why = "one seed tells nothing" if lone else "neither is told from chance beside the other"
    why = " and ".join(told) or why
    return f"Whether the last task or the order (rising or falling) explains more {UNTOLD}: {why}."


def named(effect: Effect) -> str:
    """An effect's name with its place."""
    return f"{effect.name} {PLACE.get(effect.part, '')}".strip()


def counted(evidence: Evidence) -> str:
    """How many curricula there are."""
    return many(len(evidence.curricula), "curriculum", "curricula")


def notes(found: Explanation) -> list[str]:
    """What a reader must know of the numbers."""
    seeds, known = len(found.evidence.seeds), found.evidence.luck is not None
    over = "over curricula" + ", or by luck as seeds tell it, whichever is wider" * known
    said = [
        f"[low, high]: 95 % interval {over}; of each number by itself. p: allows for all comparisons of its table "
        f"(Holm). '{UNTOLD}': p of 0.05 or more, or an interval that reaches 0.",
        "A curriculum counts once: the mean over its seeds and settings.",
    ]
    if known:
        said.append(f"Luck: what stages get by chance and hand on, whatever the share, and that of {drawn(found)}.")
    else:
        said.append(
            f"{many(seeds, 'seed')}: what a stage hands on by luck to all that grows from it looks like an effect of "
            f"its task, so nothing is told; {FEW_SEEDS} seeds are recommended."
        )
    if found.evidence.caveats:
        said.append(f"Caution: {found.evidence.caveats}")
    return said


def drawn(found: Explanation) -> str:
    """Whose luck it is that they were drawn, and how that is known."""
    groups = found.evidence.groups
    together = all(o.resampled is not None for o in found.evidence.curricula)
    none = not together and not any(o.error for o in found.evidence.curricula)
    return f"no {groups}, whose spread the tables lack" if none else groups + ", unpaired" * (not together)


def render(found: Explanation) -> Iterator[RenderableType]:
    """Everything for a terminal, table by table; a table without a line is left out."""
    evidence = found.evidence
    yield f"Why: {evidence.title}\n"
    yield from findings(found)
    yield ""
    for each in effect_tables(found):
        yield from printed_table(*each)
    if why := too_few(evidence.samples):
        yield f"{why}\n"
    yield from search_table(evidence)
    yield from dropped_table(evidence)
    if evidence.proposals:
        said = ", ".join(f"{count} {status}" for status, count in sorted(evidence.proposals.items()))
        yield f"Proposals: {said}."
    yield ""
    yield from notes(found)


class EffectTable(NamedTuple):
    """Effects as they are printed, a line each."""

    title: str
    headings: list[str]
    lines: list[list[str]]
    note: str


def effect_tables(found: Explanation) -> Iterator[EffectTable]:
    """All shares, then the clearest of each kind of effect, then what was chosen."""
    yield EffectTable(
        "What explains the differences between curricula of several tasks",
        ["", "beyond", "share, %  [95 %]", "as found", "p", "told?"],
        [[e.name, e.against, interval(e, ""), points(e.plain), chance(e.adjusted), verdict(e)] for e in found.shares],
        "share: of the variance of their scores, less what as many groups explain by chance",
    )
    for title, effects, note in (
        ("What a task adds", found.tasks, "points: on average over whatever else is in the curriculum"),
        (
            "What its place is worth",
            found.places,
            "points: the same tasks in another order; first: beyond what the last task does",
        ),
        (
            "What neighbours are worth",
            found.pairs,
            "points: the first right before the second, the same tasks; with what coming last does",
        ),
    ):
        shown = clearest(effects)
        lines = [[named(e), e.against, interval(e), chance(e.adjusted), verdict(e)] for e in shown]
        note += f"; the {len(shown)} clearest of {len(effects)}, the CSV file has all" * (len(shown) < len(effects))
        yield EffectTable(title, ["", "against", "points  [95 %]", "p", "told?"], lines, note)
    lines = [
        [e.name, points(e.value), f"{points(e.low)} to {points(e.high)}", chance(e.adjusted), verdict(e)]
        for e in found.settings
    ]
    yield EffectTable(
        "Which choices of the search mattered",
        ["", "importance, %", "by chance (95 %)", "p", "told?"],
        lines,
        "Optuna's PED-ANOVA: which choices set the best quarter of proposals apart; the shares sum to 100; "
        "p: how often chance makes any choice stand out as much",
    )


def clearest(effects: Sequence[Effect]) -> list[Effect]:
    """As many as a terminal has room for, those least likely to be chance, in their order."""
    kept = sorted(effects, key=lambda e: 1.0 if e.p is None else e.p)[:LONGEST]
    return [e for e in effects if e in kept]


def printed_table(
    title: str, headings: Sequence[str], lines: Sequence[Sequence[str]], note: str
) -> Iterator[RenderableType]:
    """One table in the leaderboard's style; what cannot be told is dim."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not lines:
        return
    table = Table(
        title=title,
        caption=note,
        caption_justify="left",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i == 0 or heading in WORDS else "right")
    for line in lines:
        table.add_row(*(Text(cell) for cell in line), style="dim" if line[-1] == UNTOLD else "")
    yield table
    yield ""


def search_table(evidence: Evidence) -> Iterator[RenderableType]:
    """How many stages it took to come near the best score, with shared beginnings trained once and without."""
    lines = []
    shared, whole = progress(evidence.walks), progress(evidence.walks, shared=False)
    if not shared or max(s.best for s in shared) == float("-inf"):
        return
    best, (unit, of) = max(s.best for s in shared), unit_of(whole[-1].seconds)
    for behind in TARGETS:
        one, other = cost_to(shared, best - behind), cost_to(whole, best - behind)
        if one and other:
            name = f"within {many(round(100 * behind), 'point')} of the best" if behind else f"the best, {points(best)}"
            lines.append(cost_line(name, one, other, of))
    lines.append(cost_line("all proposals", shared[-1], whole[-1], of))
    heads = ["until", "stages", "without sharing", "fewer", unit, "without sharing"]
    note = "in the order of the proposals (of a paper: of its table); stages found in the store count as trained"
    if any(step.stages % 1 for step in shared):
        note += ", and of what was only begun the share of its epochs"
    yield from printed_table("What the search cost", heads if shared[-1].seconds else heads[:4], lines, note)


def cost_line(name: str, one: Step, other: Step, of: float) -> list[str]:
    """One line of the cost table: with shared beginnings and without, times in units of so many seconds."""
    times = [f"{step.seconds / of:,.1f}" for step in (one, other)] if other.seconds else []
    return [name, one.cost, other.cost, f"{other.stages / one.stages:.1f} x", *times]


def dropped_table(evidence: Evidence) -> Iterator[RenderableType]:
    """What was proposed and has no score, and why."""
    lines = [[d.name, d.status, textwrap.shorten(d.error, 80)] for d in evidence.dropped[:SHOWN]]
    more = len(evidence.dropped) - len(lines)
    note = f"and {more} more; the CSV file has all" if more else ""
    yield from printed_table("What was tried and dropped", ["curriculum", "", "why"], lines, note)


COLUMNS = (
    "table", "name", "against", "value", "low", "high", "unit", "as_found", "curricula", "freedom", "p", "p_adjusted",
    "told", "stages", "seconds",
)  # fmt: skip


def numbers(found: Explanation) -> Iterator[dict[str, Any]]:
    """Every number as a row of the CSV file: scores and differences in percent points, shares in percent."""
    evidence = found.evidence
    for o in evidence.curricula:
        yield {"table": "curriculum", "name": str(Curriculum(o.tasks)), "value": percent(o.score), "unit": "%"}
    for e in found.effects:
        unit = "%" if e.part in ("share", "setting") else "points"
        yield {
            "table": e.part,
            "name": e.name,
            "against": e.against,
            "value": percent(e.value),
            "low": percent(e.low),
            "high": percent(e.high),
            "unit": unit,
            "as_found": percent(e.plain),
            "curricula": e.curricula,
            "freedom": e.freedom,
            "p": e.p,
            "p_adjusted": e.adjusted,
            "told": "yes" if e.told else "no",
        }
    for name, shared in (("regret", True), ("regret without sharing", False)):
        steps = progress(evidence.walks, shared)
        best = max((s.best for s in steps), default=0.0)
        for s in steps:
            behind = percent(best - s.best) if s.best > float("-inf") else None
            yield {"table": name, "value": behind, "unit": "points", "stages": f"{s.stages:g}", "seconds": s.seconds}
    for status, count in sorted(evidence.proposals.items()):
        yield {"table": "proposals", "name": status, "value": count, "unit": "proposals"}
    for d in evidence.dropped:
        yield {"table": "dropped", "name": d.name, "against": f"{d.status}: {d.error}".removesuffix(": ")}


def percent(value: float | None) -> float | None:
    """A fraction in percent, without the noise of floating point."""
    return None if value is None else round(100 * value, 6)


def write_csv(found: Explanation, path: str | Path) -> None:
    """All numbers in one file, readers never seeing half of it."""
    path = Path(path)
    if not path.name:
        raise UserError(f"--csv: '{path}' must be the name of a file")
    try:
        with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(numbers(found))
    except OSError as error:
        raise UserError(f"--csv: '{path}' cannot be written: {error.strerror}") from None
