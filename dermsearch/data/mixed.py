"""Data sets of a study that are a mixture of others of it, without what still others are judged on.

A mixture is made once, beside the built-in cases, and is a case store like any other: one reader, one fingerprint, one
order of its cases whatever the workers. It copies no image: it says which case of which part has it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dermsearch.data.store.card import quarantined
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import FORMAT, MANIFEST
from dermsearch.errors import UserError
from dermsearch.study.data import Data

Stores = Mapping[str, CaseStore]
MANY = 3e9  # pairs of images that are compared in some seconds


def open_sets(
    sets: Mapping[str, Data],
    cache: Path,
    one: Callable[[Data], CaseStore],
    say: Callable[[str], object] = lambda said: None,
) -> dict[str, CaseStore]:
    """All data sets of a study, in its order: `one` opens each that is no mixture, and mixtures are made of these."""
    stores = {name: one(data) for name, data in sets.items() if data.source != "mix"}
    for name, data in sets.items():
        if data.source == "mix":
            stores[name] = open_mixed(name, data, stores, cache, say)
    return {name: stores[name] for name in sets}


def mixed_folder(data: Data, stores: Stores, cache: Path) -> Path:
    """Where a mixture lies: named by what is in it and what is kept out of it."""
    told: list[Any] = [FORMAT, *([(name, stores[name].fingerprint) for name in n] for n in (data.mix, data.without))]
    if data.shares is not None:
        told.append(data.shares)
    return cache / f"mix-{hashlib.blake2b(json.dumps(told).encode(), digest_size=6).hexdigest()}"


def open_mixed(
    name: str, data: Data, stores: Stores, cache: Path, say: Callable[[str], object] = lambda said: None
) -> CaseStore:
    """The mixture called `name`, made of its parts if no process has done so before."""
    from dermsearch.data.prepare.mix import mix, point

    folder, open_parts = mixed_folder(data, stores, cache), [stores[each] for each in data.mix]
    if not (folder / MANIFEST).is_file():
        say(f"Mixing {', '.join(data.mix)} ...")
        folder.parent.mkdir(parents=True, exist_ok=True)
        parts, others = ([stores[each].folder for each in names] for names in (data.mix, data.without))
        try:
            mix(parts, folder, others, weights=data.shares, copied=False)
        except UserError as error:
            if not (folder / MANIFEST).is_file():  # else another process was faster
                raise UserError(f"data.{name}: {error}") from None
    point(folder, open_parts)
    return CaseStore(folder, open_parts)


def left_out(cases: CaseStore) -> int:
    """How many images a mixture lacks because they stand in a store that is judged on."""
    others = tuple(f"{told.rpartition(' ')[0]}:" for told in cases.settings["without"])  # else a copy within a part
    whose = (row["reason"].partition(" as ")[2] for row in quarantined(cases) if row["done"] == "left out")
    return sum(other.startswith(others) for other in whose)


def both_in(cases: CaseStore, other: CaseStore) -> dict[str, str]:
    """The images of one store that stand in another too: name -> in what way. None where they are too many."""
    from dermsearch.data.prepare.lookalikes import knows_originals
    from dermsearch.data.prepare.mix import occurring

    if not (knows_originals(cases) and knows_originals(other)) or len(cases) * len(other) > MANY:
        return {}
    ids = cases.strings("case")
    return {f"{ids[row]} ({modality})": why for (modality, row), why in occurring(cases, [other]).items()}
