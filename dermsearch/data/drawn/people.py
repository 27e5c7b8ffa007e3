"""Built-in patients with 1 to 12 lesions, and tables that follow what is drawn: for what contrasts images with tables.

    of the lesion     diameter, in mm: how large it is in the picture; brightness, redness and colour of its body;
                      variation of that brightness; elongation and border, of its shape; elevation; site, on whose skin
                      it lies
    of the patient    skin type: the skin around; age: how uneven that is; lesions: who has many has smaller ones; sex

Numbers of a lesion are measured on its drawing, before any camera. Whether a value is missing is chance, drawn for the
lesion, or for the patient and so for all of his lesions; or it follows the diagnosis, as in hospitals that ask more
where they fear more. Then the holes alone tell the class, and whoever looks at nothing else can be seen to find it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dermsearch.data.case import Case
from dermsearch.data.domain import SKIN as DOMAIN
from dermsearch.data.drawn.lesion import LUMA, TINTS, Lesion, draw_lesion
from dermsearch.data.drawn.skin import (
    CLINIC,
    DERM,
    ELEVATION,
    ELEVATIONS,
    LESION,
    SITE,
    SITES,
    SKIN,
    SKIN_TONE,
    check_asked,
    draw_labels,
    draw_person,
    photograph_clinic,
    photograph_derm,
    pick,
    stream,
)

COUNT, TABLE, HOLES = 8, 9, 10  # streams of random numbers, after those of `skin`
SQUARE = 64  # pixels of the canvas that lesions are measured on, whatever the size of the pictures
MEASURED = ("brightness", "redness", "variation", "elongation", "border", "colour")
COLOURS = ("tan", "brown", "reddish", "greyish", "blue-grey")  # of TINTS
DIAMETER = (7.0, 5.0, 9.0, 6.0, 8.0)  # mm, by diagnosis
# How the skin of each site differs from the person's own, in red, green and blue: tanned, pale, rosy.
TONES = np.array(
    [
        (0.97, 0.95, 0.93),
        (1.0, 0.99, 0.97),
        (1.03, 1.03, 1.03),
        (0.94, 0.9, 0.85),
        (1, 1, 1),
        (1.02, 0.9, 0.88),
        (1.08, 1, 0.98),
    ]
)
LACKING, OFTEN, NOTHING = 0.1, 0.7, 0.04  # chances that a value is missing, that of its class is, all of a level are


def people(cases: int, size: int | None, seed: int, lesions: int = 12, by_class: bool = False) -> Iterator[Case]:
    """Yields cases patient by patient, the last one perhaps cut short.

    A size of None asks for them without images, and so without what is measured on a drawing.
    """
    check_asked(cases, size, seed)
    return (draw(*who, size, seed, by_class) for who in walk(cases, seed, lesions))


def walk(cases: int, seed: int, most: int) -> Iterator[tuple[int, int, int, int]]:
    """For each case its index, its patient's number, that patient's first case and number of lesions: of many, few."""
    patient = first = 0
    while first < cases:
        count = 1 + int(most * stream(seed, first, COUNT).random() ** 2)
        yield from ((index, patient, first, count) for index in range(first, min(first + count, cases)))
        patient, first = patient + 1, first + count


def draw(index: int, patient: int, first: int, lesions: int, size: int | None, seed: int, by_class: bool) -> Case:
    """One lesion of a patient whose first case is `first`."""
    labels, rng = draw_labels(seed, index), stream(seed, index, TABLE)
    person, skin_type = draw_person(seed, first)
    site, relief = (pick(rng, table[labels["diagnosis"]]) for table in (SITE, ELEVATION))
    usual = DIAMETER[labels["diagnosis"]] * (1.2 - 0.4 * min(1, lesions / 12))
    diameter = float(np.clip(usual * math.exp(rng.normal(0, 0.25)), 2, 16))
    own = SKIN[skin_type - 1] / 255 + stream(seed, first, SKIN_TONE).normal(0, 0.015, 3)
    skin = own * TONES[site]
    told: dict[str, float | str | None] = {
        **person,
        "skin_type": float(skin_type),
        "lesions": float(lesions),
        "site": SITES[site],
        "elevation": ELEVATIONS[relief],
        "diameter": round(diameter, 2),
        **dict.fromkeys(MEASURED),
    }
    case = Case(f"C{index:05d}", f"L{index:05d}", f"P{patient:05d}", {}, labels, told)
    if size is None:
        return case
    drawn = draw_lesion(labels, skin, SQUARE, stream(seed, index, LESION))
    told |= measure(drawn, skin)
    told |= dict.fromkeys(lacking(seed, index, first, labels["diagnosis"] if by_class else None))
    if 2 * size != SQUARE:
        drawn = draw_lesion(labels, skin, 2 * size, stream(seed, index, LESION))
    radius = float(np.clip(0.036 * diameter, 0.13, 0.42))  # the camera stands as far away for all
    texture = 0.01 + 0.0005 * float(person["age"])
    derm, mask = photograph_derm(drawn, skin, size, stream(seed, index, DERM), (radius, radius), texture)
    near = (0.7 * radius, 0.7 * radius)
    clinic = photograph_clinic(drawn, skin, relief, size, stream(seed, index, CLINIC), near)
    return replace(case, images={"derm": derm, "clinic": clinic}, mask=mask)


def measure(lesion: Lesion, skin: np.ndarray) -> dict[str, float | str]:
    """What a drawing's body is like: numbers in shares, and the nearest of the named colours."""
    body = np.asarray(lesion.body, float) / 255
    rgb = np.asarray(lesion.rgba, float)[..., :3] / 255
    weight = body / body.sum()
    mean = np.einsum("hw,hwc->c", weight, rgb)
    light = rgb @ LUMA
    y, x = np.indices(body.shape)
    across, down = x - (weight * x).sum(), y - (weight * y).sum()
    spread = np.array([[(weight * a * b).sum() for a in (across, down)] for b in (across, down)])
    short, long = np.sqrt(np.linalg.eigvalsh(spread))
    tints, own = (t / (t @ LUMA)[..., None] for t in (TINTS, (mean / skin)[None]))
    return {
        "brightness": round(float(mean @ LUMA), 4),
        "redness": round(float((mean[0] - mean[1]) / mean.sum()), 4),
        "variation": round(float(np.sqrt((weight * (light - mean @ LUMA) ** 2).sum())), 4),
        "elongation": round(float(long / short), 4),
        "border": round(float(1 - body.sum() / (4 * math.pi * short * long)), 4),  # 0 of an ellipse
        "colour": COLOURS[int(np.linalg.norm(tints - own, axis=1).argmin())],
    }


def lacking(seed: int, index: int, first: int, diagnosis: int | None) -> list[str]:
    """The columns that lack a value. A diagnosis leaves holes in columns of its own, of lesions alone."""
    assert DOMAIN.tabled is not None
    found = []
    for level, who in (("patient", first), ("lesion", index)):
        names = np.array([column.name for column in DOMAIN.tabled.columns if column.level == level])
        rng = stream(seed, who, HOLES + (level == "patient"))
        everything, each = rng.random(), rng.random(len(names))
        if diagnosis is not None and level == "lesion":
            chance = np.where(np.arange(len(names)) % len(DIAMETER) == diagnosis, OFTEN, LACKING / 2)
        else:
            chance = np.full(len(names), 1.0 if everything < NOTHING else LACKING)
        found += names[each < chance].tolist()
    return found
