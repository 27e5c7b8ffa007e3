"""Several case stores become one to pre-train on, without the images that stand in a store that is judged on.

Images are copied as they are kept; or they stay where they are, and the mixture shows them there: it is small and soon
made, and is a store only as long as its parts lie where it says. Ids get the name of their store before them
(`ham10000:ISIC_1`); what a case knows no image of, stays empty. Labels stay, unknown of the cases of other stores; a
label of which two stores have other classes gets the store's name before it (`ham10000_diagnosis`). Pictures are the
same if their file, their pixels or, nearly, their looks are.
"""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Collection, Iterator, Sequence
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np

from dermsearch.data.case import Column
from dermsearch.data.decode.look import LOOKS
from dermsearch.data.domain import setting_of
from dermsearch.data.prepare.build import Ingredients, finish, joined, read_heads, shard_cases
from dermsearch.data.prepare.divide import note
from dermsearch.data.prepare.duplicates import known_again
from dermsearch.data.prepare.lookalikes import StoreImages, knows_originals, looks_of, name_of
from dermsearch.data.prepare.progress import Watcher
from dermsearch.data.prepare.shard import CasePlanes, Plane, head_of, write_shard
from dermsearch.data.sources.base import CaseRecord
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import MANIFEST, MASK, NONE, ORIGIN, in_three, of_itself, read_manifest
from dermsearch.data.store.splits import Split
from dermsearch.data.store.unfinished import clear, growing
from dermsearch.errors import UserError, first_line, nearest
from dermsearch.regular import bytes_of
from dermsearch.storage.files import Folder
from dermsearch.words import many

SHARES = (0.95, 0.05, 0.0)  # pre-training needs a validation loss, and no test


def mix(
    stores: Sequence[str | Path],
    out: str | Path,
    without: Sequence[str | Path] = (),
    watcher: Watcher | None = None,
    weights: Sequence[float] | None = None,
    copied: bool = True,
) -> dict[str, Any]:
    """Join stores in `out`, whole or not at all; returns its manifest. No image of a `without` store comes along.

    `weights`, one a store, are their shares of an epoch of training; None: by how many images each has. Not `copied`,
    images stay in their stores: same cases, same fingerprint.
    """
    if "://" in str(out):
        raise UserError(f"{out}: stores are mixed in a folder of this machine; mix there and copy it")
    watcher, out = watcher or Watcher(), Path(out).expanduser()
    parts, others = [CaseStore(s) for s in stores], [CaseStore(s) for s in without]
    refuse(parts, others, out)
    for old in (store for store in (*parts, *others) if not knows_originals(store)):
        watcher.say(
            f"{name_of(old)}: was prepared by an earlier version: what it keeps of its images is compared, not the "
            "originals. To overlook fewer copies, prepare it again in a new folder."
        )
    watcher.start(sum(map(len, parts)), 0)
    dropped = [occurring(part, others) for part in parts]
    for part, drop in zip(parts, dropped, strict=True):
        if drop:
            watcher.say(f"{name_of(part)}: left out as in a store of --without: {many(len(drop), 'image')}.")
    clear(out.parent, f".{glob.escape(out.name)}.*")  # what a killed command left
    with growing(out) as folder:
        folder.chmod(0o755)
        ways = None if copied else [way(out, part.folder) for part in parts]
        manifest = _write(Folder(folder), parts, others, dropped, weights, watcher, ways)
        try:
            os.rename(folder, out)
        except OSError as error:
            raise UserError(f"{out}: cannot be put there: {first_line(error)}") from None
    return manifest


def way(folder: Path, part: Path) -> str:
    """From a mixture to a store that it shows: what lies beside it may move with it."""
    folder, part = folder.absolute(), part.absolute()
    return os.path.relpath(part, folder) if part.is_relative_to(folder.parent) else str(part)


def point(folder: Path, parts: Sequence[CaseStore]) -> None:
    """Let a mixture say where the stores lie whose images it shows, if they have moved since."""
    about = read_manifest(bytes_of(folder / MANIFEST), str(folder))
    told = [{**old, "path": way(folder, p.folder)} for old, p in zip(about.get("parts", ()), parts, strict=False)]
    if told == about.get("parts", []):
        return
    about["parts"] = told
    about["checksum"] = of_itself(about)
    part = folder / f".{MANIFEST}.{os.getpid()}"
    try:
        part.write_text(json.dumps(about, indent=1))
        os.replace(part, folder / MANIFEST)
    except OSError as error:
        raise UserError(f"{folder}: its stores have moved, and it cannot be told where: {first_line(error)}") from None


def weights_of(stores: Sequence[str], told: Sequence[str] | None) -> list[float] | None:
    """What NAME=NUMBER, or 'equal', say of these stores, each by the name of its folder; None where nothing is told."""
    if not told:
        return None
    found = {Path(store).expanduser().resolve().name: 1.0 for store in stores}
    for each in told if list(told) != ["equal"] else ():
        name, _, number = each.partition("=")
        if name not in found:
            raise UserError(f"--weight: '{name}' is none of the stores; {nearest(name, found)}")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = 0.0
        if not 0 < found[name] < math.inf:
            raise UserError(f"--weight: must be {name} with a number above 0, such as {name}=2, not '{each}'")
    return list(found.values())


def refuse(parts: list[CaseStore], others: list[CaseStore], out: Path) -> None:
    """What cannot become one store, told before anything is written."""
    if not parts:
        raise UserError("name at least one case store to mix")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already; choose another folder with -o or delete it")
    for a, b in combinations(parts, 2):
        if name_of(a) == name_of(b):
            raise UserError(f"{a.folder} and {b.folder} have one name, which goes before their ids; rename one folder")
        for what, option in (("side", "--side"), ("fit", "--fit"), ("encoded", "--encoded")):
            one, two = ({**s.settings, "side": s.side, "encoded": s.encoded}.get(what) for s in (a, b))
            if one != two and None not in (one, two):  # drawn lesions have no fit: they are square
                hint = f"without {option}" if one is False else f"with {option}" + ("" if one is True else f" {one}")
                raise UserError(
                    f"{a.folder} has {what} {one}, {b.folder} has {what} {two}; prepare {b.folder} again {hint}"
                )
        if a.domain_name != b.domain_name:
            raise UserError(f"{a.folder} is of domain {a.domain_name}, {b.folder} of {b.domain_name}; mix one of them")
    for part in parts:
        if any(part.fingerprint == other.fingerprint for other in others):
            raise UserError(f"{part.folder}: is mixed and named in --without; it would be left out as a whole")


def occurring(part: CaseStore, others: list[CaseStore]) -> dict[tuple[str, int], str]:
    """(modality, row) -> why not, for each image that is in another store too."""
    found: dict[tuple[str, int], str] = {}
    mine = StoreImages.of(part)
    keys = list(zip(mine.modality.tolist(), mine.rows.tolist(), strict=True))
    for other in others:
        theirs = StoreImages.of(other)
        for reason, hashes, known in (
            ("is the same file as", mine.files, theirs.files),
            ("has the same pixels as", mine.pixels, theirs.pixels),
        ):
            first = {h: j for j, h in reversed(list(enumerate(known))) if h != NONE}
            for i, h in enumerate(hashes):
                if h in first:
                    found.setdefault(keys[i], f"{reason} {theirs.name(first[h])}")
        left = np.array([i for i, key in enumerate(keys) if key not in found], int)
        for i, j in known_again(mine.looks[left], theirs.looks):
            found.setdefault(keys[left[i]], f"is nearly the same picture as {theirs.name(j)}")
    return found


def _write(
    folder: Folder,
    parts: list[CaseStore],
    others: list[CaseStore],
    dropped: list[dict[tuple[str, int], str]],
    weights: Sequence[float] | None,
    watcher: Watcher,
    ways: Sequence[str] | None,
) -> dict[str, Any]:
    modalities = tuple(dict.fromkeys(m for part in parts for m in part.modalities))
    planes = (*modalities, MASK) if any(part.about["masks"] for part in parts) else modalities
    # Where one store keeps three channels, they may differ: then the copies of all others have three.
    grey = tuple(m for m in modalities if all(m in part.grey for part in parts if m in part.modalities))
    records: list[CaseRecord] = []
    notes: list[dict[str, str]] = []
    classes, called = labels_of(parts)
    each = enumerate(zip(parts, called, dropped, strict=True))
    copied = None if ways is not None else grey
    cases = ((n, *found) for n, told in each for found in _cases(*told, notes, copied))
    shards, heads, where = 0, [], []
    while chunk := list(islice(cases, shard_cases(parts[0].side, len(planes)))):
        entries = [CasePlanes(len(records) + i, kept) for i, (_, _, _, kept) in enumerate(chunk)]
        if ways is None:
            write_shard(folder, shards, entries, planes)
        else:
            heads.append(head_of(entries, planes))
            where.append(([n for n, *_ in chunk], [row for _, row, *_ in chunk]))
        records += [record for _, _, record, _ in chunk]
        shards += 1
        watcher.advance(len(chunk))
    if not records:
        raise UserError("nothing is left to mix: every image is in a store of --without")
    names = tuple(map(name_of, parts))
    fits = [part.settings["fit"] for part in parts if "fit" in part.settings]
    settings = {
        "source": "mix",
        "stores": [f"{name_of(part)} {part.fingerprint}" for part in parts],
        "without": [f"{name_of(other)} {other.fingerprint}" for other in others],
        "fit": fits[0] if fits else None,
        **setting_of(parts[0].domain),
    }
    if weights is not None:
        settings["weights"] = [float(weight) for weight in weights]
    if made := list(dict.fromkeys(p.settings["made"] for p in parts if p.settings.get("made"))):
        settings["made"] = "; ".join(made)
    denied = {name: why for part in parts for name, why in part.denied.items()}
    about: dict[str, Any] = {"title": f"A mix of {', '.join(names)}, for pre-training", "denied": denied}
    if ways is not None:
        about["parts"] = [{"path": w, "fingerprint": p.fingerprint} for w, p in zip(ways, parts, strict=True)]
    if others:
        about["notes"] = [f"Images that also stand in {' or '.join(map(name_of, others))} are left out."]
    for key in ("licence", "citation"):
        about[key] = "; ".join(f"{name_of(p)}: {p.about[key]}" for p in parts if p.about.get(key))
    given = Ingredients(
        records,
        classes,
        modalities,
        parts[0].side,
        parts[0].encoded,
        settings,
        Split("image" if not any(r.patient or r.lesion for r in records) else None, SHARES),
        about,
        notes,
        columns=agreed(parts, denied),
        grey=grey if ways is None else (),
        looks=LOOKS if all(map(knows_originals, parts)) else 0,
    )
    return finish(folder, *(read_heads(folder, shards) if ways is None else (joined(heads, where), [])), given)


def agreed(parts: list[CaseStore], denied: Collection[str]) -> list[Column]:
    """The inputs of which all stores that know the name say the same; they are fitted anew."""
    declared: dict[str, set[Column]] = {}
    for part in parts:
        for name, column in part.columns.items():
            declared.setdefault(name, set()).add(Column(name, column.kind, column.level))
    return [column for name, (column, *others) in declared.items() if not others and name not in denied]


def labels_of(parts: list[CaseStore]) -> tuple[dict[str, tuple[str, ...]], list[dict[str, str]]]:
    """The classes of the origin and of all labels, and what each store's own labels are called among them."""
    said: dict[str, set[tuple[str, ...]]] = {ORIGIN: {(), (ORIGIN,)}}  # a mix's own origin is always another
    for part in parts:
        for label, classes in part.classes.items():
            said.setdefault(label, set()).add(classes)
    called = [{k: k if len(said[k]) == 1 else f"{name_of(part)}_{k}" for k in part.classes} for part in parts]
    found = {ORIGIN: tuple(map(name_of, parts))}
    for part, names in zip(parts, called, strict=True):
        for label, name in names.items():
            if found.setdefault(name, part.classes[label]) != part.classes[label]:
                raise UserError(f"{part.folder}: its label {label} would be called {name}, as another is; rename it")
    return found, called


def _cases(
    store: CaseStore,
    called: dict[str, str],
    drop: dict[tuple[str, int], str],
    notes: list[dict[str, str]],
    copied: Sequence[str] | None,
) -> Iterator[tuple[int, CaseRecord, dict[str, Plane]]]:
    """A store's cases with the images that stay: the row of each, what it is, and its images.

    `copied` are the modalities that are copied in one channel; None: no image is copied.
    """
    name = name_of(store)
    planes = (*store.modalities, *((MASK,) if store.about["masks"] else ()))
    sizes = {p: [store.column(f"{o}{a}_{p}") for o in ("", "original_") for a in ("height", "width")] for p in planes}
    metadata = {key: store.metadata(key) for key in store.about["metadata"]}
    ids = {key: store.strings(key) for key in ("case", "lesion", "patient")}
    labels = {k: [(*store.classes[k], None)[i] for i in store.label(k).tolist()] for k in called}  # -1 is unknown
    for row in range(len(store)):
        who = {key: f"{name}:{words[row]}" if words[row] else "" for key, words in ids.items()}
        images = {m: f"{who['case']} ({m})" for m in store.modalities if sizes[m][0][row]}
        record = CaseRecord(
            who["case"],
            images,
            {ORIGIN: name, **{called[label]: words[row] for label, words in labels.items()}},
            who["lesion"],
            who["patient"],
            {key: column[row] for key, column in metadata.items()},
            where=str(store.folder),
        )
        kept = {}
        for plane in planes:
            if reason := drop.get((plane, row)):
                notes.append(note(record, images[plane], "left out", reason))
            elif sizes[plane][0][row]:
                kept[plane] = _plane(store, plane, row, [int(s[row]) for s in sizes[plane]], copied)
        if kept.keys() - {MASK}:
            yield row, record, kept


def _plane(store: CaseStore, plane: str, row: int, sizes: list[int], copied: Sequence[str] | None) -> Plane:
    """An image as it is to be kept; of one that stays where it is, what is told of it."""
    data = b"" if copied is None else store.kept(plane, row).data
    pixels = store.index[f"pixel_{plane}"][row].as_py()
    size, original = (sizes[0], sizes[1]), (sizes[2], sizes[3])
    if plane == MASK:
        return Plane(data, size, original, pixels=pixels)
    if copied is not None and plane not in copied and not store.encoded and store.channels(plane, row) == 1:
        data = in_three(data)
    file = store.index[f"file_{plane}"][row].as_py()
    look = looks_of(store, plane, np.array([row])).tobytes()
    # Drawn images come from no file; their pixels stand for it, so that they too are found where they occur again.
    return Plane(data, size, original, pixels if file == NONE else file, look, pixels)
