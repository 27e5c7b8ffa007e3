"""What a study settles and what it does not, in a sentence under its board; and the commands that go on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermsearch.curriculum import ROOT_CURRICULUM
from dermsearch.words import many

if TYPE_CHECKING:
    from dermsearch.results.board.row import Row
    from dermsearch.results.tables.schema import Results

FEW = 3  # seeds that are recommended
QUICK = "-quick"  # ends the name of a study that ran with --quick
LOOK = "A quick look: its scores tell nothing. The study itself runs without --quick."
CHANCE = 0.025  # that a 95 % interval lies above what is not there, each by itself


def settled(rows: Sequence[Row], results: Results | None = None) -> str:
    """Which curricula are above no pre-training, and whether the best can be told."""
    if results and quick(results):
        return LOOK
    if not (ranked := ranks(rows)):
        return ""
    said = [alone(ranked[0])] if len(ranked) == 1 else [above_none(ranked), best_of(ranked), above_single(ranked)]
    if not (text := "; ".join(filter(None, said))):
        return ""
    one = " One seed: what stages have by luck is in none of this." if seeds_of(ranked) == 1 else ""
    begins = text[0] if text.startswith(tuple(row.name for row in ranked)) else text[0].upper()
    return f"{begins}{text[1:]}.{one}"


def quick(results: Results) -> bool:
    return str(results.study.get("name")).endswith(QUICK)


def ranks(rows: Sequence[Row]) -> list[Row]:
    """What is compared: curricula, or, where nothing is trained, the encoders that are judged."""
    scored = [row for row in rows if row.score is not None]
    return [row for row in scored if row.length] or scored


def seeds_of(ranked: Sequence[Row]) -> int:
    return max(len(row.seeds) for row in ranked)


def alone(row: Row) -> str:
    """Of one curriculum: where it stands to no pre-training."""
    gap = row.to_none
    if gap is None or gap.half is None:
        return ""
    how = "is above" if gap.above else "is below" if gap.below else "cannot be told from"
    return f"{row.name} {how} {ROOT_CURRICULUM}"


def above_none(ranked: Sequence[Row]) -> str:
    """How many curricula are above and below no pre-training."""
    compared = [row.to_none for row in ranked if row.to_none is not None and row.to_none.half is not None]
    if not compared:
        return ""
    counts = {"above": sum(d.above for d in compared), "below": sum(d.below for d in compared)}
    better, worse = sides(ranked)
    are = "is" if counts[better] == 1 or len(compared) == 1 else "are"
    what = ("curriculum", "curricula") if ranked[0].length else ("encoder", "encoders")
    text = f"{counts[better] or 'none'} of {many(len(compared), *what)} {are} {better} {ROOT_CURRICULUM}"
    if counts[better] and (lucky := round(CHANCE * len(compared))):
        text += f" ({lucky} of so many would be by chance, were none better)"
    return text + (f", {counts[worse]} {worse}" if counts[worse] else "")


def sides(ranked: Sequence[Row]) -> tuple[str, str]:
    """Where the better and the worse ones stand, by what is measured."""
    return ("below", "above") if ranked[0].measure.less else ("above", "below")


def best_of(ranked: Sequence[Row]) -> str:
    """Can the best be told from the rest?"""
    others = [row for row in ranked[1:] if row.to_best is not None and row.to_best.half is not None]
    if not others:
        return ""
    ties = sum(row.ties for row in others)
    if not ties:
        some = " of those that it can be held against" * (len(others) < len(ranked) - 1)  # others share no seed with it
        return f"{ranked[0].name} is the best{some}"
    if ties == len(ranked) - 1:
        return "which is best cannot be told"
    return f"{ties + 1} cannot be told apart as the best"


def above_single(ranked: Sequence[Row]) -> str:
    """Is the best better than the best task alone?"""
    gap = ranked[0].to_single
    if gap is None or gap.half is None:
        return ""
    single = next(row for row in ranked if row.length == 1)
    better, _ = sides(ranked)
    told = gap.above if better == "above" else gap.below
    return f"the best is {'' if told else 'not '}{better} {single.name}, the best task alone"


def further(rows: Sequence[Row], results: Results) -> list[tuple[str, str]]:
    """The very commands that tell more, each behind its reason: more seeds, longer training."""
    ranked = ranks(rows)
    if quick(results) or (len(ranked) < 2 and not any(row.length for row in ranked)):
        return []
    seeds = seeds_of(ranked)
    found = sorted({seed for row in ranked for seed in row.seeds})
    wanted = max(len(found), FEW if seeds < FEW else 2 * seeds)
    more = [*found, *(seed for seed in range(10_000) if seed not in found)][:wanted]
    folder = results.folder
    command = ["dermsearch", "run", str(folder / "study.yaml"), f"search.seeds=[{', '.join(map(str, more))}]"]
    name = results.study.get("name")
    if name and folder != Path("results") / str(name):
        command += ["--out", str(folder)]
    why = f"{FEW} seeds are recommended" if seeds < FEW else "more seeds tell more"
    said = [(f"To go on, {why}", shlex.join(command))]
    epochs = (results.study.get("train") or {}).get("epochs")
    if epochs and name and ranked[0].length:
        longer = [f"{where}={2 * now}" for where, now in (("train.epochs", epochs), *own_epochs(results.study))]
        command = ["dermsearch", "run", str(folder / "study.yaml"), *longer, f"name={name}-longer"]
        said.append(("Longer training, as a study of its own", shlex.join(command)))
    return said


def own_epochs(study: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Where tasks have epochs of their own, and how many."""
    for task, given in ((study.get("curriculum") or {}).get("tasks") or {}).items():
        if isinstance(given, dict) and isinstance(given.get("epochs"), int):
            yield f"curriculum.tasks.{task}.epochs", given["epochs"]
