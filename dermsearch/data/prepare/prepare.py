"""A release becomes a case store: read its tables, decode its images on all cores or a cluster, finish.

Shards are written one by one, each with a head. The same command, after whatever killed it, finds the heads that
are there and makes the rest; the finished store is the same, to its fingerprint, however often it was interrupted.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileInfo

from dermsearch.data.decode.dicom import needs_pydicom
from dermsearch.data.decode.image import Form
from dermsearch.data.domain import DOMAINS, Domain, setting_of
from dermsearch.data.prepare.build import Ingredients, finish, notes_of, read_head, read_heads, shard_cases
from dermsearch.data.prepare.divide import NOTE, note, unit_of
from dermsearch.data.prepare.engines import Engine
from dermsearch.data.prepare.masks import lay_masks
from dermsearch.data.prepare.progress import Watcher
from dermsearch.data.prepare.shard import HEAD, head_file, seen
from dermsearch.data.sources.base import SOURCES, Columns, Release, Source
from dermsearch.data.store.layout import FORMAT, MANIFEST, MASK, SHARD, checksum, read_manifest, shard_file
from dermsearch.data.store.splits import Split
from dermsearch.data.store.unfinished import Busy, held
from dermsearch.errors import UserError, nearest
from dermsearch.storage.files import PARTS, Folder
from dermsearch.words import many

PLAN = "preparing/plan.json"
BAD = "preparing/quarantine.csv"


@dataclass(frozen=True)
class Order:
    """What a user asked `dermsearch data prepare` for."""

    source: str
    release: str
    store: str
    form: Form = field(default_factory=lambda: Form(128))
    encoded: bool = False
    split: Split = field(default_factory=Split)
    columns: Columns = field(default_factory=Columns)
    max_bad: float = 0.01
    allow_missing: bool = False
    duplicates: str | None = None  # out | keep; None: kept where a published split holds them
    masks: str | None = None  # a folder of masks, named as cases or images are


def prepare(order: Order, engine: Engine, watcher: Watcher) -> dict[str, Any]:
    """Make the store; returns its manifest."""
    source: Source = SOURCES.find(order.source)
    domain: Domain = DOMAINS.find(source.domain or order.columns.domain)
    release, store = Folder(order.release), Folder(order.store)
    for folder in (release, store):
        if folder.kind() == "file":
            raise UserError(f"{folder.where}: is a file, not a folder")
    if release.kind() == "none":
        raise UserError(f"{order.release}: there is no such folder")
    found = source.read(release, order.columns)
    if not found.records:
        first = f"; {found.problems[0].where}: {found.problems[0].reason}" if found.problems else ""
        raise UserError(f"{order.release}: no case of {source.title} in it{first}")
    masks = lay_masks(found.records, order.masks, order.release) if order.masks else None
    if all(name.lower().endswith((".dcm", ".dicom")) for r in found.records for name in r.images.values()):
        needs_pydicom()
    published = unit_of(order.split, found.records) == "published"
    modalities = tuple(dict.fromkeys(m for r in found.records for m in r.images))
    for modality in modalities:
        if modality not in domain.modalities:
            raise UserError(f"'{modality}' is no modality of {domain.name}; {nearest(modality, domain.modalities)}")
    planes = (*modalities, MASK) if any(r.mask for r in found.records) else modalities
    grey = tuple(m for m in modalities if m in domain.grey)
    jobs = plan(order, release, found, planes, masks, grey)
    settings = told(order, domain)
    if store.kind(MANIFEST) != "file":
        with alone(store):
            if store.kind(MANIFEST) != "file":  # no other command was faster
                notes = make(order, store, jobs, found, engine, watcher)
                keep = order.duplicates == "keep" or (order.duplicates is None and published)
                given = Ingredients(
                    found.records,
                    found.classes,
                    modalities,
                    order.form.side,
                    order.encoded,
                    settings,
                    order.split,
                    about(source),
                    notes,
                    keep,
                    (*source.columns, *found.columns),
                    grey,
                )
                shards = len(jobs)
                jobs.clear()  # of half a million cases they are a sixth of a gigabyte
                found.records = []
                finish(store, *read_heads(store, shards), given)
    return already(store, settings)


@contextmanager
def alone(store: Folder) -> Iterator[None]:
    """While it lasts, no other command of this machine prepares the same store. A folder of other things is refused."""
    if store.kind(PLAN) == "none" and any(not name.startswith(PARTS) for name in store.names()):
        raise UserError(f"{store.where}: is not empty and holds no case store; choose another folder with -o")
    store.prepare("preparing")
    if store.local is None:
        yield
        return
    try:
        with held(store.local):
            yield
    except Busy:
        raise UserError(
            f"{store.where}: another command is preparing it; wait until it is done, or choose another folder with -o"
        ) from None


def told(order: Order, domain: Domain) -> dict[str, Any]:
    """The settings that decide what is in a store; not where it or the release lies."""
    return {
        "source": order.source,
        **asdict(order.form),
        "encoded": order.encoded,
        "split": asdict(order.split),
        "columns": {
            key: value
            for key, value in asdict(order.columns).items()
            if key not in ("domain", "tables") and (key != "uncertain" or value)
        },
        "duplicates": order.duplicates,
        **({"masks": True} if order.masks else {}),
        **setting_of(domain),
    }


def about(source: Source) -> dict[str, Any]:
    """What the manifest says of where the cases come from."""
    keys = ("title", "licence", "citation", "home", "notes", "denied")
    return {**{k: getattr(source, k) for k in keys}, "expected": asdict(source.expected)}


def plan(
    order: Order, release: Folder, found: Release, planes: tuple[str, ...], masks: Folder | None, grey: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The shards to make, as plain data. `masks` is the folder of masks where they do not lie in the release."""
    size = shard_cases(order.form.side, len(planes))
    where = str(release.local or order.release)
    jobs = []
    for number, start in enumerate(range(0, len(found.records), size)):
        chunk = enumerate(found.records[start : start + size], start)
        records = [{"row": row, "images": r.images, "mask": r.mask} for row, r in chunk]
        jobs.append({"number": number, "records": records, "planes": planes, "form": asdict(order.form)})
    store = str(Folder(order.store).local or order.store)
    beside: dict[str, Any] = {} if masks is None else {"masks": masks.address}
    beside |= {"grey": grey} if grey else {}
    return [{**job, "release": where, "store": store, "encoded": order.encoded, **beside} for job in jobs]


def resume(store: Folder, jobs: list[dict[str, Any]], watcher: Watcher) -> set[int]:
    """The shards that an interrupted command left, if it was this same command and they are what it would make."""
    what = [{k: v for k, v in job.items() if k != "store"} for job in jobs]
    this = {"format": FORMAT, "plan": hashlib.blake2b(json.dumps(what).encode(), digest_size=16).hexdigest()}
    if store.kind(PLAN) == "file":
        if store.read_json(PLAN) == this:
            names = set(store.names("preparing"))
            there = [job for job in jobs if head_file(job["number"]) in names]
            files = store.entries()
            done = {job["number"] for job in there if is_whole(store, files.get(shard_file(job["number"])), job)}
            watcher.say(
                f"Continuing: {len(done)} of {many(len(jobs), 'shard')} {'is' if len(jobs) == 1 else 'are'} there."
            )
            if len(done) < len(there):
                lost = many(len(there) - len(done), "shard")
                watcher.say(f"Made anew, as damaged or of images that were changed since: {lost}.")
            return done
        watcher.say("What an earlier command with other settings or another release left unfinished is made anew.")
        for name in (*(n for n in store.names() if n.startswith(SHARD)), "preparing"):  # the plan goes last
            store.remove(name)
    store.write(PLAN, json.dumps(this).encode())
    return set()


def is_whole(store: Folder, file: FileInfo | None, job: dict[str, Any]) -> bool:
    """Whether a shard that has a head is what was written, and its images are those that were read for it."""
    try:
        about = json.loads(read_head(store, job["number"]).schema.metadata[b"shard"])
    except UserError:
        return False
    if file is None or file.size != about["bytes"] or about["seen"] != seen(job):
        return False
    # What a remote folder has in that size, it has whole; to read it again would cost more than to trust it.
    return store.local is None or checksum(pa.py_buffer(store.read(shard_file(job["number"])))) == about["checksum"]


def make(
    order: Order, store: Folder, jobs: list[dict[str, Any]], found: Release, engine: Engine, watcher: Watcher
) -> list[dict[str, str]]:
    """Make the missing shards, and stop early where too much is bad; returns what was odd about rows and images."""
    done = resume(store, jobs, watcher)
    watcher.start(len(found.records), sum(len(jobs[n]["records"]) for n in done))
    allowed = order.max_bad * len(found.records)
    bad = 0
    for result in engine([job for job in jobs if job["number"] not in done]):
        watcher.advance(result["cases"])
        bad += result["bad"]
        if bad > 10 * max(allowed, 10) and not order.allow_missing:  # hopeless: the end would refuse it
            made = (n for n in range(len(jobs)) if store.kind(head_file(n)) == "file")
            notes = [n for number in made for n in notes_of(read_head(store, number), found.records)]
            refuse_many_bad(order, store, notes, len(found.records))
    notes = [note(problem, "", "left out", problem.reason) for problem in found.problems]
    notes += [n for job in jobs for n in notes_of(read_head(store, job["number"]), found.records)]
    refuse_many_bad(order, store, notes, len(found.records) + len(found.problems))
    return notes


def already(store: Folder, settings: dict[str, Any]) -> dict[str, Any]:
    """A finished store of the same order is what was asked for."""
    manifest = read_manifest(store.read(MANIFEST), store.where)
    if manifest["settings"] == json.loads(json.dumps(settings)):
        store.remove("preparing")  # a kill may have left it
        return manifest
    raise UserError(f"{store.where}: holds another case store already; choose another folder with -o or delete it")


def refuse_many_bad(order: Order, store: Folder, notes: list[dict[str, str]], cases: int) -> None:
    """More damage than a user allowed is more likely a wrong folder or a broken download."""
    bad = [n for n in notes if n["done"] == "left out"]
    if order.allow_missing:
        bad = [n for n in bad if not n["reason"].startswith("is missing")]
    count = len({(n["case"], n["where"]) for n in bad})
    if count <= order.max_bad * cases:
        return
    # Who mends the images and repeats the command wants them read again.
    for name in store.names("preparing"):
        if name.startswith(HEAD) and "left out" in "".join(read_head(store, name)["notes"].to_pylist()):
            store.remove(name)
    text = io.StringIO()
    table = csv.DictWriter(text, NOTE.names)
    table.writeheader()
    table.writerows({name: as_text(cell) for name, cell in row.items()} for row in notes)
    store.write(BAD, text.getvalue().encode())
    kinds = Counter(n["reason"].split(":")[0] for n in bad).most_common(3)
    first = bad[0]
    hint = "; --allow-missing goes on without images that are not there" if kinds[0][0] == "is missing" else ""
    raise UserError(
        f"{order.release}: {count} of {many(cases, 'case')} {'has' if count == 1 else 'have'} a bad image or row, more "
        f"than --max-bad {order.max_bad:g} allows: "
        + ", ".join(f"{count} x '{kind}'" for kind, count in kinds)
        + f"; the first is {first['image'] or first['where']}. All are listed in {BAD} of {store.where}{hint}"
    )


def as_text(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula to run."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
