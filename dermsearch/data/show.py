"""A look into a case store: some of its cases on one sheet, with what is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dermsearch.data.sheet import contact_sheet
from dermsearch.data.store import CaseStore
from dermsearch.errors import UserError

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


def show_store(store: CaseStore, output: Path, count: int, seed: int) -> Path:
    """Draw a contact sheet of `count` cases, a seeded draw, in the order of the store."""
    if output.suffix.lower() != ".png":
        raise UserError(f"--output: '{output}' must end in .png")
    rows = np.sort(np.random.default_rng(seed).permutation(len(store))[:count])
    images = {m: store.pixels(m)[rows] for m in store.modalities}
    try:
        contact_sheet(images, [caption(store, int(row)) for row in rows], output)
    except OSError as error:
        raise UserError(f"--output: '{output}' cannot be written: {error.strerror}") from None
    return output


def caption(store: CaseStore, row: int) -> str:
    """The diagnosis and the attributes that a case shows."""
    words = []
    for label, classes in store.classes.items():
        index = int(store.label(label)[row])
        name = classes[index] if index >= 0 else "?"
        if name in ("absent", "?") and label in SHORT:
            continue
        words.append(f"{SHORT[label]} {name}".replace(" present", "") if label in SHORT else name)
    return f"{words[0]}: {', '.join(words[1:]) or 'no attributes'}" if words else ""
