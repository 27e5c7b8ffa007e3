"""Is a store whole, is it the published data set, and may its splits be trusted? One line per question.

FAILED is what makes scores wrong: damaged files, or a test set that shares patients, lesions or pictures with
training, be it by the published split. A warning is what a reader of scores should know: counts that differ from
the published ones without a reason in the quarantine table, lookalikes across splits, uneven or absent classes, and
a split by image, which is asked for knowingly; what its splits share is then a warning too.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.filesize import decimal

from dermsearch.data.case import SPLITS
from dermsearch.data.prepare.build import Ingredients, fingerprint
from dermsearch.data.prepare.duplicates import known_again
from dermsearch.data.prepare.lookalikes import StoreImages
from dermsearch.data.store.card import LEAKS, WIDTH, plain, quarantined
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.columns import fit
from dermsearch.data.store.layout import INDEX, MANIFEST, MASK, NONE, QUARANTINE, checksum, digest, in_three, shard_file
from dermsearch.errors import UserError
from dermsearch.words import many

OK, WARNING, FAILED = "ok", "warning", "FAILED"
END = {FAILED: "This store is not to be used.", WARNING: "Mind the warnings.", OK: "All is well."}
POINTS = 5.0  # by which a class's share in a split may differ from that in all cases
ENOUGH = 50  # cases of a class; of fewer, chance alone makes such differences
EXAMPLES = 3
Answer = tuple[str, str]  # mark, text


@dataclass
class Report:
    """What was found, as (mark, question, answer)."""

    folder: str
    found: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether the store is not to be used as it is."""
        return any(mark == FAILED for mark, _, _ in self.found)

    @property
    def lines(self) -> list[str]:
        """For a terminal: a line per question, then the sum."""
        told = [self.folder]
        for mark, question, answer in self.found:
            for i, text in enumerate(textwrap.wrap(plain(answer), WIDTH - 24, break_on_hyphens=False)):
                told.append(f"  {mark:<7}  {question:<11}  {text}" if i == 0 else " " * 24 + text)
        marks = Counter(mark for mark, _, _ in self.found)
        counts = ", ".join(f"{marks[m]} {m}" for m in (OK, WARNING, FAILED) if marks[m])
        worst = next(m for m in END if marks[m])
        return [*told, f"{END[worst]} {counts}"]


def check(folder: str | Path, progress: Callable[[int, int], None] = lambda done, files: None) -> Report:
    """Verify a store; `progress` hears how many of its files are read. Damage is an answer, no store a UserError."""
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder}: is not a case store (no {MANIFEST} in it)")
    report = Report(str(folder))
    found: list[CaseStore] = []

    def ask(question: str, answer: Callable[[], Answer]) -> bool:
        try:
            mark, text = answer()
        except UserError as error:
            mark, text = FAILED, str(error).removeprefix(f"{folder}: ")
        except Exception as error:  # an edited manifest leads into any
            mark, text = FAILED, f"is not as dermsearch writes it: {type(error).__name__}: {error}"
        report.found.append((mark, question, text))
        return mark != FAILED

    if not ask("index", partial(_open, folder, found)):
        ask("files", partial(_files, folder, None, progress))
        return report
    [store] = found
    sound = ask("files", partial(_files, folder, store, progress))
    for part in store.parts:  # whose images a mixture shows
        sound &= ask("part", partial(_part, part, progress))
    ask("manifest", partial(_manifest, store))
    ask("counts", partial(_counts, store))
    ask("split", partial(_split, store))
    for name in ("patient", "lesion", "group"):
        ask(f"{name}s", partial(_shared, store, name))
    ask("pictures", partial(_pictures, store))
    damaged: Answer = (WARNING, "not looked for, as files are damaged")
    ask("lookalikes", partial(_lookalikes, store) if sound else lambda: damaged)
    ask("balance", partial(_balance, store))
    ask("classes", partial(_absent, store))
    return report


def _about(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / MANIFEST).read_bytes())
    except ValueError:
        raise UserError(f"{folder}: {MANIFEST} is damaged") from None


def _open(folder: Path, found: list[CaseStore]) -> Answer:
    """Only an index that is as it was written is safe to map: Arrow trusts the offsets in it."""
    if not (folder / INDEX).is_file():
        return FAILED, f"{INDEX} is missing"
    if checksum((folder / INDEX).read_bytes()) != _about(folder)["files"][INDEX]:
        return FAILED, f"{INDEX} is damaged: its checksum is not that of the manifest"
    found.append(CaseStore(folder))
    return OK, many(len(found[0]), "case")


def _files(folder: Path, store: CaseStore | None, progress: Callable[[int, int], None]) -> Answer:
    sums: dict[str, str] = _about(folder)["files"]
    numbers = [] if store is None or store.parts else np.unique(store.column("shard")).tolist()
    shards = {shard_file(n): n for n in numbers}
    names = list(dict.fromkeys([*sums, INDEX, QUARANTINE, *shards]))
    bad, read = [], 0
    for done, name in enumerate(names):
        progress(done, len(names))
        data = (folder / name).read_bytes() if (folder / name).is_file() else None
        read += len(data or b"")
        if data is not None and checksum(data) == sums.get(name):
            continue
        what = "is missing" if data is None else "is damaged" if name in sums else "is not in the manifest"
        cases = _damaged(store, shards[name], data or b"") if store is not None and name in shards else []
        bad.append(f"{name} {what}" + (f": {_some(cases)}" if cases else ""))
    progress(len(names), len(names))
    if bad:
        return FAILED, _listed(f"{len(bad)} of {many(len(names), 'file')} not as written", bad)
    return OK, f"{many(len(names), 'file')}, {decimal(read)}, as they were written"


def _part(part: CaseStore, progress: Callable[[int, int], None]) -> Answer:
    mark, text = _files(part.folder, part, progress)
    return mark, f"{part.folder}: {text}"


def _damaged(store: CaseStore, shard: int, data: bytes) -> list[str]:
    """The cases of a shard whose images are not those that were written; all, where it cannot be read."""
    rows = np.flatnonzero(store.column("shard") == shard)
    cases = store.strings("case")[rows]
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError):
        return cases.tolist()
    harmed = np.zeros(len(rows), bool)
    for plane in (*store.modalities, *([MASK] if store.about["masks"] else [])):
        has, at = store.has(plane)[rows], store.column("at")[rows]
        one = plane in store.grey and not store.encoded
        hashes = store.index[f"pixel_{plane}"].take(pa.array(rows)).to_pylist()
        for i in np.flatnonzero(has):
            kept = table[plane][int(at[i])].as_py() if plane in table.column_names and at[i] < len(table) else b""
            harmed[i] |= digest(in_three(kept) if one else kept) != hashes[i]
    return cases[harmed].tolist()


def _manifest(store: CaseStore) -> Answer:
    about = store.about
    inputs = tuple(store.columns.values())
    told = Ingredients([], store.classes, store.modalities, store.side, store.encoded, store.settings, columns=inputs)
    columns = {name: store.index[name] for name in store.index.column_names}
    train = pa.array(store.split("train"))
    same = all(fit(c, columns[f"meta_{c.name}"].take(train)) == c for c in inputs)
    if not same or fingerprint(columns, told, about["split"]) != store.fingerprint or about["cases"] != len(store):
        return FAILED, "its settings, classes, columns, split or fingerprint are not those of the index: it was edited"
    return OK, "is that of the index, to the fingerprint"


def _counts(store: CaseStore) -> Answer:
    """What the authors published, against what is here; what is missing should be in the quarantine table."""
    expected = store.about.get("expected") or {}
    here = set(store.strings("case").tolist())
    out = {n["case"] or n["where"] for n in quarantined(store) if n["done"] == "left out"} - here
    wanted: list[tuple[str, int, int]] = [
        (f"{name}s", expected[f"{name}s"], len(set(store.strings(name).tolist()) - {""}))
        for name in ("case", "lesion", "patient")
        if expected.get(f"{name}s")
    ]
    if store.split_by == "published":
        found = {s: len(store.split(s)) for s in SPLITS}
        if "validation" in store.about["split"]:
            found = {"train": found["train"] + found["val"], "test": found["test"]}
        wanted += [(f"{s} cases", count, found.get(s, 0)) for s, count in expected.get("splits", {}).items()]
    for label, classes in expected.get("classes", {}).items():
        counts = np.bincount(store.label(label) + 1, minlength=len(store.classes[label]) + 1)[1:]
        here_of = dict(zip(store.classes[label], counts.tolist(), strict=True))
        wanted += [(f"of {label} {name}", count, here_of.get(name, 0)) for name, count in classes.items()]
    if not wanted:
        return OK, f"{many(len(here), 'case')}; no counts were published to compare with"
    odd = [f"{what}: {now:,} of {count:,}" for what, count, now in wanted if not 0 <= count - now <= len(out)]
    if odd:
        return WARNING, _listed("not as published, and the quarantine table does not tell why", odd)
    lacking = [f"{now:,} of {count:,} {what}" for what, count, now in wanted if now < count]
    if lacking:
        return OK, f"{lacking[0]} published; {len(out):,} left out (see quarantine)"
    return OK, f"{wanted[0][1]:,} {wanted[0][0]}, and all other counts, are as published"


def _split(store: CaseStore) -> Answer:
    told = ", ".join(f"{len(store.split(s)):,} {s}" for s in SPLITS)
    if store.split_by == "image":
        return WARNING, f"{told}. {LEAKS}"
    return OK, f"{told}; {'as' if store.split_by == 'published' else 'by'} {store.split_by}"


def _shared(store: CaseStore, name: str) -> Answer:
    """Whether a patient, a lesion or a group stands in more than one split."""
    words = store.index[name].to_pylist()
    count = len(set(words) - {""})
    if not count:
        return OK, f"the release names no {name}s"
    shared = _across(store, [(word, row) for row, word in enumerate(words) if word != ""])
    if not shared:
        return OK, f"none of {count:,} {name}s is in more than one split"
    # Dealt by lesion, a patient may be in two splits, and with the patient the group.
    mild = store.split_by == "lesion" and name != "lesion"
    return _leak(store, f"{many(len(shared), name)} in more than one split", shared, mild)


def _pictures(store: CaseStore) -> Answer:
    """Whether the same file or the same pixels stand in more than one split."""
    images = StoreImages.of(store)
    shared: dict[str, list[list[int]]] = {
        what: _across(store, [(h, row) for h, row in zip(hashes, images.rows.tolist(), strict=True) if h != NONE])
        for what, hashes in (("file", images.files), ("picture", images.pixels))
    }
    told = [
        f"the same {what} in more than one split {many(len(rows), 'time')}" for what, rows in shared.items() if rows
    ]
    if not told:
        return OK, f"none of {many(len(images.rows), 'image')} is in more than one split, by file or by pixels"
    return _leak(store, " and ".join(told), next(rows for rows in shared.values() if rows), False)


def _across(store: CaseStore, found: list[tuple[Any, int]]) -> list[list[int]]:
    """The rows of each key that is in several splits, of (key, row)."""
    split = store.index["split"].to_pylist()
    rows: dict[Any, list[int]] = defaultdict(list)
    for key, row in found:
        rows[key].append(row)
    return [r for r in rows.values() if len({split[i] for i in r}) > 1]


def _leak(store: CaseStore, text: str, shared: list[list[int]], mild: bool) -> Answer:
    told = [_pair(store, rows) for rows in shared]
    hint = "; --split-by patient or lesion would part them" if store.split_by == "published" else ""
    return WARNING if mild or store.split_by == "image" else FAILED, _listed(text + hint, told)


def _pair(store: CaseStore, rows: list[int]) -> str:
    """Two cases of different splits: c1 (train) and c5 (test)."""
    named = {store.index["split"][r].as_py(): store.index["case"][r].as_py() for r in reversed(rows)}
    return " and ".join([f"{named[split]} ({split})" for split in SPLITS if split in named][:2])


def _lookalikes(store: CaseStore) -> Answer:
    """Pictures that are nearly the same, by the rule of `duplicates`, in different splits."""
    images = StoreImages.of(store)
    split = store.strings("split")[images.rows]
    pairs = []
    for a, b in combinations(SPLITS, 2):
        one, two = images.take(np.flatnonzero(split == a)), images.take(np.flatnonzero(split == b))
        found = [(i, j) for i, j in known_again(one.looks, two.looks) if one.pixels[i] != two.pixels[j]]
        pairs += [_pair(store, [int(one.rows[i]), int(two.rows[j])]) for i, j in found]
    if not pairs:
        return OK, "no two splits hold nearly the same picture"
    return WARNING, _listed(f"{many(len(pairs), 'pair')} of nearly the same picture in two splits", pairs)


def _balance(store: CaseStore) -> Answer:
    """How far a class's share in a split is from its share in all."""
    found: list[tuple[float, str]] = []  # points, of what
    for label, names in store.classes.items():
        known = store.label(label)
        whole = np.bincount(known + 1, minlength=len(names) + 1)[1:]
        for split in SPLITS:
            part = np.bincount(known[store.split(split)] + 1, minlength=len(names) + 1)[1:]
            if part.sum():
                points = 100 * (part / part.sum() - whole / whole.sum())
                told = {i: f"{label} {names[i]} in {split} ({points[i]:+.1f})" for i in np.flatnonzero(whole >= ENOUGH)}
                found += [(abs(points[i]), text) for i, text in told.items()]
    odd = [text for _, text in sorted((-apart, text) for apart, text in found if apart > POINTS)]
    if odd:
        text = f"{many(len(odd), 'share')} of classes over {POINTS:g} points from that in all cases"
        return WARNING, _listed(text, odd)
    if not found:
        return OK, f"no class has the {ENOUGH} cases that would tell"
    _, most = max(found, key=itemgetter(0))
    return OK, f"shares of classes are within {POINTS:g} points in every split; most apart: {most}"


def _absent(store: CaseStore) -> Answer:
    odd = []
    for label, names in store.classes.items():
        there = np.unique(store.label(label))
        for split in SPLITS:
            found = store.label(label)[store.split(split)]
            lacking = np.setdiff1d(there[there >= 0], found) if (found >= 0).any() else ()
            odd += [f"{label} {names[i]} in {split}" for i in lacking]
    if odd:
        return WARNING, _listed(f"{many(len(odd), 'time')} a class has no case in a split", odd)
    return OK, "every class is in every split" if store.classes else "there are no labels"


def _listed(text: str, examples: list[str]) -> str:
    more = f", and {len(examples) - EXAMPLES:,} more" if len(examples) > EXAMPLES else ""
    return f"{text}: {', '.join(examples[:EXAMPLES])}{more}"


def _some(cases: list[str]) -> str:
    """A few ids and how many there are."""
    few = " ".join(cases[:EXAMPLES])
    return f"{many(len(cases), 'damaged case')}: {few}{' ...' if len(cases) > EXAMPLES else ''}"
