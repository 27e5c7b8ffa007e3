"""A part of a store as a store of its own: the cases of some classes of one label, in the splits that they have.

So that real cases can be told apart by the same classes as made ones: those of one version of AISEEME D4's Table 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dermsearch.data.case import SPLITS, Case
from dermsearch.data.domain import setting_of
from dermsearch.data.prepare.build import write_store
from dermsearch.data.prepare.version import Version
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import MASK
from dermsearch.errors import UserError


def view(cases: CaseStore, out: Path, version: Version) -> CaseStore:
    """Write it, whole or not at all. Images are copied as they are kept, and decoded where they are JPEGs."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already; choose another folder with -o or delete it")
    rows = np.arange(len(cases))
    chosen = version.of(cases, rows)
    rows = rows[chosen >= 0]
    if not len(rows):
        raise UserError(f"{cases.folder}: no case is of these classes")
    names = cases.strings("case")
    split = {str(names[row]): name for name in SPLITS for row in np.intersect1d(rows, cases.split(name))}
    classes = {version.label: tuple(version.classes)}
    settings: dict[str, Any] = {
        "source": "view",
        "of": cases.fingerprint,
        "label": version.label,
        "classes": {name: list(of) for name, of in version.classes.items()},
        "others": version.others,
        **setting_of(cases.domain),
        **({"made": cases.settings["made"]} if cases.settings.get("made") else {}),
    }
    about = {key: cases.about[key] for key in ("licence", "citation", "home", "denied") if cases.about.get(key)}
    about["title"] = f"A part of {cases.about.get('title') or 'built-in drawn cases'}"
    about["dealt"] = cases.split_by  # what leaks there leaks here
    planes = [plane for plane in (*cases.modalities, MASK) if cases.has(plane)[rows].any()]
    told = _cases(cases, rows, chosen[rows], version.label)
    return write_store(out, told, split, classes, settings, tuple(cases.columns.values()), about, cases.grey, planes)


def _cases(cases: CaseStore, rows: np.ndarray, chosen: np.ndarray, label: str) -> Iterator[Case]:
    ids = {name: cases.strings(name) for name in ("case", "lesion", "patient")}
    metadata = {name: cases.metadata(name) for name in cases.about["metadata"]}
    has, masked = {m: cases.has(m) for m in cases.modalities}, cases.has(MASK)
    for row, cls in zip(rows.tolist(), chosen.tolist(), strict=True):
        images = {m: cases.pictures(m, np.array([row]))[0][0] for m, there in has.items() if there[row]}
        mask = cases.masks(np.array([row]))[0][0] if masked[row] else None
        who = {name: str(words[row]) for name, words in ids.items()}
        told = {name: column[row] for name, column in metadata.items()}
        yield Case(**who, images=images, labels={label: cls}, metadata=told, mask=mask)
