"""What a case store holds, told twice: a data card in Markdown beside the store, and a screen for `data describe`.

`gather` computes the facts once; the two renderings differ in form alone.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from rich.filesize import decimal

from dermsearch.data.case import SPLITS
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import MASK, QUARANTINE, dealt_by
from dermsearch.errors import UserError
from dermsearch.words import many

WIDTH = 100  # of a terminal's lines
SHOWN = 12  # classes of a label, the largest
DRAWN = "built-in drawn cases"
NAMED = {"view": "as in the store that it is a part of", "made": "as asked for"}  # splits that nobody published
LEAKS = (
    "It is split BY IMAGE: pictures of one lesion or patient can stand in train and in test. Scores on it are too "
    "good; prepare it with --split-by lesion or patient."
)


@dataclass
class Balance:
    """How often each class of a label occurs, in all and in each split; the last row are the unknown."""

    label: str
    names: list[str]
    counts: np.ndarray  # (classes + 1, 1 + splits)

    def shown(self) -> list[int]:
        """The largest classes, in the order of the label where all fit."""
        if len(self.names) <= SHOWN:
            return list(range(len(self.names)))
        return np.argsort(-self.counts[:-1, 0], kind="stable")[:SHOWN].tolist()

    def share(self, row: int, column: int) -> float:
        """Per cent of the cases whose class is known."""
        return 100 * self.counts[row, column] / max(1, self.counts[:-1, column].sum())

    @property
    def more(self) -> int:
        """How many classes are not shown."""
        return max(0, len(self.names) - SHOWN)


@dataclass
class Facts:
    """All that is told of a store."""

    title: str
    warnings: list[str]
    cases: list[tuple[str, str]]  # what, and the facts of it
    lacking: list[str]  # of how many cases each column of metadata is missing
    images: list[tuple[str, ...]]  # a table; its first row is the head
    balances: list[Balance]
    origin: list[tuple[str, str]]
    notes: list[str]
    settings: list[tuple[str, str]]


def card(manifest: dict[str, Any], index: pa.Table, notes: list[dict[str, str]]) -> str:
    """The data card, in Markdown."""
    return "\n".join(_markdown(gather(manifest, index, notes))) + "\n"


def describe(store: CaseStore) -> Iterator[str]:
    """The same facts as a screen of a terminal."""
    yield from _terminal(f"{store.folder}: ", gather(store.about, store.index, quarantined(store)))


def quarantined(store: CaseStore) -> list[dict[str, str]]:
    """The rows of a store's quarantine table."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(store.folder / QUARANTINE))).read_all()
        table.validate(full=True)
    except (OSError, pa.ArrowException):
        raise UserError(f"{store.folder}: {QUARANTINE} is missing or damaged; make the store again") from None
    return table.to_pylist()


def gather(manifest: dict[str, Any], index: pa.Table, notes: list[dict[str, str]]) -> Facts:
    """The facts, from what a finished store is made of."""
    split = np.array(index["split"].to_pylist())
    counts = ", ".join(f"{(split == s).sum():,} {s}" for s in SPLITS)
    cases = [("cases", f"{len(split):,}: {counts}")]
    cases += [(f"{name}s", _known(index[name].to_pylist())) for name in ("patient", "lesion")]
    groups = len(set(index["group"].to_pylist()))
    cases += [("groups", f"{groups:,}, of cases that must stay together")] if groups < len(split) else []
    cases += list(_split(manifest["split"], manifest["settings"].get("source")))
    if manifest["masks"]:
        cases.append(("masks", f"{(index[f'height_{MASK}'].to_numpy() > 0).sum():,} of {many(len(split), 'case')}"))
    cases += list(_inputs(manifest))
    lacking = {n: index[f"meta_{n}"].null_count for n in manifest["metadata"]}
    told = [f"{n} {count:,} ({100 * count / len(split):.0f} %)" if count else f"{n} 0" for n, count in lacking.items()]
    cases += [("duplicates", manifest["duplicates"]), ("quarantine", _quarantine(notes))]
    form = "JPEGs" if manifest["encoded"] else "raw pixels"
    if manifest.get("grey") and not manifest["encoded"]:
        form += f", one channel of {' and '.join(manifest['grey'])}"
    where = f"in {many(len(lent), 'store')} that it shows" if (lent := manifest.get("parts")) else ""
    cases.append(("format", f"{form}, short side {manifest['side']} px, {where or decimal(manifest['bytes'])}"))
    cases.append(("fingerprint", manifest["fingerprint"]))
    balances = [_balance(n, list(names), index, split) for n, names in manifest["classes"].items()]
    return Facts(
        manifest.get("title") or DRAWN,
        [LEAKS] * (dealt_by(manifest) == "image") + made_of(manifest["settings"]),
        cases,
        told,
        [("images", "cases", "lack one", "stored, width x height", "original", "enlarged")]
        + [_images(m, index) for m in manifest["modalities"]],
        balances,
        [(key, manifest[key]) for key in ("licence", "citation", "home") if manifest.get(key)],
        list(manifest.get("notes", ())),
        list(_flat(manifest["settings"])),
    )


def made_of(settings: dict[str, Any]) -> list[str]:
    """What must be said wherever a store's cases are told of, of which some were made and not taken."""
    return [f"It holds {settings['made']}: scores on them say nothing of real cases."] if settings.get("made") else []


def _known(words: list[str]) -> str:
    known = [w for w in words if w]
    if not known:
        return "not known"
    lacking = f"; not known of {many(len(words) - len(known), 'case')}" if len(known) < len(words) else ""
    return f"{len(set(known)):,}{lacking}"


def _split(split: dict[str, Any], source: str | None) -> Iterator[tuple[str, str]]:
    if split["by"] == "published":
        yield "split", NAMED.get(source or "", "as published")
    else:
        shares = " / ".join(f"{100 * s:g}" for s in split["shares"])
        by = "BY IMAGE (it leaks)" if split["by"] == "image" else f"by {split['by']}"
        yield "split", f"{by}, {shares} %, seed {split['seed']}"
    if "validation" in split:
        yield "validation", f"{split['validation']}, seed {split['seed']}"


def _inputs(manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The metadata that a study may name, and those that are kept but never may."""
    for level in ("patient", "lesion"):
        told = [
            f"{c['name']} ({'number' if c['kind'] == 'number' else many(len(c['vocabulary']), 'word')})"
            for c in manifest["columns"]
            if c["level"] == level
        ]
        if told:
            yield f"inputs of {level}", ", ".join(told)
    denied = {n: why for n, why in manifest.get("denied", {}).items() if n in manifest["metadata"]}
    rest = len(manifest["metadata"]) - len(manifest["columns"]) - len(denied)
    told = [f"{name}, as {why}" for name, why in denied.items()]
    told += [f"{many(rest, 'column')} that no data set declares"] if rest and manifest["columns"] else []
    if told:
        yield "no inputs", "; ".join(told)


def _images(modality: str, index: pa.Table) -> tuple[str, ...]:
    height, width, high, wide = (
        index[f"{axis}_{modality}"].to_numpy() for axis in ("height", "width", "original_height", "original_width")
    )
    has = height > 0
    enlarged = np.minimum(height, width)[has] > np.minimum(high, wide)[has]
    said = f"{enlarged.sum():,} ({100 * enlarged.mean():.0f} %)" if enlarged.any() else "none"
    stored, original = _sizes(height[has], width[has]), _sizes(high[has], wide[has])
    return modality, f"{has.sum():,}", f"{(~has).sum():,}" if not has.all() else "none", stored, original, said


def _sizes(height: np.ndarray, width: np.ndarray) -> str:
    """The smallest, the median and the largest, by area."""
    order = np.argsort(height.astype(np.int64) * width, kind="stable")
    if not len(order):
        return "none"
    picked = [order[0], order[len(order) // 2], order[-1]]
    return " / ".join(dict.fromkeys(f"{width[i]} x {height[i]}" for i in picked))


def _balance(label: str, names: list[str], index: pa.Table, split: np.ndarray) -> Balance:
    found = index[f"label_{label}"].to_numpy()
    found = np.where(found < 0, len(names), found)
    columns = [np.ones(len(split), bool), *(split == s for s in SPLITS)]
    return Balance(label, names, np.stack([np.bincount(found[c], minlength=len(names) + 1) for c in columns], 1))


def _quarantine(notes: list[dict[str, str]]) -> str:
    kinds = Counter(f"{n['done']}: {_kind(n['reason'])}" for n in notes).most_common()
    told = "; ".join(f"{count:,} {kind}" for kind, count in kinds[:6])
    return (told + (f"; and {many(len(kinds) - 6, 'more kind')}" if len(kinds) > 6 else "")) or "empty"


def _kind(reason: str) -> str:
    """A reason without what is particular to one image."""
    general = re.sub(r"^((is|has) (nearly )?the same \w+ as) .*", r"\1 another", reason)
    general = re.sub(r"^(patient|lesion) .* is in", r"a \1 is in", general)
    return re.sub(r"'[^']*'|\d[\d.]*", "..", re.split(r"[:;] ", general)[0])


def _flat(settings: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as split.seed = 0, without those that were not given."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        elif value not in (None, "", [], ()):
            yield above + key, " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _markdown(facts: Facts) -> Iterator[str]:
    yield from (f"# {_safe(facts.title)}", "")
    yield from (line for text in facts.warnings for line in (f"> **Warning.** {text}", ""))
    yield from _bullets(facts.cases)
    yield from _bullets([("metadata", f"missing: {', '.join(facts.lacking)}")] if facts.lacking else [])
    yield from ("", "## Images", "", *_table(facts.images), "", "Sizes: smallest / median / largest.", "")
    for b in facts.balances:
        rows = [(b.names[i], *_cells(b, i)) for i in b.shown()]
        rows += [(f"and {b.more} more", *[""] * (1 + len(SPLITS)))] if b.more else []
        rows += [("unknown", *(f"{n:,}" for n in b.counts[-1]))] if b.counts[-1, 0] else []
        yield from (f"## Classes of {_safe(b.label)}", "", *_table([("class", "all", *SPLITS), *rows]), "")
    if facts.origin or facts.notes:
        yield from ("## Origin", "", *_bullets(facts.origin), *(f"- {_safe(n)}" for n in facts.notes), "")
    yield from ("## Made with", "", *_bullets(facts.settings))


def _cells(b: Balance, row: int) -> list[str]:
    return [f"{n:,} ({b.share(row, i):.1f} %)" if n else "0" for i, n in enumerate(b.counts[row])]


def _bullets(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    return (f"- **{_safe(key)}**: {_safe(said)}" for key, said in rows)


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    head, *body = [f"| {' | '.join(map(_safe, row))} |" for row in rows]
    yield from (head, "|---" + "|--:" * (len(rows[0]) - 1) + "|", *body)


def _safe(text: str) -> str:
    """Words of a release, which may hold anything, as they are to be read in Markdown."""
    return re.sub(r"([\\|*<\[])", r"\\\1", plain(text)) if not text.startswith("http") else plain(text)


def plain(text: str) -> str:
    """Without line ends and what steers a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def _terminal(where: str, facts: Facts) -> Iterator[str]:
    yield from textwrap.wrap(plain(where + facts.title), WIDTH)
    yield from (line for text in facts.warnings for line in _row("WARNING", text, 7))
    labels = [b.label for b in facts.balances]
    indent = min(24, max(len(key) for key in [*labels, *(k for k, _ in facts.cases), *(k for k, _ in facts.origin)]))
    for key, said in facts.cases:
        yield from _row(key, said, indent)
    if facts.lacking:
        more = len(facts.lacking) - SHOWN
        said = ", ".join(facts.lacking[:SHOWN]) + (f", and {many(more, 'more column')}" if more > 0 else "")
        yield from _row("metadata", f"missing: {said}", indent)
    yield ""
    widths = [max(map(len, column)) for column in zip(*facts.images, strict=True)]
    for row in facts.images:
        yield "  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
    yield from ("", f"  classes, with their cases and the per cent of {'/'.join(SPLITS)}") if labels else ()
    for b in facts.balances:
        shares = {i: "/".join(f"{b.share(i, 1 + split):.0f}" for split in range(len(SPLITS))) for i in b.shown()}
        told = [f"{b.names[i]} {b.counts[i, 0]:,} ({share})" for i, share in shares.items()]
        told += [f"and {b.more} more"] if b.more else []
        told += [f"unknown {b.counts[-1, 0]:,}"] if b.counts[-1, 0] else []
        # Words of one class stay on one line.
        yield from _row(b.label, ", ".join(t.replace(" ", "\N{NO-BREAK SPACE}") for t in told), indent)
    yield ""
    made = ", ".join(f"{key} {value}" for key, value in facts.settings)
    for key, said in [*facts.origin, *(("note", n) for n in facts.notes), ("made with", made)]:
        yield from _row(key, said, indent)


def _row(key: str, said: str, indent: int) -> list[str]:
    text = "".join(c if c == "\N{NO-BREAK SPACE}" else plain(c) for c in said)
    lines = textwrap.wrap(text, WIDTH - indent - 4, break_on_hyphens=False) or [""]
    key = plain(key) if len(key) <= indent else plain(key)[: indent - 2] + ".."
    return [f"  {(key if i == 0 else ''):<{indent}}  {line}" for i, line in enumerate(lines)]
