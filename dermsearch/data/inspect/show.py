"""A look into a case store: some of its cases on one sheet, with what is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dermsearch.data.inspect.sheet import check_png, contact_sheet
from dermsearch.data.store.card import made_of
from dermsearch.data.store.case_store import CaseStore

# What an attribute is called below a picture; absent ones are left out.
SHORT = {
    "pigment_network": "network",
    "blue_whitish_veil": "veil",
    "vascular_structures": "vessels",
    "pigmentation": "pigment",
    "streaks": "streaks",
    "dots_and_globules": "dots",
    "regression_structures": "regression",
}
THERE = ("absent", "present")
PERSON = ("sex", "age", "site")


def show_store(store: CaseStore, output: Path, count: int, seed: int) -> Path:
    """Draw a contact sheet of `count` cases, a seeded draw, in the order of the store."""
    check_png(output)
    rows = np.sort(np.random.default_rng(seed).permutation(len(store))[:count])
    images = {m: tiles(store, m, rows) for m in store.modalities}
    note = " ".join(made_of(store.settings))
    contact_sheet(images, [caption(store, int(row)) for row in rows], output, note=note)
    return output


def tiles(store: CaseStore, modality: str, rows: np.ndarray) -> np.ndarray:
    """Square pictures, (n, side, side, 3): each whole and centred; white where a case has none."""
    canvas, frame = store.pictures(modality, rows)
    found = np.full((len(rows), store.side, store.side, 3), 255, np.uint8)
    for number, image in enumerate(canvas):
        h, w = frame[number, 2:] if frame is not None else image.shape[:2]
        if h and w:
            scale = store.side / max(h, w)
            size = (max(1, round(w * scale)), max(1, round(h * scale)))
            small = np.asarray(Image.fromarray(image[:h, :w]).resize(size, Image.Resampling.BILINEAR))
            top, left = (store.side - size[1]) // 2, (store.side - size[0]) // 2
            found[number, top : top + size[1], left : left + size[0]] = small
    return found


def caption(store: CaseStore, row: int) -> str:
    """The diagnosis and the attributes that a case shows; else its labels and what is known of the person.

    Of a finding that is there or not its name stands where it is there, once.
    """
    words = []
    for label, classes in store.classes.items():
        index = int(store.label(label)[row])
        name = classes[index] if index >= 0 else "?"
        if name in ("absent", "?") and label in SHORT:
            continue
        if label not in SHORT and tuple(classes) == THERE:
            words += [label] if name == THERE[1] and label not in words else []
            continue
        words.append(f"{SHORT[label]} {name}".replace(" present", "") if label in SHORT else name)
    if not SHORT.keys() & store.classes.keys():
        known = (store.index[f"meta_{n}"][row].as_py() for n in PERSON if n in store.about["metadata"])
        return ", ".join([*words, *(f"{k:.0f}" if isinstance(k, float) else k for k in known if k is not None)])
    return f"{words[0]}: {', '.join(words[1:]) or 'no attributes'}" if words else ""
