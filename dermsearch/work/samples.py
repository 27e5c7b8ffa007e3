"""A picture of what a classifier said of single cases: each with its class, what was said and how probable that was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dermsearch.data.inspect.sheet import check_png, save_png
from dermsearch.data.inspect.show import tiles
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError, nearest
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.results.drawing import GREEN, INK, VERMILION, chain
from dermsearch.results.tables.measure import choose
from dermsearch.results.tables.said import Answers, Said, said
from dermsearch.results.tables.schema import FIT, Results
from dermsearch.work.found import by_turns

GAP, FRAME, LINE, SMALLEST, ACROSS, TITLE = 14, 4, 16, 128, 4, 28  # pixels; pictures in a row


def draw_samples(
    results: Results,
    open_data: Callable[[str], CaseStore],
    output: Path,
    count: int = 8,
    seed: int = 0,
    protocol: str | None = None,
    label: str | None = None,
) -> Path:
    """Validation cases by turns of their classes, as the best curriculum's classifier sees them.

    Framed in green, with a +, where it is right; in vermilion, with an x, where not. `open_data` opens a data set.
    """
    check_png(output)
    measure = choose(results, protocol, None, label)
    judgement, name = best(results, said(results, measure), protocol, label)
    shown = measure.label
    if label is None and shown not in judgement.labels:
        shown = next(iter(judgement.labels))  # a mean over labels chose the best; a case has a class of each
    if shown not in judgement.labels:
        raise UserError(f"--label: '{shown}' was not predicted; {nearest(shown, judgement.labels)}")
    answers, cases = judgement.labels[shown], open_data(measure.data)
    kept = np.flatnonzero(answers.truth >= 0)
    chosen = kept[by_turns(answers.truth[kept], seed)][:count]
    rows = {case: row for row, case in enumerate(cases.strings("case").tolist())}
    lacking = [answers.cases[i] for i in chosen if answers.cases[i] not in rows]
    if lacking:
        raise UserError(f"{cases.folder}: has no case '{lacking[0]}'; it is not the store that was judged on")
    places = np.array([rows[answers.cases[i]] for i in chosen])
    modality = next(m for m in cases.modalities if cases.has(m)[places].any())
    sheet = drawn(answers, chosen, tiles(cases, modality, places), f"{name}, {measure.judge}, {shown}")
    save_png(sheet, output)
    return output


def best(results: Results, found: list[Said], protocol: str | None, label: str | None) -> tuple[Said, str]:
    """The first judgement of the best curriculum that left predictions, and what the curriculum is called."""
    fits = results.stages.filter([kind == FIT for kind in results.stages["kind"].to_pylist()]).to_pylist()
    fitted = {stage["key"]: stage["parent"] for stage in fits}
    for row in leaderboard(results, protocol, None, label):
        for each in found:
            if fitted.get(each.stage, each.stage) in row.keys and row.length and row.score is not None:
                return each, chain(row.tasks, {}, row.root)
    raise UserError(f"{results.folder}: keeps no predictions of any curriculum; run the study again")


def drawn(answers: Answers, chosen: np.ndarray, pictures: np.ndarray, title: str) -> Image.Image:
    """The sheet."""
    tile = max(SMALLEST, pictures.shape[1])
    wide, high = tile + 2 * FRAME + GAP, tile + 2 * FRAME + 2 * LINE + GAP
    across = min(ACROSS, len(chosen))
    sheet = Image.new("RGB", (GAP + across * wide, TITLE + GAP + -(-len(chosen) // across) * high), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    pen.text((GAP, GAP - 2), title, fill=INK, font=font)
    for number, (case, picture) in enumerate(zip(chosen, pictures, strict=True)):
        left, top = GAP + number % across * wide, TITLE + GAP + number // across * high
        told = int(answers.probabilities[case].argmax())
        right = told == answers.truth[case]
        colour = GREEN if right else VERMILION
        pen.rectangle((left, top, left + tile + 2 * FRAME - 1, top + tile + 2 * FRAME - 1), fill=colour)
        sheet.paste(Image.fromarray(picture).resize((tile, tile)), (left + FRAME, top + FRAME))
        below = top + tile + 2 * FRAME + 2
        said = f"{'+' if right else 'x'} {answers.classes[told]} {100 * answers.probabilities[case, told]:.0f} %"
        pen.text((left, below), f"is {answers.classes[answers.truth[case]]}", fill=INK, font=font)
        pen.text((left, below + LINE), said, fill=colour, font=font)
    return sheet
