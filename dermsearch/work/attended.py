"""A picture of where classifiers look: validation images with their masks, without pre-training and from a stage."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from dermsearch.data.inspect.sheet import check_png, save_png
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import MASK
from dermsearch.errors import UserError
from dermsearch.evaluate.attention import Gaze, masks_of
from dermsearch.evaluate.base import Images
from dermsearch.evaluate.inside import inside, none_at_all
from dermsearch.models.encoders import Encoders
from dermsearch.results.drawing import GREEN, INK, VERMILION
from dermsearch.work.cases import look_of
from dermsearch.work.eye import Eye
from dermsearch.work.found import by_turns

GAP, FRAME, LINE, TILE = 12, 4, 18, 128  # pixels
HEAT, EDGE = np.array([255.0, 70.0, 0.0]), np.array([0.0, 160.0, 255.0])


def draw_attention(cases: CaseStore, eye: Eye, label: str, output: Path, count: int, seed: int, config: Any) -> Path:
    """A row for each image: itself with its mask's edge, then the attention of each classifier to what it predicts.

    What is framed in green, with a +, is right, what in vermilion, with an x, is not; the number is the share inside,
    where there is a map.
    """
    check_png(output)
    truth, names = cases.label(label), cases.classes[label]
    masked = cases.has(MASK) if cases.about["masks"] else np.zeros(len(cases), bool)
    train, shown = (eye.sees(cases, cases.split(split)) for split in ("train", "val"))
    train, shown = train[truth[train] >= 0], shown[(truth[shown] >= 0) & masked[shown]]
    if not len(train) or not len(shown):
        raise UserError(f"--label: no training or no validation image of {eye.modality} has a mask and a {label}")
    shown = shown[by_turns(truth[shown], seed)][:count]
    told: dict[str, Any] = eye.encoders.config
    fresh = Encoders.random(seed=seed, **told)
    eyes = {"no pre-training": replace(eye, encoders=fresh), f"stage {eye.stage[:8]}": eye}
    masks = masks_of(cases, shown, look_of(eye.data))
    columns = {title: attended(cases, each, label, train, shown, seed, config) for title, each in eyes.items()}
    across, down = TILE + 2 * FRAME + GAP, TILE + 2 * FRAME + LINE + GAP
    sheet = Image.new("RGB", (GAP + across * (1 + len(columns)), GAP + LINE + down * len(shown)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, title in enumerate(("image and mask", *columns)):
        pen.text((GAP + across * column, GAP // 2), title, fill=INK, font=font)
    for row, case in enumerate(shown):
        picture, top = picture_of(next(iter(columns.values())).pixels[row]), GAP + LINE + down * row
        tiles = [(edged(picture, masks[row]), INK, names[truth[case]])]
        for each in columns.values():
            right = each.predicted[row] == truth[case]
            share = share_of(each.amount[row], masks[row])
            said = f"{'+' if right else 'x'} {names[each.predicted[row]]}, {share}"
            tiles.append((heated(picture, each.amount[row]), GREEN if right else VERMILION, said))
        for column, (tile, colour, said) in enumerate(tiles):
            left, side = GAP + across * column, TILE + 2 * FRAME
            pen.rectangle((left, top, left + side - 1, top + side - 1), fill=colour)
            sheet.paste(Image.fromarray(tile).resize((TILE, TILE)), (left + FRAME, top + FRAME))
            pen.text((left, top + side + 2), said, fill=colour, font=font)
    save_png(sheet, output)
    return output


@dataclass(frozen=True)
class Attended:
    """What one classifier says of some images, and what speaks for it."""

    predicted: np.ndarray  # (n,) classes
    amount: np.ndarray  # (n, size, size) of attention
    pixels: np.ndarray  # (n, 3, size, size) normalised


def attended(
    cases: CaseStore, eye: Eye, label: str, train: np.ndarray, shown: np.ndarray, seed: int, config: Any
) -> Attended:
    """A classifier of one label, fitted on the training cases from an eye's encoders, looks at the images shown."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = Images(eye.encoders.to(device).eval(), cases, train, shown, look_of(eye.data), device, nullcontext)
    gaze = Gaze(images, eye.modality, config)
    gaze.check()
    truth, classes = {label: cases.label(label)[train]}, {label: cases.classes[label]}
    head = gaze.heads(classes, truth, cases.groups()[train], seed)[label]
    predicted, amount = gaze.maps(shown, head)
    return Attended(predicted, amount, gaze.pixels(shown).cpu().numpy())


def share_of(amount: np.ndarray, mask: np.ndarray) -> str:
    """The share of a picture's attention that lies inside its mask, in words where nothing speaks for the class."""
    if none_at_all(amount[None])[0]:
        return "no map"
    return f"{100 * inside(amount[None], mask[None])[0]:.0f} % inside"


def picture_of(pixels: np.ndarray) -> np.ndarray:
    """Normalised pixels (3, size, size) as a picture, from its darkest to its brightest."""
    low, high = pixels.min(), pixels.max()
    return np.asarray(255 * (pixels - low) / max(high - low, 1e-9)).transpose(1, 2, 0)


def heated(picture: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """The picture in the colour of heat, the more the more attention."""
    share = (0.75 * amount / max(amount.max(), 1e-12))[..., None]
    return np.asarray((1 - share) * picture.mean(2, keepdims=True) + share * HEAT, np.uint8)


def edged(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with the edge of its mask."""
    inner = mask > 0.5
    edge = inner & ~(np.roll(inner, 1, 0) & np.roll(inner, -1, 0) & np.roll(inner, 1, 1) & np.roll(inner, -1, 1))
    return np.asarray(np.where(edge[..., None], EDGE, picture), np.uint8)
