"""Built-in data: drawn chest radiographs of two hospitals, with lung masks and findings that are really there.

Anatomy and findings come from generators seeded by (seed, index), apart from those of the hospital that takes the
picture: the same patients can be sent to either. The drawings stand in for radiographs in tests and tutorials; they
say nothing about real ones.

Findings  pneumothorax  the lung's edge is drawn in, a gap without vessels and a bright line beside it
          pneumonia     one to three speckled opacities inside the lungs
          cardiomegaly  a heart wider than half of the thorax
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dermsearch.data.case import Case
from dermsearch.data.domain import FINDINGS
from dermsearch.data.drawn.radiograph import Hospital, exposed
from dermsearch.data.drawn.skin import check_asked, pick, stream, walk_patients
from dermsearch.data.drawn.thorax import Thorax, draw_thorax

FINDING, PATIENT, PERSON, ANATOMY, LUNGS, STATE, PICTURE, MARK = range(10, 18)  # one stream a purpose
AGE = ((48.0, 18.0), (42.0, 19.0), (58.0, 18.0), (66.0, 14.0))  # mean, spread in years, by finding
NAMES = FINDINGS["finding"]


@dataclass(frozen=True)
class Origin:
    """Where cases come from: how often each finding is there, and what the pictures of it look like."""

    prevalence: tuple[float, ...]  # of NAMES, of what a case shows first
    hospital: Hospital
    together: float = 0.0  # chance of each other finding beside the first
    marked: tuple[float, float] = (0.5, 0.5)  # chance of the letter without and with a finding


# A: portable, lying, soft and noisy, wires on the patient. B: upright, hard, clean, collimated.
A = Origin(
    (0.34, 0.22, 0.22, 0.22),
    Hospital(
        view="AP",
        gamma=(0.75, 0.95),
        contrast=(0.62, 0.78),
        lift=(0.10, 0.18),
        blur=(0.6, 1.0),
        noise=(0.035, 0.060),
        scatter=0.10,
        wires=2,
        letter="L",
    ),
)
B = Origin(
    (0.55, 0.12, 0.18, 0.15),
    Hospital(
        view="PA",
        gamma=(1.35, 1.75),
        contrast=(1.0, 1.15),
        lift=(0.0, 0.04),
        blur=(0.2, 0.4),
        noise=(0.008, 0.018),
        frame=(0.02, 0.05),
        pacemaker=0.08,
        letter="R",
    ),
)
PLACES = {
    "a": A,
    "b": B,
    "a_marked": replace(A, marked=(0.05, 0.95)),  # the letter is the shortcut: it goes with the label
    "a_together": replace(A, together=0.25),
}


def chest(cases: int, size: int | None, seed: int, place: str = "a") -> Iterator[Case]:
    """Yields drawn cases, a radiograph `size` pixels wide each, with its lung mask; None: without images."""
    check_asked(cases, size, seed)
    return (draw_case(*who, size, seed, PLACES[place]) for who in walk_patients(cases, seed))


hospital_a, hospital_b = partial(chest, place="a"), partial(chest, place="b")
marked_a, together_a = partial(chest, place="a_marked"), partial(chest, place="a_together")


def draw_labels(index: int, seed: int, place: Origin) -> dict[str, int]:
    """The first finding, and for each whether it is there."""
    rng = stream(seed, index, FINDING)
    first = pick(rng, place.prevalence)
    beside = rng.random(len(NAMES)) < place.together
    there = {name: int(k == first or (first > 0 and bool(beside[k]))) for k, name in enumerate(NAMES) if k}
    return {"finding": first, **there}


def draw_case(index: int, patient: int, first: int, size: int | None, seed: int, place: Origin) -> Case:
    """One radiograph; the anatomy is the patient's, who may have another finding each time."""
    labels = draw_labels(index, seed, place)
    rng = stream(seed, first, PERSON)
    mean, spread = AGE[draw_labels(first, seed, place)["finding"]]
    metadata: dict[str, float | str | None] = {
        "age": float(np.clip(round(rng.normal(mean, spread)), 16, 95)),
        "sex": "male" if rng.random() < 0.55 else "female",
        "view": place.hospital.view,
    }
    case = Case(f"X{index:05d}", f"S{index:05d}", f"P{patient:05d}", {}, labels, metadata)
    if size is None:
        return case
    thorax = Thorax.drawn(stream(seed, first, ANATOMY))
    there = {name for name in NAMES[1:] if labels[name]}
    body, lungs = draw_thorax(thorax, there, 2 * size, stream(seed, index, STATE))
    letter = stream(seed, index, MARK).random() < place.marked[int(bool(there))]
    pixels = exposed(body, place.hospital, letter, stream(seed, index, PICTURE))
    return replace(case, images={"xray": np.repeat(pixels[..., None], 3, axis=2)}, mask=lungs)
