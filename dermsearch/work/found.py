"""A picture of what a stage finds alike: held-out cases, and the training cases that look most as they do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dermsearch.data.inspect.sheet import check_png, save_png
from dermsearch.data.inspect.show import tiles
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.evaluate.nearest import nearest
from dermsearch.numbers import uniforms
from dermsearch.results.drawing import GREEN, INK, VERMILION
from dermsearch.work.eye import Eye

GAP, FRAME, LINE, SMALLEST = 12, 4, 18, 96  # pixels


def draw_found(cases: CaseStore, eye: Eye, label: str, output: Path, queries: int, k: int, seed: int) -> Path:
    """A row for each of some validation cases: the case, then what was found.

    What is framed in green, with a +, is of its class, what in vermilion, with an x, is not.
    """
    check_png(output)
    truth, names = cases.label(label), cases.classes[label]
    gallery, asked = (eye.sees(cases, cases.split(split)) for split in ("train", "val"))
    gallery, asked = gallery[truth[gallery] >= 0], asked[truth[asked] >= 0]
    if not len(gallery) or not len(asked):
        raise UserError(f"--label: no training or no validation case has an image of {eye.modality} and a {label}")
    asked = asked[by_turns(truth[asked], seed)][:queries]
    groups = cases.groups()
    found, cosines = nearest(
        eye.features(cases, asked), eye.features(cases, gallery), min(k, len(gallery)), groups[asked], groups[gallery]
    )
    tile = SMALLEST * -(-cases.side // SMALLEST) if cases.side < SMALLEST else cases.side
    across, down = tile + 2 * FRAME + GAP, tile + 2 * FRAME + LINE + GAP
    sheet = Image.new("RGB", (GAP + across * (1 + found.shape[1]) + GAP, GAP + down * len(asked)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, (query, places) in enumerate(zip(asked, found, strict=True)):
        kept = places[places >= 0]
        shown = np.concatenate([[query], gallery[kept]])
        for column, (case, picture) in enumerate(zip(shown, tiles(cases, eye.modality, shown), strict=True)):
            left, top = GAP + across * column + GAP * (column > 0), GAP + down * row
            right = truth[case] == truth[query]
            colour = INK if column == 0 else GREEN if right else VERMILION
            pen.rectangle((left, top, left + tile + 2 * FRAME - 1, top + tile + 2 * FRAME - 1), fill=colour)
            sheet.paste(Image.fromarray(picture).resize((tile, tile)), (left + FRAME, top + FRAME))
            said = names[truth[case]]
            said = said if column == 0 else f"{'+' if right else 'x'} {said} {cosines[row, column - 1]:.2f}"
            pen.text((left + FRAME, top + tile + 2 * FRAME + 2), said, fill=colour, font=font)
    save_png(sheet, output)
    return output


def by_turns(truth: np.ndarray, seed: int) -> np.ndarray:
    """An order in which the classes take turns, so that a few show them all."""
    order = uniforms(seed, 0, np.arange(len(truth)), "found", 1)[:, 0].argsort(kind="stable")
    turn = np.zeros(len(truth), int)
    for cls in np.unique(truth):
        mine = order[truth[order] == cls]
        turn[mine] = np.arange(len(mine))
    return np.lexsort((truth, turn))
