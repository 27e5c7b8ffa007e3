"""A contact sheet: many cases on one page, to see what the images of a data set look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dermsearch.errors import UserError, first_line
from dermsearch.words import many

COLUMNS = 6  # of cases
GAP = 14  # pixels between cases
TIGHT = 3  # pixels between the images of one case
SMALLEST = 96  # images narrower than this are enlarged, so that captions fit below them
INK, PALE, LOUD = (35, 35, 40), (120, 120, 128), (170, 60, 0)


def contact_sheet(images: dict[str, np.ndarray], captions: list[str], path: Path, note: str = "") -> None:
    """Writes a PNG with each case's modalities side by side and its caption below; a note stands above all of them.

    `images` maps a modality to uint8 (cases, side, side, 3).
    """
    side = next(iter(images.values())).shape[1]
    tile = side * max(1, -(-SMALLEST // side))
    width = len(images) * (tile + TIGHT) - TIGHT
    title_font, font = ImageFont.load_default(18), ImageFont.load_default(12)
    wrapped = [wrap(caption, font, width) for caption in captions]
    line = 16
    below = line * max(len(lines) for lines in wrapped) + 4
    columns = min(COLUMNS, len(captions))
    rows = -(-len(captions) // columns)
    over = GAP + columns * (width + GAP)
    noted = wrap(note, font, over - 2 * GAP) if note else []
    head = 52 + line * len(noted)
    sheet = Image.new("RGB", (over, head + rows * (tile + below + GAP)), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for number, text in enumerate(noted):
        pen.text((GAP, 42 + number * line), text, fill=LOUD, font=font)
    pen.text((GAP, 14), " | ".join(images), fill=INK, font=title_font)
    count = many(len(captions), "case")
    pen.text((sheet.width - GAP, 18), count, fill=PALE, font=font, anchor="ra")
    for case, lines in enumerate(wrapped):
        left = GAP + (case % columns) * (width + GAP)
        top = head + (case // columns) * (tile + below + GAP)
        for place, stack in enumerate(images.values()):
            picture = Image.fromarray(stack[case]).resize((tile, tile), Image.Resampling.BICUBIC)
            sheet.paste(picture, (left + place * (tile + TIGHT), top))
        for number, text in enumerate(lines):
            pen.text((left, top + tile + 4 + number * line), text, fill=INK, font=font)
    save_png(sheet, path)


def check_png(output: Path) -> None:
    """Refuses another kind of picture, before it is drawn."""
    if output.suffix.lower() != ".png":
        raise UserError(f"--output: '{output}' must end in .png")


def save_png(sheet: Image.Image, output: Path) -> None:
    """Writes a picture, and its folder; UserError where it cannot be."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(output, "PNG")
    except OSError as error:
        raise UserError(f"--output: '{output}' cannot be written: {error.strerror or first_line(error)}") from None


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The text broken at spaces into lines no wider than `width` pixels; a longer word stands alone."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
